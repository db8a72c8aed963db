"""farm: a fleet-wide TensorRT engine cache and build farm.

Names resolve on first use, so that ``import farm`` costs nothing and never imports torch or TensorRT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from farm.version import __version__

if TYPE_CHECKING:
    from farm.compilation import CompilationSettings
    from farm.service import Farm
    from farm.targets import Target

_HOMES = {"CompilationSettings": "farm.compilation", "Farm": "farm.service", "Target": "farm.targets"}

__all__ = ["CompilationSettings", "Farm", "Target", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'farm' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
