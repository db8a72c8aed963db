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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from farm.builders import AttemptFailed, Cancelled, Exporter, Form, Limits, Watch
from farm.builds import Failure, FailureKind
from farm.canonical import to_json
from farm.errors import CorruptBlob
from farm.logging import get_logger
from farm.making import Making, StoredForm
from farm.manifests import statement
from farm.namespaces import UNTRUSTED, Realm, queue
from farm.programs.sanitise import sanitise_pt2
from farm.store import BlobStore, lost
from farm.toolchains import EXPORTER
from farm.trust import Policy, Signer

log = get_logger(__name__)
LOCK_POLL_S = 0.1
SIDE = "form.json"
EXPORTER_NAME = " ".join(f"{name} {version}" for name, version in sorted(EXPORTER.items()))
SCHEMA = 1
"""Version of what lies in a form's folder; a form of another make is made anew."""


class Forms:
    """The node's forms: a folder in front of the store. Safe between threads and processes of one machine."""

    def __init__(
        self,
        index: Making,
        store: BlobStore,
        folder: Path,
        exporter: Exporter,
        limits: Limits,
        signer: Signer | None = None,
        trust: Policy | None = None,
        realm: Realm | None = None,
    ) -> None:
        """``signer`` vouches for what is exported here; with ``trust``, no form is taken that nobody vouches for: an
        engine built from another program's form would be signed in good faith. Workers that build for untrusted
        namespaces (``realm``) take the trusted ones' forms and keep their own apart: those take none of theirs."""
        self._realm = realm or Realm()
        self._signer, self._trust = signer, trust
        self._index, self._store, self._exporter, self._limits = index, store, exporter, limits
        self._folder = folder / "forms"
        self._seen: dict[Path, tuple[tuple[str, int, int], ...]] = {}
        self._read: dict[Path, tuple[tuple[int, ...], tuple[Form, list[str]]]] = {}

    def fetch_program(self, digest: str, path: Path) -> None:
        """Place a copy of the program's file at ``path``, verified. ``AttemptFailed`` when the store lost it: no node's
        fault, and made good by whoever asks for the model again, so it is tried again, and not remembered.

        A copy, not a link: a reader tells by a file's ctime whether it changed meanwhile, and another process
        that links to the same file changes that.
        """
        if not self._sound_blob(digest, path):
            text, hint = f"program {digest} is gone from the store", "ask for the model again to store it anew"
            raise AttemptFailed(Failure(FailureKind.TRANSIENT, text, hint))

    def _sound_blob(self, digest: str, path: Path, link: bool = False) -> bool:
        """Fetch; a blob that is corrupt is put aside, and is then as good as gone: a form is exported anew, and a
        program stored again by whoever asks for its model next."""
        try:
            return self._store.fetch(digest, path, link=link)
        except CorruptBlob as error:
            log.warning("a corrupt blob is put aside", blob=digest, reason=error.message)
            self._store.quarantine(digest)
            return False

    def get(self, program: Callable[[], Path], digest: str, format: str, watch: Watch) -> Form:
        """The form of a program: from this machine, else from the store, else exported now from ``program()``.

        One process exports at a time; the others wait and take what it made. A local form that is not what was
        stored is thrown away and fetched again. ``AttemptFailed`` when the program cannot be converted; ``Cancelled``.
        """
        common = f"{EXPORTER_NAME if format == 'pt2' else format} form {SCHEMA}"
        exporter = queue(common, self._realm.is_trusted)
        home = self._folder / hashlib.sha256(f"{digest} {exporter}".encode()).hexdigest()
        form = self._sound(home)
        if form is None:
            with self._locked(home, watch):
                form = self._sound(home)
                if form is None and not any(self._download(digest, one, home) for one in {common: 1, exporter: 1}):
                    self._export(program(), digest, exporter, home, watch)
                form = form or self._sound(home)
        if form is None:
            raise CorruptBlob(f"the ONNX form in {home} does not stay as it was written", "check that disk")
        return form

    def _sound(self, home: Path) -> Form | None:
        """The form in ``home``, if it is there and whole: its files hashed at their first use in this process, and
        again whenever they look changed. An engine built from damaged weights would be served for ever."""
        try:
            form, digests = self._read_form(home)
            files = [path for path in (form.graph, form.data) if path is not None]
            seen = tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
            if self._seen.get(home) != seen:
                if [digest_of(path) for path in files] != digests:
                    log.warning("a damaged form is thrown away", folder=str(home))
                    return None
                self._seen[home] = seen
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return form

    def _read_form(self, home: Path) -> tuple[Form, list[str]]:
        """``read_form``, again only where the file that tells has changed."""
        status = (home / SIDE).stat()
        mark = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._read.get(home)
        if known is None or known[0] != mark:
            known = self._read[home] = (mark, read_form(home))
        return known[1]

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
        if form is None or lost(self._store, {form.graph, str(form.detail.get("side")), form.data or form.graph}):
            return False
        vouchers = () if exporter.endswith(UNTRUSTED) else self._realm.trusted
        signature = form.detail.get("signature")
        refused = self._trust.refuses_statement(signature, said_of(form), vouchers) if self._trust else ""
        if refused:
            log.warning("a form is not taken, and exported anew", program=digest, reason=refused)
            return False
        files = {str(form.detail["graph"]): form.graph}
        if form.data is not None:
            files[str(form.detail["data"])] = form.data
        if not all(is_plain(name) for name in files):
            return False
        with self._whole(home) as folder:
            files[SIDE] = str(form.detail["side"])  # last: it says that the others are there
            return all(self._sound_blob(blob, folder / name, link=True) for name, blob in files.items())

    def _export(self, program: Path, digest: str, exporter: str, home: Path, watch: Watch) -> None:
        with self._whole(home) as folder:
            safe = made_safe(program, folder)
            form = self._exporter.export(safe, folder, self._limits, watch, {})
            if safe is not program:
                safe.unlink()
            self._upload(folder, form, digest, exporter)

    def _upload(self, folder: Path, form: Form, digest: str, exporter: str) -> None:
        """Blobs first, row second; the side table last of the files, so that a form with it is whole."""
        graph = self._store.put_file(form.graph)
        data = self._store.put_file(form.data) if form.data else None
        stored = [graph] + ([data] if data else [])
        write_form(folder, form, [blob.digest for blob in stored])
        side = self._store.put_file(folder / SIDE)
        names = {"graph": form.graph.name, "data": form.data.name if form.data else None, "side": side.digest}
        size = sum(blob.size for blob in (*stored, side))
        made = StoredForm(digest, exporter, graph.digest, data.digest if data else None, names, size)
        if self._signer:
            made = replace(made, detail={**names, "signature": self._signer.vouch(said_of(made))})
        self._index.put_form(made)

    @contextlib.contextmanager
    def _whole(self, home: Path) -> Iterator[Path]:
        """A folder that becomes ``home`` at the end, if the form is whole then; else it goes."""
        folder = Path(tempfile.mkdtemp(prefix=f"form-{os.getpid()}-", dir=home.parent))
        try:
            yield folder
            if (folder / SIDE).exists():
                for path in (*folder.iterdir(), folder):
                    flush(path)
                shutil.rmtree(home, ignore_errors=True)
                folder.rename(home)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def safe_program(program: Path, folder: Path, inputs: Sequence[int]) -> Form:
    """The program itself as a form, made safe to load in ``folder``; its inputs are named by their positions."""
    return Form(made_safe(program, folder), None, tuple(map(str, inputs)), (), "")


