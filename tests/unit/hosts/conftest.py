"""The real nvidia-ml-py over a stand-in of the driver's library."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nvml_standin import StandIn


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., StandIn]:
    """Install a driver that shows the given GPUs, with nothing hidden from this process."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda *gpus, **how: StandIn(*gpus, **how).install(monkeypatch)
