"""What the suite asks of those that run it in several processes."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("groups")
def test_groups_are_seen_by_what_distributes_the_tests(request: pytest.FixtureRequest) -> None:
    """A pytest and an xdist that do not go together run every test alone, and say nothing: servers are then started by
    each process, and tests that share one run at once."""
    if hasattr(request.config, "workerinput"):
        assert request.node.nodeid.endswith("@groups")
