"""Keys, signatures and the policy: what is believed, of whom, and what is said when it is not."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm import manifests
from farm.builds import Engine
from farm.errors import BadConfig, BadInput
from farm.manifests import SCHEMA, blob_of, whole
from farm.trust import Policy, Signer, load_policy, load_signer, make_key

DIGEST = "sha256:" + "d" * 64
TOLD = {
    "key": "sha256:" + "a" * 64,
    "recipe": "sha256:" + "b" * 64,
    "seconds": {"build": 1.5},
    "model": "größe",
    "namespace": "main",
}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "key", "builder")
    return tmp_path / "key"


def engine(signer: Signer | None = None, **changes: Any) -> Engine:
    """As ``EngineCache.commit`` makes one, or as somebody would like it to have been made."""
    manifest = {**whole(TOLD, DIGEST, 10), **changes}
    row = {**manifest, "manifest": blob_of(manifest)} | ({"signature": signer.sign(manifest)} if signer else {})
    return Engine(TOLD["recipe"], DIGEST, 10, row, 0.0, 1.0)  # type: ignore[arg-type]


def policy_of(*paths: Path) -> Policy:
    return load_policy(",".join(path.with_name(path.name + ".pub").read_text().strip() for path in paths))


def test_what_was_signed_is_handed_out(key: Path) -> None:
    made = engine(load_signer(key))
    policy = policy_of(key)
    assert policy.refuses(made) == ""
    signer = policy.signer(made)
    assert signer is not None and signer.name == "builder"
    there_and_back = replace(made, manifest=json.loads(json.dumps(made.manifest)))
    assert policy.refuses(there_and_back) == "", "rows hold JSON"


SIGNED = sorted(set(engine().manifest) - manifests.BESIDE)


@pytest.mark.parametrize("name", SIGNED)
def test_no_part_of_a_manifest_may_change(key: Path, name: str) -> None:
    made = engine(load_signer(key))
    for value in ("other", None, {"digest": DIGEST, "size": 11}):
        told = {**made.manifest, name: value}
        for row in (told, {**told, "manifest": blob_of(told)}):
            assert policy_of(key).refuses(replace(made, manifest=row)) != "", (name, value)


def test_nothing_may_be_added_or_left_out(key: Path) -> None:
    made = engine(load_signer(key))
    more = {**made.manifest, "more": 1}
    less = {name: value for name, value in made.manifest.items() if name != "seconds"}
    for told in (more, less):
        assert policy_of(key).refuses(replace(made, manifest={**told, "manifest": blob_of(told)})) == (
            "its signature is bad"
        )


def test_a_row_in_another_namespace_is_refused(key: Path) -> None:
    made = engine(load_signer(key))
    assert policy_of(key).refuses(replace(made, namespace="release")) == (
        "its row stands in namespace release, and it was made for main"
    )
    told = {name: value for name, value in made.manifest.items() if name not in ("namespace", "signature")}
    row = {**told, "manifest": blob_of(told), "signature": load_signer(key).sign(told)}
    assert policy_of(key).refuses(replace(made, manifest=row)) == "its manifest names no namespace"


def test_a_key_vouches_for_the_namespaces_that_its_line_names(key: Path) -> None:
    line = key.with_name("key.pub").read_text().strip()
    limited = line.replace(" ssh-ed25519", ' namespaces="pr-*,sandbox" ssh-ed25519')
    policy = load_policy(f"{limited},{line.replace(line.split()[2], other_line().split()[2])}")
    for namespace, refused in (("main", True), ("pr-7", False), ("sandbox", False), ("sandbox2", True)):
        told = whole({**TOLD, "namespace": namespace}, DIGEST, 10)
        row = {**told, "manifest": blob_of(told), "signature": load_signer(key).sign(told)}
        said = policy.refuses(Engine(TOLD["recipe"], DIGEST, 10, row, 0.0, 1.0, namespace))
        assert said == (f"it is signed by builder, whom FARM_TRUST does not name for {namespace}" if refused else "")
    (there_and_back,) = (one for one in policy.keys.values() if one.namespaces)
    assert there_and_back.line() == limited


def other_line() -> str:
    """A public key that nobody here signs with."""
    with tempfile.TemporaryDirectory() as folder:
        return make_key(Path(folder) / "other", "other").line()


@pytest.mark.parametrize(
    "option", ['namespaces=""', "namespaces=main", 'namespaces="a,,b"', 'namespaces="', 'namespaces="é"']
)
def test_a_list_of_namespaces_that_is_none_is_an_error(key: Path, option: str) -> None:
    """Taken for no limit, it would trust the key for everything."""
    line = key.with_name("key.pub").read_text().strip()
    with pytest.raises(BadConfig):
        load_policy(line.replace(" ssh-ed25519", f" {option} ssh-ed25519"))


@pytest.mark.parametrize("change", [{"digest": "sha256:" + "e" * 64}, {"size": 11}, {"recipe": "sha256:" + "c" * 64}])
def test_the_row_must_be_of_the_manifest(key: Path, change: dict[str, Any]) -> None:
    assert "its row names another" in policy_of(key).refuses(replace(engine(load_signer(key)), **change))


def test_why_it_is_refused_is_said(key: Path, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger", "stranger")
    stranger, policy = load_signer(tmp_path / "stranger"), policy_of(key)
    assert policy.refuses(engine()) == "it is not signed"
    assert f"signed by {stranger.id}, whom FARM_TRUST does not name" in policy.refuses(engine(stranger))
    assert policy.signer(engine(stranger)) is None
    assert "of schema 1" in policy.refuses(engine(load_signer(key), schema=1))
    assert f"of schema {SCHEMA + 1}" in policy.refuses(engine(load_signer(key), schema=SCHEMA + 1))


def test_a_signature_is_good_for_a_manifest_alone(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes signed for another purpose, or under another schema, are no signature of a manifest."""
    signer, policy = load_signer(key), policy_of(key)
    monkeypatch.setattr(manifests, "SIGNED", "farm lock file")
    other = engine(signer)
    monkeypatch.undo()
    assert policy.refuses(other) == "its signature is bad"
    bare = engine(signer)
    value = base64.b64encode(signer._key.sign(manifests.body(bare.manifest))).decode()
    signature = {**bare.manifest["signature"], "value": value}
    assert policy.refuses(replace(bare, manifest={**bare.manifest, "signature": signature})) == "its signature is bad"


