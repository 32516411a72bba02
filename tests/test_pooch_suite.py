"""Pooch's own tests, pointed at the drop-in; what is left out, and why, is in `pooch_plugin`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pooch
import pytest

from tests.children import interpreter
from tests.pooch_plugin import LEFT_OUT
from tests.servers import nginx

_DATA = Path(pooch.__file__).parent / "tests" / "data"


def test_suite_of_pooch(home: Path, tmp_path: Path) -> None:
    if not pooch.__version__.startswith("v1.9."):
        pytest.skip(
            f"the list of what is left out is for Pooch 1.9, and this is {pooch.__version__}"
        )
    files, server_folder = tmp_path / "files", tmp_path / "server"
    shutil.copytree(_DATA, files / "pooch/tests/data")
    shutil.copytree(_DATA / "store", files / "data")  # what one test asks GitHub for
    server_folder.mkdir()
    with nginx(files, server_folder) as server:
        base = f"https://github.com/fatiando/pooch/raw/{pooch.__version__}/"
        (home / "config.toml").write_text(f'[rewrite]\n"{base}" = "{server.url}/"\n', "utf-8")
        options = "-q -rfE -p tests.pooch_plugin -p no:cacheprovider -c /dev/null --pyargs pooch"
        environment = {"DROP_IN_URL": f"{server.url}/pooch/tests/data/"}
        with interpreter("-m", "pytest", *options.split(), environment=environment) as process:
            said, trouble = process.communicate()
    last = said.strip().rpartition("\n")[2]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", last)}
    assert process.returncode == 0, said + trouble
    assert counts["deselected"] == len(LEFT_OUT)
    assert counts["passed"] >= 100
