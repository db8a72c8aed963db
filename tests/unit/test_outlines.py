"""Outlines: which input, which tensor, which node. Of real programs that differ in one thing each."""

from __future__ import annotations

import io
import json
import zlib

import pytest

from farm import outlines
from farm.blobs.memory import MemoryStore
from farm.outlines import SCHEMA, SHOWN, load_outline, program_reasons, save_outline
from tests.explain_support import Pairs, pairs

__all__ = ["pairs"]


def texts(pairs: Pairs, other: str) -> list[str]:
    return [reason.text for reason in pairs.in_detail(other)]


def test_equal_programs_differ_in_nothing(pairs: Pairs) -> None:
    assert texts(pairs, "Base") == [] == texts(pairs, "Renamed")


def test_the_first_differing_node_is_named_with_its_line(pairs: Pairs) -> None:
    assert texts(pairs, "OtherNode") == [
        f"first node only here: aten.relu.default(self=linear) at {pairs.line('Base')}",
        "  and, from there on, 4 more nodes only here",
        f"first node only there: aten.sigmoid.default(self=linear) at {pairs.line('OtherNode')}",
        "  and, from there on, 4 more nodes only there",
    ]


def test_an_argument_is_shown(pairs: Pairs) -> None:
    there = texts(pairs, "OtherArgument")[2]
    assert (
        there == f"first node only there: aten.clamp.default(self=linear, min=0.125) at {pairs.line('OtherArgument')}"
    )


def test_a_node_more_is_the_only_thing_said(pairs: Pairs) -> None:
    (said,) = texts(pairs, "MoreNodes")
    assert said == f"first node only there: aten.exp.default(self=sum_1) at {pairs.line('MoreNodes')}"
    (back,) = program_reasons(pairs.outline("MoreNodes"), pairs.outline("Base"))
    assert back.text == said.replace("only there", "only here")


def test_the_weight_that_differs_is_named(pairs: Pairs) -> None:
    assert texts(pairs, "OneWeight") == ["weight layers.1.bias float32[8]: other values"]


def test_the_constant_that_differs_is_called_one(pairs: Pairs) -> None:
    (said,) = texts(pairs, "OtherConstant")
    assert said.startswith("constant ") and said.endswith("float32[1]: other values")


def test_many_weights_are_counted(pairs: Pairs) -> None:
    found = [reason.text for reason in program_reasons(pairs.outline("Deep"), pairs.outline("DeepTuned"))]
    assert found[0] == "weight layers.0.weight float32[8, 8]: other values"
    assert found[SHOWN:] == ["8 tensors differ in all"]
    assert "5 tensors here and 9 there" in texts(pairs, "Deep")


def test_an_inputs_shape_range_and_number_are_named(pairs: Pairs) -> None:
    assert texts(pairs, "OtherRange") == ["dimension s0 ranges over 1…32 here and 1…64 there"]
    assert texts(pairs, "Static")[0] == "input 0 (x) is float32[s0, 8] here and float32[3, 8] there"
    assert "1 inputs here and 2 there" in texts(pairs, "MoreInputs")
    wide = program_reasons(pairs.outline("Narrow"), pairs.outline("Wide"))
    assert wide[0].text.endswith("float32[s0, 8] here and float32[s0, 16] there")


def test_outputs_are_spoken_of_where_nodes_say_nothing(pairs: Pairs) -> None:
    (swapped,) = texts(pairs, "SwappedOutputs")
    assert swapped == "output 0 is mul, float32[s0, 8], here and sum_1, float32[s0], there"
    (structure,) = texts(pairs, "OtherStructure")
    assert "the nodes are the same" in structure and "structure" in structure


@pytest.mark.parametrize(
    "other", ["OtherNode", "OtherRange", "OneOutput", "MoreInputs", "Static", "OneWeight", "OtherStructure", "Doubles"]
)
def test_details_follow_the_parts(pairs: Pairs, other: str) -> None:
    """An outline explains what the key's parts say differs, and nothing besides."""
    coarse = {reason.part for reason in pairs.compared(other).reasons} & {"graph", "weights"}
    assert {reason.part for reason in pairs.in_detail(other)} == coarse


def test_reasons_hold_the_values_on_either_side(pairs: Pairs) -> None:
    here, _, there, _ = pairs.in_detail("OtherNode")
    assert here.theirs is None and here.mine[1] == "aten.relu.default"
    assert there.mine is None and there.theirs[1] == "aten.sigmoid.default"
    for reason in pairs.in_detail("Deep"):
        assert json.loads(json.dumps(reason.as_json()))["text"] == reason.text


# -- stored ----------------------------------------------------------------------------------------------------


def test_an_outline_comes_back_from_the_store(pairs: Pairs) -> None:
    store, outline = MemoryStore(), pairs.outline("Base")
    digest = save_outline(outline, store)
    found = load_outline(digest, store)
    assert found == json.loads(json.dumps(outline))
    assert found is not None and program_reasons(outline, found) == []
    assert save_outline(outline, store) == digest, "one program, one blob"
    assert program_reasons(found, pairs.outline("OtherNode")) == pairs.in_detail("OtherNode")


def test_no_outline_is_no_fault() -> None:
    store = MemoryStore()
    assert load_outline(None, store) is None
    assert load_outline("sha256:" + "0" * 64, store) is None


def test_an_outline_of_another_schema_is_left_alone(pairs: Pairs) -> None:
    store = MemoryStore()
    digest = save_outline(pairs.outline("Base") | {"schema": SCHEMA + 1}, store)
    assert load_outline(digest, store) is None


def test_an_outline_is_small(pairs: Pairs) -> None:
    store = MemoryStore()
    size = store.size(save_outline(pairs.outline("Deep"), store))
    assert size is not None and size < 4096


@pytest.mark.parametrize("data", [b"", b"no outline", zlib.compress(b"[1]"), zlib.compress(b"{"), b"x\x9c\x03"])
def test_a_blob_that_is_no_outline_is_none(data: bytes) -> None:
    """A stored digest may name anything: an explanation gets shorter by it, and does not fail."""
    store = MemoryStore()
    assert load_outline(store.put(io.BytesIO(data)).digest, store) is None


def test_an_outline_that_unfolds_without_end_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "MAX_BYTES", 1000)
    store = MemoryStore()
    bomb = zlib.compress(json.dumps({"schema": SCHEMA, "nodes": ["x" * 10_000]}).encode())
    assert load_outline(store.put(io.BytesIO(bomb)).digest, store) is None
