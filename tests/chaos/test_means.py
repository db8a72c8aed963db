"""The means of torture do what they say: clocks are apart, messages come twice, disks are full, blobs are damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from farm.errors import CorruptBlob
from tests.chaos.fleet import ROOT, skew_library, skewed
from tests.chaos.stores import MIB, Ballast, Folder, small_disk

TWICE = """
import json
from farm.tasks import make_app, queue_of, send_wakes
from tests.chaos.twice import send_twice

send_twice()
app = make_app("memory://twice")
send_wakes(app, {"x": 1})
with app.connection_for_read() as connection:
    queue = connection.SimpleQueue(queue_of("x"))
    print(json.dumps([queue.get(timeout=5).headers["id"] for _ in range(queue.qsize())]))
"""


@pytest.mark.parametrize("seconds", [60, -60])
def test_a_clock_is_a_minute_off_and_nothing_else(tmp_path: Path, seconds: int) -> None:
    library = skew_library(tmp_path)
    if library is None:
        pytest.skip("no C compiler is here")
    script = "import threading, time; print(time.time()); threading.Event().wait(0.2); time.sleep(0.1)"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **skewed(library, seconds)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert float(done.stdout) - time.time() == pytest.approx(seconds, abs=10)
    assert time.monotonic() - began < 40


def test_a_message_comes_twice_under_one_id() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first == second


def test_a_disk_is_full_and_then_not(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", MIB) as there:
        if not there:
            pytest.skip("no small disk can be had here")
        ballast = Ballast(tmp_path / "disk")
        ballast.load()
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "disk" / "file").write_bytes(bytes(100_000))
        ballast.drop()
        (tmp_path / "disk" / "file").write_bytes(bytes(100_000))


def test_a_damaged_blob_is_seen(tmp_path: Path) -> None:
    store = Folder(tmp_path / "store")
    path = tmp_path / "blob"
    path.write_bytes(b"engine")
    digest = store.true.put_file(path).digest
    store.damage(digest)
    with pytest.raises(CorruptBlob):
        store.true.read(digest)
