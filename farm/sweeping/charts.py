"""The report's charts, drawn as SVG without any library. Pure.

Each chart is 340 units wide, the width of a phone, and is scaled as a whole; its text is never smaller than 10 units.
Colours are Okabe and Ito's, which people with colour-blindness tell apart; shapes say the same a second time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from farm.human import human_seconds, human_size

Words = Callable[[float], str]
"""How a number is written at an axis."""

WIDTH = 340
SHAPES = 6
"""Distinct colours and shapes; a seventh series shares the first one's."""


@dataclass(frozen=True)
class Dot:
    """One engine: its series (a target's place in the list), bytes, build seconds, and the line that explains it.

    ``measured`` is its value in the metric that the sweep is after, where that was measured; ``front``: no other of its
    series and ``group`` (those that it is compared with) is at least as good in everything.
    """

    series: int
    size: float
    seconds: float
    title: str
    measured: float = 0.0
    front: bool = False
    group: str = ""


@dataclass(frozen=True)
class Axis:
    """What is shown along one side: its name, each dot's value, how it is written, whether the scale begins at 0."""

    name: str
    value: Callable[[Dot], float]
    words: Words
    zero: bool = False


SIZE = Axis("engine size", lambda dot: dot.size, human_size)
BUILD = Axis("build time", lambda dot: dot.seconds, human_seconds, zero=True)


@dataclass(frozen=True)
class Lane:
    """One line of the dot plot: the settings that its engines share."""

    label: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Scale:
    """Maps ``low … high`` onto ``start … end`` units; ``ticks`` are round values in between."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def scale(values: Sequence[float], start: float, end: float, *, zero: bool, count: int = 4) -> Scale:
    """A scale for ``values`` with round ends. From zero; or around the values, and never so close that a difference
    of a few per cent would look like one of several times."""
    high = max(values, default=1.0) or 1.0
    low = 0.0 if zero else min(values)
    room = max(high - low, 0.15 * high) if not zero else high
    step = _round_step(room / count)
    low = 0.0 if zero else max(0.0, math.floor((low - 0.25 * room) / step) * step)
    last = math.ceil((high + (0.0 if zero else 0.1 * room)) / step) * step
    number = round((last - low) / step)
    ticks = tuple(low + step * n for n in range(number + 1))
    return Scale(low, max(last, low + step), start, end, ticks)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * 0.999)


def scatter(dots: Sequence[Dot], label: str, right: Axis = BUILD, up: Axis = SIZE) -> str:
    """One metric (up) against another (right); the front of each series is joined."""
    height, left, bottom = 220, 58, 184
    x = scale([right.value(dot) for dot in dots], left, WIDTH - 14, zero=right.zero)
    y = scale([up.value(dot) for dot in dots], bottom, 16, zero=up.zero)
    parts = [*_ticks_x(x, 16, bottom), *_words_x(x, bottom, right.words)]
    parts += _grid_y(y, left, WIDTH - 14, up.words)
    parts.append(_text(left, 10, up.name, "axis"))
    parts.append(_text(WIDTH - 14, height - 6, right.name, "axis end"))
    parts += _fronts(dots, lambda dot: (x.at(right.value(dot)), y.at(up.value(dot))))
    parts += [mark(dot, x.at(right.value(dot)), y.at(up.value(dot))) for dot in dots]
    return _svg(height, parts, label)


def _fronts(dots: Sequence[Dot], at: Callable[[Dot], tuple[float, float]]) -> list[str]:
    """A line through each series' front, and a ring around what is on one."""
    parts = []
    for series, group in sorted({(dot.series, dot.group) for dot in dots if dot.front}):
        some = sorted(at(dot) for dot in dots if dot.front and (dot.series, dot.group) == (series, group))
        joined = " ".join(f"{_n(x)},{_n(y)}" for x, y in some)
        parts.append(f'<polyline class="front l{series % SHAPES}" points="{joined}"/>')
        parts += [f'<circle class="ring" cx="{_n(x)}" cy="{_n(y)}" r="8"/>' for x, y in some]
    return parts


def lanes(rows: Sequence[Lane], label: str, first: Axis = SIZE, second: Axis = BUILD) -> str:
    """For each combination of settings that matters: one metric on the left, another on the right."""
    series = max((dot.series % SHAPES for row in rows for dot in row.dots), default=0) + 1
    step = 7.0 if series > 1 else 0.0
    pitch, top = 32 + step * series, 18
    bottom = top + pitch * len(rows)
    dots = [dot for row in rows for dot in row.dots]
    one = scale([first.value(dot) for dot in dots], 26, 142, zero=first.zero, count=2)
    other = scale([second.value(dot) for dot in dots], 198, WIDTH - 24, zero=second.zero, count=2)
    parts = [_text(4, 10, first.name, "axis"), _text(190, 10, second.name, "axis")]
    for number, row in enumerate(rows):
        y = top + pitch * number
        parts.append(_text(4, y + 13, _fitted(row.label, 52), "lane", row.label))
        parts += [*_ticks_x(one, y + 18, y + pitch - 3), *_ticks_x(other, y + 18, y + pitch - 3)]
        for dot in row.dots:
            # Engines for several targets are often equal in size: each series has a line of its own.
            at = y + 24 + step * (dot.series % SHAPES)
            parts += [mark(dot, one.at(first.value(dot)), at), mark(dot, other.at(second.value(dot)), at)]
    parts += [*_words_x(one, bottom, first.words), *_words_x(other, bottom, second.words)]
    return _svg(bottom + 20, parts, label)


