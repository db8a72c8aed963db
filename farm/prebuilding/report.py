"""How a prebuild ended, for CI systems: JUnit XML, Markdown, GitHub's annotations. Pure; the same input, the same text.

Durations stand in JUnit only: everything else is the same for two runs that found and made the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from farm.human import count_of, human_size, short
from farm.prebuilding.standing import Item, Prebuild, State

# What XML 1.0 cannot hold at all, written out or not.
_UNSAID = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(found: Prebuild, refused: Sequence[str] = ()) -> str:
    """One test case for each entry: a failure where a required one failed or is missing, skipped where a best-effort
    one did or nothing was looked at. And one for the lock file where changes of it are ``refused`` (``--locked``)."""
    cases = [*(_case(item) for item in found.items), *([_lock_case(refused)] if refused else [])]
    bad, skipped = sum(map(_is_bad, found.items)), sum("<skipped" in case for case in cases)
    bad += bool(refused)
    counts = f'tests="{len(cases)}" failures="{bad}" errors="0" skipped="{skipped}"'
    seconds = f'time="{sum(item.seconds for item in found.items):.3f}"'
    suite = f'<testsuite name="farm prebuild" {counts} {seconds}>\n{"".join(cases)}</testsuite>'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites {counts} {seconds}>\n{suite}\n</testsuites>\n'


def _case(item: Item) -> str:
    name = item.entry.target + (f" ({item.entry.variant})" if item.entry.variant else "")
    head = f'<testcase classname={_quoted(item.entry.model.name)} name={_quoted(name)} time="{item.seconds:.3f}"'
    if item.state is State.UNCHANGED:
        return f'{head}>\n<skipped message="unchanged"/>\n</testcase>\n'
    if item.state.there:
        return f"{head}/>\n"
    reason = why(item)
    if not item.entry.required:
        return f"{head}>\n<skipped message={_quoted(f'best effort: {reason}')}/>\n</testcase>\n"
    text = escape(_plain("\n".join([reason, *([item.hint] if item.hint else [])])))
    return f'{head}>\n<failure type="{item.state}" message={_quoted(reason)}>{text}</failure>\n</testcase>\n'


def _lock_case(refused: Sequence[str]) -> str:
    reason = _quoted(f"it would change in {count_of(len(refused), 'line')}")
    told = escape(_plain("\n".join(refused)))
    head = '<testcase classname="farm.lock" name="--locked" time="0.000"'
    return f'{head}>\n<failure type="changed" message={reason}>{told}</failure>\n</testcase>\n'


def _is_bad(item: Item) -> bool:
    return item.fails or item.lacks


def why(item: Item) -> str:
    """Why it is not there, or is to be built, in one line."""
    return "; ".join(item.why) or "there is no such engine"


def _plain(text: str) -> str:
    return _UNSAID.sub("\ufffd", text)


def _quoted(text: str) -> str:
    return quoteattr(_plain(text))


def markdown(found: Prebuild, changes: Sequence[str]) -> str:
    """A summary: counts, a table, what went wrong, what the lock file changes in."""
    lines = [f"## farm prebuild: {line(found)}", "", "| model | target | variant | state | engine | key |"]
    lines.append("|---|---|---|---|---|---|")
    for item in found.items:
        size = human_size(item.line.size) if item.line else ""
        key = f"`{short(item.line.key)}`" if item.line else ""
        cells = (item.entry.model.name, item.entry.target, item.entry.variant, str(item.state), size, key)
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    bad = [f"- **{_cell(str(item.entry))}**: {_cell(why(item))}" for item in found.items if not item.state.there]
    lines += ["", "### Not there", "", *bad] if bad else []
    told = [f"- {_cell(text)}" for text in changes]
    lines += ["", "### Changes of the lock file", "", *told] if told else []
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"([\\|<>*_\[\]])", r"\\\1", " ".join(text.split())) if not text.startswith("`") else text


def line(found: Prebuild) -> str:
    """``6 entries: 2 locked, 3 built, 1 failed``."""
    counts = found.counts()
    total = count_of(counts.pop("entries"), "entry", "entries")
    return f"{total}: " + ", ".join(f"{count} {state}" for state, count in counts.items())


def workflow_commands(found: Prebuild, changes: Sequence[str], locked: bool, planned: bool = False) -> list[str]:
    """GitHub's workflow commands: an error at the model's line for what fails the prebuild, a warning for what does
    not; with ``locked`` an error for each change. What is ``planned`` only may well be missing."""
    absent = [item for item in found.items if not item.state.there]
    told = [_trouble(found.spec.file, item) for item in absent if not (planned and item.state is State.MISSING)]
    return told + [_command("error", found.spec.file, 1, "farm.lock would change", text) for text in changes if locked]


def _trouble(file: str, item: Item) -> str:
    return _command("error" if _is_bad(item) else "warning", file, item.entry.model.line, str(item.entry), why(item))


def _command(kind: str, file: str, at: int, title: str, text: str) -> str:
    fields = f"file={_property(file)},line={at},title={_property(title)}"
    return f"::{kind} {fields}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
