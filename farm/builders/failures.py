"""Why a child ended without its product: kind, one line for people, one line of what to do. Pure.

Kinds (``builds.FailureKind``) and what decides them:

- permanent: TensorRT or the exporter says that this program with these settings cannot be built.
- node: this machine cannot, another may: no driver, no such toolchain, not enough memory or time *here*. A
  build that ran into its time limit is of this kind: the same limit on the same machine would burn as long
  again, but a faster machine, or a larger limit, may build it, so it must not be held against the program.
- transient: may pass by itself: a full disk, a kill from outside, a hang, and a crash. A crash of native code
  is often a matter of luck; one that is not comes again, and the limit on attempts ends that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from farm.builders import Limits
from farm.builders.outcome import Ending, Outcome, signal_name
from farm.builders.trt_errors import NO_MEMORY, classify_errors, classify_parse, gib, telling
from farm.builds import Failure, FailureKind

PERMANENT, NODE, TRANSIENT = FailureKind.PERMANENT, FailureKind.NODE, FailureKind.TRANSIENT
ENOMEM, EFBIG, ENOSPC, EDQUOT = 12, 27, 28, 122
"""Error numbers, as Linux has them."""
SIGKILL = 9
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""How NumPy says that the disk is full."""
LOG_HINT = "'farm logs' shows what it said until then"
ROOM = "look at the machine's room on disk, and its limits on processes, memory and open files"


def not_started(error: Exception, hint: str = ROOM) -> Failure:
    """Why there is no outcome at all: ``sandbox.NotStarted``."""
    return Failure(TRANSIENT, f"no process could be started: {error}", hint)


def explain(outcome: Outcome, limits: Limits, nodes: Mapping[str, str], what: str = "build") -> Failure | None:
    """Why ``outcome`` is no success; ``None`` if it is one.

    ``nodes`` maps the graph's nodes to where they come from; ``what`` is ``build`` or ``export``.
    """
    if outcome.ending in (Ending.TIME, Ending.MEMORY, Ending.STALL):
        return _stopped(outcome, limits, what)
    if outcome.ending is Ending.SIGNAL:
        return _died(outcome, limits, what)
    if outcome.status == 0 and outcome.last("done") is not None:
        return None
    failure = outcome.last("failure")
    if failure is not None:
        return _refused(failure, outcome, limits, nodes)
    return _crashed(outcome, limits, what)


def _stopped(outcome: Outcome, limits: Limits, what: str) -> Failure:
    if outcome.ending is Ending.TIME:
        return Failure(
            NODE,
            f"the {what} was stopped: it ran longer than its limit of {limits.seconds:g} s",
            "give it more time, or a faster machine",
        )
    if outcome.ending is Ending.MEMORY:
        return Failure(
            NODE,
            f"the {what} was stopped: it used {gib(outcome.peak_memory)} of memory, its limit is {gib(limits.memory)}",
            "give it more memory, or a machine that has more",
        )
    return Failure(
        TRANSIENT,
        f"the {what} was stopped after {outcome.seconds:.0f} s: it hung, giving no sign of life any more",
        f"it is tried again; {LOG_HINT}",
    )


def _died(outcome: Outcome, limits: Limits, what: str) -> Failure:
    """A signal ended the child: its own crash, or a kill from outside."""
    memory = _memory_failure(outcome, limits, what)
    if memory is not None:
        return memory
    name = signal_name(outcome.status)
    if outcome.status == SIGKILL:
        return Failure(
            TRANSIENT,
            f"the {what}'s process was killed ({name}) by someone, or by the kernel for want of memory",
            "it is tried again; look at the machine's kernel log if it happens often",
        )
    return Failure(
        TRANSIENT,
        f"the {what}'s process crashed ({name}) in native code{_last_words(outcome)}",
        f"it is tried again, as crashes may pass; {LOG_HINT}",
    )


