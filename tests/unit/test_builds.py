"""Build states, and when to try again."""

from hypothesis import given
from hypothesis import strategies as st

from farm.builds import ACTIVE, MAX_ATTEMPTS, BuildState, FailureKind, decide_retry


def test_ends_are_ends() -> None:
    for state in BuildState:
        assert (state in ACTIVE) == state.active
        if not state.active:
            assert not any(state.may(other) for other in BuildState)


def test_success_comes_only_from_running() -> None:
    assert [state for state in BuildState if state.may(BuildState.SUCCEEDED)] == [BuildState.RUNNING]


@given(st.sampled_from(FailureKind), st.integers(1, 20))
def test_attempts_are_bounded(kind: FailureKind, attempts: int) -> None:
    wait = decide_retry(kind, attempts)
    if attempts >= MAX_ATTEMPTS[kind]:
        assert wait is None
    else:
        assert wait is not None and wait >= 0


def test_back_off_grows() -> None:
    for kind, first in ((FailureKind.TRANSIENT, 1), (FailureKind.LOST, 2)):
        waits = [decide_retry(kind, n) for n in range(first, MAX_ATTEMPTS[kind])]
        known = [wait for wait in waits if wait is not None]
        assert len(known) == len(waits) >= 2 and known == sorted(set(known))


def test_what_the_node_cannot_is_offered_to_others_at_once() -> None:
    assert decide_retry(FailureKind.NODE, 1) == decide_retry(FailureKind.LOST, 1) == 0.0
