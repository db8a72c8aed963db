"""``farm verify`` beyond the corpus: where it goes on, how fast it reads, what it cannot heal and what it leaves."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.asks import Ask
from farm.config import load
from farm.errors import CorruptBlob, Untrusted
from farm.findings import Verified
from farm.service import Farm
from farm.verify import CURSOR, Verify
from farm.wiring import open_farm
from farm.wiring.backends import open_upkeep
from tests.tampered.site import MODEL, FolderBytes, Site
from tests.tampered.ways import IT, OTHER, flip, plan


@contextlib.contextmanager
def opened() -> Iterator[Farm]:
    with open_farm(load()) as farm:
        yield farm


def verified(tell: list[str] | None = None, **options: object) -> Verified:
    with opened() as farm:
        index = open_upkeep(load())
        try:
            said = tell if tell is not None else []
            return Verify(farm, index, tell=said.append, **options).everything()  # type: ignore[arg-type]
        finally:
            index.close()


def test_a_farm_in_order(folder: Site) -> None:
    told = folder.farm("verify", "--grace", "0")
    assert told.code == 0 and "in order" in told.out and "2 engines" in told.out
    found = verified(grace=0.0)
    blobs = [path for path in (folder.home / "store" / "sha256").rglob("*") if path.is_file()]
    assert found.blobs == len(blobs) and found.bytes == sum(path.stat().st_size for path in blobs)


def test_it_goes_on_where_it_was_cut_short(folder: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before is not read again; what is bad further on is found."""
    monkeypatch.setattr("farm.verify.TELL_SECONDS", 0.0)
    monkeypatch.setattr("farm.verify.NOTE_SECONDS", 0.0)
    whole = verified().blobs
    real, calls = Verify._scrub, []

    def third_is_the_last(self: Verify, blob: object) -> None:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(blob)
        real(self, blob)  # type: ignore[arg-type]

    monkeypatch.setattr(Verify, "_scrub", third_is_the_last)
    with pytest.raises(KeyboardInterrupt):
        verified()
    monkeypatch.setattr(Verify, "_scrub", real)
    index = open_upkeep(load())
    assert index.note(CURSOR)
    index.close()
    rest = verified()
    assert rest.resumed and rest.blobs == whole - 3
    assert verified().blobs == whole, "the whole way has been gone, so the next begins anew"


def test_anew(folder: Site) -> None:
    index = open_upkeep(load())
    index.set_note(CURSOR, "sha256:ff")
    index.close()
    assert folder.farm("verify", "--anew", "--json").json["read"]["blobs"] > 1


def test_it_reads_no_faster_than_it_may(folder: Site) -> None:
    size = verified().bytes
    start = time.monotonic()
    verified(rate=size / 0.5)
    assert time.monotonic() - start >= 0.5


@pytest.mark.parametrize("text", ["fast", "-1", "1e400"])
def test_a_rate_is_a_number(folder: Site, text: str) -> None:
    assert folder.farm("verify", f"--rate={text}").code == 2


def test_only_these(folder: Site) -> None:
    """Named engines alone are read, and a bad one is put aside and built again."""
    folder.bytes.write(plan(folder, OTHER), flip(folder.plans[OTHER]))
    assert folder.farm("verify", folder.engines[IT]["recipe"]).code == 0
    told = folder.farm("verify", plan(folder, OTHER)[:24], "--json")
    assert told.code == 1 and [f["kind"] for f in told.json["findings"]] == ["corrupt"]
    assert folder.farm("verify", folder.engines[OTHER]["recipe"], "--repair").code == 0
    assert folder.bytes.read(plan(folder, OTHER)) == folder.plans[OTHER]
    assert folder.farm("verify", "0" * 64).code == 3


def test_without_repair_a_bad_blob_is_put_aside_and_nothing_else_is_done(folder: Site) -> None:
    folder.bytes.write(plan(folder), flip(folder.plans[IT]))
    assert folder.farm("verify").code == 1
    assert len(os.listdir(folder.home / "store" / "quarantine")) == 1
    assert not folder.sql("SELECT id FROM builds WHERE state = 'queued'")
    (answer,) = folder.farm("build", MODEL, "-t", IT, "--json").json
    assert answer["outcome"] == "built" and answer["engine"]["digest"] == plan(folder)


def test_a_form_is_exported_again(folder: Site) -> None:
    (form,) = folder.sql("SELECT * FROM forms")
    folder.bytes.write(form["graph"], b"no graph")
    told = folder.farm("verify", "--json")
    assert told.code == 1 and [f["kind"] for f in told.json["findings"]] == ["corrupt"]
    assert folder.farm("verify", "--repair").code == 0 and not folder.sql("SELECT * FROM forms")
    shutil.rmtree(folder.home / "cache")
    assert folder.farm("build", MODEL, "-t", "sm_120").code == 0 and folder.sql("SELECT * FROM forms")


