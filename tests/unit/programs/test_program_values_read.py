"""Weights whose values are read count by content, also where an engine's weights can be refitted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.export import export, save  # noqa: E402

from farm.programs import open_program  # noqa: E402
from farm.programs.live import program_of  # noqa: E402

pytestmark = pytest.mark.torch
Forward = Callable[[Any, Any], Any]


def times_item(module: Any, x: Any) -> Any:
    return x * module.w.sum().item()


def by_mask(module: Any, x: Any) -> Any:
    return x[:, (module.w > 0).any(0)]


def places(module: Any, x: Any) -> Any:
    return x.sum() + torch.nonzero(module.w)


def branch(module: Any, x: Any) -> Any:
    return torch.cond(module.w.sum() > 0, lambda a: a + 1, lambda a: a - 1, (x,))


def linear(module: Any, x: Any) -> Any:
    return x @ module.w


def looked_up(module: Any, x: Any) -> Any:
    return module.w[x.to(torch.int64)]


def item_of_a_result(module: Any, x: Any) -> Any:
    return x * (x @ module.w).sum().item()


READ = [times_item, by_mask, places, branch]
NOT_READ = [linear, looked_up, item_of_a_result]


def exported(forward: Forward, weight: Any) -> Any:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(weight)

        def forward(self, x: Any) -> Any:
            return forward(self, x)

    return export(Model(), (torch.ones(4, 4),), strict=False)


def kinds(forward: Forward, folder: Path) -> set[str]:
    """Of the weight, in the live program and in the file."""
    program = exported(forward, torch.eye(4))
    save(program, folder / "model.pt2")
    found = {one.kind for one in program_of(program).weights.stored}
    assert found == {one.kind for one in open_program(folder / "model.pt2").weights.stored}
    return found


@pytest.mark.parametrize("forward", READ)
def test_what_is_read_for_its_value_is_a_constant(forward: Forward, tmp_path: Path) -> None:
    assert kinds(forward, tmp_path) == {"constant"}
    one, other = (program_of(exported(forward, torch.eye(4) * factor)) for factor in (1, 2))
    assert one.structure_digest == other.structure_digest
    assert one.graph_digest != other.graph_digest


@pytest.mark.parametrize("forward", NOT_READ)
def test_what_a_refit_reaches_is_a_weight(forward: Forward, tmp_path: Path) -> None:
    assert kinds(forward, tmp_path) == {"weight"}
