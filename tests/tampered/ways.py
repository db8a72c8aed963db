"""The corpus: ways in which a store and its rows are damaged or forged, each with what must be said of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.canonical import to_json
from farm.manifests import blob_of, body
from farm.trust import load_signer
from tests.tampered.site import FolderBytes, Site

IT, OTHER = "sm_89", "sm_86"
EVIL = b"not what anybody built\n"


@dataclass(frozen=True)
class Way:
    """``finds``: the kinds that ``farm verify`` must report. ``policy``: only who asks for signatures can tell.
    ``served``: the engine is honest all the same, and is handed out."""

    do: Callable[[Site], None]
    finds: frozenset[str]
    policy: bool = False
    served: bool = False


def way(*finds: str, policy: bool = False, served: bool = False) -> Callable[[Callable[[Site], None]], Way]:
    return lambda do: Way(do, frozenset(finds), policy, served)


def name_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def plan(site: Site, target: str = IT) -> str:
    return str(site.engines[target]["digest"])


def manifest_blob(site: Site, target: str = IT) -> str:
    return str(site.engines[target]["manifest_json"]["manifest"])


def altered_bytes(change: Callable[[bytes], bytes]) -> Callable[[Site], None]:
    return lambda site: site.bytes.write(plan(site), change(site.bytes.read(plan(site))))


def flip(data: bytes) -> bytes:
    return data[:9] + bytes([data[9] ^ 1]) + data[10:]


def forged(change: Callable[[dict[str, Any], Site], Mapping[str, Any] | None]) -> Callable[[Site], None]:
    """A plan of the forger's own, in store, manifest and row, all of one mind. Only the signature is not to be had:
    ``change`` gives what the forger puts in its place."""

    def do(site: Site) -> None:
        digest = name_of(EVIL)
        site.bytes.write(digest, EVIL)
        told = json.loads(to_json(site.engines[IT]["manifest_json"]))
        told["engine"] = {"digest": digest, "size": len(EVIL)}
        told["manifest"] = blob_of(told)
        site.bytes.write(told["manifest"], body(told))
        signature = change(told, site)
        told.pop("signature")
        if signature is not None:
            told["signature"] = dict(signature)
        site.edit(IT, digest=digest, size=len(EVIL), manifest=told["manifest"], manifest_json=json.dumps(told))

    return do


def by_stranger(told: Mapping[str, Any], site: Site) -> Mapping[str, Any]:
    return load_signer(site.keys / "stranger").sign(told)


def in_the_workers_name(told: Mapping[str, Any], site: Site) -> Mapping[str, Any]:
    """A stranger's signature that says it is the worker's."""
    return {**by_stranger(told, site), "key": site.engines[IT]["manifest_json"]["signature"]["key"]}


def old_signature(told: Mapping[str, Any], site: Site) -> Mapping[str, Any]:
    signature: Mapping[str, Any] = site.engines[IT]["manifest_json"]["signature"]
    return signature


def swap_whole_rows(site: Site) -> None:
    """The other engine, truly signed, under this recipe: also its manifest and signature."""
    other = site.engines[OTHER]
    row = {name: other[name] for name in ("digest", "size", "manifest")}
    site.edit(IT, **row, manifest_json=json.dumps(other["manifest_json"]))


BOTH: Mapping[str, Way] = {
    "a bit is flipped": way("corrupt")(altered_bytes(flip)),
    "truncated": way("corrupt")(altered_bytes(lambda data: data[:-7])),
    "emptied": way("corrupt")(altered_bytes(lambda data: b"")),
    "longer": way("corrupt")(altered_bytes(lambda data: data + b"x")),
    "swapped for the other plan": way("corrupt")(
        lambda site: site.bytes.write(plan(site), site.bytes.read(plan(site, OTHER)))
    ),
    "the manifest's blob is another's": way("corrupt", served=True)(
        lambda site: site.bytes.write(manifest_blob(site), site.bytes.read(manifest_blob(site, OTHER)))
    ),
    "a row without its plan": way("missing")(lambda site: site.bytes.remove(plan(site))),
    "a row without its manifest": way("missing", served=True)(lambda site: site.bytes.remove(manifest_blob(site))),
    "a blob without a row": way("orphan", served=True)(lambda site: site.bytes.write(name_of(EVIL), EVIL)),
    "a key with dots": way("stray", served=True)(lambda site: site.bytes.add("ab/..%2f..%2fetc%2fpasswd", EVIL)),
    "a key in the wrong folder": way("stray", served=True)(lambda site: site.bytes.add("zz/" + "0" * 64, EVIL)),
    "the forger's own plan, signed by a stranger": way("untrusted", policy=True)(forged(by_stranger)),
}

ROWS: Mapping[str, Way] = {
    "a row names the other plan": way("altered")(
        lambda site: site.edit(IT, digest=plan(site, OTHER), size=site.engines[OTHER]["size"])
    ),
    "a row names the other plan, the manifest too": way("altered")(
        lambda site: (
            site.edit(IT, digest=plan(site, OTHER), size=site.engines[OTHER]["size"]),
            site.edit_manifest(IT, lambda told: {**told, "engine": site.engines[OTHER]["manifest_json"]["engine"]}),
        )[0]
    ),
    "the manifest is the other's": way("altered")(
        lambda site: site.edit(IT, manifest_json=json.dumps(site.engines[OTHER]["manifest_json"]))
    ),
    "the whole row is the other's": way("altered")(swap_whole_rows),
    "the manifest is no JSON": way("altered")(lambda site: site.edit(IT, manifest_json="{")),
    "the manifest is a list": way("altered")(lambda site: site.edit(IT, manifest_json="[]")),
    "the manifest is empty": way("altered")(lambda site: site.edit(IT, manifest_json="{}")),
    "the size is another": way("altered")(lambda site: site.edit(IT, size=1)),
    "the manifest says another target": way("altered")(
        lambda site: site.edit_manifest(IT, lambda told: {**told, "target": "sm_120"})
    ),
    "a row's digest is a path": way("altered")(lambda site: site.edit(IT, digest="sha256:../../../../etc/passwd")),
    "the manifest's blob is a path": way("altered")(
        lambda site: site.edit_manifest(IT, lambda told: {**told, "manifest": "sha256:../../farm.db"})
    ),
    "not signed": way("untrusted", policy=True)(
        lambda site: site.edit_manifest(IT, lambda told: {k: v for k, v in told.items() if k != "signature"})
    ),
    "signed as the other was": way("untrusted", policy=True)(
        lambda site: site.edit_manifest(
            IT, lambda told: {**told, "signature": site.engines[OTHER]["manifest_json"]["signature"]}
        )
    ),
    "the signature is no signature": way("untrusted", policy=True)(
        lambda site: site.edit_manifest(IT, lambda told: {**told, "signature": ["ed25519"]})
    ),
    "the signature is no base64": way("untrusted", policy=True)(
        lambda site: site.edit_manifest(IT, lambda told: {**told, "signature": {**told["signature"], "value": "é"}})
    ),
    "the signature is of no known scheme": way("untrusted", policy=True)(
        lambda site: site.edit_manifest(IT, lambda told: {**told, "signature": {**told["signature"], "scheme": "none"}})
    ),
    "the forger's own plan, not signed": way("untrusted", policy=True)(forged(lambda told, site: None)),
    "the forger's own plan, the old signature": way("untrusted", policy=True)(forged(old_signature)),
    "the forger's own plan, signed in the worker's name": way("untrusted", policy=True)(forged(in_the_workers_name)),
}


def in_its_place(make: Callable[[Path], object]) -> Callable[[Site], None]:
    def do(site: Site) -> None:
        assert isinstance(site.bytes, FolderBytes)
        path = site.bytes.path(plan(site))
        path.unlink()
        make(path)

    return do


def link_within(path: Path) -> None:
    """Elsewhere lie the very bytes of another blob."""
    path.symlink_to(next(other for other in path.parents[1].rglob("*") if other.is_file() and other != path))


def filled_folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_bytes(EVIL)


FOLDER: Mapping[str, Way] = {
    "a link to /etc/passwd": way("stray", "missing")(in_its_place(lambda path: path.symlink_to("/etc/passwd"))),
    "a link to another blob": way("stray", "missing")(in_its_place(link_within)),
    "a link to nowhere": way("stray", "missing")(in_its_place(lambda path: path.symlink_to("nowhere"))),
    "a pipe": way("stray", "missing")(in_its_place(os.mkfifo)),
    "a folder": way("stray", "missing")(in_its_place(filled_folder)),
    "a link among the folders": way("stray", served=True)(
        lambda site: (site.home / "store" / "sha256" / "..x").symlink_to("/etc")
    ),
}

EVERY = {**BOTH, **ROWS, **FOLDER}
