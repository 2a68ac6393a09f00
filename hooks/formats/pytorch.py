"""PyTorch checkpoints: what kind of file it is, and the list of files in it. Nothing is unpickled."""

from typing import Any

from hooks.formats.clean import clean_number, clean_text
from hooks.formats.complaints import Complaints
from hooks.formats.parsed import Parsed, Severity
from hooks.formats.source import Source, TooMuchRead
from hooks.formats.zip_directory import END_SIGNATURE, LOCAL_SIGNATURE, Directory, read_directory

_FILES_LISTED = 2000
_LONGEST_PATH = 400
# `torch.save` before version 1.6: a pickle of this number, then others, then the bytes of the tensors.
_LEGACY = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_PICKLE_PROTOCOLS = range(2, 6)
_TAR_MAGIC_AT = 257
_HEAD_BYTES = 512


def parse_pytorch(source: Source) -> Parsed:
    """`{"kind", "files", "files_total", "bytes_total"}`; kinds: zip, torchscript, legacy, pickle, tar.

    Other files with such endings (`.bin` can be anything) are understood as nothing.
    """
    complaints = Complaints("save it again with `torch.save`, or as safetensors")
    try:
        metadata = _understand(source, complaints)
    except TooMuchRead:
        complaints.warn("directory-not-read", "the list of files in it is too large to be read here")
        metadata = None
    return Parsed(metadata, complaints.findings())


def _understand(source: Source, complaints: Complaints) -> dict[str, Any] | None:
    head = source.read(0, _HEAD_BYTES)
    if head.startswith((LOCAL_SIGNATURE, END_SIGNATURE)):
        directory = read_directory(source, complaints)
        return None if directory is None else _archive(directory, complaints)
    kind = _kind_of(head)
    if kind is None:
        complaints.add("not-pytorch", "neither a zip archive nor a pickle", Severity.INFO)
        return None
    return {"kind": kind, "files": [], "files_total": 0, "bytes_total": source.size}


def _kind_of(head: bytes) -> str | None:
    if head[:1] == b"\x80" and len(head) > 1 and head[1] in _PICKLE_PROTOCOLS:
        return "legacy" if head.startswith(_LEGACY, 2) else "pickle"
    return "tar" if head.startswith(b"ustar", _TAR_MAGIC_AT) else None


def _archive(directory: Directory, complaints: Complaints) -> dict[str, Any]:
    names = {entry.path.partition("/")[2] for entry in directory.entries}
    if directory.total <= len(directory.entries) and "data.pkl" not in names:
        complaints.add("not-pytorch", "a zip archive without `data.pkl`: none of `torch.save`", Severity.INFO)
    if directory.compressed:
        complaints.warn("compressed", "the files in it are compressed: `torch.load` cannot map them")
    return {
        "kind": "torchscript" if any(name.startswith("code/") for name in names) else "zip",
        "files": [
            {"path": clean_text(entry.path, _LONGEST_PATH), "bytes": clean_number(entry.size)}
            for entry in directory.entries[:_FILES_LISTED]
        ],
        "files_total": directory.total,
        "bytes_total": min(directory.bytes_total, 2**63 - 1),
    }
