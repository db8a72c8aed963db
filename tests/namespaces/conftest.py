"""Farms of several namespaces over one database and one store; their workers build in no time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from farm.asks import Answer, Ask
from farm.config import Config
from farm.crew import Crew
from farm.service import Farm
from farm.trust import make_key
from tests.support.noop import NoopBuilder
from tests.support.noop_worker import QUEUE, open_noop_crew

MODEL = Path(__file__).parents[1] / "vectors" / "conv.pt2"

Opener = Callable[..., Farm]


def noop_crew(config: Config, *_: object) -> Crew:
    return open_noop_crew(config, NoopBuilder(), 2, (QUEUE,))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("FARM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FARM_TOOLCHAIN", "tensorrt_rtx==1.7.1.116")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("farm.wiring.workers.open_crew", noop_crew)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "home", toolchain="tensorrt_rtx==1.7.1.116", tenant="tester", beat_seconds=0.05)


@pytest.fixture
def opened(config: Config) -> Iterator[Opener]:
    """Open a farm of a namespace."""
    with ExitStack() as stack:

        def opened(namespace: str = "main", **changes: object) -> Farm:
            farm = Farm.open(replace(config, namespace=namespace, **changes))  # type: ignore[arg-type]
            return stack.enter_context(closing(farm))

        yield opened


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Keys of a trusted worker, an untrusted one and an admin, and who is trusted for what."""
    folder = tmp_path / "keys"
    folder.mkdir()
    limits = {"trusted": 'namespaces="main" ', "untrusted": 'namespaces="pr-*" ', "admin": 'namespaces="main" '}
    lines = []
    for name, limit in limits.items():
        words = make_key(folder / name, name).line().split(" ", 1)
        lines.append(f"{words[0]} {limit}{words[1]}\n")
    (folder / "policy").write_text("".join(lines))
    return folder


def ask(farm: Farm, target: str = "sm_89", model: Path = MODEL, **options: bool) -> Answer:
    """Ask, and wait for what comes of it."""
    answers = farm.submit([Ask(str(model), target)], **options)
    (answer,) = farm.wait(answers, timeout=20)
    return answer
