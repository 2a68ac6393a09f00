import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hooks.formats.parsed import Parsed
from hooks.formats.pytorch import parse_pytorch
from hooks.formats.source import BytesSource
from hooks.formats.zip_directory import MAX_DIRECTORY_BYTES
from tests.support.bounds import bounded
from tests.support.model_files import write_checkpoint
from tests.support.path_source import PathSource

ALLOWANCE = 17 * 1024**2


def parse(data: bytes) -> Parsed:
    return parse_pytorch(BytesSource(data))


def metadata(parsed: Parsed) -> dict[str, Any]:
    assert parsed.metadata is not None
    return dict(parsed.metadata)


def codes(parsed: Parsed) -> set[tuple[str, str]]:
    return {(finding.severity.value, finding.code) for finding in parsed.findings}


def archive(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return file.getvalue()


def by_hand(entries: list[tuple[bytes, int, int, int]], *, said: int | None = None) -> bytes:
    """An archive of nothing but a directory, whose entries are names, sizes, packed sizes and offsets."""
    layout = struct.Struct("<4s6H3L5H2L")
    directory = b"".join(
        layout.pack(b"PK\1\2", 0, 0, 0, 8, 0, 0, 0, packed, size, len(name), 0, 0, 0, 0, 0, offset) + name
        for name, size, packed, offset in entries
    )
    count = len(entries) if said is None else said
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(directory), 4, 0)
    return b"PK\3\4" + directory + end


class TestArchive:
    def test_lists_what_zipfile_lists(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path / "pytorch_model.bin")
        source = PathSource(path, ALLOWANCE)
        parsed = parse_pytorch(source)
        assert parsed.findings == ()
        with zipfile.ZipFile(path) as file:
            sizes = {info.filename: info.file_size for info in file.infolist()}
        said = metadata(parsed)
        assert said["files"] == [{"path": name, "bytes": size} for name, size in sizes.items()]
        assert said["kind"] == "zip"
        assert said["files_total"] == len(sizes)
        assert said["bytes_total"] == sum(sizes.values())

    def test_torchscript(self) -> None:
        data = archive({"m/data.pkl": b"", "m/code/__torch__.py": b"", "m/constants.pkl": b""})
        assert metadata(parse(data))["kind"] == "torchscript"

    def test_zip64(self, tmp_path: Path) -> None:
        path = tmp_path / "x.pt"
        with zipfile.ZipFile(path, "w") as file:
            for number in range(70_000):
                file.writestr(f"archive/data/{number}", b"")
            with file.open("archive/data.pkl", "w", force_zip64=True) as member:
                member.write(b"x")
        parsed = parse_pytorch(PathSource(path, ALLOWANCE))
        assert parsed.findings == ()
        assert metadata(parsed)["files_total"] == 70_001
        assert metadata(parsed)["bytes_total"] == 1

    def test_files_over_4_gb(self, tmp_path: Path) -> None:
        path = tmp_path / "x.pt"
        with path.open("wb") as raw, zipfile.ZipFile(raw, "w") as file:
            file.writestr("archive/data.pkl", b"x")
            info = zipfile.ZipInfo("archive/data/0")
            with file.open(info, "w", force_zip64=True) as member:
                member.write(b"y")
            # What 5 GB of weights would leave in the directory, without writing them.
            info.file_size = info.compress_size = 5 * 2**30
            raw.seek(0, 2)
            file.start_dir = raw.truncate(6 * 2**30)
        source = PathSource(path, ALLOWANCE)
        parsed = parse_pytorch(source)
        assert parsed.findings == ()
        assert metadata(parsed)["files"][1] == {"path": "archive/data/0", "bytes": 5 * 2**30}
        assert source.bytes_read < 70_000

    def test_a_comment_and_something_before_it(self) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as made:
            made.writestr("a/data.pkl", b"x")
            made.comment = b"c" * 60_000
        assert parse(file.getvalue()).findings == ()

    def test_names_in_other_alphabets(self) -> None:
        said = metadata(parse(archive({"ä/data.pkl": b"", "ä/\1": b""})))
        assert said["files"][0]["path"] == "ä/data.pkl"

    def test_other_archives(self) -> None:
        assert codes(parse(archive({"readme.txt": b"x"}))) == {("info", "not-pytorch")}

    def test_compressed(self) -> None:
        data = archive({"a/data.pkl": b"x" * 100}, zipfile.ZIP_DEFLATED)
        assert codes(parse(data)) == {("warning", "compressed")}


