"""Files of a dataset in PyTorch: torchvision's order and numbers, workers of every kind, all ranks
of a job, and no download but one.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dscache import Cache
from dscache.errors import IntegrityError, NotFound
from tests.archives import File, packed
from tests.children import running
from tests.making import Shelf, artifact
from tests.origin import Late, Site, origin

torch = pytest.importorskip("torch", reason="PyTorch is not installed; `make test-torch` has it")
from torch.utils.data import DataLoader  # noqa: E402

from dscache.integrations.torch import DatasetFolder, Files  # noqa: E402

#: Each new process imports PyTorch, which takes seconds.
pytestmark = pytest.mark.timeout(600)

# Classes and folders whose order as paths is another one than torchvision's.
NAMES = (
    "set/train/cat/2.txt",
    "set/train/cat/10.txt",
    "set/train/cat/more/1.txt",
    "set/train/cat-big/1.txt",
    "set/train/cat.small/b.txt",
    "set/train/cat.small/a.txt",
    "set/train/dog/deep/er/1.txt",
    "set/train/readme.txt",
    "set/test/dog/1.txt",
    "set/odd [x]/k/1.txt",
)
BYTES = {name: name.encode() for name in NAMES}
ARCHIVE = packed("tar.gz", *(File(name, data) for name, data in BYTES.items()))


@pytest.fixture
def site() -> Iterator[Site]:
    files = {f"/{n}.txt": b"%d" % n for n in range(40)}
    with origin(files | {"/set.tar.gz": ARCHIVE}) as found:
        yield found


@pytest.fixture
def shelf(shelf: Shelf, site: Site) -> Shelf:
    shelf.add("flowers", [artifact("set.tar.gz", ARCHIVE, site.url("/set.tar.gz"), unpack="tar")])
    rows = [artifact(f"{n % 4}/{n}.txt", b"%d" % n, site.url(f"/{n}.txt")) for n in range(40)]
    shelf.add("numbers", rows)
    shelf.add("one", rows[:1])
    return shelf


def as_tensor(data: bytes) -> Any:
    """A transform that every worker can be sent."""
    return torch.tensor(list(data))


def read_text(path: str) -> str:
    return Path(path).read_text("utf-8")


@pytest.mark.usefixtures("shelf")
def test_files_come_in_the_order_of_their_paths(site: Site) -> None:
    dataset = Files("numbers", ["1/*", "3/3.txt"])
    assert [os.path.relpath(path, dataset.root) for path in dataset.paths] == sorted(
        [*(f"1/{n}.txt" for n in range(1, 40, 4)), "3/3.txt"]
    )
    assert dataset[0] == b"1"
    assert dataset[-1] == b"3"
    assert len(dataset) == 11
    assert len(site.requests) == 11
    assert Files("numbers", "3/3.txt", loader=read_text, transform=int)[0] == 3
    assert len(Files("numbers")) == 40


@pytest.mark.usefixtures("shelf")
def test_a_dataset_of_one_file() -> None:
    dataset = Files("one")
    assert dataset[0] == b"0"
    assert pickle.loads(pickle.dumps(dataset))[0] == b"0"


@pytest.mark.usefixtures("shelf")
def test_what_others_have_asked_for_does_not_count() -> None:
    before = Files("flowers", "*/1.txt").paths
    Cache().fetch("flowers", files=["set.tar.gz", "set/train/*"])
    assert Files("flowers", "*/1.txt").paths == before
    assert [
        path.removeprefix(f"{Files('flowers').root}/") for path in Files("flowers").paths
    ] == sorted(NAMES)


@pytest.mark.usefixtures("shelf")
def test_folders_are_classes_as_in_torchvision() -> None:
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
    ours = DatasetFolder("flowers", "set/train", loader=read_text)
    theirs = datasets.DatasetFolder(str(ours.root / "set/train"), read_text, (".txt",))
    assert ours.classes == theirs.classes
    assert ours.class_to_idx == theirs.class_to_idx
    assert ours.samples == theirs.samples
    assert ours.targets == theirs.targets
    assert [ours[n] for n in range(len(ours))] == [theirs[n] for n in range(len(theirs))]


@pytest.mark.usefixtures("shelf")
def test_only_files_of_the_folder_that_match_are_classed() -> None:
    found = DatasetFolder("flowers", "/set/train/", "cat*/1.txt", target_transform=str)
    assert found.classes == ["cat", "cat-big"]
    assert [found[n][1] for n in range(len(found))] == ["0", "1"]
    assert DatasetFolder("flowers", "set/odd [x]").classes == ["k"]


@pytest.mark.usefixtures("shelf")
def test_no_folder_of_a_class() -> None:
    with pytest.raises(NotFound, match="no folders of classes"):
        DatasetFolder("flowers", "set/train", "readme.txt")
    with pytest.raises(NotFound, match="matches"):
        DatasetFolder("flowers", "nowhere")


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_what_the_parent_has_fetched(site: Site, method: str) -> None:
    dataset = DatasetFolder("numbers", transform=as_tensor)
    asked = len(site.requests)
    loader = DataLoader(
        dataset, num_workers=2, multiprocessing_context=method, persistent_workers=True
    )
    for _ in range(2):
        found = [("".join(map(chr, item[0].tolist())), int(target)) for item, target in loader]
        assert sorted(found) == sorted((str(n), n % 4) for n in range(40))
    assert len(site.requests) == asked == 40


@pytest.mark.usefixtures("shelf")
def test_little_is_sent_to_a_worker() -> None:
    dataset = DatasetFolder("numbers")
    sent = pickle.dumps(dataset)
    assert len(sent) < 1000
    there = pickle.loads(sent)
    assert (there.samples, there.classes) == (dataset.samples, dataset.classes)


def test_a_worker_that_would_read_something_else_says_so(shelf: Shelf, site: Site) -> None:
    sent = pickle.dumps(Files("numbers"))
    shelf.add("numbers", [artifact("7.txt", b"7", site.url("/7.txt"))])
    with pytest.raises(IntegrityError, match="other content here"):
        pickle.loads(sent)


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_no_prune_takes_it_from_a_worker(method: str) -> None:
    loader = DataLoader(Files("numbers"), num_workers=1, multiprocessing_context=method)
    items = iter(loader)
    next(items)
    plan = Cache().plan_prune(["numbers"])
    assert [row.name for row in plan.kept] == ["shelf/numbers@1"]
    assert plan.removed == ()
    assert len(list(items)) == 39


JOB = """
import json, sys
import torch
from torch import distributed
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from dscache.integrations.torch import DatasetFolder

