"""The tensors of single files: where they are, what they weigh, and how they are kept."""

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from hooks.formats.source import BytesSource, SourceUnreadable
from hooks.tensors.weights import Tensor, Weights, digested, listed, pack, spans, unpack
from tests.support.model_files import GgufBytes, entry, llama_tensors, raw_safetensors, write_gguf
from tests.support.model_files import write_safetensors as write


class CountedSource(BytesSource):
    """Remembers what was read; `short` bytes are missing at the end."""

    def __init__(self, data: bytes, short: int = 0) -> None:
        super().__init__(data)
        self._there = len(data) - short
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return super().read(offset, length)[: max(0, self._there - offset)]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def test_safetensors_as_the_library_has_them(tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", llama_tensors(dtype="float16"))
    found = digested(BytesSource(path.read_bytes()), "safetensors")
    assert found is not None
    with safe_open(path, "np") as file:
        assert {one.name for one in found} == set(file.keys())
        for one in found:
            tensor = file.get_tensor(one.name)
            assert one == Tensor(one.name, "F16", tensor.shape, tensor.nbytes, sha256(tensor.tobytes()))
    without = listed(BytesSource(path.read_bytes()), "safetensors")
    assert without == [one._replace(digest=None) for one in found]


@pytest.mark.parametrize("quantisation", [None, gguf.GGMLQuantizationType.Q8_0])
def test_gguf_as_the_library_has_them(tmp_path: Path, quantisation: gguf.GGMLQuantizationType | None) -> None:
    tensors = {"a.weight": np.arange(128, dtype=np.float32).reshape(4, 32), "b.bias": np.ones(3, np.float32)}
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    for name, tensor in tensors.items():
        if quantisation is not None and tensor.size % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(tensor, quantisation), raw_dtype=quantisation)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = digested(BytesSource((tmp_path / "model.gguf").read_bytes()), "gguf")
    expected = [
        Tensor(
            one.name,
            one.tensor_type.name,
            tuple(int(length) for length in one.shape),
            int(one.n_bytes),
            sha256(one.data.tobytes()),
        )
        for one in GGUFReader(tmp_path / "model.gguf").tensors
    ]
    assert found == expected


def test_every_byte_is_read_once_in_long_pieces() -> None:
    """Small tensors between large ones must not be read as blocks around them, again and again."""
    sizes = [4, 3 * 1024**2, 8, 9 * 1024**2 + 1, 0, 16] * 2
    header, end = {}, 0
    for number, size in enumerate(sizes):
        header[f"t{number}"] = entry(end, end + size, "U8", (size,))
        end += size
    data = np.random.default_rng(1).bytes(end)
    source = CountedSource(raw_safetensors(header, data))
    found = digested(source, "safetensors")
    assert found is not None
    pieces, start = {}, 0
    for number, size in enumerate(sizes):
        pieces[f"t{number}"] = sha256(data[start : start + size])
        start += size
    assert {one.name: one.digest for one in found} == pieces
    body = [(offset, length) for offset, length in source.reads if length >= 1024**2]
    assert len(body) <= -(-end // (8 * 1024**2))
    assert sum(length for _, length in source.reads) <= source.size + 8 * 1024**2


def test_an_empty_file_of_tensors_has_none_and_is_sound() -> None:
    assert digested(BytesSource(raw_safetensors({})), "safetensors") == []
    assert digested(BytesSource(GgufBytes().file()), "gguf") == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        raw_safetensors(b"[]"),
        raw_safetensors({"a": entry(0, 4), "b": entry(2, 6)}, b"\0" * 6),
        raw_safetensors({"a": entry(0, 4)}, b"\0" * 3),
        raw_safetensors({"a": entry(0, 4)}, b"\0" * 5),
        raw_safetensors({"a": entry(4, 8)}, b"\0" * 8),
        raw_safetensors({"a": entry(-4, 0)}, b"\0" * 4),
        raw_safetensors({"a": entry(4, 0)}, b"\0" * 4),
        raw_safetensors({"a": entry(0, 2**64)}, b"\0" * 4),
        raw_safetensors({"a": entry(0, 4, "F33")}, b"\0" * 4),
        raw_safetensors({"a": entry(0, 4, shape=(2,))}, b"\0" * 4),
        raw_safetensors({"a": entry(0, 4), "b": 1}, b"\0" * 4),
        raw_safetensors(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
            b"\0" * 8,
        ),
    ],
)
def test_nothing_is_told_of_what_no_library_loads(data: bytes) -> None:
    assert spans(BytesSource(data), "safetensors") is None
    assert digested(BytesSource(data), "safetensors") is None


@pytest.mark.parametrize(
    "data",
    [
        GgufBytes().tensor("a", (4,), 0, 0).file(b"\0" * 15),
        GgufBytes().tensor("a", (4,), 0, 0).tensor("b", (4,), 0, 8).file(b"\0" * 64),
        GgufBytes().tensor("a", (4,), 0, 0).tensor("a", (4,), 0, 32).file(b"\0" * 64),
        GgufBytes().tensor("a", (4,), 999, 0).file(b"\0" * 64),
        GgufBytes().tensor("a", (33,), 8, 0).file(b"\0" * 64),
        GgufBytes().tensor("a", (2**40, 2**40), 0, 0).file(b"\0" * 64),
        GgufBytes().tensor("a", (4,), 0, 2**63).file(b"\0" * 64),
        GgufBytes().tensor("a", (4,), 0, 0).file(b"\0" * 64, tensors=2),
        b"GGUF",
    ],
)
def test_nothing_is_told_of_broken_gguf(data: bytes) -> None:
    assert digested(BytesSource(data), "gguf") is None


def test_a_file_of_another_format_is_told_by_its_name_only(tmp_path: Path) -> None:
    data = write_gguf(tmp_path / "a.gguf").read_bytes()
    assert listed(BytesSource(data), "gguf")
    assert listed(BytesSource(data), "safetensors") is None


def test_less_than_there_should_be_is_no_digest(tmp_path: Path) -> None:
    data = write(tmp_path / "a.safetensors", {"a": np.ones(99, np.float32)}).read_bytes()
    with pytest.raises(SourceUnreadable):
        digested(CountedSource(data, short=4), "safetensors")


_TEXTS = st.text(max_size=20)
_TENSORS = st.lists(
    st.builds(
        Tensor,
        _TEXTS,
        _TEXTS,
        st.lists(st.integers(0, 2**64 - 1), max_size=4).map(tuple),
        st.integers(0, 2**63),
        st.none() | st.text("0123456789abcdef", min_size=32, max_size=32),
    )
)


@given(_TENSORS)
def test_what_is_packed_is_unpacked(tensors: Sequence[Tensor]) -> None:
    packed = pack("gguf", tensors)
    assert unpack("gguf", packed) == tensors
    assert unpack("safetensors", packed) is None


@given(st.integers(0, 500) | st.none(), st.binary(max_size=5))
def test_what_was_not_packed_here_is_unknown(cut: int | None, tail: bytes) -> None:
    whole = pack("gguf", [Tensor("a", "F32", (1,), 4, "0" * 32)])
    data = whole[:cut] if cut is not None and cut < len(whole) else zlib.compress(b"[1]" + tail)
    assert unpack("gguf", data) is None
    assert unpack("gguf", tail) is None


def test_an_older_row_is_unknown() -> None:
    for text in (b"[]", b"{}", b'{"kind":"gguf","version":0,"tensors":[]}', b'{"kind":"gguf","version":1}'):
        found: Weights = unpack("gguf", zlib.compress(text))
        assert found is None