def test_keys_are_rotated_and_revoked(key: Path, tmp_path: Path) -> None:
    """Two at a time while the old one's engines are still about; then the old one goes, and with it what it signed."""
    make_key(tmp_path / "next", "next")
    old, new = engine(load_signer(key)), engine(load_signer(tmp_path / "next"))
    both = policy_of(key, tmp_path / "next")
    assert [both.refuses(old), both.refuses(new)] == ["", ""]
    after = policy_of(tmp_path / "next")
    assert "does not name" in after.refuses(old) and after.refuses(new) == ""


# -- files ---------------------------------------------------------------------------------------------------


def test_a_trust_file(key: Path, tmp_path: Path) -> None:
    line = key.with_name("key.pub").read_text().strip()
    file = tmp_path / "trusted"
    file.write_text(f"# builders\n\n  {line} since 2026 \n{line.partition(' ')[2]}\n")
    (trusted,) = load_policy(str(file)).keys.values()
    assert trusted.id == load_signer(key).id


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("# nobody\n", "names no key"),
        ("builder ssh-rsa AAAA\n", "names no key"),
        ("builder ssh-ed25519\n", "names no key"),
        ("builder ssh-ed25519 AAAA\n", "holds no Ed25519 key"),
        ("builder ssh-ed25519 !!!!\n", "holds no Ed25519 key"),
        ('builder valid-before="20260101" LINE\n', "names no key"),
    ],
)
def test_a_trust_file_that_says_something_else_trusts_nobody(key: Path, tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "trusted"
    line = key.with_name("key.pub").read_text().strip().partition(" ")[2]
    file.write_text(text.replace("LINE", line))
    with pytest.raises(BadConfig, match=why):
        load_policy(str(file))


@pytest.mark.parametrize("what", ["not there", "a folder", "a pipe", "open to others"])
def test_a_trust_file_that_cannot_be_believed(key: Path, tmp_path: Path, what: str) -> None:
    path = tmp_path / "trusted"
    if what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    elif what == "open to others":
        shutil.copy(key.with_name("key.pub"), path)
        path.chmod(0o646)
    with pytest.raises(BadConfig, match="FARM_TRUST"):
        load_policy(str(path))


def test_a_private_key_is_for_its_owner_alone(key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o640)
    with pytest.raises(BadConfig, match="others may read") as caught:
        load_signer(key)
    assert "chmod 600" in caught.value.hint


def test_a_key_is_never_overwritten(key: Path) -> None:
    before = key.read_bytes()
    with pytest.raises(BadInput, match="there already"):
        make_key(key, "again")
    assert key.read_bytes() == before
    with pytest.raises(BadInput, match="cannot be a signer's name"):
        make_key(key.with_name("other"), "two words")


def made_by(path: Path, *words: str) -> Callable[[], object]:
    return lambda: subprocess.run([*words], check=True, capture_output=True, cwd=path.parent)


@pytest.mark.parametrize("tool", ["ssh-keygen", "openssl"])
def test_keys_of_other_tools_serve(tmp_path: Path, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool} here")
    words = {
        "ssh-keygen": ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"],
        "openssl": ["openssl", "genpkey", "-algorithm", "ed25519", "-out", "key"],
    }[tool]
    subprocess.run(words, check=True, capture_output=True, cwd=tmp_path)
    (tmp_path / "key").chmod(0o600)
    signer = load_signer(tmp_path / "key")
    if tool == "ssh-keygen":
        shown = subprocess.run(["ssh-keygen", "-lf", "key"], check=True, capture_output=True, cwd=tmp_path, text=True)
        assert signer.id in shown.stdout
        assert load_policy((tmp_path / "key.pub").read_text()).refuses(engine(signer)) == ""


@pytest.mark.parametrize("what", ["encrypted", "rsa", "text"])
def test_other_keys_are_refused_in_words(tmp_path: Path, what: str) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    path = tmp_path / "key"
    if what == "encrypted":
        secret = ed25519.Ed25519PrivateKey.generate()
        data = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"words"))
    elif what == "rsa":
        other = rsa.generate_private_key(65537, 2048)
        data = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    else:
        data = b"no key\n"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(BadConfig, match="FARM_SIGNING_KEY") as caught:
        load_signer(path)
    assert "farm keygen" in caught.value.hint
