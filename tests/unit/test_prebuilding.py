"""Prebuilds over a real index and store; the builder alone builds nothing, whatever TensorRT it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from farm.config import load
from farm.pinning import by_lock
from farm.prebuilding.building import build
from farm.prebuilding.planning import plan
from farm.prebuilding.standing import Prebuild, State
from farm.prebuilds.entries import PrebuildSpec
from farm.prebuilds.lock import LockEntry, format_lock
from farm.prebuilds.manifest import read_manifest
from farm.pulling.choice import Choice
from farm.pulling.pulls import Pulling
from farm.service import Farm
from farm.wiring.backends import open_identifier, open_index, open_store
from tests.support.noop import NoopBuilder
from tests.support.noop_worker import open_noop_crew

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("builds")]

QUEUES = ("tensorrt_rtx==1.7.1.116/any/x86_64", "tensorrt_rtx==1.8.0.1/any/x86_64")


class AtOnce:
    """Builds all that waits as soon as somebody waits for it."""

    def __init__(self, home: Path) -> None:
        config = load({"FARM_HOME": str(home)}, home)
        self.worker = open_noop_crew(config, NoopBuilder(), 1, QUEUES).worker
        self.worker.open()

    def wake(self, counts: Mapping[str, int]) -> None:
        pass

    def start(self) -> None:
        while leases := self.worker.lease(4):
            for lease in leases:
                self.worker.make(lease)

    def stop(self) -> None:
        pass

    def close(self) -> None:
        self.worker.close()
        self.worker.shop.index.close()


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    home = tmp_path / "home"
    home.mkdir()
    config = load({"FARM_HOME": str(home)}, home)
    index = open_index(config)
    dispatch = AtOnce(home)
    with Farm(config, index, open_store(config), dispatch, open_identifier(config), lambda: ()) as farm:
        yield farm
    dispatch.close()


class Files:
    """Sources that are files."""

    def get(self, model: object) -> str:
        return str(getattr(model, "source").path)  # noqa: B009


def manifest(tmp_path: Path, text: str) -> PrebuildSpec:
    path = tmp_path / "farm.yaml"
    path.write_text(text)
    return read_manifest(path)


def prebuilt(farm: Farm, spec: PrebuildSpec, old: list[LockEntry] | None = None) -> Prebuild:
    return build(farm, plan(farm, spec, Files(), old or []))


def states(found: Prebuild) -> list[str]:
    return [str(item.state) for item in found.items]


def test_an_upgrade_builds_everything_again_and_says_why(farm: Farm, programs: Path, tmp_path: Path) -> None:
    text = f"models: {{gemm: {programs}/gemm.pt2, conv: {programs}/conv.pt2}}\ntargets: [sm_80, sm_86, sm_89]\n"
    spec = manifest(tmp_path, text)
    first = prebuilt(farm, spec)
    assert states(first) == ["built"] * 6
    newer = replace(spec, toolchain="tensorrt_rtx==1.8.0.1")
    planned = plan(farm, newer, Files(), first.lock)
    assert states(planned) == ["missing"] * 6
    assert {item.why for item in planned.items} == {("TensorRT's version is 1.8.0.1 here and 1.7.1.116 there",)}
    assert len(planned.changes(looking=True)) == 6
    second = build(farm, planned)
    assert states(second) == ["built"] * 6
    assert {line.toolchain for line in second.lock} == {"tensorrt_rtx==1.8.0.1"}
    assert states(prebuilt(farm, spec, second.lock)) == ["cached"] * 6, "the older ones are still there"


def test_a_line_that_is_true_stays_whatever_is_built_since(farm: Farm, programs: Path, tmp_path: Path) -> None:
    spec = manifest(tmp_path, f"models: {{gemm: {programs}/gemm.pt2}}\ntargets: [sm_86]\n")
    (line,) = prebuilt(farm, spec).lock
    # The same plan, made again: another manifest, and so what a look-up finds is not what was locked.
    (answer,) = farm.wait(farm.submit([spec_ask(spec, programs)], force=True))
    assert answer.manifest["manifest"] != line.manifest
    again = prebuilt(farm, spec, [line])
    assert again.lock != [line] and again.changes() and states(again) == ["cached"], "its row is the newer one's now"
    assert states(prebuilt(farm, spec, again.lock)) == ["locked"]


def spec_ask(spec: PrebuildSpec, programs: Path) -> object:
    from farm.prebuilds.entries import entries

    (entry,) = entries(spec)
    return entry.ask(str(programs / "gemm.pt2"))


def test_only_the_very_recipes_engine_will_do(farm: Farm, programs: Path, tmp_path: Path) -> None:
    text = f"models: {{gemm: {programs}/gemm.pt2}}\ntargets: [sm_86]\n"
    first = prebuilt(farm, manifest(tmp_path, text))
    wider = prebuilt(farm, manifest(tmp_path, text + "settings: {workspace_size: 2G}\n"), first.lock)
    assert states(wider) == ["built"]
    (one,), (other,) = first.lock, wider.lock
    assert one.key == other.key and one.recipe != other.recipe


def test_what_a_builder_refuses_or_a_file_lacks_fails_alone(farm: Farm, programs: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.pt2").write_bytes(b"nothing")
    text = f"models: {{gemm: {programs}/gemm.pt2, broken: broken.pt2}}\ntargets: [sm_86, l4@tensorrt_rtx/windows]\n"
    found = prebuilt(farm, manifest(tmp_path, text))
    assert states(found) == ["built", "failed", "failed", "failed"]
    assert [line.model for line in found.lock] == ["gemm"]
    assert all(item.fails and item.why for item in found.items[1:])


def test_a_lock_line_whose_engine_is_gone_is_built_again(farm: Farm, programs: Path, tmp_path: Path) -> None:
    spec = manifest(tmp_path, f"models: {{gemm: {programs}/gemm.pt2}}\ntargets: [sm_86]\n")
    (line,) = prebuilt(farm, spec).lock
    farm.store.delete(line.engine)
    planned = plan(farm, spec, Files(), [line])
    assert states(planned) == ["missing"] and planned.items[0].why == ("its engine's bytes are gone from the store",)
    assert states(build(farm, planned)) == ["built"]


def test_a_check_tells_of_lines_that_name_what_is_not_there(farm: Farm, programs: Path, tmp_path: Path) -> None:
    spec = manifest(tmp_path, f"models: {{gemm: {programs}/gemm.pt2}}\ntargets: [sm_86]\n")
    (line,) = prebuilt(farm, spec).lock
    # The same recipe, but an engine that nobody has: a branch's lock file that was merged, and its engine collected.
    stale = replace(line, engine="sha256:" + 64 * "0", manifest="sha256:" + 64 * "1")
    planned = plan(farm, spec, Files(), [stale])
    assert states(planned) == ["cached"]
    (told,) = planned.changes(looking=True, engines=True)
    assert "engine 000000000000 → " in told
    assert planned.changes(looking=True) == [], "a plan goes by keys: another farm may have built its own"
    assert plan(farm, spec, Files(), [line]).changes(looking=True, engines=True) == []


def test_names_that_were_exchanged_are_a_change(farm: Farm, programs: Path, tmp_path: Path) -> None:
    spec = manifest(tmp_path, f"models: {{gemm: {programs}/gemm.pt2}}\ntargets: [sm_86]\n")
    (line,) = prebuilt(farm, spec).lock
    (bound,) = line.outputs
    other = replace(line, outputs={"z": line.outputs[bound]})
    (told,) = plan(farm, spec, Files(), [other]).changes(looking=True)
    assert "outputs" in told


def test_best_effort_that_has_no_line_is_no_change(farm: Farm, programs: Path, tmp_path: Path) -> None:
    text = f"models: {{gemm: {programs}/gemm.pt2}}\ntargets: [sm_86, sm_89]\n"
    first = prebuilt(farm, manifest(tmp_path, text.replace(", sm_89", ""))).lock
    spec = manifest(tmp_path, text + "best_effort: [{target: sm_89}]\n")
    assert plan(farm, spec, Files(), first).changes(looking=True, engines=True) == []
    assert len(plan(farm, manifest(tmp_path, text), Files(), first).changes(looking=True)) == 1
    assert len(prebuilt(farm, spec, first).changes()) == 1, "that it can be had is one"


# -- engines that are refitted -----------------------------------------------------------------------------------

REFITTABLE = "targets: [sm_86]\nsettings: {immutable_weights: false}\n"


def test_a_fine_tune_is_locked_with_its_weights_and_not_built(farm: Farm, programs: Path, tmp_path: Path) -> None:
    (first,) = prebuilt(farm, manifest(tmp_path, f"models: {{m: {programs}/gemm.pt2}}\n{REFITTABLE}")).lock
    assert first.program and first.weights["first.weight"] == "first.weight"
    tuned = prebuilt(farm, manifest(tmp_path, f"models: {{m: {programs}/tuned.pt2}}\n{REFITTABLE}"), [first])
    (line,) = tuned.lock
    assert states(tuned) == ["cached"] and line.engine == first.engine and line.program != first.program
    again = prebuilt(farm, manifest(tmp_path, f"models: {{m: {programs}/tuned.pt2}}\n{REFITTABLE}"), [line])
    assert states(again) == ["locked"] and again.lock == [line]
    (pulled,) = Pulling(farm.store).pull([Choice(line)], tmp_path / "out")
    assert pulled.needs_refit and pulled.weights is not None
    assert pulled.weights.read_bytes() == (programs / "tuned.pt2").read_bytes()
    (tmp_path / "first.lock").write_text(format_lock([first]))
    (same,) = farm.pull(tmp_path / "first.lock", tmp_path / "same", ["rtx3090"])
    assert not same.needs_refit and same.weights is not None
    (over,) = Pulling(farm.store).pull([Choice(line)], tmp_path / "same")
    assert over.weights is not None and over.weights.read_bytes() == (programs / "tuned.pt2").read_bytes()
    assert over.path.read_bytes() == pulled.path.read_bytes() and len(list((tmp_path / "same").iterdir())) == 3
    assert json.loads((tmp_path / "out" / "m.sm_86.json").read_text())["names"]["weights"] == dict(line.weights)
    (pinned,) = by_lock(farm.index, [line])  # type: ignore[arg-type]
    assert (pinned.digest, pinned.program) == (line.engine, line.program), "what is deployed is what is kept"


def test_weights_that_are_called_otherwise_are_mapped(farm: Farm, programs: Path, tmp_path: Path) -> None:
    (first,) = prebuilt(farm, manifest(tmp_path, f"models: {{m: {programs}/gemm.pt2}}\n{REFITTABLE}")).lock
    renamed = manifest(tmp_path, f"models: {{m: {programs}/renamed.pt2}}\n{REFITTABLE}")
    (line,) = prebuilt(farm, renamed, [first]).lock
    assert line.engine == first.engine and line.weights == {
        "first.weight": "alpha.weight",
        "first.bias": "alpha.bias",
        "second.weight": "omega.weight",
        "second.bias": "omega.bias",
    }
    format_lock([line])


def test_engines_that_hold_their_weights_say_nothing_of_them(farm: Farm, programs: Path, tmp_path: Path) -> None:
    (line,) = prebuilt(farm, manifest(tmp_path, f"models: {{m: {programs}/gemm.pt2}}\ntargets: [sm_86]\n")).lock
    assert not line.program and not line.weights and '"weights"' not in format_lock([line])


def test_states_are_sorted_out() -> None:
    assert {state for state in State if not state.there} == {State.MISSING, State.FAILED}