def made_safe(program: Path, folder: Path) -> Path:
    """What of a ``.pt2`` can be loaded safely, as a new file in ``folder``; an ONNX model as it is. ``BadProgram``."""
    if program.suffix != ".pt2":
        return program
    safe = folder / "safe.pt2"
    sanitise_pt2(program, safe)
    return safe


def said_of(form: StoredForm) -> bytes:
    """What whoever exported a form vouches for: that it is of this program, by this exporter, and its files."""
    told = {name: value for name, value in form.detail.items() if name != "signature"}
    said = {"program": form.program, "exporter": form.exporter, "graph": form.graph, "data": form.data, "detail": told}
    return statement("farm ONNX form", SCHEMA, to_json(said))


def write_form(folder: Path, form: Form, digests: Sequence[str]) -> None:
    """Write down what ``read_form`` needs; ``digests`` are those of the graph and, where there is one, of the data."""
    side = {
        "graph": form.graph.name,
        "data": form.data.name if form.data else None,
        "digests": list(digests),
        "inputs": list(form.inputs),
        "outputs": list(form.outputs),
        "exporter": form.exporter,
        "nodes": dict(form.nodes),
    }
    (folder / SIDE).write_text(json.dumps(side, sort_keys=True), "utf-8")


def read_form(home: Path) -> tuple[Form, list[str]]:
    """The form that lies in ``home``, and what its files' digests must be."""
    side = json.loads((home / SIDE).read_text("utf-8"))
    if not all(is_plain(str(name)) for name in (side["graph"], side["data"] or side["graph"])):
        raise ValueError(f"{side['graph']!r} and {side['data']!r} are no names of files in one folder")
    form = Form(
        graph=home / side["graph"],
        data=home / side["data"] if side["data"] else None,
        inputs=tuple(side["inputs"]),
        outputs=tuple(side["outputs"]),
        exporter=side["exporter"],
        nodes=side["nodes"],
    )
    return form, list(side["digests"])


def is_plain(name: str) -> bool:
    """Whether a name that was read off a row or a blob stays in the folder that it is put into."""
    return Path(name).name == name and name not in ("", SIDE)


def flush(path: Path) -> None:
    """Have what was written to a file or folder on the disk, so that a power cut cannot leave it empty."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_of(path: Path) -> str:
    """``sha256:`` digest of a file's bytes."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
