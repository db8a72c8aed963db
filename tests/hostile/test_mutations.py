"""Random changes to real archives: sanitising refuses them or makes something of them that is harmless."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile.forge import CONSTANTS, MODEL, WEIGHTS, Archive, code, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm.errors import BadProgram
from farm.programs import open_program
from farm.programs.sanitise import sanitise_pt2

pytestmark = pytest.mark.torch
Step = str | int
Place = tuple[Step, ...]
QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck))

TEXTS = ["", "x", "a b", "torch.os.system", "torch.ops.aten.relu.default", "__import__('os')", "s0", "\x00", "é" * 9]
NUMBERS = [0, -1, 7, 1 << 31, -(1 << 63), 1 << 63, 1 << 80, 10**400, 0.5, 1e308, True, None]
SCALARS = st.one_of(st.sampled_from([*TEXTS, *NUMBERS]), st.integers(), st.floats(allow_nan=False), st.text(max_size=9))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["as_int", "as_expr", "expr_str", "name", "as_tensor", "type", "x"]), inner),
    ),
    max_leaves=6,
)


def places(content: Any, at: Place = ()) -> Iterator[Place]:
    """The way to every value in ``content``."""
    steps: Any = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for step in steps:
        yield (*at, step)
        yield from places(content[step], (*at, step))


def value_at(content: Any, place: Place) -> Any:
    for step in place:
        content = content[step]
    return content


def put(content: Any, place: Place, value: Any) -> None:
    """Put ``value`` there; nothing, if an earlier change has taken that place away."""
    try:
        value_at(content, place[:-1])[place[-1]] = value
    except (KeyError, IndexError, TypeError):
        return


def digest(path: Path) -> str | None:
    """The program's graph digest; None if farm cannot read it as a program."""
    try:
        return open_program(path).graph_digest
    except BadProgram:
        return None


def outcome(content: dict[str, bytes]) -> bytes | None:
    """The sanitised archive; None if it is refused. Any other error fails the test, and so does another program."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "changed.pt2", content)
        try:
            sanitise_pt2(folder / "changed.pt2", folder / "safe.pt2")
            sanitise_pt2(folder / "safe.pt2", folder / "again.pt2")
        except BadProgram as refused:
            assert refused.message
            assert not (folder / "safe.pt2").exists()
            return None
        assert digest(folder / "changed.pt2") in (None, digest(folder / "safe.pt2"))
        safe = (folder / "safe.pt2").read_bytes()
        assert (folder / "again.pt2").read_bytes() == safe
        return safe


@settings(QUIET, max_examples=250)
@given(data=st.data())
def test_changed_json_is_refused_or_made_safe(archives: dict[str, Archive], data: st.DataObject) -> None:
    archive = archives[data.draw(st.sampled_from(sorted(archives)))]
    member = data.draw(st.sampled_from([MODEL] * 6 + [WEIGHTS, CONSTANTS]))
    original = archive.json(member)
    content = copy.deepcopy(original)
    everywhere = [place for place in places(original) if place[-1] != "index"]  # of a device, which may change
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(everywhere))
        if data.draw(st.booleans()):
            put(content, place, copy.deepcopy(value_at(original, data.draw(st.sampled_from(everywhere)))))
        else:
            put(content, place, data.draw(VALUES))
    outcome(archive.members | {member: json.dumps(content).encode()})


@settings(QUIET, max_examples=150)
@given(data=st.data())
def test_changed_bytes_are_refused_or_made_safe(archives: dict[str, Archive], data: st.DataObject) -> None:
    archive = archives["branches"]
    content = bytearray(archive.members[MODEL])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    outcome(archive.members | {MODEL: bytes(content)})


@settings(QUIET, max_examples=150)
@given(data=st.data())
def test_damaged_archives_are_refused_or_made_safe(exported: Path, data: st.DataObject) -> None:
    content = bytearray((exported / "conv.pt2").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "damaged.pt2").write_bytes(content)
        try:
            sanitise_pt2(folder / "damaged.pt2", folder / "safe.pt2")
        except BadProgram:
            assert not (folder / "safe.pt2").exists()


PAYLOADS = [
    "{code}",
    "{old}={code}",
    "' or {code} or '",
    '" or {code} or "',
    'x") or {code} or ("',
    "{old}\n{code}\n",
    "[{code}, Integer(3)][1]",
]


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("program", ["branches", "text"])
def test_no_text_that_is_let_through_is_executed(
    torch_child: Any, archives: dict[str, Archive], tmp_path: Path, program: str, payload: str
) -> None:
    """Put code wherever there is text; keep it wherever sanitising lets it through, and let torch load that."""
    archive, marker = archives[program], tmp_path / "marker"
    original = archive.json(MODEL)
    everything = copy.deepcopy(original)
    kept = 0
    for place in places(original):
        old = value_at(original, place)
        if not isinstance(old, str):
            continue
        changed = copy.deepcopy(original)
        text = payload.format(old=old, code=code(marker))
        put(changed, place, text)
        if outcome(archive.members | {MODEL: json.dumps(changed).encode()}) is not None:
            put(everything, place, text)
            kept += 1
    assert kept  # stack traces, at least
    safe = tmp_path / "safe.pt2"
    safe.write_bytes(outcome(archive.members | {MODEL: json.dumps(everything).encode()}) or b"")
    told = torch_child.ask(safe, export=payload == PAYLOADS[0])
    assert told["loaded"]
    assert not marker.exists()
