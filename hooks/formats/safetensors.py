"""Safetensors: what the header says of a model. The weights are never read."""

import json
from collections.abc import Sequence
from typing import Any

from hooks.formats.clean import clean_number, clean_object, clean_text
from hooks.formats.complaints import Complaints
from hooks.formats.parsed import Parsed
from hooks.formats.safetensors_header import MAX_DIMENSIONS, Header, Tensor, read_header
from hooks.formats.shapes import parameters
from hooks.formats.source import Source, TooMuchRead

_TENSORS_LISTED = 20_000
_LISTED_BYTES = 1_500_000


def parse_safetensors(source: Source) -> Parsed:
    """The header's tensors, the parameters by dtype, and everything that readers would refuse."""
    complaints = Complaints("write it again with `safetensors.torch.save_file`, or upload it again")
    try:
        header = read_header(source, complaints)
    except TooMuchRead:
        complaints.warn("header-not-read", "the header is too large to be understood here")
        header = None
    return Parsed(_metadata(header) if header else None, complaints.findings())


def _metadata(header: Header) -> dict[str, Any]:
    counts = parameters((tensor.dtype, tensor.shape) for tensor in header.tensors)
    return {
        "tensors": _listed(header.tensors),
        "tensors_total": len(header.tensors),
        "parameters": counts,
        "parameters_total": sum(counts.values()),
        "metadata": clean_object(header.metadata, text=20_000),
        "header_bytes": header.header_bytes,
        "data_offset": header.data_offset,
    }


def _listed(tensors: Sequence[Tensor]) -> dict[str, Any]:
    listed: dict[str, Any] = {}
    left = _LISTED_BYTES
    for tensor in tensors[:_TENSORS_LISTED]:
        if len(tensor.shape) > MAX_DIMENSIONS:
            continue
        name = clean_text(tensor.name, 1000)
        shape = [clean_number(size) for size in tensor.shape]
        offsets = [clean_number(tensor.begin), clean_number(tensor.end)]
        left -= len(json.dumps([name, shape, offsets])) + 50
        if left < 0:
            break
        listed[name] = {"dtype": tensor.dtype, "shape": shape, "offsets": offsets}
    return listed