def test_a_damaged_form_or_program_fails_no_build(folder: Site) -> None:
    """Neither has been verified before; whoever meets it puts it aside and goes on."""
    (form,) = folder.sql("SELECT * FROM forms")
    for blob in (form["graph"], form["side"]):
        folder.bytes.write(blob, b"no form")
        shutil.rmtree(folder.home / "cache")
        assert folder.farm("build", MODEL, "-t", IT, "--force").code == 0
        assert folder.bytes.read(blob) != b"no form"
    (program,) = folder.sql("SELECT * FROM programs")
    folder.bytes.write(program["digest"], b"no program")
    assert folder.farm("build", MODEL, "-t", IT, "--force").code == 0, "whoever asks brings the bytes along"


@pytest.mark.parametrize("name", ["../../../escaped", "/tmp/escaped", "a/b", "", "form.json"])
def test_a_form_stays_in_its_folder(folder: Site, name: str) -> None:
    """A row names the files that a form's blobs become on a worker."""
    (form,) = folder.sql("SELECT * FROM forms")
    folder.sql("UPDATE forms SET detail_json = ?", json.dumps({**json.loads(form["detail_json"]), "graph": name}))
    shutil.rmtree(folder.home / "cache")
    before = set(folder.home.parent.rglob("*escaped*"))
    assert folder.farm("build", MODEL, "-t", IT, "--force").code == 0
    assert set(folder.home.parent.rglob("*escaped*")) == before and not Path("/tmp/escaped").exists()


def test_what_an_outline_was_is_not_needed(folder: Site) -> None:
    (row, *_) = folder.sql("SELECT outline FROM key_parts WHERE outline != ''")
    folder.bytes.write(row["outline"], b"no outline")
    assert folder.farm("explain", MODEL, "-t", "sm_120").code == 0
    folder.bytes.write(row["outline"], b"no outline")
    told = folder.farm("verify", "--json")
    assert told.code == 0 and told.json["findings"][0]["how"].startswith("put aside")


def test_a_program_cannot_be_made_again(folder: Site) -> None:
    """It is said what to do; an engine that needs it is forgotten rather than left bad."""
    (program,) = folder.sql("SELECT * FROM programs")
    folder.bytes.write(program["digest"], b"no program")
    folder.bytes.write(plan(folder), flip(folder.plans[IT]))
    told = folder.farm("verify", "--repair", "--json")
    assert told.code == 1
    how = {finding["place"]: finding["how"] for finding in told.json["findings"]}
    assert "ask for its model again" in how[program["digest"]] and "forgotten" in how[plan(folder)]
    assert folder.farm("build", MODEL, "-t", IT).code == 0
    assert folder.farm("verify", "--json").code == 0


def test_a_stranger_s_engine_stays_for_those_who_trust_him(folder: Site) -> None:
    """A policy is one reader's; nobody else's engines go for it, though nobody can build here what it asks for."""
    folder.trusting("strangers")
    told = folder.farm("verify", "--repair", "--json")
    assert told.code == 1 and {f["kind"] for f in told.json["findings"]} == {"untrusted"}
    assert {row["digest"] for row in folder.sql("SELECT digest FROM engines")} == {plan(folder), plan(folder, OTHER)}
    built = folder.farm("build", MODEL, "-t", IT, "--json")
    assert built.code == 1 and "whom FARM_TRUST does not name" in built.json[0]["error"]
    folder.trusting()
    assert folder.farm("pull", MODEL, "-t", IT, "-o", folder.home.parent / "out").code == 0


def test_a_miss_for_want_of_trust_is_counted_apart(folder: Site) -> None:
    folder.edit_manifest(IT, lambda told: {name: value for name, value in told.items() if name != "signature"})
    folder.trusting()
    looked = folder.farm("build", MODEL, "-t", IT, "--no-build")
    assert looked.code == 3 and "not signed" in looked.err
    assert folder.farm("stats", "--json").json["counters"]["miss"]["untrusted"] == 1
    (built,) = folder.farm("build", MODEL, "-t", IT, "--json").json
    assert built["outcome"] == "built", "by a worker that signs"
    assert folder.farm("build", MODEL, "-t", IT, "--json").json[0]["outcome"] == "hit"


