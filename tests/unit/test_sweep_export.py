"""A sweep's trials as files, and its winner as a manifest that farm prebuild takes."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from farm.asks import GivenProfile
from farm.errors import BadConfig, BadInput
from farm.prebuilds.manifest import read_manifest
from farm.sweeping import planning as sweeping
from farm.sweeping.answer import answers, manifest
from farm.sweeping.export import exported
from farm.sweeping.results import SweepResults
from farm.sweeps.grid import PROFILE, Dimension, SweptModel
from farm.sweeps.searches import Search
from tests.sweep_support import stub_farm
from tests.unit.test_searching import TARGET, spec

SMALL, LARGE = GivenProfile(max={"x": (4, 3)}), GivenProfile(min={"x": (1, 3)}, max={"x": (8, 3)})


def latency(settings: Mapping[str, Any]) -> float:
    return 9.0 - float(settings["optimization_level"])


@pytest.fixture
def found(tmp_path: Path) -> SweepResults:
    farm, dispatch = stub_farm(tmp_path, lambda lease: "no" if lease.build.request.settings.get("disable_tf32") else "")
    dispatch.latency = latency
    asked = spec(Search(), "optimization_level=0..1", "disable_tf32=false,true", targets=(TARGET, "sm_89"))
    model = SweptModel("models/=m 1.pt2", {"small": (SMALL,), "large": (LARGE,)}, custom_ops={"my.op": "sha256:00"})
    asked = replace(asked, models=(model,), grid=(*asked.grid, Dimension(PROFILE, ("small", "large"))))
    return sweeping.wait(farm, sweeping.start(farm, sweeping.plan(farm, asked)))


def test_csv_has_a_row_for_each_trial(found: SweepResults) -> None:
    table = list(csv.DictReader(io.StringIO(exported(found, "csv").decode())))
    assert len(table) == len(found.trials) == 16
    first = table[0]
    assert first["model"] == "models/=m 1.pt2" and first["setting.disable_tf32"] == "false"
    assert {row["outcome"] for row in table} == {"built", "failed"}
    assert {row["error"] for row in table if row["outcome"] == "failed"} == {"no"}
    assert {row["latency_p50"] for row in table if row["outcome"] == "built"} <= {"9.0", "8.0"}


def test_a_cell_is_no_formula(found: SweepResults) -> None:
    trials = [replace(one, trial=replace(one.trial, model="=1+1")) for one in found.trials]
    text = exported(replace(found, trials=tuple(trials)), "csv").decode()
    assert ",'=1+1," in text


def test_json_has_the_answers_too(found: SweepResults) -> None:
    document = json.loads(exported(found, "json"))
    assert len(document["trials"]) == 16 and len(document["answers"]) == 4
    assert document["answers"][0]["recommended"]["values"]["latency_p50"] == 8.0
    assert document["answers"][0]["ranked_by"] == [{"metric": "latency_p50", "weight": None}]


def test_parquet_says_what_it_needs(found: SweepResults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BadConfig, match="Parquet needs pyarrow"):
        exported(found, "parquet")


def test_parquet_comes_back(found: SweepResults) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(io.BytesIO(exported(found, "parquet"))).to_pylist()
    assert [row["number"] for row in table] == [one.trial.number for one in found.trials]
    assert table[0]["setting.disable_tf32"] is False and table[0]["latency_p50"] == 9.0


def test_the_winner_is_a_manifest(found: SweepResults, tmp_path: Path) -> None:
    (tmp_path / "farm.yaml").write_bytes(exported(found, "yaml"))
    spec = read_manifest(tmp_path / "farm.yaml")
    document = yaml.safe_load(manifest(found))
    best = answers(found)[0].best
    assert best is not None and best.trial.settings["optimization_level"] == 1
    first, *rest = document["models"].values()
    assert first["path"] == "models/=m 1.pt2" and first["settings"]["optimization_level"] == 1
    assert first["shapes"] == [{"max": "x:4x3"}] and first["custom_ops"] == {"my.op": "sha256:00"}
    assert [{"min": "x:1x3", "max": "x:8x3"}] in [one["shapes"] for one in rest], (
        "each profile is a question of its own"
    )
    targets = [target for one in (first, *rest) for target in one["targets"]]
    assert sorted(targets) == sorted(2 * ["l4@tensorrt==10.14.1.48", "sm_89@tensorrt_rtx==1.7.1.116"])
    assert [model.name for model in spec.models] == list(document["models"])


def test_where_nothing_can_be_recommended_there_is_no_manifest(found: SweepResults) -> None:
    failed = tuple(replace(one, engine=None, outcome="failed") for one in found.trials)
    assert manifest(replace(found, trials=failed)) == ""
    with pytest.raises(BadInput, match="nothing to recommend"):
        exported(replace(found, trials=failed), "yaml")
    with pytest.raises(BadInput, match="no format 'xml'"):
        exported(found, "xml")
