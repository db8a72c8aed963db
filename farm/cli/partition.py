"""A Torch-TensorRT build's report, in a few lines: which operators run where, and what ``min_block_size`` would do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FEW = 5


def partition_text(report: Mapping[str, Any]) -> str:
    """The lines; none for a build that has no such report. Rows can be edited: what makes no sense is left out."""
    try:
        return "\n".join(_lines(report)) if report else ""
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""


def _lines(report: Mapping[str, Any]) -> list[str]:
    engines = [int(one["operators"]) for one in report["engines"]]
    total, converted = int(report["operators"]), int(report["converted"])
    sizes = ", ".join(map(str, engines[:FEW])) + (" …" if len(engines) > FEW else "")
    what = f"{len(engines)} engine{'' if len(engines) == 1 else 's'}"
    lines = [f"{converted} of {total} operators in {what}" + (f" of {sizes}" if len(engines) > 1 else "")]
    left = sorted(report["in_torch"].items(), key=lambda pair: (-int(pair[1]), pair[0]))
    if left:
        shown = ", ".join(f"{name.removeprefix('torch.ops.')} ×{count}" for name, count in left[:FEW])
        lines.append(f"in PyTorch: {shown}" + (" …" if len(left) > FEW else ""))
    if report["unsupported"]:
        names = sorted(report["unsupported"])
        lines.append("no converter: " + ", ".join(names[:FEW]) + (" …" if len(names) > FEW else ""))
    return lines + _advice(report["min_block_size"], len(engines))


def _advice(choices: Mapping[str, Any], now: int) -> list[str]:
    """What a larger ``min_block_size`` would leave of the engines, where that makes a difference."""
    fewer = {int(least): int(count) for least, count in choices.items() if int(count) < now}
    if not fewer:
        return []
    told = ", ".join(f"{least} gives {count}" for least, count in sorted(fewer.items())[:FEW])
    return [f"min_block_size: {told}"]
