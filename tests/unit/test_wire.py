"""What crosses the network: errors as the same classes, tokens, ranges, keys whose sums are done again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm import errors
from farm.asks import Ask
from farm.compilation import CompilationSettings
from farm.errors import FarmError, error_from
from farm.identify import Identifier
from farm.keys import consistent
from farm.tokens import Scope, make_token, read_token
from farm.web.ranges import span
from tests.vectors.cases import CONV, FOLDER

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FarmError)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_back_as_what_it_was(kind: type[FarmError]) -> None:
    back = error_from(json.loads(json.dumps(kind("it broke", "mend it").as_json())))
    assert (type(back), str(back), back.exit_code) == (kind, "it broke\nmend it", kind.exit_code)


def test_an_error_of_a_newer_farm_keeps_its_exit_code() -> None:
    back = error_from({"type": "FromTomorrow", "message": "m", "hint": None, "exit_code": 4})
    assert type(back) is FarmError and back.exit_code == 4 and FarmError.exit_code == 1


def test_a_token_is_known_by_its_secret_alone() -> None:
    text, token = make_token("ci", Scope.READ, "main")
    other, _ = make_token("ci", Scope.READ, "main")
    shown, wrong = read_token(text), read_token(other)
    assert shown and shown.id == token.id and shown.is_of(token)
    assert wrong and not wrong.is_of(token)
    assert shown.secret not in repr(token) + repr(shown) and token.digest not in repr(token)


@given(st.text(max_size=80))
def test_what_is_no_token(text: str) -> None:
    assert read_token(text) is None


def test_scopes_cover_those_below() -> None:
    assert Scope.ADMIN.covers(Scope.READ) and Scope.BUILD.covers(Scope.BUILD) and not Scope.READ.covers(Scope.BUILD)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_a_range_is_what_a_slice_is(size: int, first: int, last: int) -> None:
    whole = bytes(n % 251 for n in range(size))
    found = span(f"bytes={first}-{last}", size)
    if last < first:
        assert found == (0, size)
    elif first >= size:
        assert found is None
    else:
        assert found is not None and whole[slice(*found)] == whole[first : last + 1]
    ending = span(f"bytes=-{last}", size)
    assert ending is None if not (last and size) else whole[slice(*ending)] == whole[-last:]  # type: ignore[misc]


@pytest.mark.parametrize(
    "header", [None, "", "bytes=", "bytes=-", "bytes=0-1,4-5", "items=0-1", "bytes=a-b", "bytes=1"]
)
def test_what_is_no_range_is_everything(header: str | None) -> None:
    assert span(header, 10) == (0, 10)


def test_parts_come_to_their_key_and_to_no_other() -> None:
    """After a journey as JSON too."""
    identifier = Identifier(installed=lambda: (), local_gpu=lambda: None)
    settings = CompilationSettings.from_mapping({"workspace_size": 2**20, "enabled_precisions": ["f16", "f32"]})
    asks = [Ask(str(FOLDER / CONV), "sm_89", chosen) for chosen in (settings, CompilationSettings())]
    one, other = identifier.identify(asks)
    parts = json.loads(json.dumps({**one.parts, "outline": "sha256:x"}, default=list))
    assert consistent(one.key, one.recipe, parts)
    assert not consistent(one.key, other.recipe, parts) and not consistent(other.key, one.recipe, parts)
    assert not consistent(one.key, one.recipe, {**parts, "graph": "sha256:other"})
    assert not consistent(one.key, one.recipe, {}) and not consistent(one.key, one.recipe, {**parts, "recipe": 3})
