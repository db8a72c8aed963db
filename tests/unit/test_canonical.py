"""The canonical encoding is injective over its domain: no two values share an encoding."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.canonical import Encoded, digest, encode

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text() | st.binary()
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def identity(value: object) -> object:
    """The value under the domain's own equality, written in another way than the encoding's."""
    if isinstance(value, float):
        return ("float", struct.pack(">d", value))
    if isinstance(value, dict):
        return ("map", frozenset((name, identity(item)) for name, item in value.items()))
    if isinstance(value, list | tuple):
        return ("list", tuple(identity(item) for item in value))
    return (type(value).__name__, value)


@given(values, values)
def test_equal_encodings_mean_equal_values(one: object, other: object) -> None:
    assert (encode(one) == encode(other)) == (identity(one) == identity(other))


@given(st.dictionaries(st.text(), leaves))
def test_the_order_of_a_mapping_does_not_count(value: dict[str, object]) -> None:
    assert encode(value) == encode(dict(reversed(value.items())))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, 1),
        (False, 0),
        (1, 1.0),
        (0.0, -0.0),
        (None, "None"),
        ("a", b"a"),
        ("1", 1),
        (["a", "b"], ["ab"]),
        ([["a"], "b"], [["a", "b"]]),
        ({"a": 1}, [["a", 1]]),
        ({}, []),
        ("", b""),
        (math.nan, math.inf),
        (10**400, 10**400 + 1),
    ],
)
def test_values_that_python_or_json_would_confuse(one: object, other: object) -> None:
    assert encode(one) != encode(other)


def test_what_cannot_be_hashed_is_an_error() -> None:
    for value in ({1, 2}, object(), {1: 2}, [object()]):
        with pytest.raises(TypeError):
            encode(value)


def test_kinds_of_digest_never_meet() -> None:
    assert digest("key", {"a": 1}) != digest("recipe", {"a": 1})
    assert digest("key", {"a": 1}).startswith("sha256:")


@given(values)
def test_an_encoded_value_stands_for_the_value_within_others(value: object) -> None:
    encoded = Encoded(encode(value))
    assert encode(encoded) == encoded
    assert encode({"a": encoded, "b": [encoded]}) == encode({"a": value, "b": [value]})
