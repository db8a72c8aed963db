"""A program with 4 GiB of weights: hashing it, looking it up again, and the memory that takes."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
from blake3 import blake3

from farm.programs import open_program
from tests.bench.measure import (
    Row,
    Sampler,
    Times,
    alternated,
    beside,
    clean,
    folder,
    limited,
    output,
    processes,
    repeated,
    shown,
    timed,
)
from tests.bench.programs import CACHE, ROOT, kept, large

GIBS = 4.0
MOST_OF_PEER = 1.25
LIMIT_AGAIN_MS = 50.0
LIMIT_MEMORY_MIB = 64.0
SAMPLE = 256 << 20
MIB = 1 << 20


def weights_digest(quick: bool) -> Iterator[Row]:
    """Everything that follows from one big file, which is made once a run."""
    gib = 0.5 if quick else GIBS
    with large(gib) as path:
        _sha256(path)  # from now on the file is in the page cache, for every contestant
        yield from _hashing(path, gib, 3 if quick else 5)
        yield _memory(path, gib)
        yield from _again(path, gib, 5 if quick else 10)


def _hashing(path: Path, gib: float, repeats: int) -> Iterator[Row]:
    """A fresh look each time: the program is opened and every tensor hashed."""
    name, peer = fastest(path)
    ours, theirs = alternated(lambda: open_program(path).weights.content_digest(), lambda: peer(path), repeats)
    note = f"{gib:g} GiB, {gib / ours.least:.2f} GiB/s; {ours.said()}"
    yield beside("weights-digest", ours.least, "s", f"{name} of the file", theirs.least, MOST_OF_PEER, note)
    sha256 = Times((timed(lambda: _sha256(path)), timed(lambda: _sha256(path))))
    yield beside("weights-digest-beside-sha256", ours.least, "s", "sha256 of the file", sha256.least, 1.0, note)


def fastest(path: Path) -> tuple[str, Callable[[Path], object]]:
    """The fastest cryptographic hash here, by the file's first 256 MiB; BLAKE3 however it may be fed."""
    with path.open("rb") as file:
        sample = file.read(SAMPLE)
    rates = {"blake3": repeated(lambda: blake3(sample, max_threads=blake3.AUTO), 3).least}
    for other in ("sha256", "sha512", "blake2b"):
        rates[other] = timed(partial(hashlib.new, other, sample))
    best = min(rates, key=rates.__getitem__)
    if best != "blake3":
        return best, lambda found: _file_digest(found, best)
    ways = {"blake3 (mmap, all threads)": _blake3_mapped, "blake3 (reads, all threads)": _blake3_read}
    name = min(ways, key=lambda way: timed(lambda: ways[way](path)))
    return name, ways[name]


def _blake3_mapped(path: Path) -> bytes:
    return blake3(max_threads=blake3.AUTO).update_mmap(path).digest()


def _blake3_read(path: Path) -> bytes:
    hasher = blake3(max_threads=blake3.AUTO)
    with path.open("rb", buffering=0) as file:
        while piece := file.read(8 << 20):
            hasher.update(piece)
    return hasher.digest()


def _sha256(path: Path) -> bytes:
    return _file_digest(path, "sha256")


def _file_digest(path: Path, name: str) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, name).digest()


# -- memory ------------------------------------------------------------------------------------------------------

HASH_ONCE = """
import sys
from farm.programs import open_program
print("ready", flush=True); sys.stdin.readline()
open_program(sys.argv[1]).weights.content_digest()
print("done", flush=True); sys.stdin.readline()
"""


def _memory(path: Path, gib: float) -> Row:
    """Anonymous memory (the kernel's RssAnon, read 500 times a second) at its peak while a process opens and hashes the
    program, less what the process had with everything imported. The model's own pages are the file's, mapped."""
    process = psutil.Popen(
        [sys.executable, "-c", HASH_ONCE, path], stdin=-1, stdout=-1, text=True, env=clean(None), cwd=ROOT
    )
    with process, Sampler(process.pid) as sampler:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        before = sampler.now()
        sampler.peak.clear()
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        peak = dict(sampler.peak)
        process.stdin.close()
    extra = (peak["RssAnon"] - before["RssAnon"]) / MIB
    mapped = f"mapped file pages at their peak {peak['RssFile'] / MIB:.0f} MiB"
    note = f"RssAnon at its peak less that before, while hashing {gib:g} GiB; {mapped}"
    return limited("hashing-memory", extra, "MiB", LIMIT_MEMORY_MIB, note)


# -- a second look -----------------------------------------------------------------------------------------------

ASK_AGAIN = """
import contextlib, io, sys, time
from farm.cli import main
big, tiny = sys.argv[1:]
def ask(model):
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        sys.argv = ["farm", "key", model, "-t", "sm_89", "--json"]
        main()
    assert '"key"' in said.getvalue(), said.getvalue()
ask(tiny)
started, spent = time.perf_counter(), time.process_time()
ask(big)
print(time.perf_counter() - started, time.process_time() - spent)
"""


def _again(path: Path, gib: float, repeats: int) -> Iterator[Row]:
    """``farm key`` of a program that this home has hashed before.

    Process start is taken off in the strictest way that can be timed: a fresh process imports everything and opens
    the farm by asking for a tiny program first; the second command is then timed from its arguments to its answer.
    """
    with folder(CACHE) as home:
        tiny = kept("small")
        env = {"FARM_HOME": str(home), "PYTHONPATH": str(ROOT)}
        farm = [sys.executable, "-m", "farm"]
        key = [*farm, "key", path, "-t", "sm_89", "--json"]
        first = timed(lambda: output(key, env, cwd=ROOT))
        inside = [_ask_again(path, tiny, env) for _ in range(repeats)]
        wall, cpu = (Times(tuple(one[clock] for one in inside)) for clock in (0, 1))
        spent = f"processor time {cpu.least * 1e3:.3g} ms"
        note = (
            f"from command to answer, once all is imported; {spent}; first look {first:.2f} s; {wall.said(1e3, 'ms')}"
        )
        yield limited("key-again", wall.least * 1e3, "ms", LIMIT_AGAIN_MS, note)
        whole = processes(key, repeats, env)
        little = processes([*farm, "key", tiny, "-t", "sm_89", "--json"], repeats, env)
        bare = processes([*farm, "--version"], repeats, env)
        python = processes([sys.executable, "-c", "pass"], repeats, env)
        more = (whole.wall.least - little.wall.least) * 1e3
        note = f"'farm key' of {gib:g} GiB less 'farm key' of a 6 KB program, both looked at before"
        yield limited("key-again-over-tiny", more, "ms", LIMIT_AGAIN_MS, note)
        others = f"'farm --version' {bare.wall.least:.3f} s, 'python -c pass' {python.wall.least:.3f} s"
        note = f"imports included; {others}; {whole.said()}"
        yield shown("key-again-process", whole.wall.least, "s", note)


def _ask_again(path: Path, tiny: Path, env: dict[str, str]) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    wall, cpu = output([sys.executable, "-c", ASK_AGAIN, path, tiny], env, cwd=ROOT).split()[-2:]
    return float(wall), float(cpu)
