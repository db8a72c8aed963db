"""Nothing that was acknowledged is lost: processes merge timings against one scope, meet, are refused, and are killed.

Over a pure model of ``ITimingCache.combine`` (``tests/support/timing_model.py``); the real one does nothing in
TensorRT-RTX.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.seaweed import Seaweed

ROOT = Path(__file__).parents[2]


def merges(backend: str, folder: Path, count: int, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.support.timing_merges", backend, folder, "--merges", str(count), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def check(told: dict[str, Any], count: int) -> None:
    assert (told["acknowledged"], told["lost"], told["changed"]) == (count, [], [])
    assert told["versions"] >= count // 2
    assert told["deaths"] > count // 50, "hardly anybody died"
    assert told["events"]["met another"] > count // 50, "they hardly met"
    # Of a hundred writes, which sixty merges take, one in twenty runs has none that is refused falsely.
    refused = {"refused", "falsely refused"} if count >= 300 else set()
    assert refused <= told["events"].keys(), told["events"]


def in_a_folder(tmp_path: Path, count: int, *words: str) -> None:
    told = merges("folder", tmp_path, count, "--seed", "2", *words)
    check(told, count)
    places = ("write of the blob", "write of the pointer")
    assert {f"died {when} the {what}" for when in ("before", "after") for what in places} <= told["events"].keys()


def test_in_a_folder(tmp_path: Path) -> None:
    """With as many deaths as a thousand have."""
    in_a_folder(tmp_path, 300, "--die", "0.014")


@pytest.mark.slow
def test_a_thousand_in_a_folder(tmp_path: Path) -> None:
    in_a_folder(tmp_path, 1000)


def test_in_s3(tmp_path: Path, s3: Seaweed) -> None:
    check(merges(f"s3://farm-tests/{uuid.uuid4().hex} {s3.endpoint}", tmp_path, 64), 64)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_thousand_in_s3(tmp_path: Path, s3: Seaweed) -> None:
    check(merges(f"s3://farm-tests/{uuid.uuid4().hex} {s3.endpoint}", tmp_path, 1000), 1000)


def test_a_store_that_overwrites_is_found_out(tmp_path: Path) -> None:
    assert merges("folder", tmp_path, 120, "--careless")["lost"]