@dataclass(frozen=True)
class Bar:
    """What one setting does: a share, and what is said of it."""

    name: str
    share: float
    words: str


def bars(some: Sequence[Bar], label: str) -> str:
    """Shares as bars, the largest as long as there is room."""
    most = max((bar.share for bar in some), default=0.0) or 1.0
    parts = []
    for number, bar in enumerate(some):
        y = 38 * number
        parts.append(_text(4, y + 12, _fitted(bar.name, 50), "lane", bar.name))
        width = max(1.5, (WIDTH - 8) * bar.share / most) if bar.share > 0 else 0.0
        parts.append(f'<rect class="bar" x="4" y="{y + 17}" width="{_n(width)}" height="5" rx="2"/>')
        parts.append(_text(4, y + 33, _fitted(bar.words, 55), "tick", bar.words))
    return _svg(38 * len(some) + 2, parts, label)


def cost_bar(spent: float, saved: float) -> str:
    """What was spent beside what was saved, as one bar."""
    whole = (spent + saved) or 1.0
    split = max(2.0, min(WIDTH - 2.0, WIDTH * spent / whole)) if spent > 0 else 0.0
    title = f"{human_seconds(spent)} spent, {human_seconds(saved)} saved"
    parts = [
        f'<rect class="saved" x="0" y="2" width="{WIDTH}" height="16" rx="4"><title>{escape(title)}</title></rect>',
        f'<rect class="spent" x="0" y="2" width="{_n(split)}" height="16" rx="4"/>' if split else "",
    ]
    return _svg(20, parts, title)


def mark(dot: Dot, x: float, y: float) -> str:
    """One dot in its series' colour and shape, with its line as a tool tip."""
    place = dot.series % SHAPES
    return f'<g class="dot s{place}">{_shape(place, x, y)}<title>{escape(dot.title)}</title></g>'


def swatch(series: int) -> str:
    """The mark of one series, for the legend."""
    place = series % SHAPES
    return (
        f'<svg class="swatch" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">'
        f'<g class="dot s{place}">{_shape(place, 7, 7)}</g></svg>'
    )


def _shape(place: int, x: float, y: float) -> str:
    if place == 0:
        return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="4.5"/>'
    if place == 1:
        return f'<rect x="{_n(x - 4)}" y="{_n(y - 4)}" width="8" height="8"/>'
    corners = {
        2: ((0, -5.4), (5, 4), (-5, 4)),
        3: ((0, -5.8), (5.8, 0), (0, 5.8), (-5.8, 0)),
        4: ((0, 5.4), (5, -4), (-5, -4)),
        5: ((-1.6, -5), (1.6, -5), (1.6, -1.6), (5, -1.6), (5, 1.6), (1.6, 1.6), (1.6, 5), (-1.6, 5), (-1.6, 1.6),
            (-5, 1.6), (-5, -1.6), (-1.6, -1.6)),
    }[place]  # fmt: skip
    return f'<polygon points="{" ".join(f"{_n(x + dx)},{_n(y + dy)}" for dx, dy in corners)}"/>'


def _ticks_x(x: Scale, top: float, bottom: float) -> list[str]:
    return [
        f'<line class="grid" x1="{at}" y1="{_n(top)}" x2="{at}" y2="{_n(bottom)}"/>'
        for at in (_n(x.at(tick)) for tick in x.ticks)
    ]


def _words_x(x: Scale, bottom: float, words: Words) -> list[str]:
    return [_text(x.at(tick), bottom + 13, _tick(tick, words), "tick mid") for tick in x.ticks]


def _grid_y(y: Scale, left: float, right: float, words: Words) -> list[str]:
    parts = []
    for tick in y.ticks:
        at = _n(y.at(tick))
        parts.append(f'<line class="grid" x1="{_n(left)}" y1="{at}" x2="{_n(right)}" y2="{at}"/>')
        parts.append(_text(left - 6, y.at(tick) + 3.5, _tick(tick, words), "tick end"))
    return parts


def _tick(value: float, words: Words) -> str:
    """Round values need no zeros behind the point: ``0.20 s`` is ``0.2 s`` at an axis."""
    number, _, unit = words(value).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}" if value else "0"


def _text(x: float, y: float, text: str, style: str, title: str = "") -> str:
    told = f"<title>{escape(title)}</title>" if title and title != text else ""
    return f'<text class="{style}" x="{_n(x)}" y="{_n(y)}">{escape(text)}{told}</text>'


def _fitted(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _svg(height: float, parts: Sequence[str], label: str) -> str:
    inner = "".join(parts)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {_n(height)}" role="img" aria-label="{escape(label)}">{inner}</svg>'
    )


def _n(value: float) -> str:
    """A coordinate: one decimal is finer than any screen shows."""
    return f"{value:.1f}".rstrip("0").rstrip(".")