def test_a_policy_that_cannot_be_read_hands_out_nothing(folder: Site, tmp_path: Path) -> None:
    folder.patch.setenv("FARM_TRUST", str(tmp_path / "nowhere"))
    for words in (("build", MODEL, "-t", IT), ("pull", MODEL, "-t", IT, "-o", tmp_path / "out"), ("verify",)):
        told = folder.farm(*words)
        assert told.code == 2 and "FARM_TRUST" in told.err
    assert not (tmp_path / "out").exists()


def test_the_wrong_store_is_not_repaired(folder: Site, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert folder.farm("reconcile").code == 0, "labels the two"
    folder.patch.setenv("FARM_STORE_URL", (tmp_path / "elsewhere").as_uri())
    told = folder.farm("verify", "--repair")
    assert told.code == 2 and "wrong one" in told.err
    assert len(folder.sql("SELECT * FROM engines")) == 2


def test_in_python_a_bad_engine_is_built_again_where_that_is_allowed(folder: Site, tmp_path: Path) -> None:
    folder.trusting()
    with opened() as farm:
        (answer,) = farm.submit([Ask(str(MODEL), IT)], build=False)
        assert answer.engine is not None
        for spoil in (flip, lambda data: data[:5]):
            (engine,) = farm.index.engines(prefix=answer.engine.digest)
            folder.bytes.write(engine.digest, spoil(folder.plans[IT]))
            made = farm.fetch(engine, tmp_path / "plan", build=True)
            assert made.digest == engine.digest and (tmp_path / "plan").read_bytes() == folder.plans[IT]
        (tmp_path / "plan").unlink()
        folder.bytes.write(made.digest, flip(folder.plans[IT]))
        with pytest.raises(CorruptBlob):
            farm.fetch(made, tmp_path / "plan")
        (other,) = farm.index.engines(prefix=plan(folder, OTHER))
        bare = {name: value for name, value in other.manifest.items() if name != "signature"}
        with pytest.raises(Untrusted, match="not signed"):
            farm.cache._check_row(type(other)(**{**vars(other), "manifest": bare}))
    assert not (tmp_path / "plan").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's rights are taken on")
def test_what_may_not_be_read_is_told_of_and_made_again(folder: Site) -> None:
    """As a user who owns the store's folders and not all of its files."""
    assert isinstance(folder.bytes, FolderBytes)
    path = folder.bytes.path(plan(folder))
    with tempfile.TemporaryDirectory() as outside:
        home = Path(outside) / "home"
        shutil.copytree(folder.home, home)
        for one in (Path(outside), home, *home.rglob("*")):
            os.chown(one, 65534, 65534)
        path = home / path.relative_to(folder.home)
        os.chown(path, 0, 0)
        path.chmod(0o600)
        folder.patch.setenv("FARM_HOME", str(home))
        folder.patch.delenv("FARM_SIGNING_KEY")
        os.seteuid(65534)
        try:
            told = folder.farm("verify", "--json")
            assert told.code == 1 and [f["kind"] for f in told.json["findings"]] == ["unreadable"], told.out
            assert path.exists(), "only where it can be made again is it put aside"
            repaired = folder.farm("verify", "--repair", "--json")
            assert repaired.code == 0, repaired.out + repaired.err
            assert path.read_bytes() == folder.plans[IT]
        finally:
            os.seteuid(0)


def test_a_key_is_made_and_used(folder: Site, tmp_path: Path) -> None:
    made = folder.farm("keygen", tmp_path / "new", "--name", "ci", "--json").json
    (tmp_path / "trusted").write_text(made["line"] + "\n")
    folder.patch.setenv("FARM_SIGNING_KEY", str(tmp_path / "new"))
    folder.patch.setenv("FARM_TRUST", str(tmp_path / "trusted"))
    (built,) = folder.farm("build", MODEL, "-t", IT, "--json").json
    assert built["outcome"] == "built"
    assert made["id"] in folder.farm("show", built["recipe"], "--json").out
    assert folder.farm("keygen", tmp_path / "new").code == 2


def test_a_form_that_nobody_vouches_for_is_not_built_from(folder: Site) -> None:
    """A signature of an engine is worth no more than the form that its worker was given."""
    (form,) = folder.sql("SELECT * FROM forms")
    folder.sql("UPDATE forms SET graph = ?", plan(folder))
    folder.trusting()
    told = folder.farm("verify", "--json")
    assert told.code == 1 and {f["kind"] for f in told.json["findings"]} == {"untrusted"}
    shutil.rmtree(folder.home / "cache")
    assert folder.farm("build", MODEL, "-t", IT, "--force").code == 0
    assert folder.sql("SELECT graph FROM forms") == [{"graph": form["graph"]}], "exported anew"
    folder.sql("UPDATE forms SET graph = ?", plan(folder))
    assert folder.farm("verify", "--repair").code == 0 and not folder.sql("SELECT * FROM forms")
