"""Timing caches merged in a child, by the stand-in for plain TensorRT: the real one of TensorRT-RTX does nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from farm.builders import AttemptFailed, Cancelled, Merged, Watch
from farm.builders.merging import TensorRTMerger
from farm.builds import FailureKind
from farm.toolchains import Toolchain

PLAIN = Toolchain("tensorrt", "10.14.1.48")
HEADER = b"timings of standin 10.14.1.48:"


def timings(device: str = "a GPU", **entries: str) -> bytes:
    return HEADER + json.dumps({"device": device, "entries": entries}, sort_keys=True).encode()


@pytest.fixture
def merger(standin: None, tmp_path: Path) -> TensorRTMerger:
    return TensorRTMerger(scratch=tmp_path / "scratch")


def test_the_union_in_which_what_was_there_stays(merger: TensorRTMerger) -> None:
    merged = merger.merge(PLAIN, timings(a="1", b="2"), timings(b="3", c="4"), Watch())
    assert merged == Merged(timings(a="1", b="2", c="4"), 3)
    assert merger.scratch is not None and list(merger.scratch.iterdir()) == []


def test_one_alone_is_tried(merger: TensorRTMerger) -> None:
    assert merger.merge(PLAIN, b"", timings(a="1"), Watch()) == Merged(timings(a="1"), 1)


@pytest.mark.parametrize("bad", [timings("another GPU", a="1"), b"of another version", HEADER + b"{ruined"])
def test_what_does_not_fit_is_named(merger: TensorRTMerger, bad: bytes) -> None:
    assert merger.merge(PLAIN, bad, timings(a="1"), Watch()).unfit == "theirs"
    assert merger.merge(PLAIN, timings(a="1"), bad, Watch()).unfit == "mine"


def test_what_crashes_tensorrt_crashes_its_child_alone(merger: TensorRTMerger) -> None:
    with pytest.raises(AttemptFailed, match="SIGSEGV"):
        merger.merge(PLAIN, HEADER + b"crash", timings(a="1"), Watch())


def test_without_the_toolchain_it_is_the_nodes_failure(merger: TensorRTMerger) -> None:
    with pytest.raises(AttemptFailed) as caught:
        merger.merge(Toolchain("tensorrt", "10.15.0.1"), timings(a="1"), timings(b="1"), Watch())
    assert caught.value.failure.kind is FailureKind.NODE


def test_it_can_be_cancelled(merger: TensorRTMerger) -> None:
    began = time.monotonic()
    with pytest.raises(Cancelled):
        merger.merge(PLAIN, timings(a="1"), timings(b="1"), Watch(cancelled=lambda: True))
    assert time.monotonic() - began < 30
