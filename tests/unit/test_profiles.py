"""Optimisation profiles: trtexec's grammar, the derived rule, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.errors import BadInput
from farm.graph import Symbol
from farm.profiles import Profile, parse_shapes, resolve
from farm.programs import TensorSpec

SYMBOLS = {"s0": Symbol(2, 16, "batch"), "s1": Symbol(1, None, "length")}


def spec(name: str, *shape: int | str, position: int = 0) -> TensorSpec:
    return TensorSpec(name, "float32", shape, position)


X, Y, FIXED = spec("x", "s0", 4), spec("y", "2*s0 + 1", 4), spec("mask", 3, 4)
LONG = spec("tokens", "s0", "s1")


def only(inputs: list[TensorSpec], **given: Mapping[str, tuple[int, ...]]) -> Profile:
    (profile,) = resolve(inputs, SYMBOLS, [given] if given else [])
    return profile


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x:1x3x224x224", {"x": (1, 3, 224, 224)}),
        ("x:1x3,y:1x77", {"x": (1, 3), "y": (1, 77)}),
        (" x:1 , y:2 ", {"x": (1,), "y": (2,)}),
        ("a:b:0:1x2", {"a:b:0": (1, 2)}),
        ("'a,b':1x2,c:3", {"a,b": (1, 2), "c": (3,)}),
        ('"a:b,c":1', {"a:b,c": (1,)}),
        ("x:", {"x": ()}),
        ("x:scalar", {"x": ()}),
        ("it's:4", {"it's": (4,)}),
    ],
)
def test_shapes_are_read_as_trtexec_reads_them(text: str, expected: dict[str, tuple[int, ...]]) -> None:
    assert parse_shapes(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "x", ":1", "x:1x", "x:1xx2", "x:-1", "x:1.5", "x:axb", "x:1,x:2", "'x:1", "x:1,", "x:" + "9" * 30, "x:٣"],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="shapes"):
        parse_shapes(text)


NAMES = st.text("abcdefg.:/_0123456789", min_size=1, max_size=8)
SIZES = st.lists(st.integers(0, 9999), min_size=1, max_size=5).map(tuple)


@given(st.dictionaries(NAMES, SIZES, min_size=1, max_size=4))
def test_shapes_written_and_read_are_the_same(shapes: dict[str, tuple[int, ...]]) -> None:
    text = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
    assert parse_shapes(text) == shapes


def test_a_static_program_has_no_profile() -> None:
    assert resolve([FIXED], {}, []) == ()
    assert resolve([FIXED], {}, [{"max": {"mask": (3, 4)}}]) == ()


def test_the_derived_profile_follows_the_ranges() -> None:
    """Lower bound, middle rounded down, upper bound; derived dims by their expression."""
    profile = only([X, Y, FIXED])
    assert profile.min == {"x": (2, 4), "y": (5, 4)}
    assert profile.opt == {"x": (9, 4), "y": (19, 4)}
    assert profile.max == {"x": (16, 4), "y": (33, 4)}


def test_an_unbounded_dim_needs_a_maximum() -> None:
    with pytest.raises(BadInput) as caught:
        only([LONG])
    assert "tokens: dim 1" in caught.value.message
    assert "--max-shapes tokens:" in caught.value.hint


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"opt": {"x": (8, 4)}}, ((8, 4), (8, 4), (8, 4))),
        ({"max": {"x": (8, 4)}}, ((2, 4), (8, 4), (8, 4))),
        ({"min": {"x": (8, 4)}}, ((8, 4), (16, 4), (16, 4))),
        ({"min": {"x": (3, 4)}, "max": {"x": (8, 4)}}, ((3, 4), (8, 4), (8, 4))),
        ({"min": {"x": (3, 4)}, "opt": {"x": (8, 4)}}, ((3, 4), (8, 4), (8, 4))),
        ({"opt": {"x": (3, 4)}, "max": {"x": (8, 4)}}, ((3, 4), (3, 4), (8, 4))),
        ({"min": {"x": (2, 4)}, "opt": {"x": (3, 4)}, "max": {"x": (4, 4)}}, ((2, 4), (3, 4), (4, 4))),
        ({"min": {}, "opt": {}, "max": {}}, ((2, 4), (9, 4), (16, 4))),
    ],
)
def test_missing_parts_of_a_profile(given: Any, expected: Any) -> None:
    profile = only([X], **given)
    assert (profile.min["x"], profile.opt["x"], profile.max["x"]) == expected


def test_one_input_decides_for_those_that_share_its_symbol() -> None:
    assert only([X, Y], opt={"y": (9, 4)}).opt == {"x": (4, 4), "y": (9, 4)}
    assert only([X, Y], opt={"x": (4, 4)}).opt == {"x": (4, 4), "y": (9, 4)}


def test_max_alone_bounds_an_unbounded_dim() -> None:
    profile = only([LONG], max={"tokens": (4, 512)})
    assert (profile.min["tokens"], profile.max["tokens"]) == ((2, 1), (4, 512))


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        ([X], {"max": {"x": (17, 4)}}, "outside the program's range 2 to 16"),
        ([X], {"min": {"x": (1, 4)}}, "outside the program's range 2 to 16"),
        ([X], {"max": {"x": (8, 5)}}, "dim 1 is 5, but the program needs 4"),
        ([X], {"max": {"x": (8,)}}, "has 1 dims, the input has 2"),
        ([X], {"max": {"z": (8, 4)}}, "no input z"),
        ([X, Y], {"max": {"y": (8, 4)}}, "dim 0 is 8, which 2\\*s0 \\+ 1 cannot be"),
        ([X, Y], {"max": {"x": (4, 4), "y": (11, 4)}}, "needs 2\\*s0 \\+ 1 = 9"),
        ([X], {"min": {"x": (8, 4)}, "opt": {"x": (4, 4)}, "max": {"x": (16, 4)}}, "out of order"),
        ([X], {"min": {"x": (8, 4)}, "max": {"x": (4, 4)}}, "out of order"),
        ([X, FIXED], {"max": {"mask": (4, 4)}}, "has the fixed shape 3x4"),
        ([X], {"mini": {"x": (4, 4)}}, "min, opt and max"),
    ],
)
def test_profiles_that_cannot_be(inputs: list[TensorSpec], given: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        only(inputs, **given)


def test_a_misspelt_input_is_corrected() -> None:
    with pytest.raises(BadInput) as caught:
        only([spec("input_ids", "s0")], max={"inputs_ids": (4,)})
    assert "Did you mean input_ids?" in caught.value.hint


def test_the_canonical_profile_is_by_position_and_free_of_names() -> None:
    renamed = [spec("a", "s0", 4), spec("mask", 3), spec("b", "2*s0 + 1", 4)]
    original = [X, spec("other", 3), Y]
    assert only(renamed).canonical() == only(original).canonical()
    assert only(renamed).canonical() == {
        "0": {"min": [2, 4], "opt": [9, 4], "max": [16, 4]},
        "2": {"min": [5, 4], "opt": [19, 4], "max": [33, 4]},
    }


def test_several_profiles_keep_their_order() -> None:
    small, large = {"opt": {"x": (2, 4)}}, {"opt": {"x": (16, 4)}}
    first, second = resolve([X], SYMBOLS, [small, large])
    assert (first.opt["x"], second.opt["x"]) == ((2, 4), (16, 4))
    assert [one.canonical() for one in resolve([X], SYMBOLS, [large, small])] != [first.canonical(), second.canonical()]


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 5), st.integers(0, 5))
def test_derived_profiles_are_always_in_order(low: int, width: int, factor: int, offset: int) -> None:
    inputs = [spec("x", "s0"), spec("y", f"{factor}*s0 + {offset}", position=1)]
    (profile,) = resolve(inputs, {"s0": Symbol(low, low + width, "b")}, [])
    for name in ("x", "y"):
        assert profile.min[name] <= profile.opt[name] <= profile.max[name]
    assert profile.max["y"][0] == factor * (low + width) + offset