class TestOtherKinds:
    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_a_pickle_is_known_and_left_alone(self, protocol: int) -> None:
        class Bomb:
            def __reduce__(self) -> Any:
                return (pytest.fail, ("it was unpickled",))

        assert metadata(parse(pickle.dumps(Bomb(), protocol)))["kind"] == "pickle"

    def test_what_torch_saved_long_ago(self) -> None:
        assert metadata(parse(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"..."))["kind"] == "legacy"

    def test_what_torch_saved_longer_ago(self) -> None:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as made:
            made.addfile(tarfile.TarInfo("pickle"), io.BytesIO())
        assert metadata(parse(file.getvalue()))["kind"] == "tar"

    @pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x01", b"version https://", b"\0" * 1000])
    def test_anything_else_is_nothing(self, data: bytes) -> None:
        parsed = parse(data)
        assert parsed.metadata is None
        assert codes(parsed) == {("info", "not-pytorch")}


class TestBroken:
    def test_cut_anywhere(self) -> None:
        whole = archive({"archive/data.pkl": b"x" * 10, "archive/data/0": b"y" * 10})
        for size in range(4, len(whole)):
            assert codes(parse(whole[:size])) == {("error", "archive-cut")}, size

    @pytest.mark.parametrize(
        ("entries", "code"),
        [
            ([(b"a/data.pkl", 1, 99, 0)], "archive-cut"),
            ([(b"a/data.pkl", 1, 0, 0), (b"a/../../x", 1, 0, 0)], "path-outside"),
            ([(b"a/data.pkl", 1, 0, 0), (b"/x", 1, 0, 0)], "path-outside"),
            ([(b"a/data.pkl", 1, 4, 0), (b"a/0", 1, 4, 0)], "zip-bomb"),
            ([(b"a/data.pkl", 2**32 - 2, 0, 0)], "zip-bomb"),
        ],
    )
    def test_entries_that_lie(self, entries: list[tuple[bytes, int, int, int]], code: str) -> None:
        assert ("error", code) in codes(parse(by_hand(entries)))

    def test_a_count_that_lies(self) -> None:
        assert ("warning", "archive-count") in codes(parse(by_hand([(b"a/data.pkl", 0, 0, 0)], said=7)))

    def test_encrypted(self) -> None:
        data = bytearray(archive({"a/data.pkl": b"x"}))
        data[data.index(b"PK\1\2") + 8] |= 1
        assert ("error", "encrypted") in codes(parse(bytes(data)))

    @pytest.mark.parametrize("length", [2**16, 2**32 - 1])
    def test_a_directory_outside(self, length: int) -> None:
        data = b"PK\3\4" + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, length, 0, 0)
        assert codes(parse(data)) == {("error", "archive-invalid")}

    def test_a_locator_that_leads_nowhere(self) -> None:
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)
        for place in (0, 4, 2**63):
            data = b"PK\3\4" + struct.pack("<4sLQL", b"PK\6\7", 0, place, 1) + end
            assert codes(parse(data)) == {("error", "archive-invalid")}


class TestBounds:
    def test_a_million_files_are_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "x.pt"
        path.write_bytes(by_hand([(b"a", 0, 0, 0)] * 1_000_000))
        source = PathSource(path, ALLOWANCE)
        parsed = parse_pytorch(source)
        assert codes(parsed) == {("warning", "directory-not-read")}
        assert source.bytes_read < 100_000

    def test_a_hundred_thousand_files(self) -> None:
        count = MAX_DIRECTORY_BYTES // 47
        data = by_hand([(b"/", 2**32 - 2, 2**32 - 2, 2**32 - 2)] * count)
        parsed = bounded(lambda: parse(data))
        assert metadata(parsed)["files_total"] == count
        assert len(json.dumps(metadata(parsed))) < 2_000_000

    def test_long_names(self) -> None:
        data = by_hand([(b"\1" * 60_000, 0, 0, 0)] * 130)
        parsed = bounded(lambda: parse(data))
        assert len(json.dumps(metadata(parsed))) < 2_000_000

    def test_an_allowance_that_is_too_small_is_a_warning(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path / "x.pt")
        assert codes(parse_pytorch(PathSource(path, 600))) == {("warning", "directory-not-read")}
