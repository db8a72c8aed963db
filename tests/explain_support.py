"""Real programs and their key parts, for the tests of what ``farm explain`` says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from farm import keys
from farm.compilation import CompilationSettings
from farm.explain import Comparison, Reason, compare
from farm.identify import facts
from farm.index import KeyParts
from farm.outlines import outline_of, program_reasons
from farm.profiles import resolve
from farm.programs import open_program
from farm.targets import parse_target
from farm.toolchains import exact_toolchain
from tests.conftest import made_once

SCRIPT = Path(__file__).with_name("programs_to_explain.py")
RTX = "tensorrt_rtx==1.7.1.116"
TRT = "tensorrt==10.14.1"


@dataclass(frozen=True)
class Pairs:
    """The programs of ``programs_to_explain``, and how two asks compare."""

    folder: Path

    def parts(
        self,
        name: str,
        toolchain: str = RTX,
        target: str = "sm_89",
        given: Sequence[Mapping[str, Mapping[str, tuple[int, ...]]]] = (),
        **settings: Any,
    ) -> KeyParts:
        """What the ask of one of the programs is made of."""
        program = open_program(self.folder / f"{name}.pt2")
        profiles = [profile.canonical() for profile in resolve(program.inputs, program.symbols, list(given))]
        found = keys.compute(
            facts(program),
            profiles,
            CompilationSettings(**settings),
            exact_toolchain(toolchain),
            parse_target(target).target,
        )
        return KeyParts(found.key, found.recipe, found.parts, f"{name}.pt2", target)

    def outline(self, name: str) -> dict[str, Any]:
        return outline_of(open_program(self.folder / f"{name}.pt2"))

    def compared(self, other: str, **settings: Any) -> Comparison:
        """``Base`` beside another program, all else equal."""
        return compare(self.parts("Base", **settings), self.parts(other, **settings))

    def in_detail(self, other: str) -> list[Reason]:
        """What the outlines of ``Base`` and another program say."""
        return program_reasons(self.outline("Base"), self.outline(other))

    def line(self, name: str) -> str:
        """The source line, ``file:number``, that the script marks as what differs in ``name``."""
        lines = SCRIPT.read_text().splitlines()
        (number,) = [n for n, line in enumerate(lines, start=1) if line.endswith(f"# differs: {name}")]
        return f"{SCRIPT}:{number}"


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """Exported once for all test processes."""
    with made_once(tmp_path_factory, "farm-programs-to-explain") as (folder, empty):
        if empty:
            pytest.importorskip("torch")
            subprocess.run([sys.executable, SCRIPT, folder], check=True, timeout=240, capture_output=True)
    return Pairs(folder)
