"""Real engines that rot: whoever meets one gets a rebuild, and ``farm verify --repair`` heals them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import WARM_TARGET, Farms

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("builds")]


def blob_of(farm: Farms, answer: dict[str, Any]) -> Path:
    digits = answer["engine"]["digest"].removeprefix("sha256:")
    return farm.home / "store" / "sha256" / digits[:2] / digits


def rot(path: Path) -> bytes:
    """Flip a bit in the middle; what the bytes were."""
    right = path.read_bytes()
    middle = len(right) // 2
    path.chmod(0o644)
    path.write_bytes(right[:middle] + bytes([right[middle] ^ 4]) + right[middle + 1 :])
    return right


def test_a_rotten_engine_is_built_again(warm: Farms, copied: Callable[[str], Path], tmp_path: Path) -> None:
    model, signed = copied("gemm.pt2"), tmp_path / "key"
    line = warm.run("keygen", signed, "--json").json["line"]
    (tmp_path / "trusted").write_text(line + "\n")
    env = {"FARM_SIGNING_KEY": str(signed), "FARM_TRUST": str(tmp_path / "trusted")}
    ask = ("build", model, "-t", WARM_TARGET, "--json")
    looked = warm.run(*ask, "--no-build", env=env)
    assert looked.code == 3, "what was built before nobody signed"
    (built,) = warm.run(*ask, env=env).json
    assert built["outcome"] == "built"
    (shown,) = (warm.run("show", built["recipe"], "--json", env=env).json["manifest"],)
    assert shown["seconds"]["build"] > 0 and shown["peak_memory"] > 0 and shown["exporter"] and shown["log"]["digest"]

    right = rot(blob_of(warm, built))
    refused = warm.run("pull", built["key"], "-o", tmp_path / "out", env=env)
    assert refused.code == 1 and not list((tmp_path / "out").glob("*.plan"))
    pulled = warm.run("pull", model, "-t", WARM_TARGET, "-o", tmp_path / "out", "--build", "--json", env=env)
    assert pulled.code == 0, pulled.err
    assert Path(pulled.json[0]["path"]).read_bytes() == right, "TensorRT-RTX builds are byte-identical"

    rot(blob_of(warm, built))
    repaired = warm.run("verify", "--repair", "--json", env=env)
    assert repaired.code == 0, repaired.out + repaired.err
    found = {finding["kind"]: finding["how"] for finding in repaired.json["findings"]}
    assert found["corrupt"] == "built again", repaired.out
    assert blob_of(warm, built).read_bytes() == right
    assert warm.run("verify", "--repair", env=env).code == 0, "the others were not signed, and are now"
    assert warm.run("verify", env=env).code == 0
