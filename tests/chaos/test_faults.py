"""All faults at once, briefly, and what needs a fleet of its own. At length: ``python -m tests.chaos``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.plan import Kind
from tests.chaos.run import Verdict, run
from tests.chaos.servers import NoServer
from tests.chaos.stage import Servers, Torture, servers

pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("chaos")]

NEEDS_A_FOLDER = frozenset({Kind.FULL_STORE})
QUIET = Torture(2, workers=2, clients=1, twice=False, skewed=False, s3=False, build_seconds=0.25, pause=0.3)
"""A small fleet that nothing befalls but what is named."""


def must_be_right(verdict: Verdict) -> None:
    assert not verdict.wrong, "\n".join(verdict.wrong)


def test_a_full_store_alone(chaos_servers: Servers) -> None:
    verdict = run(replace(QUIET, builds=24, kinds=NEEDS_A_FOLDER, seconds=4.0, haste=5.0), chaos_servers)
    must_be_right(verdict)
    if not verdict.faults:
        pytest.skip("no small disk can be had here")


def test_each_message_twice_and_clocks_apart(chaos_servers: Servers) -> None:
    measures = replace(QUIET, builds=24, kinds=frozenset(), seconds=1.0, twice=True, skewed=True)
    must_be_right(run(measures, chaos_servers))


def test_all_at_once(chaos_servers: Servers) -> None:
    measures = Torture(4, builds=100, workers=3, clients=2, seconds=14.0, haste=1.5, build_seconds=0.3, pause=0.6)
    verdict = run(measures, chaos_servers)
    must_be_right(verdict)
    assert verdict.faults.total() >= 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_500_builds_under_all_of_it(chaos_servers: Servers) -> None:
    must_be_right(run(Torture(5), chaos_servers))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_rabbitmq() -> None:
    try:
        made = servers(s3=False, rabbit=True)
        on = made.__enter__()
    except NoServer as error:
        pytest.skip(str(error))
    try:
        must_be_right(run(Torture(6, builds=150, seconds=40.0, s3=False), on))
    finally:
        made.__exit__(None, None, None)