rank, size, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if address:
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=size)
print("ready", flush=True)
sys.stdin.readline()
dataset = DatasetFolder("numbers", transform=int)
sampler = DistributedSampler(dataset, num_replicas=size, rank=rank, shuffle=True)
sampler.set_epoch(1)
loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=2)
found = torch.cat([items for items, _ in loader])
if address:
    all_found = [torch.zeros_like(found) for _ in range(size)]
    distributed.all_gather(all_found, found)
    found = torch.cat(all_found)
    distributed.destroy_process_group()
print(json.dumps(found.tolist()))
"""


def results(processes: list[subprocess.Popen[str]]) -> list[Any]:
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return [json.loads(out) for out, _ in said]


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("distributed", [False, True])
def test_of_all_ranks_and_workers_one_downloads(
    tmp_path: Path, site: Site, distributed: bool
) -> None:
    site.fault("*", Late(0.02))
    address = f"file://{tmp_path}/meeting" if distributed else ""
    with ExitStack() as stack:
        ranks = [stack.enter_context(running(JOB, str(n), "4", address)) for n in range(4)]
        found = results(ranks)
    if distributed:
        assert [sorted(each) for each in found] == [list(range(40))] * 4
    else:
        assert sorted(number for each in found for number in each) == list(range(40))
    assert sorted(seen.path for seen in site.requests) == sorted(f"/{n}.txt" for n in range(40))
