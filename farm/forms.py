"""Programs and their ONNX forms on this machine: made once per program and exporter, shared through the store.

An export costs seconds and imports torch; a build from a form needs neither. So the first build of a program
exports it, puts the form into the store, and every later build anywhere takes it from there (issue 2, 5).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from farm.builders import Builder, Cancelled, Form, Limits, Watch
from farm.errors import Missing
from farm.index import Index, StoredForm
from farm.programs.sanitise import sanitise_pt2
from farm.store import BlobStore
from farm.toolchains import EXPORTER

LOCK_POLL_S = 0.1
SIDE = "form.json"
EXPORTER_NAME = " ".join(f"{name} {version}" for name, version in sorted(EXPORTER.items()))


class Forms:
    """The node's forms: a folder in front of the store. Safe between threads and processes of one machine."""

    def __init__(self, index: Index, store: BlobStore, folder: Path, builder: Builder, limits: Limits) -> None:
        self._index, self._store, self._builder, self._limits = index, store, builder, limits
        self._folder = folder / "forms"

    def fetch_program(self, digest: str, path: Path) -> None:
        """Place a copy of the program's file at ``path``, verified. ``Missing`` when the store lost it.

        A copy, not a link: a reader tells by a file's ctime whether it changed meanwhile, and another process
        that links to the same file changes that.
        """
        if not self._store.fetch(digest, path):
            raise Missing(f"program {digest} is gone from the store", "ask for the model again to store it anew")

    def get(self, program: Callable[[], Path], digest: str, format: str, watch: Watch) -> Form:
        """The form of a program: from this machine, else from the store, else exported now from ``program()``.

        One process exports at a time; the others wait and take what it made. ``AttemptFailed`` when the
        program cannot be converted; ``Cancelled``.
        """
        exporter = EXPORTER_NAME if format == "pt2" else format
        home = self._folder / hashlib.sha256(f"{digest} {exporter}".encode()).hexdigest()
        if not (home / SIDE).exists():
            with self._locked(home, watch):
                if not (home / SIDE).exists() and not self._download(digest, exporter, home):
                    self._export(program(), digest, exporter, home, watch)
        return read_form(home)

    @contextlib.contextmanager
    def _locked(self, home: Path, watch: Watch) -> Iterator[None]:
        """Hold the form's lock; the kernel lets go of it when its holder dies."""
        home.parent.mkdir(parents=True, exist_ok=True)
        with home.with_suffix(".lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if watch.cancelled():
                        raise Cancelled("cancelled") from None
                    watch.report("waiting for the export", None)
                    time.sleep(LOCK_POLL_S)
            yield

    def _download(self, digest: str, exporter: str, home: Path) -> bool:
        form = self._index.form(digest, exporter)
        if form is None:
            return False
        with self._whole(home) as folder:
            files = {str(form.detail["graph"]): form.graph, SIDE: str(form.detail["side"])}
            if form.data is not None:
                files[str(form.detail["data"])] = form.data
            return all(self._store.fetch(blob, folder / name, link=True) for name, blob in files.items())

    def _export(self, program: Path, digest: str, exporter: str, home: Path, watch: Watch) -> None:
        with self._whole(home) as folder:
            safe = program
            if program.suffix == ".pt2":
                safe = folder / "safe.pt2"
                sanitise_pt2(program, safe)
            form = self._builder.export(safe, folder, self._limits, watch, {})
            write_form(folder, form)
            if safe is not program:
                safe.unlink()
            self._upload(folder, form, digest, exporter)

    def _upload(self, folder: Path, form: Form, digest: str, exporter: str) -> None:
        """Blobs first, row second."""
        graph = self._store.put_file(form.graph).digest
        data = self._store.put_file(form.data).digest if form.data else None
        side = self._store.put_file(folder / SIDE).digest
        names = {"graph": form.graph.name, "data": form.data.name if form.data else None, "side": side}
        self._index.put_form(StoredForm(digest, exporter, graph, data, names))

    @contextlib.contextmanager
    def _whole(self, home: Path) -> Iterator[Path]:
        """A folder that becomes ``home`` at the end, if the form is whole then; else it goes."""
        folder = Path(tempfile.mkdtemp(prefix=f"form-{os.getpid()}-", dir=home.parent))
        try:
            yield folder
            if (folder / SIDE).exists():
                shutil.rmtree(home, ignore_errors=True)
                folder.rename(home)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def write_form(folder: Path, form: Form) -> None:
    """Write down what ``read_form`` needs. Last of the files, so that a form with it is whole."""
    side = {
        "graph": form.graph.name,
        "data": form.data.name if form.data else None,
        "inputs": list(form.inputs),
        "outputs": list(form.outputs),
        "exporter": form.exporter,
        "nodes": dict(form.nodes),
    }
    (folder / SIDE).write_text(json.dumps(side, sort_keys=True), "utf-8")


def read_form(home: Path) -> Form:
    """The form that lies in ``home``."""
    side = json.loads((home / SIDE).read_text("utf-8"))
    return Form(
        graph=home / side["graph"],
        data=home / side["data"] if side["data"] else None,
        inputs=tuple(side["inputs"]),
        outputs=tuple(side["outputs"]),
        exporter=side["exporter"],
        nodes=side["nodes"],
    )
