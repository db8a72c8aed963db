"""``--changed-since``: what git says, and which models that leaves as they were."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from farm.errors import BadInput
from farm.prebuilding.changed import changes_since, unchanged
from farm.prebuilds.entries import Model, PrebuildSpec, Source


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.fixture
def spec(tmp_path: Path) -> PrebuildSpec:
    folder = tmp_path / "sub"
    folder.mkdir()
    for name in ("farm.yaml", "a.pt2", "export.py", "models/net.py", "ignored.pt2"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / ".gitignore").write_text("ignored.pt2\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    models = {
        "file": Source(path=str(folder / "a.pt2")),
        "untracked": Source(path=str(folder / "ignored.pt2")),
        "script": Source(script=f"{folder}/export.py:net"),
        "declared": Source(script=f"{folder}/export.py:net", sources=("models/*.py",)),
        "pinned": Source(url="https://example.com/m.onnx", sha256="ab" * 32),
        "loose": Source(url="https://example.com/m.onnx"),
    }
    return PrebuildSpec(str(folder / "farm.yaml"), tuple(Model(name, source) for name, source in models.items()))


def left(spec: PrebuildSpec) -> set[str]:
    return unchanged(spec, changes_since(Path(spec.file).parent, "HEAD"))


def test_nothing_changed(spec: PrebuildSpec) -> None:
    assert left(spec) == {"file", "script", "declared", "pinned"}


@pytest.mark.parametrize(
    ("name", "stay"),
    [
        ("a.pt2", {"declared", "pinned"}),
        ("models/net.py", {"file", "pinned"}),
        ("export.py", {"file", "pinned"}),
        ("models/new.py", {"file", "pinned"}),
        ("../elsewhere.txt", {"file", "declared", "pinned"}),
        ("farm.yaml", set()),
    ],
)
def test_what_a_change_concerns(spec: PrebuildSpec, name: str, stay: set[str]) -> None:
    (Path(spec.file).parent / name).write_text("other")
    assert left(spec) == stay


def test_committed_changes_count_too(spec: PrebuildSpec, tmp_path: Path) -> None:
    (tmp_path / "sub" / "a.pt2").write_text("other")
    git(tmp_path, "commit", "-qam", "two")
    assert "file" in unchanged(spec, changes_since(tmp_path, "HEAD"))
    assert "file" not in unchanged(spec, changes_since(tmp_path, "HEAD~1"))


def test_weights_beside_an_onnx_file_may_have_changed(spec: PrebuildSpec, tmp_path: Path) -> None:
    """The graph is as it was, and the engine would be another's."""
    onnx = pytest.importorskip("onnx")
    weights = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1024], bytes(4096), raw=True)
    graph = onnx.helper.make_graph([], "g", [], [], [weights])
    for name, apart in (("apart", True), ("whole", False)):
        path = tmp_path / f"{name}.onnx"
        onnx.save(onnx.helper.make_model(graph), path, save_as_external_data=apart, location="w.bin")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "two")
    models = tuple(Model(name, Source(path=str(tmp_path / f"{name}.onnx"))) for name in ("apart", "whole"))
    spec = PrebuildSpec(spec.file, models)
    assert left(spec) == {"whole"}
    (tmp_path / "w.bin").write_bytes(b"other")
    assert left(spec) == {"whole"}


@pytest.mark.parametrize("revision", ["", "--output=/tmp/x", "nowhere", "HEAD:farm.yaml"])
def test_no_revision(spec: PrebuildSpec, revision: str) -> None:
    with pytest.raises(BadInput):
        changes_since(Path(spec.file).parent, revision)


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        changes_since(tmp_path, "HEAD")
