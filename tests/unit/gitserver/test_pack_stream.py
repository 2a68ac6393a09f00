"""Reading packs that git made, in pieces of any size, and bytes that nobody should have sent."""

import hashlib
import os
import random
import tracemalloc
import zlib
from collections.abc import Callable
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
    pack = a_pack(tmp_path, ObjectFormat.SHA1, "--window=0")
    assert set(read(pack, step=1000, max_bytes=len(TEXT)).values()) == {b"", b"x", TEXT}


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
        b"\xff" * 2_000_000,  # which nobody should add up
        blob_header(3, kind=6) + b"\xff" * 100,
    ],
    ids=str,
)
@pytest.mark.parametrize("step", [1, 1000, 10_000_000])
def test_reading_ends_at_what_is_no_pack(bad: bytes, step: int) -> None:
    assert read(pack_of(GOOD, bad, GOOD), step=step) == {name_of(b"abc"): b"abc"}


def test_what_is_no_pack_at_all() -> None:
    assert read(b"PUCK" + pack_of(GOOD)[4:], step=5) == {}


@pytest.mark.parametrize("step", [1, 100, 1 << 20])
def test_what_compresses_well_is_read_to_its_end_and_no_further(step: int) -> None:
    """zlib keeps an old tail when the last step gives out as much as was asked for."""
    sizes = [size + more for size in (256 << 10, 512 << 10, 900_000) for more in (-1, 0, 1, 2222)]
    zeros = [bytes(size) for size in sizes]
    packed = [blob_header(len(data)) + zlib.compress(data) for data in zeros]
    taken: list[bytes] = []
    stream = PackStream(ObjectFormat.SHA1, max_bytes=1 << 20, take=lambda oid, data: taken.append(data))
    pack = pack_of(*(one for some in packed for one in (GOOD, some)), GOOD) + bytes(20)
    for start in range(0, len(pack), step):
        stream.feed(pack[start : start + step])
    assert taken == [*(one for data in zeros for one in (b"abc", data)), b"abc"]


def test_no_pack_sends_the_reader_back() -> None:
    """A place before the one it comes from, and it would read the same object for weeks."""
    taken: list[bytes] = []
    for empty in range(300, 500):  # stored blocks without a byte, so that what is behind has any length
        packing = zlib.compressobj(9, wbits=-15)
        body = packing.compress(bytes((256 << 10) + 2222)) + packing.flush()
        checksum = zlib.adler32(bytes((256 << 10) + 2222)).to_bytes(4, "big")
        stored = b"\x00\x00\x00\xff\xff" * empty
        pack = pack_of(blob_header((256 << 10) + 2222) + b"\x78\x9c" + stored + body + checksum)
        endless = pack[:8] + b"\xff\xff\xff\xff" + pack[12:] + GOOD
        taken.clear()
        stream = PackStream(ObjectFormat.SHA1, max_bytes=1 << 20, take=_at_most(2, taken))
        stream.feed(endless)
        assert len(taken) == 2


def _at_most(count: int, taken: list[bytes]) -> Callable[[bytes, bytes], None]:
    def take(oid: bytes, data: bytes) -> None:
        assert len(taken) < count
        taken.append(data)

    return take


def test_a_bomb_takes_no_memory() -> None:
    packing = zlib.compressobj(9)
    bomb = b"".join(packing.compress(bytes(1 << 20)) for _ in range(256)) + packing.flush()
    nothing = b"\x78\x9c" + b"\x00\x00\x00\xff\xff" * 400_000 + zlib.compress(b"")[2:]
    data = pack_of(blob_header(256 << 20) + bomb, blob_header(0) + nothing, GOOD, blob_header(9) + bomb, GOOD)
    tracemalloc.start()
    try:
        assert set(read(data, step=len(data)).values()) == {b"", b"abc"}
        assert tracemalloc.get_traced_memory()[1] < 2 * len(data) + (2 << 20)
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
