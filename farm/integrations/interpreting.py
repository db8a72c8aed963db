"""Engines with their weights baked in, given to Torch-TensorRT where it would build them.

Torch-TensorRT asks no engine cache for those. What makes one engine of one subgraph is one function of its own,
``interpret_module_to_result``, the same in all releases from 2.9 on: within ``interpreted`` it looks here first. An
engine that is found is of the very subgraph, weights and all (``identify``, ``baked``), and is used as it is.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from farm.container import Header
from farm.errors import FarmError
from farm.integrations.entries import ALIASED, ALLOCATOR, INPUTS, MULTIDEVICE, NAME_MAP, OUTPUTS, PLAN, container_of
from farm.integrations.reach import log, told
from farm.integrations.subgraphs import Asked, Place, identify

FIELDS = (PLAN, INPUTS, OUTPUTS, "input_specs", "compilation_settings", ALLOCATOR, MULTIDEVICE, ALIASED)
Found = tuple[Header, memoryview]
_patching = threading.Lock()


@contextlib.contextmanager
def interpreted(
    place: Callable[[Any], Place],
    find: Callable[[Asked], Found | None],
    keep: Callable[[Asked, bytes], None],
) -> Iterator[None]:
    """While this lasts, subgraphs' engines come from ``find`` where it has them; what had to be built goes to ``keep``
    as a container. One at a time in a process: whoever comes second waits. Neither function may raise."""
    from torch_tensorrt.dynamo.conversion import _conversion

    with _patching:
        real = _conversion.interpret_module_to_result

        def interpret(module: Any, inputs: Sequence[Any], settings: Any, *args: Any, **kwargs: Any) -> Any:
            asked = _asked(module, inputs, settings, place)
            found = find(asked) if asked is not None else None
            if asked is not None and found is not None:
                return _result(_conversion, module, *found)
            result = real(module, inputs, settings, *args, **kwargs)
            if asked is not None:
                keep(asked, container_of(asked, _entry(result), FIELDS))
            return result

        _conversion.interpret_module_to_result = interpret
        try:
            yield
        finally:
            _conversion.interpret_module_to_result = real


def _asked(module: Any, inputs: Sequence[Any], settings: Any, place: Callable[[Any], Place]) -> Asked | None:
    try:
        return identify(module, inputs, settings, place(settings), baked=True)
    except FarmError as error:
        log.warning("an engine is not shared: %s", error.message)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not end a compile
        log.exception("an engine is not shared, by a defect of farm's: %s", told(error))
    return None


def _entry(result: Any) -> tuple[Any, ...]:
    """A result as an entry of ``FIELDS``; what its release does not have is as if it were not so."""
    return (
        result.serialized_engine,
        result.input_names,
        result.output_names,
        None,
        None,
        getattr(result, ALLOCATOR, False),
        getattr(result, MULTIDEVICE, False),
        getattr(result, ALIASED, None) or {},
    )


def _result(conversion: Any, module: Any, header: Header, plan: memoryview) -> Any:
    """The result that building would have given. ``module`` tells what the release wants to know of shapes."""
    made = getattr(conversion, "SerializedInterpreterResult", None) or conversion.TRTInterpreterResult
    entry = header.detail.get("entry", {})
    values = {
        PLAN: bytes(plan),
        INPUTS: [one["name"] for one in header.bindings["inputs"]],
        OUTPUTS: [one["name"] for one in header.bindings["outputs"]],
        ALLOCATOR: bool(entry.get(ALLOCATOR, False)),
        MULTIDEVICE: bool(entry.get(MULTIDEVICE, False)),
        ALIASED: {name: tuple(pair) for name, pair in entry.get(ALIASED, {}).items()},
        NAME_MAP: None,
    }
    if "symbolic_shape_expressions" in made._fields:
        values["symbolic_shape_expressions"] = conversion.extract_symbolic_shape_expressions(module)
    return made(**{name: values[name] for name in made._fields})
