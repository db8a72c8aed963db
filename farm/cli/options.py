"""The options that several commands share, and how they become what is asked of a farm."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.errors import BadInput

if TYPE_CHECKING:
    from farm.asks import Ask, GivenProfile
    from farm.compilation import CompilationSettings

ASKING = "What is asked for"
DOING = "What is done"

Json = Annotated[bool, typer.Option("--json", metavar="", help="One JSON document on stdout, and nothing else there.")]
Models = Annotated[list[str], typer.Argument(metavar="MODEL", help="Paths of .pt2 or .onnx files.")]
Targets = Annotated[
    list[str],
    typer.Option(
        "-t",
        "--target",
        metavar="TARGET",
        default_factory=list,
        show_default=False,
        help="Where it is to run: sm_89, rtx4090, local, sm_86+sm_89; @TOOLCHAIN and /windows may follow. Repeats.",
        rich_help_panel=ASKING,
    ),
]
Settings = Annotated[
    list[str],
    typer.Option(
        "-s",
        "--set",
        default_factory=list,
        show_default=False,
        metavar="NAME=VALUE",
        help="A compilation setting by Torch-TensorRT's name ('farm settings' lists them). Repeats.",
        rich_help_panel=ASKING,
    ),
]
MinShapes = Annotated[
    list[str],
    typer.Option(
        "--min-shapes",
        default_factory=list,
        show_default=False,
        metavar="SHAPES",
        help="Smallest shapes, as in x:1x3x224x224,y:1x77. Each repeat is one more optimisation profile.",
        rich_help_panel=ASKING,
    ),
]
OptShapes = Annotated[
    list[str],
    typer.Option(
        "--opt-shapes",
        default_factory=list,
        show_default=False,
        metavar="SHAPES",
        help="Shapes to optimise for.",
        rich_help_panel=ASKING,
    ),
]
MaxShapes = Annotated[
    list[str],
    typer.Option(
        "--max-shapes",
        default_factory=list,
        show_default=False,
        metavar="SHAPES",
        help="Largest shapes.",
        rich_help_panel=ASKING,
    ),
]
CustomOps = Annotated[
    list[str],
    typer.Option(
        "--custom-op",
        default_factory=list,
        show_default=False,
        metavar="OP=DIGEST",
        help="The digest that stands for a custom operator's implementation. Repeats.",
        rich_help_panel=ASKING,
    ),
]
Priority = Annotated[
    int, typer.Option("--priority", metavar="N", show_default=False, help="Higher is sooner.", rich_help_panel=DOING)
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", metavar="", help="Build again, even what is there or known to fail.", rich_help_panel=DOING
    ),
]
NoWait = Annotated[
    bool,
    typer.Option(
        "--no-wait", metavar="", help="Queue the builds and return; a worker makes them.", rich_help_panel=DOING
    ),
]


def asks(
    models: Sequence[str],
    targets: Sequence[str] = (),
    settings: Sequence[str] = (),
    profiles: Sequence[GivenProfile] = (),
    custom_ops: Sequence[str] = (),
    priority: int = 0,
) -> list[Ask]:
    """Every model × target, models first. Without targets the configured ones are meant."""
    from farm.asks import Ask
    from farm.compilation import CompilationSettings

    read: CompilationSettings = CompilationSettings.from_pairs(settings)
    declared = pairs(custom_ops, "--custom-op ns::name.overload=sha256:…")
    return [
        Ask(model, target, read, tuple(profiles), declared, priority)
        for model in distinct(models)
        for target in distinct(targets) or [""]
    ]


def profiles_of(low: Sequence[str], best: Sequence[str], high: Sequence[str]) -> list[GivenProfile]:
    """The n-th of each kind of shapes make the n-th optimisation profile."""
    if not (low or best or high):
        return []
    from farm.asks import GivenProfile
    from farm.profiles import parse_shapes

    shapes = [[parse_shapes(text) for text in texts] for texts in (low, best, high)]
    if len({len(texts) for texts in shapes if texts}) > 1:
        raise BadInput(
            "the numbers of --min-shapes, --opt-shapes and --max-shapes differ",
            "give each of them once for every optimisation profile, or leave one out altogether",
        )
    return [GivenProfile(a or {}, b or {}, c or {}) for a, b, c in zip_longest(*shapes)]


def pairs(texts: Sequence[str], form: str) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping."""
    found = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not equals or not name or not value:
            raise BadInput(f"'{text}' declares nothing", f"write {form}")
        found[name.strip()] = value.strip()
    return found


def distinct(items: Sequence[Any]) -> list[Any]:
    """The items in their order, each once."""
    return list(dict.fromkeys(items))


def program_path(text: str) -> Path | None:
    """``text`` as the path of a model, if that is what it is: it exists, or it is written like one."""
    with contextlib.suppress(RuntimeError):  # a user that does not exist: no path, but perhaps a key
        path = Path(text).expanduser()
        return path if path.suffix.lower() in (".pt2", ".onnx") or _is_file(path) else None
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
