"""Nothing bad is served by any command, everything is reported, and ``--repair`` heals."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tampered.site import MODEL, Site
from tests.tampered.ways import BOTH, EVERY, FOLDER, IT, OTHER, ROWS, Way, plan


def pulled(site: Site, folder: Path, *words: object) -> bytes | None:
    """What ``farm pull`` places; ``None`` when it refuses, in words and with nothing placed."""
    told = site.farm("pull", *words, "-o", folder)
    placed = [path for path in folder.rglob("*") if path.suffix != ".json"] if folder.exists() else []
    assert "defect" not in told.err and "Traceback" not in told.err, told.err
    if told.code:
        assert not placed and "farm: " in told.err
        return None
    (path,) = placed
    return path.read_bytes()


def nothing_bad_is_served(site: Site, way: Way, tmp_path: Path) -> None:
    honest = site.plans[IT]
    for words in (("ls", "engines"), ("ls", "engines", "--json"), ("show", site.engines[IT]["recipe"]), ("stats",)):
        shown = site.farm(*words)
        assert shown.code in (0, 2) and "defect" not in shown.err, (words, shown.err)
    looked = site.farm("build", MODEL, "-t", IT, "--no-build", "--json")
    assert looked.code in (0, 3), looked.err
    (answer,) = looked.json
    assert answer["engine"] is None or answer["engine"]["digest"] == plan(site)
    for n, words in enumerate((("--",), ())):
        what = (site.engines[IT]["recipe"],) if words else (MODEL, "-t", IT)
        assert pulled(site, tmp_path / str(n), *what) in ((honest,) if way.served else (None,))
    assert pulled(site, tmp_path / "built", MODEL, "-t", IT, "--build") == honest, "built again, and no error"
    again = site.farm("build", MODEL, "-t", IT, "-t", OTHER, "--no-build", "--json")
    assert [a["engine"]["digest"] for a in again.json] == [plan(site), plan(site, OTHER)]


def everything_is_reported_and_healed(site: Site, way: Way, tmp_path: Path) -> None:
    site.bytes.pass_on()
    found = site.farm("verify", "--grace", "0", "--json")
    assert found.code == 1, found.out
    kinds = {finding["kind"] for finding in found.json["findings"]}
    assert kinds >= way.finds and kinds <= way.finds | {"orphan"}, found.out
    repaired = site.farm("verify", "--grace", "0", "--repair", "--json")
    assert repaired.code == 0, repaired.out + repaired.err
    clean = site.farm("verify", "--grace", "0", "--json")
    assert clean.code == 0 and not clean.json["findings"], clean.out
    for target in (IT, OTHER):
        told = pulled(site, tmp_path / target, MODEL, "-t", target)
        if told is None:  # forgotten, since nothing remembers how it was asked for
            told = pulled(site, tmp_path / target, MODEL, "-t", target, "--build")
        assert told == site.plans[target]


@pytest.mark.parametrize("name", BOTH)
class TestInEitherStore:
    def test_nothing_bad_is_served(self, site: Site, name: str, tmp_path: Path) -> None:
        site.trusting()
        BOTH[name].do(site)
        nothing_bad_is_served(site, BOTH[name], tmp_path)

    def test_everything_is_reported_and_healed(self, site: Site, name: str, tmp_path: Path) -> None:
        site.trusting()
        BOTH[name].do(site)
        everything_is_reported_and_healed(site, BOTH[name], tmp_path)


@pytest.mark.parametrize("name", [*ROWS, *FOLDER])
class TestInAFolder:
    def test_nothing_bad_is_served(self, folder: Site, name: str, tmp_path: Path) -> None:
        folder.trusting()
        EVERY[name].do(folder)
        nothing_bad_is_served(folder, EVERY[name], tmp_path)

    def test_everything_is_reported_and_healed(self, folder: Site, name: str, tmp_path: Path) -> None:
        folder.trusting()
        EVERY[name].do(folder)
        everything_is_reported_and_healed(folder, EVERY[name], tmp_path)


def test_an_altered_row_is_served_to_nobody_without_a_policy_too(folder: Site, tmp_path: Path) -> None:
    name = "a row names the other plan, the manifest too"
    ROWS[name].do(folder)
    nothing_bad_is_served(folder, ROWS[name], tmp_path)


@pytest.mark.parametrize("name", [name for name, way in ROWS.items() if not way.policy])
def test_an_altered_row_is_found_without_a_policy_too(folder: Site, name: str, tmp_path: Path) -> None:
    ROWS[name].do(folder)
    everything_is_reported_and_healed(folder, ROWS[name], tmp_path)
