"""Who may vouch for an engine: Ed25519 keys, signatures of manifests, and the policy that asks for them.

A worker with a signing key signs the canonical manifest of each engine that it makes (``manifests.signing_input``),
which names the plan's digest, its size, key and recipe. Whoever has a policy hands out nothing that no key of the
policy vouches for. Keys are written as OpenSSH writes them, so that ``ssh-keygen`` makes and shows them as well:

    # FARM_TRUST=/etc/farm/trusted, one signer a line; a key that is taken off the list is revoked
    builders-2026 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…

``cryptography`` is imported at the first use: without signatures nobody needs it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.builds import Engine
from farm.errors import BadConfig, BadInput, Unavailable
from farm.manifests import SCHEMA, alteration, signing_input
from farm.namespaces import admits, is_name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KIND = "ssh-ed25519"
_START = len(KIND).to_bytes(4, "big") + KIND.encode() + (32).to_bytes(4, "big")
ONLY = "namespaces="
_BETWEEN = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')
"""A comma outside quotes."""
LARGEST = 1 << 20
"""No key or trust file is larger."""


@dataclass(frozen=True)
class TrustedKey:
    """A public key: its 32 bytes, the name that the trust file gives its holder, and the namespaces that it may vouch
    for (``namespaces.admits``; empty: for all)."""

    raw: bytes
    name: str = ""
    namespaces: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """As ``ssh-keygen -lf`` shows it."""
        return key_id(self.raw)

    def line(self) -> str:
        """As a trust file has it."""
        only = f'namespaces="{",".join(self.namespaces)}" ' if self.namespaces else ""
        return f"{self.name or 'unnamed'} {only}{KIND} {base64.b64encode(_START + self.raw).decode()}"

    def vouches_for(self, namespace: str) -> bool:
        return not self.namespaces or admits(self.namespaces, namespace)


def key_id(raw: bytes) -> str:
    """``SHA256:…``, OpenSSH's fingerprint of a public key."""
    digest = hashlib.sha256(_START + raw).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


# -- signing -------------------------------------------------------------------------------------------------


