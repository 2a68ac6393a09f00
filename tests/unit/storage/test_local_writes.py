"""Vectored writes, and what is said to the disk before the fsync."""

import fcntl
import os
from pathlib import Path

import pytest

from storage import local_files
from storage.local_files import Draft
from storage.local_writes import WRITEBACK_BYTES, begin_writeback, write_all


def test_more_pieces_than_one_call_takes(tmp_path: Path) -> None:
    pieces = [bytes([number % 251]) * (number % 3) for number in range(5000)]
    with (tmp_path / "file").open("wb", buffering=0) as file:
        assert write_all(file.fileno(), pieces) == sum(map(len, pieces))
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)


def test_nothing_to_write(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        assert write_all(file.fileno(), []) == 0
        assert write_all(file.fileno(), [b"", b""]) == 0


def test_a_write_that_is_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the edge of a quota, or when a signal comes."""

    def short(descriptor: int, pieces: list[bytes]) -> int:
        return os.write(descriptor, b"".join(pieces)[:5])

    monkeypatch.setattr("storage.local_writes.os.writev", short)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        assert write_all(file.fileno(), [b"abc", b"defg", b"hij"]) == 10
    assert (tmp_path / "file").read_bytes() == b"abcdefghij"


def test_what_cannot_be_written_is_raised() -> None:
    read, write = os.pipe()
    try:
        fcntl.fcntl(write, fcntl.F_SETFL, os.O_NONBLOCK)
        with pytest.raises(BlockingIOError):
            write_all(write, [b"x" * 1024**2])
    finally:
        os.close(read)
        os.close(write)


def test_a_hint_that_nobody_takes_is_no_error() -> None:
    read, write = os.pipe()
    try:
        begin_writeback(write, 0, 1)  # ESPIPE
    finally:
        os.close(read)
        os.close(write)


def test_a_hint_that_is_taken(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"x" * 10_000)
        begin_writeback(file.fileno(), 0, 10_000)
        os.fsync(file.fileno())
    assert (tmp_path / "file").read_bytes() == b"x" * 10_000


def test_the_disk_begins_while_the_bytes_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(
        local_files, "begin_writeback", lambda _, offset, count: begun.append((offset, count))
    )
    source = tmp_path / "source"
    source.write_bytes(bytes(WRITEBACK_BYTES))
    draft = Draft(tmp_path)
    draft.create()
    half = bytes(WRITEBACK_BYTES // 2)
    for _ in range(3):
        draft.write([half, b"x"])
    assert begun == [(0, WRITEBACK_BYTES + 2)]
    with source.open("rb") as file:
        draft.append(file.fileno(), 0, WRITEBACK_BYTES)
    draft.finish()
    starts, counts = zip(*begun, strict=True)
    assert [0, *(start + count for start, count in begun)][:-1] == list(starts)
    assert min(counts) >= WRITEBACK_BYTES
    assert draft.path.stat().st_size == draft.size == 5 * WRITEBACK_BYTES // 2 + 3
