"""Progress of builds on stderr: live on a terminal, a line for each ended build elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol

from farm.builds import Build, BuildState
from farm.cli.output import cut, fancy, human_seconds, note

if TYPE_CHECKING:
    from rich.console import RenderableType

DRAW_SECONDS = 0.1
SPEAK_SECONDS = 30.0
LINES = 8
"""Running builds that are drawn at once; a machine seldom runs more."""


class Watcher(Protocol):
    """What ``Farm.wait`` calls with the builds as they stand, about twenty times a second."""

    def __call__(self, builds: Sequence[Build]) -> None: ...


@contextmanager
def watching(total: int) -> Iterator[Watcher]:
    """Show the progress of ``total`` builds while the body runs; silent when there are none."""
    if total == 0:
        yield lambda builds: None
    elif fancy(sys.stderr):
        with _Live(total) as live:
            yield live
    else:
        yield _Lines(total)


class _Lines:
    """One line for each build that ends, and one now and then for those that take long."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._ended: set[str] = set()
        self._spoken = time.monotonic()

    def __call__(self, builds: Sequence[Build]) -> None:
        for build in builds:
            if not build.state.active and build.id not in self._ended:
                self._ended.add(build.id)
                self._say(f"[{len(self._ended)}/{self._total}] {_ending(build)}")
        if time.monotonic() - self._spoken > SPEAK_SECONDS:
            running = [build for build in builds if build.state is BuildState.RUNNING]
            self._say(f"[{len(self._ended)}/{self._total}] {_still(running)}")

    def _say(self, text: str) -> None:
        self._spoken = time.monotonic()
        note(text)


def _ending(build: Build) -> str:
    took = f" in {human_seconds(_elapsed(build))}" if build.started else ""
    what = {BuildState.SUCCEEDED: "built", BuildState.FAILED: "failed"}.get(build.state, str(build.state))
    why = f": {build.failure.message}" if build.failure and build.state is BuildState.FAILED else ""
    return f"{what} {_name(build)} {build.request.target}{took}{why}"


def _still(running: Sequence[Build]) -> str:
    if not running:
        return "waiting for a worker"
    first = max(running, key=_elapsed)
    rest = f" and {len(running) - 1} more" if len(running) > 1 else ""
    what = f"{_name(first)} {first.request.target}: {first.phase or 'starting'}, {human_seconds(_elapsed(first))}"
    return f"building {what}{rest}"


def _name(build: Build) -> str:
    return PurePath(build.request.model).name


def _elapsed(build: Build) -> float:
    """Seconds that it has run or ran; the database's clock and this machine's may differ a little."""
    if build.started is None:
        return 0.0
    return max(0.0, (build.finished or time.time()) - build.started)


class _Live:
    """An overall bar, and a line for each running build."""

    def __init__(self, total: int) -> None:
        from rich.live import Live

        from farm.cli.output import terminal

        self._total = total
        self._began = time.monotonic()
        self._drawn = 0.0
        self._live = Live(console=terminal(sys.stderr), auto_refresh=False, transient=True)

    def __enter__(self) -> _Live:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def __call__(self, builds: Sequence[Build]) -> None:
        now = time.monotonic()
        if now - self._drawn >= DRAW_SECONDS:
            self._drawn = now
            self._live.update(self._picture(builds), refresh=True)

    def _picture(self, builds: Sequence[Build]) -> RenderableType:
        from rich.console import Group

        ended = sum(not build.state.active for build in builds)
        running = sorted((b for b in builds if b.state is BuildState.RUNNING), key=lambda b: b.started or 0.0)
        return Group(self._overall(ended, running), *([_rows(running)] if running else []))

    def _overall(self, ended: int, running: Sequence[Build]) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        elapsed = time.monotonic() - self._began
        part = sum(build.progress or 0.0 for build in running)
        grid = Table.grid(padding=(0, 2, 0, 0))
        for justify in ("left", "left", "right", "left"):
            grid.add_column(justify=justify, no_wrap=True)
        grid.add_row(
            "building",
            ProgressBar(total=self._total, completed=ended + part * 0.9, width=24),
            f"{ended}/{self._total}",
            f"[dim]{human_seconds(elapsed)}{self._left(ended, elapsed)}[/dim]",
        )
        return grid

    def _left(self, ended: int, elapsed: float) -> str:
        """The remaining time, told only once some builds have ended: before that it would be a guess."""
        if ended < 2 or ended >= self._total:
            return ""
        return f", about {human_seconds(elapsed / ended * (self._total - ended))} left"


def _rows(running: Sequence[Build]) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "left", "left", "left", "right", "right"):
        grid.add_column(justify=justify, no_wrap=True)
    for build in running[:LINES]:
        known = build.progress is not None
        bar: Any = ProgressBar(total=1.0, completed=build.progress or 0.0, width=12) if known else ""
        percent = f"{(build.progress or 0.0) * 100:.0f} %" if known else ""
        name = cut(_name(build), 24, "tail")
        phase = cut(build.phase or "starting", 12, "tail")
        grid.add_row(f"  {name}", build.request.target, phase, bar, percent, human_seconds(_elapsed(build)))
    if len(running) > LINES:
        grid.add_row(f"  and {len(running) - LINES} more", "", "", "", "", "")
    return grid
