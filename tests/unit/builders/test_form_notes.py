"""Notes carried in an ONNX file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm.builders.notes import Notes, append_notes, read_notes
from farm.errors import BadProgram

names = st.lists(st.text(max_size=8), max_size=3).map(tuple)
notes = st.builds(
    Notes, names, names, st.text(max_size=20), names, names, st.dictionaries(st.text(max_size=8), st.text(max_size=30))
)
in_a_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@in_a_folder
@given(notes)
def test_notes_come_back_as_they_were_written(tmp_path: Path, written: Notes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    append_notes(path, written)
    assert read_notes(path) == written


def test_the_last_notes_win_and_a_file_without_has_empty_ones(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x0a")  # ir_version = 10
    assert read_notes(path) == Notes()
    append_notes(path, Notes(inputs=("a",)))
    append_notes(path, Notes(inputs=("b",)))
    assert read_notes(path).inputs == ("b",)


def test_onnx_itself_reads_a_file_with_notes_and_finds_the_model_unchanged(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [value], [value]))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    append_notes(path, Notes(inputs=("x",)))
    read = onnx.load(path)
    assert read.graph == model.graph
    assert [entry.key for entry in read.metadata_props] == ["farm.form"]


@in_a_folder
@given(st.binary(min_size=1, max_size=60))
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(body)
    try:
        assert isinstance(read_notes(path), Notes)
    except BadProgram as error:
        assert "model.onnx" in error.message


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b"{}", b"{", b'{"inputs": 3}', b"\xff", b'{"inputs":[],"outputs":[],"doubles":[],"left_out":1}'],
)
def test_notes_that_are_none_are_refused(tmp_path: Path, value: bytes) -> None:
    path = tmp_path / "model.onnx"
    entry = b"\x0a\x09farm.form\x12" + bytes([len(value)]) + value
    path.write_bytes(b"\x72" + bytes([len(entry)]) + entry)
    with pytest.raises(BadProgram):
        read_notes(path)
