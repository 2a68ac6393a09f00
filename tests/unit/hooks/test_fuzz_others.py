import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hooks.formats.adapters import parse_adapter
from hooks.formats.configs import parse_config, parse_generation_config
from hooks.formats.delimited import parse_csv
from hooks.formats.diffusers import parse_diffusers
from hooks.formats.json_lines import parse_jsonl
from hooks.formats.onnx import parse_onnx
from hooks.formats.parquet import parse_parquet
from hooks.formats.parsed import Parsed
from hooks.formats.source import BytesSource, Source
from hooks.formats.tokenizers import parse_chat_template, parse_tokenizer, parse_tokenizer_config
from tests.support.dataset_files import csv, dataset, json_lines, onnx_model, parquet
from tests.support.parsed_checks import anything, parse_soundly

pytestmark = pytest.mark.slow
ten_thousand = settings(
    max_examples=10_000, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
TABLE = dataset(3)
ONNX = [onnx_model().SerializeToString(), onnx_model(ir_version=3, doc_string="x" * 50).SerializeToString()]
PARQUET = [parquet(TABLE, compression="none"), parquet(TABLE.select(["id", "tags"]), row_group_size=1)]
CSV = [
    csv(TABLE),
    csv(TABLE, delimiter=";", include_header=False),
    'a\tb\n"1\n2"\t\ufeff\n'.encode("utf-16"),
    "größe,x\r\nü,1\r\n".encode(),
]
JSON_LINES = [
    json_lines(TABLE),
    b'{"a": [1, {"b": null}], "c": -1e5}\n\n{"a": 1.5, "c": 9223372036854775808}\n',
]
TOKENIZERS = [
    json.dumps(value).encode()
    for value in (
        {
            "version": "1.0",
            "added_tokens": [{"id": 2, "content": "</s>", "special": True}],
            "model": {"type": "BPE", "vocab": {"a": 0, 'q"': 1}, "merges": ["a b"], "unk_token": "<unk>"},
        },
        {"added_tokens": [], "model": {"vocab": [["<pad>", 0.0], ["\u00e9", -1.5]], "unk_id": 0}},
    )
]
JSON_PARSERS = (
    *(parse_config, parse_generation_config, parse_tokenizer_config, parse_chat_template),
    *(parse_adapter, parse_diffusers),
)
# Keys that the parsers look for, so that values of all kinds come to stand where they are not expected.
KEYS = """architectures model_type hidden_size n_layer vocab_size torch_dtype text_config vision_config
    quantization_config auto_map model_max_length bos_token additional_special_tokens chat_template
    tokenizer_class added_tokens_decoder base_model_name_or_path peft_type target_modules r lora_alpha
    modules_to_save _class_name unet vae model vocab added_tokens type content id name template""".split()
LEAVES: list[Any] = [
    *(
        None,
        True,
        0,
        1,
        -1,
        2**63,
        -(2**64),
        10**400,
        1.5,
        1e300,
        "",
        "a/b",
        "/x",
        "\0",
        "x" * 5000,
        "\ud800",
        "\u202e",
    ),
    *(
        [],
        {},
        [None, None],
        ["diffusers", "UNet"],
        [[], "x"],
        {"content": "</s>"},
        float("inf"),
        float("nan"),
    ),
]
VALUES = [
    *LEAVES,
    *([leaf, leaf] for leaf in LEAVES),
    *({"template": leaf, "content": leaf, "name": leaf} for leaf in LEAVES),
    *([{"template": leaf, "content": leaf, "name": "default"}, leaf] for leaf in LEAVES),
    *(dict.fromkeys(KEYS, leaf) for leaf in LEAVES),
]
objects = st.lists(
    st.tuples(st.sampled_from(KEYS) | st.text(max_size=3), st.sampled_from(VALUES)), max_size=8
).map(lambda pairs: json.dumps(dict(pairs)).encode())
json_files = objects | anything(
    [
        json.dumps({key: {"hidden_size": 1, "x": [key, None]} for key in KEYS}).encode(),
        b'{"a": NaN, "b": "NaN"}',
    ]
)


@ten_thousand
@given(anything(ONNX))
def test_no_onnx_file_breaks_the_parser(data: bytes) -> None:
    parse_soundly(parse_onnx, data)


@ten_thousand
@given(anything(PARQUET))
def test_no_parquet_file_breaks_the_parser(data: bytes) -> None:
    parse_soundly(parse_parquet, data)


@ten_thousand
@given(anything([data[-8 - int.from_bytes(data[-8:-4], "little") : -8] for data in PARQUET]))
def test_no_parquet_footer_breaks_the_parser(footer: bytes) -> None:
    parse_soundly(parse_parquet, b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")


@ten_thousand
@given(anything(CSV))
def test_no_csv_file_breaks_the_parser(data: bytes) -> None:
    parse_soundly(parse_csv, data)


@ten_thousand
@given(anything(JSON_LINES))
def test_no_json_lines_break_the_parser(data: bytes) -> None:
    parse_soundly(parse_jsonl, data)


@ten_thousand
@given(objects | anything(TOKENIZERS))
def test_no_tokenizer_breaks_the_parser(data: bytes) -> None:
    parse_soundly(parse_tokenizer, data)


@ten_thousand
@given(json_files)
def test_no_json_file_breaks_a_parser(data: bytes) -> None:
    for parse in JSON_PARSERS:
        parse_soundly(parse, data)


@pytest.mark.parametrize(
    ("parse", "data"),
    [
        (parse_csv, (b"ab," * 600_000 + b"\n") * 4),
        (parse_csv, b'"' + b"a,\n" * 2_700_000),
        (parse_jsonl, b"{" + b",".join(b'"%x":1' % number for number in range(400_000)) + b"}\n"),
        (parse_config, b"{" + b",".join(b'"%x":1' % number for number in range(300_000)) + b"}"),
        (parse_config, b'{"a":' * 600_000),
        (parse_tokenizer, b'{"model":{"type":"\xf0\x9f\x98\x80' + b"x" * 40_000_000 + b'"}}'),
        (parse_tokenizer, b'{"model":{"vocab":{' + b'"":0,' * 8_000_000 + b'"":0}}}'),
        (parse_onnx, b"\x08\x07\x3a\x80\x80\x80\x08" + b"\x5a\x06\x0a\x04abcd" * 2**21),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_files_made_to_take_memory_take_little(parse: Callable[[Source], Parsed], data: bytes) -> None:
    tracemalloc.start()
    try:
        parse(BytesSource(data))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 150_000_000
