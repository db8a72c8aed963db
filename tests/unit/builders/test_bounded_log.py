"""Bounds on what a child may say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farm.builders.bounded import BoundedLog, Lines


def chunks(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(st.binary(max_size=300), st.integers(1, 40))
def test_a_log_within_bounds_is_kept_whole(data: bytes, size: int) -> None:
    log = BoundedLog(head=400, tail=100)
    passed = [log.feed(chunk) for chunk in chunks(data, size)]
    passed.append(log.finish())
    assert "".join(passed) == log.text()
    # Decoded in pieces, bad bytes may be replaced one by one or together: compare what is not replaced.
    assert log.text().replace("\ufffd", "") == data.decode("utf-8", "replace").replace("\ufffd", "")


@given(st.integers(0, 5000), st.integers(1, 97))
def test_a_log_of_any_length_keeps_its_head_and_its_tail(lines: int, size: int) -> None:
    data = b"".join(b"line %d\n" % number for number in range(lines))
    log = BoundedLog(head=200, tail=100)
    for chunk in chunks(data, size):
        log.feed(chunk)
    log.finish()
    text = log.text()
    assert len(text) <= 200 + 100 + 60
    assert text.startswith(data[:100].decode())
    assert text.endswith(data[-90:].decode())
    head, found, rest = text.partition("\n… ")
    if found:
        left_out, _, tail = rest.partition(" bytes of the log left out …\n")
        assert int(left_out.replace(",", "")) == len(data) - len(head) - len(tail)
    else:
        assert text == data.decode()


def test_the_head_is_passed_on_as_it_comes_in_whole_lines() -> None:
    log = BoundedLog(head=100, tail=100)
    assert log.feed(b"one\ntw") == "one\n"
    assert log.feed(b"o\n") == "two\n"
    assert log.feed(b"no end") == ""
    assert log.finish() == "no end"


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line), max_size=20), st.integers(1, 15))
def test_lines_are_cut_wherever_the_pieces_end(lines: list[bytes], size: int) -> None:
    reader = Lines()
    data = b"".join(line + b"\n" for line in lines)
    assert [line for chunk in chunks(data, size) for line in reader.feed(chunk)] == lines


@given(st.integers(1, 50))
def test_a_line_that_is_too_long_is_dropped_and_the_next_is_not(size: int) -> None:
    reader = Lines(longest=10)
    data = b"short\n" + b"x" * 1000 + b"\nnext\n"
    assert [line for chunk in chunks(data, size) for line in reader.feed(chunk)] == [b"short", b"next"]
