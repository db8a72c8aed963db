"""Writes docs/settings.md from the table: ``python -m farm.settings.docs > docs/settings.md``. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from farm.settings.effective import CONTRADICTIONS
from farm.settings.model import OLDEST, Field, Handling, Status, text_of
from farm.settings.table import FIELDS

_INTRO = """\
# Settings

This page is written from the table in the package (`python -m farm.settings.docs > docs/settings.md`); a test
holds the two in step. Names, types and defaults are those of Torch-TensorRT's `CompilationSettings`. On the
command line a setting is `-s NAME=VALUE`: `none`, `true` and `false` are read as such, sizes take K, M, G and
T (powers of 1024), sets are `a,b,c` or a JSON list.

What a setting changes is its role:

| role | what it changes | recorded in |
|---|---|---|
| engine | on the specification's engine-invariant list | key, always, unless it has vanished |
| graph | the graph, or how it is converted | key, for what still reads it |
| form | what the artefact is | key, where it has an effect |
| search | which kernels win, or whether any are found | recipe |
| workflow | the act of compiling | neither |

What a builder does with it is its status. `tensorrt` and `tensorrt_rtx` build one engine of the whole program
through ONNX; `torch_tensorrt` is Torch-TensorRT's own compiler, of the version stated.

| status | meaning |
|---|---|
| honoured | the builder acts on it |
| moot | it cannot matter to this builder: in neither key nor recipe; a warning if it is set |
| inert | accepted, without effect in this version: in the key, not in the recipe; a warning if it is set |
| refused | any but the default cannot be honoured: `farm key` still answers, building says why not |

A setting that is honoured, inert or refused can still *vanish*, with a warning, where another setting leaves
it nothing to do; the rules below say when. A refused setting of the graph or form is not recorded at its
default.
"""


def settings_page() -> str:
    """The whole page as Markdown, ending in one newline."""
    parts = [_INTRO]
    for group, rows in groupby(FIELDS.values(), key=lambda row: row.group):
        parts.append("\n".join(_section(group, list(rows))))
    parts.append("\n".join(_contradictions()))
    return "\n".join(parts)


def statuses(row: Field) -> dict[str, str]:
    """Each flavour's status in a word or two, with the versions that it holds for."""
    return {
        "tensorrt": _worded(row.tensorrt),
        "tensorrt_rtx": _worded(row.tensorrt_rtx),
        "torch_tensorrt": _by_release(row),
    }


def _worded(handling: Handling) -> str:
    bound = f" below {_dotted(handling.below)}" if handling.below else ""
    return f"{handling.status}{bound}"


def _by_release(row: Field) -> str:
    words = _worded(row.torch_tensorrt)
    if row.since > OLDEST:
        words += f", from {_dotted(row.since)}"
    if row.until is not None:
        words += f", to {_dotted(row.until)}; then {row.dropped.status}"
    return words


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def _section(group: str, rows: list[Field]) -> Iterator[str]:
    yield f"## {group}\n"
    yield "| setting | type | default | role | tensorrt | tensorrt_rtx | torch_tensorrt |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        cells = (f"`{row.name}`", row.type, f"`{text_of(row.default)}`", row.role, *statuses(row).values())
        yield f"| {' | '.join(cells)} |"
    yield ""
    for row in rows:
        yield from _entry(row)
    yield ""


def _entry(row: Field) -> Iterator[str]:
    deprecated = " Deprecated." if row.deprecated else ""
    yield f"- **`{row.name}`** — {row.description}{deprecated} Takes {row.allowed}."
    yield f"  - Rule: {row.rule}"
    yield f"  - From: {row.source}"
    for why, flavours in _reasons(row).items():
        yield f"  - {flavours}: {why}."


def _reasons(row: Field) -> dict[str, str]:
    """Why a builder does not honour the field, each reason once, with the builders that it holds for."""
    found: dict[str, list[str]] = {}
    later = f"torch_tensorrt after {_dotted(row.until)}" if row.until else ""
    columns = {
        "tensorrt": row.tensorrt,
        "tensorrt_rtx": row.tensorrt_rtx,
        "torch_tensorrt": row.torch_tensorrt,
    }
    for flavour, handling in (*columns.items(), *(((later, row.dropped),) if later else ())):
        if handling.status is not Status.HONOURED:
            found.setdefault(f"{handling.status}, because {handling.why}", []).append(flavour)
    return {why: ", ".join(flavours) for why, flavours in found.items()}


def _contradictions() -> Iterator[str]:
    yield "## Contradictions\n"
    yield "These are errors, whatever the builder:\n"
    for entry in CONTRADICTIONS:
        shown = " with ".join(f"`{name}={text_of(value)}`" for name, value in entry.together.items())
        yield f"- {shown}: {entry.why}. {entry.source}"
    yield (
        "- `enable_resource_partitioning=true` without a `cpu_memory_budget`, for torch_tensorrt: how the "
        "model is cut would depend on the memory that happens to be free."
    )
    yield ""


if __name__ == "__main__":
    print(settings_page(), end="")
