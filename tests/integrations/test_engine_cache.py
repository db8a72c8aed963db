"""``FarmEngineCache`` under the real Torch-TensorRT: its partitioner and converters, over TensorRT-RTX's builder."""

from __future__ import annotations

import pickle
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from farm.config import load
from farm.index import Index
from farm.wiring.backends import open_index, open_store
from tests.conftest import eventually
from tests.integrations.conftest import Compilers

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("torch_tensorrt")]

HEAD = {"model": "head"}
NO_LOCAL = {"cache": {"local_bytes": 0}}


def index_of(compilers: Compilers, **env: str) -> Index:
    return open_index(load({"FARM_HOME": str(compilers.home), **env}))


def test_engines_are_built_once_and_shared(compilers: Compilers) -> None:
    """Miss, store and hit; by every fine-tune, by another process, from the farm as well as from this machine; and two
    programs share their backbone's engine."""
    first, again, tuned = compilers.run(HEAD, HEAD, {**HEAD, "weights": 1})
    assert [first[name] for name in ("misses", "stored", "local_hits")] == [1, 1, 0]
    for found in (again, tuned):
        assert (found["local_hits"], found["misses"], len(found["refitted"])) == (1, 0, 1)
        assert found["keys"] == first["keys"]

    here, there, renamed, two, wide = compilers.run(
        HEAD, {**HEAD, **NO_LOCAL}, {"model": "renamed"}, {"model": "two"}, {"model": "wide"}
    )
    assert (here["local_hits"], there["farm_hits"], there["saved"] > 0) == (1, 1, True)
    assert here["refitted"] == there["refitted"] == again["refitted"]
    # Its weights have other names, by which a refit could not find them: one key, and an engine of its own.
    assert renamed["keys"] == first["keys"] and (renamed["misses"], renamed["stored"]) == (1, 1)
    assert (two["misses"], wide["misses"], wide["farm_hits"]) == (2, 1, 1)
    assert two["keys"][0] == wide["keys"][0] and two["keys"][1] != wide["keys"][1]
    assert not [found["error"] for found in (first, again, tuned, here, there, renamed, two, wide) if found["error"]]

    store = open_store(load({"FARM_HOME": str(compilers.home)}))
    engines = index_of(compilers).engines()
    assert len(engines) == 5 and not store.missing({engine.digest for engine in engines})
    assert all(engine.manifest["toolchain"].startswith("torch_tensorrt==2.13.0+rtx") for engine in engines)


def test_what_matters_parts_keys(compilers: Compilers) -> None:
    """Hits are only for the very same: graph arguments, shapes, settings, weights where their values are read."""
    sparse = {"settings": {"sparse_weights": True}}
    jobs: list[dict[str, Any]] = [
        HEAD,
        {"model": "eps"},
        {**HEAD, "batch": 9},
        {**HEAD, "settings": {"disable_tf32": True}},
        {**HEAD, "settings": {"strip_engine_weights": True}},
        {**HEAD, **sparse},
        {**HEAD, **sparse, "weights": 1},
    ]
    found = compilers.run(*jobs)
    assert [one["misses"] for one in found] == [1] * len(jobs)
    keys = [one["keys"][0] for one in found]
    assert len(set(keys)) == len(keys)
    # Another GPU, and what cannot matter: one has a key of its own, the other has not.
    (other,) = compilers.run(HEAD, STAND_IN_CAPABILITY="12.0")
    assert other["misses"] == 1 and other["keys"][0] not in keys
    searched, only_kept, only_taken = compilers.run(
        {**HEAD, "settings": {"workspace_size": 2**30}},
        {**HEAD, "settings": {"reuse_cached_engines": False}},
        {**HEAD, "settings": {"cache_built_engines": False}},
    )
    assert searched["keys"] == only_kept["keys"] == only_taken["keys"] == keys[:1]
    assert (searched["farm_hits"], only_kept["local_hits"], only_taken["local_hits"]) == (1, 0, 1)


def test_its_own_hash_cases_hold(compilers: Compilers) -> None:
    running = compilers.start("hashes")
    (found,) = compilers.finish(running)
    one = found["one"]
    same = {name for name, key in found.items() if key == one}
    assert same == {"one", "exported again", "an instance", "other weights", "level 3", "debugged"}
    assert found["some operators"] == found["the same operators"]
    others = [found[name] for name in found.keys() - same - {"the same operators"}]
    assert len(set(others)) == len(others)
    assert found["calibrated"].startswith("unkeyed:") and "autocast_calibration_dataloader" in running.out.read_text()


def test_one_builds_and_the_others_wait(compilers: Compilers, tmp_path: Path) -> None:
    go, no_local = tmp_path / "go", NO_LOCAL["cache"]
    builder = compilers.start({**HEAD, **NO_LOCAL, "held": str(go)})
    index = index_of(compilers)
    (build,) = eventually(lambda: [one for one in builds(compilers, index) if one.state == "running"])
    waiter = compilers.start({**HEAD, **NO_LOCAL, "held": str(tmp_path / "never")})
    hasty = compilers.start({**HEAD, "cache": {**no_local, "wait_seconds": 0.2}})
    (impatient,) = compilers.finish(hasty)
    assert (impatient["misses"], impatient["stored"], impatient["error"]) == (1, 0, "")
    assert any("built here" in line for line in impatient["said"])
    eventually(lambda: index.build(build.id).waiters == 2)  # type: ignore[union-attr]
    go.touch()
    (built,), (waited,) = compilers.finish(builder), compilers.finish(waiter)
    assert (built["misses"], built["stored"]) == (1, 1)
    assert (waited["misses"], waited["farm_hits"], waited["waited"]) == (0, 1, 1)
    assert len(index.engines()) == 1


