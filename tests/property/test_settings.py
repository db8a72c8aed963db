"""Properties of settings: nothing is silently ignored, equal settings have equal keys, spellings do not matter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from farm.canonical import encode
from farm.compilation import FIELDS, CompilationSettings, Effective, Field, Role, Status, effective, parse_value
from farm.errors import BadSettings
from farm.settings.kinds import (
    MAX_INT32,
    MAX_INT64,
    OPERATORS,
    PATTERNS,
    PRECISIONS,
    RULES,
    Bool,
    BoolOrPath,
    Bytes,
    Choice,
    DeclaredDigest,
    Device,
    Dtype,
    Float,
    Int,
    Kind,
    Optional,
    Text,
)
from farm.settings.model import text_of

TOOLCHAINS = [
    ("tensorrt_rtx", "1.7.1.116"),
    ("tensorrt_rtx", "2.0.0"),
    ("tensorrt", "10.14.1.48"),
    ("torch_tensorrt", "2.9.0"),
    ("torch_tensorrt", "2.11.0"),
    ("torch_tensorrt", "2.14.0"),
]
toolchains = st.sampled_from(TOOLCHAINS)
names = st.sampled_from(list(FIELDS))
paths = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1).filter(
    lambda text: text == text.strip() and text.lower() not in ("true", "false")
)
members = {
    id(OPERATORS): st.sampled_from(["aten.add.Tensor", "aten.mul.Tensor", "aten.softmax.int", "aten.relu"]),
    id(PATTERNS): st.sampled_from([".*norm.*", "a{1,2}", "b", "[x,y]z", "c|d"]),
    id(PRECISIONS): st.sampled_from(["float32", "float16", "bfloat16", "int8", "float8_e4m3fn"]),
    id(RULES): st.sampled_from(["one", "two", "three"]),
}


def values(kind: Kind) -> st.SearchStrategy[Any]:
    """Canonical JSON values of one kind."""
    match kind:
        case Bool():
            return st.booleans()
        case Int(low=low, high=high):
            return st.integers(low, high) | st.integers(low, min(high, low + 9))
        case Bytes(low=low):
            return st.integers(low, MAX_INT64) | st.sampled_from([2**20, 2**30])
        case Float():
            return st.floats(0, allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0)
        case Choice(options=options) | Dtype(options=options):
            return st.sampled_from(options)
        case Optional(inner=inner):
            return st.none() | values(inner)
        case Text():
            return paths
        case BoolOrPath():
            return st.booleans() | paths
        case DeclaredDigest():
            return st.sampled_from(["sha256:" + "0" * 64, "b3:" + "f" * 64])
        case Device():
            return st.sampled_from([None, "cuda:0", "cuda:7", "dla:0", "dla:1"])
        case _:
            return st.lists(members[id(kind)], unique=True, min_size=kind is PRECISIONS).map(sorted)


@st.composite
def mappings(draw: st.DrawFn, max_size: int = 8) -> dict[str, Any]:
    """A few settings that do not contradict each other."""
    chosen = draw(st.lists(names, unique=True, max_size=max_size))
    mapping = {name: draw(values(FIELDS[name].kind)) for name in chosen}
    try:
        CompilationSettings.from_mapping(mapping)
    except BadSettings as error:
        assert "contradiction" in error.message
        assume(False)
    return mapping


def form(mapping: dict[str, Any], toolchain: tuple[str, str]) -> Effective:
    try:
        return effective(CompilationSettings(**mapping), flavour=toolchain[0], version=toolchain[1])
    except BadSettings as error:
        assert "cpu_memory_budget" in error.message
        assume(False)
        raise


@given(mappings(), toolchains)
def test_nothing_given_is_silently_ignored(mapping: dict[str, Any], toolchain: tuple[str, str]) -> None:
    found = form(mapping, toolchain)
    spoken = {line.partition("=")[0] for line in (*found.warnings, *found.refused)}
    for name in CompilationSettings(**mapping).given():
        assert name in found.told or name in spoken
    assert set(found.inert) <= spoken & set(mapping)


@given(mappings(), toolchains)
def test_nothing_is_said_of_what_was_not_given(mapping: dict[str, Any], toolchain: tuple[str, str]) -> None:
    found = form(mapping, toolchain)
    spoken = [line.partition("=")[0] for line in (*found.warnings, *found.refused)]
    assert set(spoken) <= set(CompilationSettings(**mapping).given())
    assert len(spoken) == len(set(spoken))


@given(mappings(), toolchains)
def test_what_a_builder_is_told_is_what_key_and_recipe_say(mapping: dict[str, Any], toolchain: tuple[str, str]) -> None:
    """So two requests with one recipe are one build, and two with one key mean one engine."""
    found = form(mapping, toolchain)
    for name, value in found.told.items():
        role = FIELDS[name].role
        assert (name in found.key) is (role in (Role.ENGINE, Role.GRAPH, Role.FORM))
        assert found.key.get(name, value) == value
        assert role is Role.WORKFLOW or found.recipe[name] == value


@given(mappings(), toolchains)
def test_roles_and_statuses_decide_where_a_setting_is_recorded(
    mapping: dict[str, Any], toolchain: tuple[str, str]
) -> None:
    found = form(mapping, toolchain)
    for name, row in FIELDS.items():
        status = row.handling(*toolchain).status
        if row.role in (Role.SEARCH, Role.WORKFLOW):
            assert name not in found.key
        if row.role is Role.WORKFLOW or status is Status.INERT:
            assert name not in found.recipe
        if status is Status.MOOT:
            assert name not in found.key and name not in found.recipe and name not in found.told
    assert set(found.recipe) >= set(found.key) - {
        name for name in found.key if FIELDS[name].handling(*toolchain).status is Status.INERT
    }


@given(mappings(), toolchains)
def test_a_refused_value_never_shares_a_key_with_the_default(
    mapping: dict[str, Any], toolchain: tuple[str, str]
) -> None:
    found = form(mapping, toolchain)
    for line in found.refused:
        name = line.partition("=")[0]
        if FIELDS[name].role is not Role.WORKFLOW:
            changed = form({**mapping, name: FIELDS[name].default}, toolchain)
            assert changed.recipe != found.recipe
            assert FIELDS[name].role is Role.SEARCH or changed.key != found.key


@given(mappings(), toolchains)
def test_stating_a_default_changes_nothing(mapping: dict[str, Any], toolchain: tuple[str, str]) -> None:
    stated = {**CompilationSettings().as_mapping(), **mapping}
    assert CompilationSettings(**stated) == CompilationSettings(**mapping)
    assert form(stated, toolchain) == form(mapping, toolchain)


@given(mappings(), toolchains)
def test_the_effective_form_is_a_fixed_point(mapping: dict[str, Any], toolchain: tuple[str, str]) -> None:
    found = form(mapping, toolchain)
    again = form(dict(found.told), toolchain)
    assert again.told == found.told
    assert not again.refused and not again.inert


@given(mappings(), toolchains, st.data())
def test_one_changed_setting_changes_the_key_exactly_where_it_matters(
    mapping: dict[str, Any], toolchain: tuple[str, str], data: st.DataObject
) -> None:
    """Both directions at once: a difference in what the builder is told shows, and no other does."""
    name = data.draw(names)
    changed = {**mapping, name: data.draw(values(FIELDS[name].kind))}
    try:
        CompilationSettings(**changed)
    except BadSettings:
        assume(False)
    one, other = form(mapping, toolchain), form(changed, toolchain)
    keyed = (Role.ENGINE, Role.GRAPH, Role.FORM)
    told = [{k: v for k, v in f.told.items() if FIELDS[k].role in keyed} for f in (one, other)]
    if told[0] != told[1]:
        assert one.key != other.key and one.recipe != other.recipe
    elif FIELDS[name].handling(*toolchain).status is Status.HONOURED and one.refused == other.refused:
        assert one.key == other.key


@given(mappings(), st.randoms(use_true_random=False), toolchains)
def test_the_order_of_sets_and_of_settings_does_not_matter(
    mapping: dict[str, Any], random: Any, toolchain: tuple[str, str]
) -> None:
    items = list(mapping.items())
    random.shuffle(items)
    shuffled = {name: random.sample(v, len(v)) if isinstance(v, list) else v for name, v in items}
    assert CompilationSettings(**shuffled) == CompilationSettings(**mapping)
    assert json.dumps(form(shuffled, toolchain).key) == json.dumps(form(mapping, toolchain).key)


@given(mappings())
def test_settings_survive_json(mapping: dict[str, Any]) -> None:
    one = CompilationSettings.from_mapping(mapping)
    assert CompilationSettings.from_mapping(json.loads(json.dumps(one.given()))) == one
    assert CompilationSettings.from_mapping(json.loads(json.dumps(one.as_mapping()))) == one
    assert CompilationSettings(**one.given()) == one


@given(mappings(), toolchains)
def test_keys_and_recipes_can_be_encoded(mapping: dict[str, Any], toolchain: tuple[str, str]) -> None:
    found = form(mapping, toolchain)
    assert encode(json.loads(json.dumps(found.key))) == encode(found.key)
    assert encode(json.loads(json.dumps(found.recipe))) == encode(found.recipe)


@given(mappings())
def test_settings_survive_the_command_line(mapping: dict[str, Any]) -> None:
    one = CompilationSettings(**mapping)
    pairs = [f"{name.replace('_', '-')}={text_of(getattr(one, name))}" for name in mapping]
    assert CompilationSettings.from_pairs(pairs) == one


@given(st.data(), names)
def test_parsed_text_is_the_value_it_was_written_from(data: st.DataObject, name: str) -> None:
    value = data.draw(values(FIELDS[name].kind))
    written = text_of(frozenset(value) if isinstance(value, list) else value)
    parsed = parse_value(name, written)
    assert parsed == value and type(parsed) is type(value)


@given(st.text(max_size=30))
def test_unknown_names_are_bad_settings(name: str) -> None:
    assume(name.strip().replace("-", "_") not in FIELDS)
    for read in (lambda: CompilationSettings(**{name: 1}), lambda: CompilationSettings.from_mapping({name: 1})):
        with pytest.raises(BadSettings, match="no setting"):
            read()


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(names, anything)
def test_any_value_is_taken_strictly_or_refused_by_name(name: str, value: Any) -> None:
    try:
        found = CompilationSettings(**{name: value}).as_mapping()[name]
    except BadSettings as error:
        assert error.message.startswith(f"{name} = ")
        return
    assert isinstance(found, bool) == isinstance(value, bool)
    assert not isinstance(found, int) or found == value
    json.dumps(found, allow_nan=False)


@given(names, st.text(max_size=20))
def test_any_text_is_parsed_or_refused_by_name(name: str, text: str) -> None:
    try:
        found = parse_value(name, text)
    except BadSettings as error:
        assert error.message.startswith(f"{name} = ")
        return
    assert CompilationSettings.from_mapping({name: found}).as_mapping()[name] == found


def _numbers(kind: Kind) -> bool:
    return isinstance(getattr(kind, "inner", kind), Int | Bytes | Float)


@pytest.mark.parametrize("row", [row for row in FIELDS.values() if _numbers(row.kind)], ids=lambda row: row.name)
def test_truth_values_are_no_numbers(row: Field) -> None:
    for value in (True, False):
        with pytest.raises(BadSettings):
            CompilationSettings(**{row.name: value})
    with pytest.raises(BadSettings):
        CompilationSettings(**{row.name: MAX_INT64 + 1 if not isinstance(row.kind, Float) else -1})
    assert MAX_INT32 < MAX_INT64


@pytest.mark.parametrize(
    "row", [row for row in FIELDS.values() if isinstance(row.kind, Bool)], ids=lambda row: row.name
)
def test_numbers_are_no_truth_values(row: Field) -> None:
    for value in (0, 1, "true", None):
        with pytest.raises(BadSettings):
            CompilationSettings(**{row.name: value})
