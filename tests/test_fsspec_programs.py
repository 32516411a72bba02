"""What people open files with, the real packages: datasets by name."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path

import fsspec
import pytest

from tests.archives import File, packed
from tests.making import Shelf, artifact, sha256
from tests.origin import origin

pd = pytest.importorskip("pandas", reason="fsspec: no pandas")

PARTS = {f"part-{number}.csv": f"n,text\n{number},a\n{number + 1},b\n" for number in (0, 2, 4)}
_GUIDE = Path(__file__).parents[1] / "docs/guide/fsspec.md"


@pytest.fixture
def parts(shelf: Shelf) -> str:
    """A dataset of three tables in an archive."""
    data = packed("tar.gz", *(File(f"csv/{name}", PARTS[name].encode()) for name in PARTS))
    (shelf.folder / "parts.tar.gz").write_bytes(data)
    shelf.add("parts", [artifact("parts.tar.gz", data, "parts.tar.gz", unpack="tar")])
    return "dscache://parts/csv"


def offered(shelf: Shelf, *files: Path, name: str = "made") -> None:
    """Make a dataset of files."""
    rows = []
    for file in files:
        data = file.read_bytes()
        (shelf.folder / file.name).write_bytes(data)
        rows.append(artifact(file.name, data, file.name))
    shelf.add(name, rows)


def test_pandas_reads_tables_by_name(shelf: Shelf, home: Path) -> None:
    table = pd.read_csv("dscache://penguins/penguins.csv")
    assert len(table) == 344
    table.to_parquet(home / "penguins.parquet")
    offered(shelf, home / "penguins.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet("dscache://made/penguins.parquet"), table)
    columns = pd.read_parquet("dscache://made/penguins.parquet", columns=["species"])
    assert list(columns) == ["species"]


def test_pandas_reads_a_url_through_the_cache() -> None:
    data = PARTS["part-0.csv"].encode()
    with origin({"/a.csv": data}) as site:
        options = {"known_hash": sha256(data)}
        for _ in range(2):
            table = pd.read_csv(f"dscache::{site.url('/a.csv')}", storage_options=options)
            assert list(table["n"]) == [0, 1]
        assert site.sent("/a.csv") == len(data)


def test_pandas_does_not_write(shelf: Shelf) -> None:
    with pytest.raises(NotImplementedError, match="read-only"):
        pd.DataFrame({"a": [1]}).to_csv("dscache://made/a.csv")


def test_pyarrow_reads_a_folder_of_tables(shelf: Shelf, home: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="fsspec: no pyarrow")
    from pyarrow import dataset, fs, parquet  # type: ignore[import-untyped, unused-ignore]

    for number in (0, 1):
        parquet.write_table(pa.table({"n": [number]}), home / f"{number}.parquet")
    offered(shelf, home / "0.parquet", home / "1.parquet")
    files = fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem("dscache")))
    found = files.get_file_info(fs.FileSelector("made"))
    assert sorted(each.path for each in found) == ["made/0.parquet", "made/1.parquet"]
    assert files.get_file_info("made/none").type == fs.FileType.NotFound
    table = dataset.dataset("made", filesystem=files, format="parquet").to_table()
    assert sorted(table["n"].to_pylist()) == [0, 1]
    again = parquet.read_table("made", filesystem=fsspec.filesystem("dscache"))
    assert again.num_rows == 2


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_dask_reads_the_tables_of_an_archive(parts: str, scheduler: str) -> None:
    dd = pytest.importorskip("dask.dataframe", reason="fsspec: no dask")
    table = dd.read_csv(f"{parts}/*.csv")
    assert table.npartitions == 3
    assert sorted(table["n"].compute(scheduler=scheduler)) == [0, 1, 2, 3, 4, 5]


def test_dask_reads_parquet(shelf: Shelf, home: Path) -> None:
    dd = pytest.importorskip("dask.dataframe", reason="fsspec: no dask")
    pd.DataFrame({"n": range(10)}).to_parquet(home / "n.parquet")
    offered(shelf, home / "n.parquet")
    found = dd.read_parquet("dscache://made/n.parquet", filesystem="fsspec")
    assert found["n"].sum().compute(scheduler="threads") == 45


def test_xarray_opens_a_netcdf_file(shelf: Shelf, home: Path) -> None:
    xr = pytest.importorskip("xarray", reason="fsspec: no xarray")
    pytest.importorskip("scipy", reason="fsspec: no scipy")
    made = xr.Dataset({"t": ("x", [1.0, 2.0, 3.0])})
    made.to_netcdf(home / "t.nc", engine="scipy", format="NETCDF3_64BIT")
    offered(shelf, home / "t.nc")
    with fsspec.open("dscache://made/t.nc") as file:
        assert xr.open_dataset(file, engine="scipy").load().equals(made)
    path = fsspec.open_local("dscache://made/t.nc")
    with xr.open_dataset(path, engine="scipy") as found:
        assert found.equals(made)


# --- The guide ------------------------------------------------------------------------------------


def examples() -> list[str]:
    """The Python blocks of the guide, which check themselves what they show."""
    return re.findall(r"```python\n(.*?)```", _GUIDE.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("code", examples(), ids=count())
def test_the_examples_of_the_guide_run(code: str, shelf: Shelf, home: Path) -> None:
    for name in ("dask.dataframe", "pyarrow", "scipy"):
        pytest.importorskip(name, reason=f"fsspec: no {name}")
    xr = pytest.importorskip("xarray", reason="fsspec: no xarray")
    xr.Dataset({"t": ("x", [1.0])}).to_netcdf(home / "air.nc", engine="scipy")
    offered(shelf, home / "air.nc", name="air")
    data = PARTS["part-0.csv"].encode()
    with origin({"/table.csv": data}) as site:
        # What stands for the reader's own.
        code = code.replace("https://example.org", site.url(""))
        code = re.sub("sha256:[0-9a-f]{64}", sha256(data), code)
        exec(compile(code, str(_GUIDE), "exec"), {})
