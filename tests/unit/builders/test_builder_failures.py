"""Why a child ended without its product. Each outcome here is one that a real child has had."""

from __future__ import annotations

from typing import Any

import pytest

from farm.builders import Limits
from farm.builders.failures import explain
from farm.builders.outcome import Ending, Outcome, signal_name
from farm.builds import FailureKind

PERMANENT, NODE, TRANSIENT = FailureKind.PERMANENT, FailureKind.NODE, FailureKind.TRANSIENT
LIMITS = Limits(seconds=60, memory=2**30, disk=2**20)


def outcome(
    *messages: dict[str, Any], ending: Ending = Ending.EXIT, status: int = 65, log: str = "", peak: int = 2**30
) -> Outcome:
    return Outcome(ending, status, messages, log, peak, 61.0)


def failed(what: str, **more: Any) -> Outcome:
    return outcome({"kind": "failure", "what": what, **more})


def crashed(**what: Any) -> Outcome:
    return outcome({"kind": "crash", "text": "", **what}, status=70)


def test_a_success_is_no_failure() -> None:
    assert explain(outcome({"kind": "done"}, status=0), LIMITS, {}) is None


def test_an_exit_without_a_word_is_a_failure_whatever_its_status() -> None:
    assert explain(outcome(status=0), LIMITS, {}) is not None


@pytest.mark.parametrize(
    ("ended", "kind", "said"),
    [
        (outcome(ending=Ending.TIME, status=9), NODE, "longer than its limit of 60 s"),
        (outcome(ending=Ending.MEMORY, status=9), NODE, "its limit is 1.0 GiB"),
        (outcome(ending=Ending.STALL, status=9), TRANSIENT, "hung"),
        (outcome(ending=Ending.SIGNAL, status=9), TRANSIENT, "SIGKILL"),
        (outcome(ending=Ending.SIGNAL, status=11), TRANSIENT, "SIGSEGV"),
        (outcome({"kind": "error", "text": "last\nwords"}, ending=Ending.SIGNAL, status=6), TRANSIENT, "after: last"),
        (outcome(ending=Ending.SIGNAL, status=6, log="…std::bad_alloc\n"), NODE, "ran out of memory at 1.0 GiB"),
        (crashed(type="OSError", errno=28), TRANSIENT, "the disk is full"),
        (crashed(type="OSError", errno=122), TRANSIENT, "the disk is full"),
        (crashed(type="OSError", text="9216 requested and 416 written"), TRANSIENT, "the disk is full"),
        (crashed(type="OSError", errno=27), NODE, "larger than the limit of 1 MiB"),
        (crashed(type="MemoryError"), NODE, "ran out of memory"),
        (crashed(type="KeyError", text="'x'"), TRANSIENT, "KeyError: 'x'"),
        (failed("import", text="No module named 'tensorrt'"), NODE, "No module named 'tensorrt'"),
        (failed("version", text="10.1"), NODE, "10.1"),
        (failed("exporter", text="No module named 'onnx'"), NODE, "No module named 'onnx'"),
        (failed("empty"), PERMANENT, "no ONNX model"),
        (failed("load", text="bad zip {braces}"), PERMANENT, "bad zip {braces}"),
        (failed("mutation", names=["cache.k", "cache.v"]), PERMANENT, "changes cache.k, cache.v"),
        (failed("capability", capabilities=["SM90"], offered=["SM86"]), PERMANENT, "for sm_90; it builds for sm_86"),
        (failed("setting", setting="device", asked=0, told=-1), PERMANENT, "device: asked for 0, it stayed at -1"),
        (failed("build", text="no engine"), PERMANENT, "no engine"),
        (failed("something new", text="text"), PERMANENT, "text"),
        (failed("data", text="../etc/passwd"), PERMANENT, "../etc/passwd"),
    ],
)
def test_each_ending_has_its_kind_and_its_reason(ended: Outcome, kind: FailureKind, said: str) -> None:
    failure = explain(ended, LIMITS, {})
    assert failure is not None
    assert failure.kind is kind
    assert said in failure.message
    assert failure.hint
    assert "\n" not in failure.message + failure.hint


def test_a_conversion_names_the_operator_and_the_line_of_the_model() -> None:
    told = failed("convert", operator="aten.svd.default", where="model.py:12 (forward)", text="No ONNX function")
    failure = explain(told, LIMITS, {}, "export")
    assert failure is not None and failure.kind is PERMANENT
    assert failure.message.startswith("aten.svd.default at model.py:12 (forward) cannot be converted to ONNX")


def test_a_conversion_that_ran_out_of_memory_is_not_held_against_the_model() -> None:
    told = outcome(
        {"kind": "failure", "what": "convert", "text": "x"}, log="DefaultCPUAllocator: can't allocate memory"
    )
    failure = explain(told, LIMITS, {}, "export")
    assert failure is not None and failure.kind is NODE


def test_a_custom_operator_is_named() -> None:
    failure = explain(failed("operator", operator="mylib.foo.default", where="m.py:3 (forward)"), LIMITS, {})
    assert failure is not None and failure.kind is PERMANENT
    assert failure.message.startswith("mylib.foo.default at m.py:3 (forward) is a custom operator")


def test_signals_have_names() -> None:
    assert (signal_name(11), signal_name(200)) == ("SIGSEGV", "signal 200")
