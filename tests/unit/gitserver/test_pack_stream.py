"""Reading packs that git made, in pieces of any size, and bytes that nobody should have sent."""

import hashlib
import os
import random
import tracemalloc
import zlib
from pathlib import Path

import pytest

from core.models import ObjectFormat
from gitserver.pack_stream import PackStream
from tests.support.git_world import git

TEXT = b"".join(b"line %d\n" % number for number in range(3000))
CONTENTS = [b"", b"x", TEXT, TEXT + b"one more\n", os.urandom(70_000), bytes(900_000)]


def name_of(data: bytes, algorithm: str = "sha1") -> bytes:
    return hashlib.new(algorithm, b"blob %d\0" % len(data) + data).digest()


def a_pack(folder: Path, object_format: ObjectFormat = ObjectFormat.SHA1, *options: str) -> bytes:
    """Of a commit with CONTENTS, in which git makes a delta of one text on the other."""
    git(folder, "init", "-q", "-b", "main", f"--object-format={object_format.value}", ".")
    for number, content in enumerate(CONTENTS):
        (folder / f"f{number}").write_bytes(content)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "m")
    return git(folder, "pack-objects", "--revs", "--stdout", "-q", *options, data=b"HEAD\n")


def read(
    pack: bytes, *, step: int, max_bytes: int = 1 << 20, object_format: ObjectFormat = ObjectFormat.SHA1
) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    stream = PackStream(object_format, max_bytes=max_bytes, take=found.__setitem__)
    for start in range(0, len(pack), step):
        stream.feed(pack[start : start + step])
    return found


@pytest.mark.parametrize("object_format", ObjectFormat)
@pytest.mark.parametrize("options", [(), ("--delta-base-offset",), ("--window=0",)])
def test_every_whole_blob_in_pieces_of_any_size(
    tmp_path: Path, object_format: ObjectFormat, options: tuple[str, ...]
) -> None:
    pack = a_pack(tmp_path, object_format, *options)
    expected = {name_of(content, object_format.value): content for content in CONTENTS}
    whole = read(pack, step=len(pack), object_format=object_format)
    if "--window=0" in options:
        assert whole == expected
    else:
        assert whole.items() < expected.items()
        assert len(expected) - len(whole) == 1  # the delta
    for step in (1, 2, 7, 19, 4096):
        assert read(pack, step=step, object_format=object_format) == whole


def test_it_says_when_there_is_no_more(tmp_path: Path) -> None:
    pack = a_pack(tmp_path)
    stream = PackStream(ObjectFormat.SHA1, max_bytes=1, take=lambda *_: None)
    assert stream.feed(pack[:-30])
    assert not stream.feed(pack[-30:])
    assert not stream.feed(pack)


def test_large_blobs_are_passed_over(tmp_path: Path) -> None:
    found = read(a_pack(tmp_path), step=1000, max_bytes=len(TEXT))
    assert set(found.values()) < {b"", b"x", TEXT}


def blob_header(size: int, kind: int = 3) -> bytes:
    out = [kind << 4 | size & 15]
    size >>= 4
    while size:
        out[-1] |= 0x80
        out.append(size & 0x7F)
        size >>= 7
    return bytes(out)


def pack_of(*objects: bytes) -> bytes:
    return b"PACK" + (2).to_bytes(4, "big") + len(objects).to_bytes(4, "big") + b"".join(objects)


GOOD = blob_header(3) + zlib.compress(b"abc")


@pytest.mark.parametrize(
    "bad",
    [
        blob_header(2) + zlib.compress(b"abc"),  # more than it says
        blob_header(4) + zlib.compress(b"abc"),  # less
        blob_header(3) + b"no deflate",
        blob_header(3, kind=5) + zlib.compress(b"abc"),
        blob_header(3, kind=0) + zlib.compress(b"abc"),
        b"\xff" * 100,  # a size without an end
        blob_header(3, kind=6) + b"\xff" * 100,
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_reading_ends_at_what_is_no_pack(bad: bytes, step: int) -> None:
    assert read(pack_of(GOOD, bad, GOOD), step=step) == {name_of(b"abc"): b"abc"}


def test_what_is_no_pack_at_all() -> None:
    assert read(b"PUCK" + pack_of(GOOD)[4:], step=5) == {}


def test_a_bomb_takes_no_memory() -> None:
    packed = zlib.compressobj(9)
    bomb = b"".join(packed.compress(bytes(1 << 20)) for _ in range(256)) + packed.flush()
    data = pack_of(blob_header(256 << 20) + bomb, blob_header(1000) + bomb, GOOD)
    tracemalloc.start()
    try:
        assert read(data, step=len(data)) == {}
        assert tracemalloc.get_traced_memory()[1] < 4 * len(data) + (4 << 20)
    finally:
        tracemalloc.stop()


def test_damage_raises_nothing_and_names_nothing_wrongly(tmp_path: Path) -> None:
    pack = a_pack(tmp_path, ObjectFormat.SHA1, "--window=0")
    choice = random.Random(1)
    for _ in range(300):
        damaged = bytearray(pack)
        for _ in range(choice.randint(1, 4)):
            damaged[choice.randrange(len(damaged))] = choice.randrange(256)
        for oid, data in read(bytes(damaged), step=choice.randint(500, 200_000)).items():
            assert name_of(data) == oid
