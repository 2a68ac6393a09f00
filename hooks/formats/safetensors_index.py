"""`*.safetensors.index.json`: which file of a sharded checkpoint holds which tensor."""

import json
from typing import Any

from hooks.formats.clean import BadJson, clean_object, clean_text, load_json, quoted
from hooks.formats.complaints import Complaints
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.formats.source import Source, TooMuchRead

# DeepSeek-V3, with 91,000 tensors in 163 files, has one of 9 MB.
MAX_BYTES = 24 * 1024**2
_LISTED_BYTES = 1_500_000
_TENSORS_LISTED = 20_000
_SHARDS_LISTED = 5000
_REMEDY = "write it again with `save_pretrained`"


def parse_safetensors_index(source: Source) -> Parsed:
    """The tensors' files, all shards in order of their names, and the size that the index promises.

    `weight_map` is cut at 20,000 tensors, `shards` at 5000; `tensors_total` and `shards_total` are not.
    """
    if source.size > MAX_BYTES:
        message = f"the index is too large to be understood here: {source.size:,} bytes, over {MAX_BYTES:,}"
        return Parsed(None, (Finding(Severity.WARNING, "index-not-read", message),))
    try:
        value = load_json(source.read(0, source.size))
    except BadJson as error:
        return Parsed(None, (error.finding("the index"),))
    except TooMuchRead:
        message = "the index is too large to be understood here"
        return Parsed(None, (Finding(Severity.WARNING, "index-not-read", message),))
    complaints = Complaints(_REMEDY)
    return Parsed(_understand(value, complaints), complaints.findings())


def _understand(value: Any, complaints: Complaints) -> dict[str, Any] | None:
    weight_map = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(weight_map, dict):
        complaints.add("index-invalid", "the index has no `weight_map` of tensors and their files")
        return None
    metadata = value.get("metadata", {})
    if not isinstance(metadata, dict):
        complaints.warn("index-metadata", "`metadata` is no object")
        metadata = {}
    shards = _shards(weight_map, complaints)
    return {
        "weight_map": _listed(weight_map, shards),
        "tensors_total": len(weight_map),
        "shards": shards[:_SHARDS_LISTED],
        "shards_total": len(shards),
        "total_size": _total_size(metadata, complaints),
        "metadata": clean_object(metadata, depth=4, values=1000),
    }


def _shards(weight_map: dict[str, Any], complaints: Complaints) -> list[str]:
    shards: set[str] = set()
    bad: set[str] = set()
    for tensor, file in weight_map.items():
        if not isinstance(file, str):
            complaints.add("index-invalid", f"the tensor {quoted(tensor)} has no name of a file")
        elif file in shards or file in bad:
            continue
        elif _is_shard(file):
            shards.add(file)
        else:
            bad.add(file)
            complaints.add("shard-name", f"{quoted(file)} is no name of a file beside the index")
    return sorted(shards)


def _is_shard(file: str) -> bool:
    """Whether it names a file in the index's directory or below, as it can stand in a tree of Git."""
    parts = file.split("/")
    return not {"", ".", ".."}.intersection(parts) and "\\" not in file and clean_text(file, 1000) == file


def _listed(weight_map: dict[str, Any], shards: list[str]) -> dict[str, str]:
    known = set(shards)
    listed: dict[str, str] = {}
    left = _LISTED_BYTES
    for tensor, file in weight_map.items():
        if len(listed) >= _TENSORS_LISTED:
            break
        if not isinstance(file, str) or file not in known:
            continue
        name = clean_text(tensor, 1000)
        left -= len(json.dumps([name, file]))
        if left < 0:
            break
        listed[name] = file
    return listed


def _total_size(metadata: dict[str, Any], complaints: Complaints) -> int | None:
    """In bytes. Some writers make a float of it."""
    size = metadata.get("total_size")
    if size is None:
        return None
    if isinstance(size, float) and size.is_integer():
        size = int(size)
    if type(size) is not int or size not in range(2**63):
        complaints.warn("total-size", "`metadata.total_size` is no number of bytes")
        return None
    return size
