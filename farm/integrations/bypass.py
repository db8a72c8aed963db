"""Why a cache that was given to Torch-TensorRT is never asked.

``immutable_weights=True``, its default, makes Torch-TensorRT pass every engine cache by, with a line in its own log
that does not say what to do; without ``cache_built_engines`` and ``reuse_cached_engines`` it does so without a word.
It is said here, once, as soon as it shows.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any

from farm.integrations.reach import log

LOGGERS = ("torch_tensorrt.dynamo.conversion._conversion", "torch_tensorrt.dynamo.conversion._TRTInterpreter")
BYPASSED = (
    "Torch-TensorRT does not ask the farm for its engines: immutable_weights=True makes it pass every engine cache by. "
    "Compile with immutable_weights=False; or by farm.integrations.torch_tensorrt.compile, which keeps engines whose "
    "weights are baked in as well"
)
NEVER_ASKED = (
    "Torch-TensorRT built engines and never asked the farm for one: compile with custom_engine_cache=…, "
    "immutable_weights=False, cache_built_engines=True and reuse_cached_engines=True"
)


class _Bypass(logging.Handler):
    """Hears what Torch-TensorRT says of caches that it passes by."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self.said and "weights are immutable" in record.getMessage():
            self.said = True
            log.warning(BYPASSED)


_bypass = _Bypass()


class Watch:
    """Over one cache: ``asked`` is called when it is; when it is gone, and never was while engines were built, that is
    said."""

    def __init__(self, cache: Any) -> None:
        for name in LOGGERS:
            logger = logging.getLogger(name)
            if _bypass not in logger.handlers:
                logger.addHandler(_bypass)
        self._state = {"asked": False, "built": False}
        _on_network(self._state)
        weakref.finalize(cache, _say_never_asked, self._state)

    def asked(self) -> None:
        self._state["asked"] = True


def _on_network(state: dict[str, bool]) -> None:
    """Note when Torch-TensorRT makes a network, where this release tells."""
    from torch_tensorrt.dynamo.conversion import _TRTInterpreter

    observer = getattr(_TRTInterpreter, "TRT_INTERPRETER_CALL_PRE_OBSERVER", None)
    if observer is not None:
        observer.add(lambda *_: state.__setitem__("built", True))


def _say_never_asked(state: dict[str, bool]) -> None:
    if state["built"] and not state["asked"] and not _bypass.said:
        log.warning(NEVER_ASKED)
