"""Over the counter between a build's child and the farm's shelf of engines: questions and answers as files.

The child knows each subgraph's key only once it has lowered and cut the program, and has no network; so it writes
``ask-N.json`` and waits for ``answer-N.engine`` (a container), or ``answer-N.none``: build it. What it built it leaves
as ``built-N.engine``. One thread of the parent serves all of a child's questions. Neither side's absence hurts: a
shelf that cannot be reached answers ``none``, and a child that gets no answer builds.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

from farm.asks import Identity
from farm.container import Header, unpack
from farm.errors import BadInput, CorruptBlob, FarmError
from farm.logging import get_logger

log = get_logger(__name__)
POLL_SECONDS = 0.05
LONGEST_ASK = 4 << 20
"""Bytes."""
WAIT_SECONDS = 1800.0
"""How long an engine that another builds is waited for before it is built here as well."""


@dataclass(frozen=True)
class Part:
    """One subgraph that a child asks for. Its weights are baked in: what they are called does not matter."""

    identity: Identity
    naming: str

    def served_by(self, naming: object) -> bool:
        return True


class Shelf(Protocol):
    """Where engines are found, and put (``engine_shelf.FarmShelf``)."""

    def find(self, asked: Any) -> Any: ...

    def claim(self, asked: Any) -> Any: ...

    def turn(self, claim: Any) -> Any: ...

    def commit(self, claim: Any, asked: Any, header: Header, plan: memoryview, seconds: float) -> None: ...

    def withdraw(self, claim: Any) -> None: ...


@dataclass
class _Question:
    part: Part
    claim: Any = None
    since: float = 0.0
    answered: bool = False


class Counter:
    """The parent's side. ``fits(plan)`` says in words why a plan that a child built is not what the build is for."""

    def __init__(self, folder: Path, shelf: Shelf | None, fits: Callable[[memoryview], str | None]) -> None:
        self._folder, self._shelf, self._fits = folder, shelf, fits
        self._questions: dict[str, _Question] = {}
        self._done = threading.Event()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Serve until this ends; what was claimed and not built is given back then."""
        thread = threading.Thread(target=self._serve, name="farm-counter", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _serve(self) -> None:
        last = False
        while not last:
            last = self._done.wait(POLL_SECONDS)
            self._look()
        for question in self._questions.values():
            self._withdraw(question)

    def _look(self) -> None:
        for path in sorted(self._folder.glob("ask-*.json")):
            number = path.stem.removeprefix("ask-")
            if number not in self._questions:
                self._take(number, path)
            elif not self._questions[number].answered:
                self._answer(number, self._questions[number])
        for path in sorted(self._folder.glob("built-*.engine")):
            self._built(path.stem.removeprefix("built-"), path)

    def _take(self, number: str, path: Path) -> None:
        try:
            part = read_part(path)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            log.warning("a question of a build's child makes no sense", reason=str(error))
            self._say(number, None)
            return
        self._questions[number] = _Question(part, since=time.monotonic())
        self._answer(number, self._questions[number])

    def _answer(self, number: str, question: _Question) -> None:
        """The engine; or that it is the child's to build; or nothing yet, while another builds it."""
        try:
            found = self._found(question)
        except FarmError as error:
            log.warning("a build's child builds what may be there", reason=error.message)
            self._withdraw(question)
            found = None
        if found is None and question.claim is not None and question.claim.lease is None:
            if time.monotonic() - question.since < WAIT_SECONDS:
                return
            self._withdraw(question)
        question.answered = True
        self._say(number, None if found is None else found.container())

    def _found(self, question: _Question) -> Any:
        if self._shelf is None:
            return None
        found = self._shelf.find(question.part)
        if found is None and question.claim is None:
            question.claim = self._shelf.claim(question.part)
            found = self._shelf.find(question.part) if question.claim is None else None
        if found is None and question.claim is not None:
            question.claim = self._shelf.turn(question.claim)
        elif question.claim is not None:
            self._withdraw(question)
        return found

    def _built(self, number: str, path: Path) -> None:
        question = self._questions.get(number)
        if question is None or question.claim is None or self._shelf is None:
            return
        claim, question.claim = question.claim, None
        try:
            header, plan = unpack(path.read_bytes())
            self._check(question.part, header, plan)
            seconds = time.monotonic() - question.since
            self._shelf.commit(claim, question.part, header, plan, seconds)
        except (OSError, FarmError) as error:
            log.warning("a subgraph's engine is not shared", reason=str(error))
            question.claim = claim
            self._withdraw(question)

    def _check(self, part: Part, header: Header, plan: memoryview) -> None:
        if (header.key, header.recipe) != (part.identity.key, part.identity.recipe):
            raise BadInput("it was not what was asked for", "please report it")
        wrong = self._fits(plan)
        if wrong is not None:
            raise CorruptBlob(wrong, "please report it")

    def _withdraw(self, question: _Question) -> None:
        claim, question.claim = question.claim, None
        if claim is not None and self._shelf is not None:
            with contextlib.suppress(FarmError):
                self._shelf.withdraw(claim)

    def _say(self, number: str, container: bytes | None) -> None:
        name = f"answer-{number}.{'none' if container is None else 'engine'}"
        draft = self._folder / f".{name}"
        draft.write_bytes(container or b"")
        draft.rename(self._folder / name)


def read_part(path: Path) -> Part:
    """A question, as ``write_part`` wrote it. Whatever a child writes, it is plain data of these names."""
    if path.is_symlink() or path.stat().st_size > LONGEST_ASK:
        raise ValueError("it is no file of a question's size")
    told = json.loads(path.read_text("utf-8"))
    known = {one.name for one in fields(Identity)}
    values: Mapping[str, Any] = {name: value for name, value in told["identity"].items() if name in known}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    identity = Identity(**{**values, **lists, "path": Path()})
    texts = (identity.key, identity.recipe, identity.weights, identity.target, identity.toolchain, told["naming"])
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("its names are no texts")
    return Part(replace(identity), told["naming"])


def write_part(path: Path, identity: Identity, naming: str) -> None:
    """Ask, in one step that a reader sees whole or not at all."""
    told = {one.name: getattr(identity, one.name) for one in fields(Identity) if one.name != "path"}
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps({"identity": told, "naming": naming}), "utf-8")
    draft.rename(path)


def await_answer(folder: Path, number: int, seconds: float = 2 * WAIT_SECONDS) -> bytes | None:
    """The child's side: the container that was found, or ``None``: build it."""
    found, nothing = folder / f"answer-{number}.engine", folder / f"answer-{number}.none"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found.exists():
            return found.read_bytes()
        if nothing.exists():
            return None
        time.sleep(POLL_SECONDS / 2)
    return None
