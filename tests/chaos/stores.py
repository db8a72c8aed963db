"""The stores of a tortured fleet, each with its own way to fail; both can damage what lies in them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from farm.blobs.folder import FolderStore
from farm.blobs.names import hex_of
from farm.store import BlobStore
from tests.support.faulty_proxy import FaultyProxy, Rules

BAD = Rules(error_500=0.06, error_503=0.06, reset=0.04, lost=0.04, truncated=0.06, torn=0.06, slow=0.1, delay=0.3)
MIB = 2**20
AT_ONCE = {"connect_timeout": 5, "read_timeout": 10, "retries": {"total_max_attempts": 1}}
"""For boto3: a torturer does not wait."""


class StoreAway(Exception):
    """What is to be damaged is not there, or its store does not answer."""


class Store(Protocol):
    """``environment`` is what processes need to use it; ``true`` is the store itself, past whatever does harm."""

    environment: Mapping[str, str]
    true: BlobStore

    def damage(self, digest: str) -> None:
        """Change one byte of a blob where it lies."""
        ...


class Folder:
    """A folder; on a small disk of its own where one can be had, so that it can be full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"FARM_STORE_URL": folder.as_uri()}
        self.true: BlobStore = FolderStore(folder)

    def damage(self, digest: str) -> None:
        digits = hex_of(digest)
        path = self.folder / "sha256" / digits[:2] / digits
        with contextlib.suppress(FileNotFoundError):
            path.chmod(0o644)
            with path.open("r+b") as file:
                file.write(damaged(file.read(1)))
            path.chmod(0o444)


class S3:
    """A bucket's prefix behind a proxy that does harm when it is told to."""

    def __init__(self, server: Any, proxy: FaultyProxy, bucket: str, prefix: str) -> None:
        from botocore.config import Config

        from farm.blobs.s3 import open_s3

        self.proxy = proxy
        self.environment = {
            **server.environment,
            "FARM_STORE_URL": f"s3://{bucket}/{prefix}",
            "FARM_S3_ENDPOINT_URL": f"http://{proxy.address}",
        }
        os.environ.update(server.environment)
        self.true: BlobStore = open_s3(f"s3://{bucket}/{prefix}", server.endpoint)
        self._server, self._bucket, self._prefix = server, bucket, prefix
        self._config = Config(**AT_ONCE)

    def damage(self, digest: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        client = self._server.client(config=self._config)
        digits = hex_of(digest)
        key = f"{self._prefix}/sha256/{digits[:2]}/{digits}"
        try:
            held = client.get_object(Bucket=self._bucket, Key=key)
            data = held["Body"].read()
            whole = damaged(data[:1]) + data[1:]
            client.put_object(Bucket=self._bucket, Key=key, Body=whole, Metadata=held["Metadata"])
        except (BotoCoreError, ClientError) as error:
            raise StoreAway(str(error)) from error


def damaged(byte: bytes) -> bytes:
    """Another byte."""
    return bytes([byte[0] ^ 1]) if byte else b""


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A file system of ``size`` bytes at ``folder``; whether there can be one."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = os.getuid() == 0 and _done("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield mounted
    finally:
        if mounted:
            _done("umount", "--lazy", str(folder))


def _done(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


class Ballast:
    """A file that fills a small disk."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ballast"

    def load(self) -> None:
        with contextlib.suppress(OSError), self._path.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(MIB // 16))

    def drop(self) -> None:
        self._path.unlink(missing_ok=True)
