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
    if attempts >= MAX_ATTEMPTS or kind in (FailureKind.PERMANENT, FailureKind.NODE):
        assert wait is None
    else:
        assert wait is not None and wait >= 0


def test_back_off_grows() -> None:
    first, second = (decide_retry(FailureKind.TRANSIENT, n, max_attempts=5) for n in (1, 2))
    assert first is not None and second is not None and second > first
