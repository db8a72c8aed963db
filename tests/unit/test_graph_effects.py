"""Which write does each read see?"""

from __future__ import annotations

from dataclasses import dataclass

from farm.graph_effects import versions


@dataclass
class Op:
    refs: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    inner: tuple[int, ...] = ()
    aliases: bool = False


def test_a_read_sees_the_last_write_before_it() -> None:
    ops = [Op(), Op((0,)), Op((0,), writes=(0,)), Op((0,)), Op((0,), writes=(0,)), Op((0,))]
    found = versions(ops)
    assert found.reads == {3: ((0, 2),), 4: ((0, 2),), 5: ((0, 4),)}
    assert found.final(0) == 4


def test_views_share_memory_in_both_directions() -> None:
    base, view, write_view, read_base = Op(), Op((0,), aliases=True), Op((1,), writes=(0,)), Op((0,))
    assert versions([base, view, write_view, read_base]).reads == {3: ((0, 2),)}
    assert versions([base, view, Op((0,), writes=(0,)), Op((1,))]).reads == {3: ((0, 2),)}


def test_a_copy_does_not() -> None:
    assert versions([Op(), Op((0,)), Op((1,), writes=(0,)), Op((0,))]).reads == {}


def test_a_view_taken_later_shares_memory_all_along() -> None:
    """Sharing is decided for the whole program, so that no order of looking at it can miss some."""
    ops = [Op(), Op((0,), writes=(0,)), Op((0,), aliases=True), Op((2,))]
    assert versions(ops).reads == {2: ((0, 1),), 3: ((0, 1),)}


def test_what_a_write_returns_is_what_it_wrote() -> None:
    ops = [Op(), Op((0,), writes=(0,)), Op((1,), writes=(0,)), Op((0,))]
    assert versions(ops).reads[3] == ((0, 2),)


def test_independent_memory_is_independent() -> None:
    ops = [Op(), Op(), Op((0,), writes=(0,)), Op((1,))]
    found = versions(ops)
    assert found.reads == {}
    assert (found.final(0), found.final(1)) == (2, None)


def test_roots_of_subgraphs_are_not_read() -> None:
    ops = [Op(), Op((0,), writes=(0,)), Op((0, 0), inner=(1,))]
    assert versions(ops).reads == {2: ((0, 1),)}


def test_one_call_may_write_to_several() -> None:
    ops = [Op(), Op(), Op((0, 1), writes=(0, 1)), Op((0,)), Op((1,))]
    assert versions(ops).reads == {3: ((0, 2),), 4: ((0, 2),)}
