"""A farm to tamper with: two signed engines of a checked-in program, and the hands of somebody who may write to its
store and its database."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from farm.cli.run import run

MODEL = Path(__file__).parents[1] / "vectors" / "conv.pt2"
TARGETS = ("sm_86", "sm_89")
SQL_DIGEST = "sha256:"


class Bytes(Protocol):
    """Writes to a store behind its back."""

    def read(self, digest: str) -> bytes: ...

    def write(self, digest: str, data: bytes) -> None: ...

    def remove(self, digest: str) -> None: ...

    def add(self, place: str, data: bytes) -> None:
        """Something below ``sha256/`` that is no blob."""
        ...

    def pass_on(self) -> None:
        """Wait until what was written is older than now, by the store's clock."""
        ...


def place_of(digest: str) -> str:
    digits = digest.removeprefix(SQL_DIGEST)
    return f"{digits[:2]}/{digits}"


@dataclass(frozen=True)
class FolderBytes:
    root: Path

    def path(self, digest: str) -> Path:
        return self.root / "sha256" / place_of(digest)

    def read(self, digest: str) -> bytes:
        return self.path(digest).read_bytes()

    def write(self, digest: str, data: bytes) -> None:
        path = self.path(digest)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def remove(self, digest: str) -> None:
        self.path(digest).unlink()

    def add(self, place: str, data: bytes) -> None:
        path = self.root / "sha256" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def pass_on(self) -> None:
        """A folder tells times finely enough."""


@dataclass(frozen=True)
class BucketBytes:
    client: Any
    bucket: str
    prefix: str

    def key(self, place: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/sha256/{place}"}

    def read(self, digest: str) -> bytes:
        data: bytes = self.client.get_object(**self.key(place_of(digest)))["Body"].read()
        return data

    def write(self, digest: str, data: bytes) -> None:
        """With what farm itself says of an object: whoever tampers can say it too."""
        self.client.put_object(**self.key(place_of(digest)), Body=data, Metadata={"sha256": digest})

    def remove(self, digest: str) -> None:
        self.client.delete_object(**self.key(place_of(digest)))

    def add(self, place: str, data: bytes) -> None:
        self.client.put_object(**self.key(place), Body=data)

    def pass_on(self) -> None:
        """A bucket tells times to the second."""
        time.sleep(1.01 - time.time() % 1)


@dataclass(frozen=True)
class Told:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Site:
    """The farm. ``engines`` are the rows as they were made, by target; ``plans`` the plans' bytes."""

    home: Path
    bytes: Bytes
    keys: Path
    patch: pytest.MonkeyPatch
    capture: Callable[[], tuple[str, str]]
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)
    plans: dict[str, bytes] = field(default_factory=dict)

    def farm(self, *words: object) -> Told:
        """Run a command in this process."""
        self.capture()
        code = run([str(word) for word in words])
        return Told(code, *self.capture())

    def trusting(self, name: str = "trusted") -> None:
        """Ask for signatures from now on."""
        self.patch.setenv("FARM_TRUST", str(self.keys / name))

    def look(self) -> None:
        """Note what is there now, as what is right."""
        for row in self.sql("SELECT * FROM engines"):
            manifest = json.loads(row["manifest_json"])
            self.engines[manifest["target"]] = {**row, "manifest_json": manifest}
            self.plans[manifest["target"]] = self.bytes.read(row["digest"])

    def sql(self, statement: str, *values: object) -> list[dict[str, Any]]:
        with sqlite3.connect(self.home / "farm.db") as connection:
            connection.row_factory = sqlite3.Row
            found = [dict(row) for row in connection.execute(statement, values)]
        connection.close()
        return found

    def edit(self, target: str, **columns: object) -> None:
        """Change an engine's row."""
        named = ", ".join(f"{name} = ?" for name in columns)
        self.sql(f"UPDATE engines SET {named} WHERE recipe = ?", *columns.values(), self.engines[target]["recipe"])

    def edit_manifest(self, target: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Change the manifest in an engine's row."""
        told = json.loads(json.dumps(self.engines[target]["manifest_json"]))
        self.edit(target, manifest_json=json.dumps(change(told)))


def copied(template: Path, home: Path) -> Path:
    shutil.copytree(template, home)
    return home
