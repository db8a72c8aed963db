"""``sweep -c`` with what is no sweep: one clear line and exit code 2, in bounded time and memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import Farms

DEEP = "grid: " + "[" * 50_000 + "]" * 50_000
LAUGHS = "\n".join(
    f"{'abcdefgh'[n]}: &{'abcdefgh'[n]} [{', '.join(['*' + 'abcdefgh'[n - 1]] * 10)}]" for n in range(1, 8)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DEEP, "nested more than 32 deep"),
        (f"a: &a [{', '.join('1' * 10)}]\n{LAUGHS}", "aliases unfolded"),
        ("grid: &a {x: *a}", "aliases unfolded"),
        (f"priority: {'9' * 5000}", "a value of more than"),
        ("#" * (5 << 20), "larger than a sweep may be (4 MiB)"),
        ("targets: [2024-02-31]", "not valid YAML"),
        ("targets: \x00", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_sweep(farm: Farms, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    ran = farm.run("sweep", "-c", path, timeout=60)
    assert ran.code == 2 and said in ran.err
    assert "Traceback" not in ran.err and "defect" not in ran.err


@pytest.mark.parametrize("place", ["/dev/zero", "fifo", "."])
def test_what_is_no_regular_file(farm: Farms, tmp_path: Path, place: str) -> None:
    if place == "fifo":
        os.mkfifo(tmp_path / place)
    ran = farm.run("sweep", "-c", place, timeout=60)
    assert ran.code == 2 and ("no regular file" in ran.err or "is a folder" in ran.err)