class Signer:
    """Signs manifests. Safe between threads."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.raw = key.public_key().public_bytes_raw()
        self.id = key_id(self.raw)

    def sign(self, manifest: Mapping[str, Any]) -> dict[str, str]:
        """The ``signature`` that stands beside a manifest in its row."""
        return self.vouch(signing_input(manifest))

    def vouch(self, statement: bytes) -> dict[str, str]:
        """A signature of a statement (``manifests.statement``)."""
        value = self._key.sign(statement)
        return {"scheme": "ed25519", "key": self.id, "value": base64.b64encode(value).decode()}


def load_signer(path: Path) -> Signer:
    """The signer whose private key is the file ``path``: OpenSSH's format or PEM, without a passphrase, and readable by
    its owner alone. ``BadConfig`` otherwise."""
    _needed("FARM_SIGNING_KEY")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    data = _read("FARM_SIGNING_KEY", path, private=True)
    load = load_ssh_private_key if b"BEGIN OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        key = load(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = "it needs a passphrase" if isinstance(error, TypeError) else "it cannot be read as one"
        raise BadConfig(f"FARM_SIGNING_KEY: {path} is no private key for signing: {why}", MAKE_ONE) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadConfig(f"FARM_SIGNING_KEY: {path} is no Ed25519 key", MAKE_ONE)
    return Signer(key)


MAKE_ONE = "'farm keygen FILE' makes one"


def make_key(path: Path, name: str) -> TrustedKey:
    """Make a private key at ``path``, which must not be there, and its public half beside it (``.pub``)."""
    _needed("'farm keygen'")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if not name or not name.isprintable() or any(letter in name for letter in ' ,"#'):
        raise BadInput(f"'{name}' cannot be a signer's name", "give one word, such as builders-2026")
    key = Ed25519PrivateKey.generate()
    public = TrustedKey(key.public_key().public_bytes_raw(), name)
    try:
        _write_new(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), 0o600)
        _write_new(path.with_name(path.name + ".pub"), f"{public.line()}\n".encode(), 0o644)
    except FileExistsError as error:
        raise BadInput(f"{error.filename} is there already", "a key is never overwritten: give another name") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror or error}", "give another path") from error
    return public


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


# -- trusting ------------------------------------------------------------------------------------------------


class Policy:
    """Hands out only what one of ``keys`` vouches for. Safe between threads."""

    def __init__(self, keys: list[TrustedKey]) -> None:
        _needed("FARM_TRUST")
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        self.keys = {key.id: key for key in keys}
        self._checks: dict[str, Ed25519PublicKey] = {
            key.id: Ed25519PublicKey.from_public_bytes(key.raw) for key in keys
        }

    def signer(self, engine: Engine) -> TrustedKey | None:
        """Who vouches for an engine; ``None`` when nobody who is trusted does."""
        return None if self.refuses(engine) else self.keys[engine.manifest["signature"]["key"]]

    def refuses(self, engine: Engine) -> str:
        """Why an engine must not be handed out, in words; empty when it may.

        The signature is over the manifest that the row holds; so the row must hold it unaltered and must name the same
        plan and recipe. A manifest of another schema is not understood, and so not trusted.
        """
        told = alteration(engine)
        if told:
            return told
        if engine.manifest.get("schema") != SCHEMA:
            return f"its manifest is of schema {engine.manifest.get('schema')}, and {SCHEMA} is what can be signed"
        if engine.manifest.get("namespace") != engine.namespace:
            return "its manifest names no namespace"
        where = (engine.namespace,)
        return self.refuses_statement(engine.manifest.get("signature"), signing_input(engine.manifest), where)

    def refuses_statement(self, signature: object, statement: bytes, namespaces: Sequence[str] = ()) -> str:
        """Why a statement's signature is not believed, in words; empty when it is. Its key must be one that may vouch
        for one of ``namespaces``, where they are given."""
        if signature is None:
            return "it is not signed"
        if not isinstance(signature, Mapping) or signature.get("scheme") != "ed25519":
            return "its signature is of a kind that is not known"
        check = self._checks.get(str(signature.get("key")))
        if check is None:
            return f"it is signed by {signature.get('key')}, whom FARM_TRUST does not name"
        key = self.keys[str(signature.get("key"))]
        if namespaces and not any(key.vouches_for(name) for name in namespaces):
            return f"it is signed by {key.name or key.id}, whom FARM_TRUST does not name for {' or '.join(namespaces)}"
        return "" if _verified(check, str(signature.get("value")), statement) else "its signature is bad"


def _verified(check: Ed25519PublicKey, value: str, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        check.verify(base64.b64decode(value, validate=True), data)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def load_policy(text: str) -> Policy:
    """What FARM_TRUST says: the path of a trust file, or keys themselves, separated by commas. ``BadConfig`` for what
    cannot be read, and for a list that names nobody: a mistake there must not end in trusting everybody."""
    if f"{KIND} " in text:
        where, lines = "FARM_TRUST", _BETWEEN.sub("\n", text).splitlines()
    else:
        where = str(Path(text).expanduser())
        lines = _read("FARM_TRUST", Path(where)).decode("utf-8", "replace").splitlines()
    told = [line.strip() for line in lines]
    keys = [_parse(line, where) for line in told if line and not line.startswith("#")]
    if not keys:
        raise BadConfig(f"{where} names no key", f"write lines such as 'NAME {KIND} AAAA…', or leave FARM_TRUST out")
    return Policy(keys)


def _parse(line: str, where: str) -> TrustedKey:
    """``NAME namespaces="main,release" ssh-ed25519 AAAA… comment``; name and namespaces may be left out. Other options
    that OpenSSH has are refused: they would limit what a key is trusted for."""
    words = line.split()
    name = "" if words[0] == KIND or words[0].startswith(ONLY) else words.pop(0)
    namespaces = _namespaces(words.pop(0), where) if words and words[0].startswith(ONLY) else ()
    if len(words) < 2 or words[0] != KIND:
        hint = f"write 'NAME {KIND} AAAA…', and no option but namespaces=\"main,release\""
        raise BadConfig(f"{where}: '{line[:60]}' names no key", hint)
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    if len(blob) != len(_START) + 32 or not blob.startswith(_START):
        raise BadConfig(f"{where}: '{line[:60]}' holds no Ed25519 key", "copy the line that 'farm keygen' wrote")
    return TrustedKey(blob[len(_START) :], name, namespaces)


def _namespaces(word: str, where: str) -> tuple[str, ...]:
    """What ``namespaces="…"`` lists; an empty list would read as all."""
    quoted = word[len(ONLY) :]
    listed = tuple(quoted.strip('"').split(","))
    names = [f"{one[:-1]}x" if one.endswith("*") else one for one in listed]
    if len(quoted) < 2 or quoted[0] + quoted[-1] != '""' or not all(is_name(name) for name in names):
        raise BadConfig(f"{where}: '{word[:60]}' lists no namespaces", 'write namespaces="main,pr-*", without blanks')
    return listed


def _read(variable: str, path: Path, private: bool = False) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
                raise BadConfig(f"{variable}: {path} is no file of keys")
            if found.st_mode & (0o077 if private else 0o022):
                who, mode = ("read", 600) if private else ("change", 644)
                raise BadConfig(f"{variable}: others may {who} {path}", f"chmod {mode} {path}")
            return file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadConfig(f"{variable}: {path} cannot be read: {reason}") from error


def _needed(what: str) -> None:
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as error:
        raise BadConfig(f"{what} needs cryptography, which is missing", "pip install 'farm[trust]'") from error
