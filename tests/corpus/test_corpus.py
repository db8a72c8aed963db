"""The corpus is true: pairs that are one program share an identity, others do not, however they are read."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from farm.programs import Program, open_program  # noqa: E402
from farm.programs.live import program_of  # noqa: E402

from .cases import Case, Pair, export, identity  # noqa: E402
from .pairs import PAIRS  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
TOGETHER = 20
"""How many pairs are in one group. An export is as dear as all that is then asked of it, and is kept by the process
that made it: all tests of a pair run in one."""


class Corpus:
    """Every case exported and saved once for all tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cache  # noqa: B019 - one object, for the session
    def case(self, name: str, side: str) -> tuple[Case, Any, Path]:
        pair = next(pair for pair in PAIRS if pair.name == name)
        case = getattr(pair, side)()
        path = self.folder / f"{PAIRS.index(pair)}-{side}.pt2"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = export(case)
            torch.export.save(program, path)
        return case, program, path

    @cache  # noqa: B019
    def opened(self, name: str, side: str) -> Program:
        case, _, path = self.case(name, side)
        return open_program(path, custom_ops=case.custom_ops)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"))


def _group(pair: Pair) -> pytest.MarkDecorator:
    return pytest.mark.xdist_group(f"corpus {PAIRS.index(pair) // TOGETHER}")


def _of_pairs(pairs: list[Pair]) -> Callable[..., Any]:
    return pytest.mark.parametrize("pair", [pytest.param(pair, id=pair.name, marks=_group(pair)) for pair in pairs])


_of_sides = pytest.mark.parametrize(
    ("pair", "side"),
    [
        pytest.param(pair, side, id=f"{pair.name}-{side}", marks=_group(pair))
        for pair in PAIRS
        for side in ("first", "second")
    ],
)


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len(PAIRS) >= 150
    assert len({pair.name for pair in PAIRS}) == len(PAIRS)
    assert sum(pair.same for pair in PAIRS) >= 40


@_of_pairs(PAIRS)
def test_pair(corpus: Corpus, pair: Pair) -> None:
    first, second = (corpus.opened(pair.name, side) for side in ("first", "second"))
    assert (identity(first, pair.policy) == identity(second, pair.policy)) is pair.same


@_of_pairs([pair for pair in PAIRS if not pair.same])
def test_what_differs_also_differs_in_graph_and_content(corpus: Corpus, pair: Pair) -> None:
    """Keying (graph_digest, weights by content) is sound as well, if less sharing."""
    first, second = (corpus.opened(pair.name, side) for side in ("first", "second"))
    if pair.policy == "content":
        assert (first.graph_digest, identity(first)[1]) != (second.graph_digest, identity(second)[1])


@_of_sides
def test_a_live_program_has_the_digests_of_its_file(corpus: Corpus, pair: Pair, side: str) -> None:
    case, exported, _ = corpus.case(pair.name, side)
    saved, live = corpus.opened(pair.name, side), program_of(exported, custom_ops=case.custom_ops)
    assert identity(live) == identity(saved)
    assert identity(live, "metadata") == identity(saved, "metadata")
    assert (live.inputs, live.outputs, live.symbols) == (saved.inputs, saved.outputs, saved.symbols)
    assert (live.operators, live.mutations) == (saved.operators, saved.mutations)
    assert live.match_nodes([".*"]) == saved.match_nodes([".*"])


@_of_sides
def test_loading_and_saving_again_keeps_the_digests(corpus: Corpus, pair: Pair, side: str, tmp_path: Path) -> None:
    case, _, path = corpus.case(pair.name, side)
    torch.export.save(torch.export.load(path), tmp_path / "again.pt2")
    again = open_program(tmp_path / "again.pt2", custom_ops=case.custom_ops)
    assert identity(again) == identity(corpus.opened(pair.name, side))


@_of_pairs([pair for pair in PAIRS if pair.same and pair.runs and pair.policy == "content"])
def test_pairs_that_are_one_compute_the_same(corpus: Corpus, pair: Pair) -> None:
    """Differential: both programs on the same random inputs, after the same seed."""
    first, second = (corpus.case(pair.name, side) for side in ("first", "second"))
    for seed in range(2):
        results = [_run(program, case, seed) for case, program, _ in (first, second)]
        # A weight that lies differently in memory is summed in another order: equal up to rounding.
        torch.testing.assert_close(results[0], results[1], equal_nan=True)


def _run(program: Any, case: Case, seed: int) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    flat, spec = torch.utils._pytree.tree_flatten((case.args, dict(case.kwargs)))
    drawn = [_like(value, generator) if isinstance(value, torch.Tensor) else value for value in flat]
    args, kwargs = torch.utils._pytree.tree_unflatten(drawn, spec)
    torch.manual_seed(seed)
    with torch.no_grad():
        return list(torch.utils._pytree.tree_leaves(program.module(check_guards=False)(*args, **kwargs)))


def _like(value: Any, generator: Any) -> Any:
    if value.is_floating_point():
        return torch.randn(value.shape, generator=generator).to(value.dtype)
    return value.clone()


ACROSS = ("names of parameters", "derived dim", "another branch", "draws in the other order", "asserted range")


def test_another_process_with_another_hash_seed_gives_the_same_digests(corpus: Corpus) -> None:
    """Both the export and the reading happen again, in a fresh process."""
    program = (
        "import sys, pathlib, warnings; warnings.simplefilter('ignore')\n"
        f"sys.path[:0] = {[str(Path(__file__).parent.parent), str(Path(__file__).parents[2])]!r}\n"
        "from corpus.pairs import PAIRS\n"
        "from corpus.cases import identity, opened\n"
        f"for pair in PAIRS:\n    if pair.name in {ACROSS!r}:\n"
        "        print(*identity(opened(pair.first(), pathlib.Path(sys.argv[1]) / 'other.pt2')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(corpus.folder)],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONHASHSEED": "4242", "PATH": "/usr/bin:/bin"},
        check=True,
    )
    here = [" ".join(identity(corpus.opened(pair.name, "first"))) for pair in PAIRS if pair.name in ACROSS]
    assert done.stdout.split("\n")[:-1] == here