def _memory_failure(outcome: Outcome, limits: Limits, what: str) -> Failure | None:
    """``NODE`` where the log says that an allocation failed: whichever way the process then ended."""
    if not any(NO_MEMORY.search(text) for text in [*outcome.errors(), outcome.log[-4000:]]):
        return None
    limit = f" (its limit is {gib(limits.memory)})" if limits.memory else ""
    return Failure(
        NODE,
        f"the {what} ran out of memory at {gib(outcome.peak_memory)}{limit}",
        "give it more memory, or a machine that has more",
    )


def _last_words(outcome: Outcome) -> str:
    """The last error before a crash, which often tells what it was about."""
    lines = [line for text in telling(outcome.errors())[-1:] for line in text.splitlines() if line]
    return f" after: {lines[0][:200]}" if lines else ""


def _crashed(outcome: Outcome, limits: Limits, what: str) -> Failure:
    """The child ended by itself with no word, or with one that nobody foresaw."""
    crash = outcome.last("crash") or {}
    number = crash.get("errno")
    if number in (ENOSPC, EDQUOT) or _SHORT_WRITE.search(str(crash.get("text", ""))):
        return Failure(TRANSIENT, f"the disk is full: the {what} could not write its result", "make room on the disk")
    if number == EFBIG:
        return Failure(
            NODE, f"the {what}'s result is larger than the limit of {gib(limits.disk)} a file", "raise the limit"
        )
    memory = _memory_failure(outcome, limits, what)
    if memory is not None or number == ENOMEM or crash.get("type") == "MemoryError":
        return memory or Failure(NODE, f"the {what} ran out of memory", "give it more memory")
    lines = [line for line in outcome.log.splitlines() if line.strip()]
    told = f"{crash['type']}: {crash.get('text', '')}" if "type" in crash else "".join(lines[-1:])
    told = f": {' '.join(told.split())[:300]}" if told else ""
    return Failure(
        TRANSIENT, f"the {what}'s process ended with status {outcome.status}{told}", f"it is tried again; {LOG_HINT}"
    )


def _refused(failure: Mapping[str, Any], outcome: Outcome, limits: Limits, nodes: Mapping[str, str]) -> Failure:
    """The child said why it cannot go on."""
    what, text = str(failure.get("what", "")), str(failure.get("text", ""))
    errors = outcome.errors()
    if what == "parse":
        told = failure.get("errors")
        return classify_parse(told if isinstance(told, list) else [], errors, nodes)
    if what == "build":
        memory = _memory_failure(outcome, limits, "build")
        return classify_errors(errors, nodes) or memory or Failure(PERMANENT, text, LOG_HINT)
    if what == "setting":
        return _setting(failure, errors)
    if what == "convert":
        return _memory_failure(outcome, limits, "export") or _unconverted(failure)
    if what == "operator":
        return Failure(
            PERMANENT,
            f"{_subject(failure)} is a custom operator, which neither torch nor TensorRT has",
            "build with torch_tensorrt on a worker that registers it, or replace it in the model",
        )
    if what == "measure":
        return _unmeasured(failure, outcome, limits)
    if what == "builder":
        return Failure(
            NODE,
            f"TensorRT does not start on this machine: {(errors or [text])[0]}",
            "see 'farm doctor'; plain TensorRT needs a GPU and its driver",
        )
    kind, message, hint = _PLAIN.get(what, (PERMANENT, "{text}", LOG_HINT))
    parts = {"text": text, "errors": "; ".join(errors[:1])}
    for name in ("capabilities", "offered", "names"):
        parts[name] = ", ".join(map(str, failure.get(name) or [])).replace("SM", "sm_")
    return Failure(kind, message.format_map(parts), hint)