def builds(compilers: Compilers, index: Index) -> list[Any]:
    return index.builds() if (compilers.home / "farm.db").exists() else []


def test_who_waits_takes_over_from_one_that_dies(compilers: Compilers, tmp_path: Path) -> None:
    compilers.env = {"FARM_LEASE_SECONDS": "2", "FARM_BEAT_SECONDS": "0.3"}
    dying = compilers.start({**HEAD, **NO_LOCAL, "held": str(tmp_path / "never")})
    index = index_of(compilers)
    (build,) = eventually(lambda: [one for one in builds(compilers, index) if one.state == "running"])
    heir = compilers.start({**HEAD, **NO_LOCAL})
    eventually(lambda: index.build(build.id).waiters == 2)  # type: ignore[union-attr]
    dying.kill()
    (found,) = compilers.finish(heir)
    assert (found["misses"], found["stored"], found["error"]) == (1, 1, "")
    assert [one.state for one in index.builds()] == ["succeeded"]


def test_a_build_that_fails_is_nobody_s_to_wait_for(compilers: Compilers) -> None:
    failed, after = compilers.run({**HEAD, "fail": True}, {**HEAD, "batch": 9})
    assert "no engine could be built" in failed["error"] and after["stored"] == 1
    assert sorted(str(one.state) for one in index_of(compilers).builds()) == ["cancelled", "succeeded"]


def test_a_farm_that_is_down_ends_no_compile(compilers: Compilers, tmp_path: Path) -> None:
    """Refused, silent, or wrongly set up: it is said once, and the engines of this machine serve all the same."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        port = silent.getsockname()[1]
        down = [f"postgresql+psycopg://nobody@127.0.0.1:{port}/farm", "postgresql+psycopg://nobody@127.0.0.1:1/farm"]
        for number, url in enumerate(down):
            compilers.env = {"FARM_DATABASE_URL": url}
            jobs = [{**HEAD, "batch": 20 + number, "cache": {"look_seconds": 1.0, "store_seconds": 1.0}}]
            first, again = compilers.run(*jobs, {**jobs[0], "cache": {"look_seconds": 1.0}})
            assert (first["misses"], first["stored"], first["error"], len(first["said"])) == (1, 0, "", 1)
            assert "Torch-TensorRT builds without it" in first["said"][0]
            assert (again["local_hits"], again["error"], again["said"]) == (1, "", [])
            assert first["took"] < 20


def test_a_fleet_s_clients_keep_what_they_built_to_themselves(compilers: Compilers) -> None:
    """Until a trusted worker has built it: each finds its own engines, and nobody else's."""
    fleet = {"FARM_BROKER_URL": "redis://127.0.0.1:1/0"}  # no wake-up is ever sent
    jobs = [{**HEAD, **NO_LOCAL}, {**HEAD, **NO_LOCAL}]
    mine = compilers.run(*jobs, **fleet, FARM_TENANT="ada")
    assert [(one["misses"], one["stored"], one["farm_hits"]) for one in mine] == [(1, 1, 0), (0, 0, 1)]
    (theirs,) = compilers.run(jobs[0], **fleet, FARM_TENANT="bob smith")
    assert (theirs["misses"], theirs["stored"], theirs["said"]) == (1, 1, [])
    index = index_of(compilers)
    assert {engine.namespace for engine in index.engines()} == {"client/ada", "client/bob-smith"}


def test_reading_only_writes_nothing(compilers: Compilers) -> None:
    (read,) = compilers.run({**HEAD, "cache": {"read_only": True}})
    assert (read["misses"], read["stored"]) == (1, 0) and not index_of(compilers).builds()


def test_what_is_passed_by_is_said_with_the_reason(compilers: Compilers) -> None:
    passed, again = compilers.run(*[{**HEAD, "settings": {"immutable_weights": True}}] * 2)
    assert passed["asked"] == 0 and len(passed["said"]) == 1 and "immutable_weights=False" in passed["said"][0]
    assert again["said"] == []


def test_nothing_is_ever_unpickled(compilers: Compilers, tmp_path: Path) -> None:
    """A folder that others may write to holds a pickle where an engine should be."""
    (stored,) = compilers.run(HEAD)
    (path,) = (compilers.home / "cache" / "engines").glob("*.engine")
    bomb = tmp_path / "boom"
    path.write_bytes(pickle.dumps(Bomb(str(bomb))))
    (found,) = compilers.run(HEAD)
    assert (found["local_hits"], found["farm_hits"], found["keys"]) == (0, 1, stored["keys"])
    assert not bomb.exists()


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_waiting_is_bounded_in_time() -> None:
    """By ``Reach``: a call that hangs is left behind, and the farm is not asked again for a while."""
    from farm.integrations.reach import NotReached, Reach

    reach, asked = Reach(pause=60.0), []
    began = time.monotonic()
    with pytest.raises(NotReached):
        reach.call("answer", lambda: time.sleep(30), 0.1)
    with pytest.raises(NotReached):
        reach.call("answer", lambda: asked.append(1), 5.0)
    assert time.monotonic() - began < 5 and not asked and reach.failures == 1
