"""Tar shards in PyTorch: the samples of the real WebDataset, in its order, while they download."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache import Cache
from dscache.errors import IntegrityError, InvalidFile, NotFound, TransferError, UsageError
from dscache.integrations.samples import samples
from tests.archives import File, tar_of
from tests.children import forked, running
from tests.making import Shelf, artifact, content, sha256
from tests.origin import Drip, Flip, Refuse, Site, Stall, origin

torch = pytest.importorskip("torch", reason="PyTorch is not installed; `make test-torch` has it")
from torch.utils.data import DataLoader  # noqa: E402

from dscache.integrations.torch import Shards  # noqa: E402

#: Each new process imports PyTorch, which takes seconds.
pytestmark = pytest.mark.timeout(600)

COUNT, EACH = 8, 5
NAMES = [f"shards/part-{n:03}.tar" for n in range(COUNT)]


def shard(number: int) -> bytes:
    members = []
    for n in range(number * EACH, number * EACH + EACH):
        members += [File(f"set/{n:04}.bin", content(300, n)), File(f"set/{n:04}.cls", b"%d" % n)]
    return tar_of(*members)


SHARDS = {name: shard(n) for n, name in enumerate(NAMES)}


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({f"/{name}": data for name, data in SHARDS.items()}) as found:
        yield found


@pytest.fixture
def shelf(shelf: Shelf, home: Path, site: Site) -> Shelf:
    (home / "config.toml").write_text("retries = 0\n")
    rows = [artifact(name, data, site.url(f"/{name}")) for name, data in SHARDS.items()]
    shelf.add("set", [*rows, artifact("readme.txt", b"Hi.", site.url("/readme.txt"))])
    return shelf


@pytest.fixture
def by_manifest(shelf: Shelf, site: Site) -> str:
    lines = [
        {"path": name, "size": len(data), "hash": sha256(data)} for name, data in SHARDS.items()
    ]
    listed = "".join(json.dumps(line) + "\n" for line in lines).encode()
    site.files["/list"] = listed
    keys = {"urls": [site.url("/list")], "base_urls": [site.url("/")]}
    shelf.write(
        "listed.toml",
        {"version": "1", "manifest": {"hash": sha256(listed), "size": len(listed)} | keys},
    )
    return "listed"


def number(sample: dict[str, Any]) -> int:
    return int(sample["cls"])


def numbers_of(*shards: int) -> list[int]:
    return [n for each in shards for n in range(each * EACH, each * EACH + EACH)]


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("dscache-")]


@pytest.mark.usefixtures("shelf")
def test_samples_are_those_of_webdataset() -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    ours = list(Shards("set"))
    folder = Cache().path("set", files="*.tar")
    theirs = webdataset.WebDataset([str(folder / name) for name in NAMES], shardshuffle=False)
    assert [_bare(each) for each in ours] == [_bare(each) for each in theirs]
    assert [each["__url__"] for each in ours[::EACH]] == [
        f"dscache://shelf/set@1/{name}" for name in NAMES
    ]


names = st.text("ab./_AB", min_size=1, max_size=7).filter(
    lambda name: not name.endswith("/") and "//" not in name
)


@given(st.lists(names, max_size=8, unique=True))
def test_every_shard_is_grouped_as_webdataset_does(
    tmp_path_factory: pytest.TempPathFactory, members: list[str]
) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    path = tmp_path_factory.mktemp("shard") / "shard.tar"
    path.write_bytes(tar_of(*(File(name, name.encode()) for name in members)))
    try:
        theirs = list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))
    except ValueError:  # two files of one key and suffix
        with pytest.raises(InvalidFile):
            list(samples(path, "shard"))
    else:
        assert [_bare(each) for each in samples(path, "shard")] == [_bare(each) for each in theirs]


def _bare(sample: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sample.items() if key not in ("__url__", "__local_path__")}


@pytest.mark.parametrize("name", ["set", "listed"])
def test_first_samples_come_while_later_shards_do(site: Site, by_manifest: str, name: str) -> None:
    assert by_manifest == "listed"
    dataset = Shards(name, transform=number, ahead=1)
    assert not [seen for seen in site.requests if seen.path.endswith(".tar")]
    with closing(iter(dataset)) as found:  # type: ignore[type-var]
        for each in range(COUNT):
            assert next(found) == each * EACH
            # The last one has not even been asked for, as long as it is not the next.
            asked = [seen.path for seen in site.requests if seen.path.endswith(".tar")]
            assert asked == [f"/{name}" for name in NAMES[: len(asked)]]
            assert each + 1 <= len(asked) <= min(each + 2, COUNT)
            assert [next(found) for _ in range(EACH - 1)] == numbers_of(each)[1:]
    assert threads() == []


@pytest.mark.usefixtures("shelf")
def test_samples_come_where_the_next_shard_never_does(site: Site) -> None:
    site.fault(f"/{NAMES[1]}", Stall(1000))
    found = iter(Shards("set", transform=number))
    assert [next(found) for _ in range(EACH)] == numbers_of(0)
    del found
    assert threads() == []
    site.mend()
    assert list(Shards("set", transform=number)) == numbers_of(*range(COUNT))


@pytest.mark.usefixtures("shelf")
def test_nothing_of_a_wrong_shard_is_given_out(site: Site) -> None:
    site.fault(f"/{NAMES[2]}", Flip(len(SHARDS[NAMES[2]]) - 1))
    found: list[int] = []
    with pytest.raises(IntegrityError, match="part-002"):
        found.extend(Shards("set", transform=number))
    dataset = iter(Shards("set", transform=number))
    assert [next(dataset) for _ in range(2 * EACH)] == numbers_of(0, 1)
    with pytest.raises(IntegrityError, match="part-002"):
        next(dataset)
    assert threads() == []


@pytest.mark.usefixtures("shelf")
def test_errors_name_the_shard(site: Site) -> None:
    site.fault(f"/{NAMES[0]}", Refuse(404))
    with pytest.raises(TransferError, match="part-000"):
        next(iter(Shards("set")))
    with pytest.raises(TransferError, match="part-000"):
        next(iter(DataLoader(Shards("set"), num_workers=1)))


def test_a_shard_that_is_no_tar_archive(shelf: Shelf, site: Site) -> None:
    site.files["/x.tar"] = b"<html>"
    shelf.add("broken", [artifact("x.tar", b"<html>", site.url("/x.tar"))])
    with pytest.raises(InvalidFile, match=r"dscache://shelf/broken@1/x\.tar cannot be read"):
        list(Shards("broken"))


@pytest.mark.usefixtures("shelf")
def test_no_shards() -> None:
    with pytest.raises(NotFound, match=r"\*\.tgz"):
        Shards("set", "*.tgz")


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("how", ["break", "error", "forgotten"])
def test_no_thread_outlives_its_iteration(site: Site, how: str) -> None:
    site.fault(f"/{NAMES[1]}", Drip(100, 0.1))
    dataset = Shards("set")
    if how == "break":
        for _ in dataset:
            break
    elif how == "error":
        with pytest.raises(ZeroDivisionError):
            list(Shards("set", transform=lambda _: 1 / 0))
    else:
        next(iter(dataset))
    assert threads() == []


@pytest.mark.usefixtures("shelf")
def test_shards_are_divided_among_ranks() -> None:
    found = [list(Shards("set", transform=number, place=(rank, 3))) for rank in range(3)]
    assert found == [numbers_of(0, 3, 6), numbers_of(1, 4, 7), numbers_of(2, 5)]
    for place in ((3, 3), (-1, 2), (0, 0)):
        with pytest.raises(UsageError):
            Shards("set", place=place)
    with pytest.raises(UsageError, match="9 processes cannot share 8 shards"):
        Shards("set", place=(0, 9))
    with pytest.raises(UsageError):
        Shards("set", ahead=-1)


@pytest.mark.usefixtures("shelf")
def test_an_epoch_has_an_order_of_its_own_that_all_share() -> None:
    ranks = [Shards("set", transform=number, shuffle=True, seed=7, place=(n, 2)) for n in (0, 1)]
    orders = []
    for epoch in range(4):
        for each in ranks:
            each.set_epoch(epoch)
        found = [list(each) for each in ranks]
        assert sorted(found[0] + found[1]) == numbers_of(*range(COUNT))
        assert found == [list(each) for each in ranks]
        orders.append(tuple(found[0]))
    assert len(set(orders)) == 4


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_share_the_shards_and_follow_the_epoch(site: Site, method: str) -> None:
    dataset = Shards("set", transform=number, shuffle=True)
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=2,
        multiprocessing_context=method,
        persistent_workers=True,
    )
    epochs = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        epochs.append([int(each) for each in loader])
        assert sorted(epochs[-1]) == numbers_of(*range(COUNT))
    assert epochs[0] == epochs[2] != epochs[1]
    asked = sorted(seen.path for seen in site.requests)
    assert asked == [f"/{name}" for name in NAMES]


@pytest.mark.usefixtures("shelf")
def test_a_fork_in_the_middle_goes_on_by_itself() -> None:
    found = iter(Shards("set", transform=number))
    next(found)
    assert forked(lambda: list(found)) == numbers_of(*range(COUNT))[1:]
    assert list(found) == numbers_of(*range(COUNT))[1:]


@pytest.mark.usefixtures("shelf")
def test_little_is_sent_to_a_worker() -> None:
    dataset = Shards("set", transform=number, place=(1, 4))
    assert list(pickle.loads(pickle.dumps(dataset))) == list(dataset) == numbers_of(1, 5)


JOB = """
import json, sys
from torch import distributed
from torch.utils.data import DataLoader
from dscache.integrations.torch import Shards

def number(sample):
    return int(sample["cls"])

if __name__ == "__main__":
    rank, size, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    dataset = Shards("set", transform=number)  # before there is a job
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=size)
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    found = [int(each) for each in loader]
    distributed.destroy_process_group()
    print(json.dumps(sorted(found)))
"""


@pytest.mark.usefixtures("shelf")
def test_ranks_of_a_job_share_the_shards(tmp_path: Path, site: Site) -> None:
    with ExitStack() as stack:
        ranks = [
            stack.enter_context(running(JOB, str(n), "2", f"file://{tmp_path}/meeting"))
            for n in range(2)
        ]
        said = [process.communicate(timeout=300) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said
    assert [json.loads(out) for out, _ in said] == [numbers_of(0, 2, 4, 6), numbers_of(1, 3, 5, 7)]
    assert sorted(seen.path for seen in site.requests) == [f"/{name}" for name in NAMES]


@pytest.mark.usefixtures("shelf")
def test_no_prune_takes_what_is_iterated_over() -> None:
    found = iter(Shards("set", transform=number))
    next(found)
    assert [row.name for row in Cache().plan_prune(["set"]).kept] == ["shelf/set@1"]
    assert list(found)[-1] == COUNT * EACH - 1