_PLAIN: Mapping[str, tuple[FailureKind, str, str]] = {
    "load": (
        PERMANENT,
        "the model cannot be read: {text}",
        "export it again with the torch of this release: 'farm doctor' says which",
    ),
    "compile": (
        PERMANENT,
        "Torch-TensorRT cannot compile it: {text}",
        LOG_HINT,
    ),
    "refit": (
        PERMANENT,
        "TensorRT did not take the weights: {text}",
        "give the very graph that the engine was built of, with other weights",
    ),
    "nothing": (
        PERMANENT,
        "no part of the model went into TensorRT: {text}",
        "lower min_block_size (1 takes every block), or leave the model to PyTorch",
    ),
    "exporter": (NODE, "this machine cannot convert models to ONNX: {text}", "install farm's 'build' extra on it"),
    "mutation": (
        PERMANENT,
        "the model changes {names} while it runs, and an engine keeps no state",
        "return the new value as an output instead",
    ),
    "object": (PERMANENT, "the model holds {text}, an object that no engine can", "replace it by tensors"),
    "data": (
        PERMANENT,
        "the model's external data {text!r} is no plain file beside it",
        "put the data into the model's own folder",
    ),
    "dla": (NODE, "this machine has no such DLA core: {text}", "build on a node that has it, or choose another core"),
    "import": (NODE, "TensorRT cannot be loaded on this machine: {text}", "see 'farm doctor'"),
    "version": (NODE, "this machine has TensorRT {text} by now", "restart its worker, or install the right version"),
    "empty": (PERMANENT, "the file is no ONNX model: TensorRT finds no outputs in it", "export the model again"),
    "bindings": (
        PERMANENT,
        "TensorRT dropped or renamed inputs or outputs of the model: {text}",
        "let the model return every tensor once, and no input as it is",
    ),
    "capability": (
        PERMANENT,
        "this TensorRT does not build for {capabilities}; it builds for {offered}",
        "choose another target, or another toolchain: 'farm doctor' lists both",
    ),
    "profile": (PERMANENT, "the shapes cannot be used: {text}", "give min, opt and max shapes for every dynamic input"),
    "device": (NODE, "this machine cannot measure on a GPU: {text}", "measure on a node that has the GPU"),
    "deserialise": (
        NODE,
        "the engine cannot be loaded here: {text}",
        "measure it on the GPU, and with the TensorRT, that it was built for",
    ),
    "shapes": (PERMANENT, "the engine cannot be measured: {text}", "give shapes that its profiles allow"),
    "outputs": (PERMANENT, "the outputs cannot be compared: {text}", "please report it"),
    "unknown": (PERMANENT, "this version of TensorRT has no such setting: {text}", "leave it at its default"),
}


def _unconverted(failure: Mapping[str, Any]) -> Failure:
    """The exporter gave up: at which operator and line of the model, where that is known."""
    return Failure(
        PERMANENT,
        f"{_subject(failure)} cannot be converted to ONNX: {failure.get('text', '')}",
        "replace it in the model, or build with torch_tensorrt, which leaves it to PyTorch",
    )


def _unmeasured(failure: Mapping[str, Any], outcome: Outcome, limits: Limits) -> Failure:
    """What ran raised something: in which phase, and what."""
    doing = {"load": "be loaded", "capture": "be captured as a CUDA graph", "compare": "be compared with eager PyTorch"}
    phase = doing.get(str(failure.get("phase")), "run")
    told = f"{failure.get('type', 'error')}: {failure.get('text', '')}"
    return _memory_failure(outcome, limits, "measurement") or Failure(
        PERMANENT, f"what was to be measured cannot {phase}: {told}", "see the child's log for the whole of it"
    )


def _subject(failure: Mapping[str, Any]) -> str:
    """``aten.fft_rfft.default at model.py:12 (forward)``, as far as it is known."""
    return " at ".join(str(failure[name]) for name in ("operator", "where") if failure.get(name)) or "the model"


def _setting(failure: Mapping[str, Any], errors: list[str]) -> Failure:
    """A setting did not hold, whatever TensorRT's log says about it."""
    name = failure.get("setting")
    if name == "enable_cross_compile_for_windows":
        return Failure(
            NODE,
            f"TensorRT did not take {name}: asked for {failure.get('asked')}, it stayed at {failure.get('told')}",
            "build on an x86-64 Linux node whose TensorRT has the builder's resources for Windows",
        )
    if "asked" in failure:
        told = f"asked for {failure['asked']}, it stayed at {failure.get('told')}"
    else:
        told = str(failure.get("text", ""))
    return Failure(
        PERMANENT,
        f"TensorRT did not take {name}: {told}",
        "leave the setting at its default, or build with a toolchain that has it: see 'farm settings'",
    )
