"""The servers that chaos tests share, and a fleet that stays between tests of one fault each."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.chaos.servers import NoServer
from tests.chaos.stage import Servers, Torture, servers
from tests.chaos.standing import Standing, standing


def absent(reason: str) -> None:
    """A skip on somebody's machine, a failure in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chaos_servers() -> Iterator[Servers]:
    for module in ("psycopg", "redis", "onnx", "boto3"):
        pytest.importorskip(module)
    made = servers()
    try:
        on = made.__enter__()
    except NoServer as error:
        absent(str(error))
    yield on
    made.__exit__(None, None, None)


@pytest.fixture(scope="module")
def fleet(chaos_servers: Servers) -> Iterator[Standing]:
    """Two workers on S3, PostgreSQL and Redis; messages once, clocks right."""
    measures = Torture(seed=1, workers=2, build_seconds=0.25, twice=False, skewed=False)
    with standing(chaos_servers, measures) as one:
        yield one
