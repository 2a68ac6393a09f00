import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hooks.formats.parquet import parse_parquet
from hooks.formats.parsed import Parsed, Severity
from tests.support.dataset_files import dataset, parquet
from tests.support.parsed_checks import parse_soundly
from tests.support.path_source import PathSource

LOGICAL: dict[str, Callable[[dict[str, Any]], str]] = {
    "Int": lambda says: f"INT({says['bitWidth']}, {'signed' if says['isSigned'] else 'unsigned'})",
    "Decimal": lambda says: f"DECIMAL({says['precision']}, {says['scale']})",
    "Timestamp": lambda says: clock("TIMESTAMP", says),
    "Time": lambda says: clock("TIME", says),
}
UNITS = {"milliseconds": "MILLIS", "microseconds": "MICROS", "nanoseconds": "NANOS"}


def clock(name: str, says: dict[str, Any]) -> str:
    return f"{name}({UNITS[says['timeUnit']]}{', UTC' if says['isAdjustedToUTC'] else ''})"


def as_pyarrow_says(column: Any) -> dict[str, Any]:
    says = json.loads(column.logical_type.to_json())
    name = says["Type"]
    logical = LOGICAL[name](says) if name in LOGICAL else {"None": None}.get(name, name.upper())
    return {"name": column.path, "type": column.physical_type, "logical": logical}


def assert_as_pyarrow_says(data: bytes) -> None:
    parsed = parse_soundly(parse_parquet, data)
    metadata, file = parsed.metadata, pq.ParquetFile(BytesIO(data))
    assert metadata is not None
    assert parsed.findings == ()
    assert metadata["rows"] == file.metadata.num_rows
    assert metadata["row_groups"] == file.metadata.num_row_groups
    assert metadata["columns"] == [as_pyarrow_says(file.schema.column(n)) for n in range(len(file.schema))]
    assert metadata["columns_total"] == file.metadata.num_columns
    assert metadata["created_by"] == file.metadata.created_by
    assert list(metadata["key_values"]) == [key.decode() for key in file.metadata.metadata or {}]


@pytest.mark.parametrize(
    "options",
    [{}, {"row_group_size": 7}, {"version": "1.0"}, {"compression": "zstd"}, {"store_schema": False}],
    ids=str,
)
def test_says_what_pyarrow_says(options: dict[str, Any]) -> None:
    assert_as_pyarrow_says(parquet(dataset(), **options))


def test_every_type() -> None:
    types = [
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.binary(), pa.binary(3)),
        *(pa.date32(), pa.time32("ms"), pa.time64("us"), pa.time64("ns"), pa.timestamp("ms")),
        *(pa.timestamp("us", "UTC"), pa.timestamp("ns"), pa.decimal128(38, 5), pa.decimal256(60, 0)),
        *(pa.map_(pa.string(), pa.int8()), pa.list_(pa.list_(pa.int32())), pa.null(), pa.large_binary()),
        pa.dictionary(pa.int8(), pa.string()),
        pa.struct([("a b", pa.struct([("c.d", pa.int8())])), ("é", pa.int8())]),
    ]
    schema = pa.schema([(f"column {number}", kind) for number, kind in enumerate(types)])
    table = schema.empty_table()
    table = table.append_column("id", pa.ExtensionArray.from_storage(pa.uuid(), pa.array([], pa.binary(16))))
    assert_as_pyarrow_says(parquet(table, version="2.6"))


@pytest.mark.parametrize("table", [pa.table({}), pa.table({"a": pa.array([], pa.int8())})])
def test_empty_tables(table: pa.Table) -> None:
    assert_as_pyarrow_says(parquet(table))


def test_wide_and_long_files() -> None:
    table = pa.table({f"c{number}": [1, 2] for number in range(500)})
    assert_as_pyarrow_says(parquet(table, row_group_size=1, compression="none"))
    table = pa.table({"a": range(3000)})
    assert_as_pyarrow_says(parquet(table, row_group_size=1))


def test_more_columns_than_are_shown() -> None:
    parsed = parse_soundly(
        parse_parquet, parquet(pa.table({f"{number:0300}": [1] for number in range(5000)}))
    )
    assert parsed.metadata is not None
    assert len(parsed.metadata["columns"]) == 4000
    assert parsed.metadata["columns_total"] == 5000


def test_reads_nothing_but_the_footer(tmp_path: Path) -> None:
    file = tmp_path / "data.parquet"
    pq.write_table(pa.table({"a": range(2_000_000)}), file, compression="none", use_dictionary=False)
    source = PathSource(file, 2**20)
    assert parse_parquet(source).metadata is not None
    assert source.bytes_read < 66_000 < file.stat().st_size


def test_key_values_are_short() -> None:
    table = pa.table({"a": [1]}).replace_schema_metadata(
        {"short": "x" * 1024, "long": "x" * 1025, "nul": "\0"}
    )
    metadata = parse_soundly(parse_parquet, parquet(table)).metadata
    assert metadata is not None
    assert metadata["key_values"] == {
        "short": "x" * 1024,
        "long": None,
        "nul": "\ufffd",
        "ARROW:schema": None,
    }


def test_a_footer_over_the_first_block(tmp_path: Path) -> None:
    data = parquet(pa.table({f"{number:0100}": [1] for number in range(2000)}))
    assert int.from_bytes(data[-8:-4], "little") > 70_000
    assert_as_pyarrow_says(data)
    file = tmp_path / "x"
    file.write_bytes(data)
    parsed = parse_parquet(PathSource(file, 100_000))
    assert [finding.code for finding in parsed.findings] == ["parquet-too-large"]


def codes(parsed: Parsed) -> list[str]:
    return [finding.code for finding in parsed.findings]


def with_footer(footer: bytes, magic: bytes = b"PAR1") -> bytes:
    return magic + footer + len(footer).to_bytes(4, "little") + magic


def footer_of(data: bytes) -> bytes:
    return data[-8 - int.from_bytes(data[-8:-4], "little") : -8]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "parquet-invalid"),
        (b"PAR1PAR1", "parquet-invalid"),
        (b"version https://git-lfs.github.com/spec/v1\n", "parquet-invalid"),
        (parquet(dataset())[:-1], "parquet-cut"),
        (parquet(dataset())[:2000], "parquet-cut"),
        (parquet(dataset())[1:], "parquet-invalid"),
        (b"PAR1" + b"\0" * 20 + b"\xff\xff\xff\xffPAR1", "parquet-footer-lies"),
        (b"PAR1" + b"\0" * 20 + b"\x14\0\0\0PAR1", "parquet-footer-damaged"),
        (with_footer(footer_of(parquet(dataset()))[10:]), "parquet-footer-damaged"),
        (with_footer(footer_of(parquet(dataset()))), "parquet-footer-lies"),
    ],
)
def test_cut_and_lying_files(data: bytes, code: str) -> None:
    parsed = parse_soundly(parse_parquet, data)
    assert codes(parsed) == [code]
    assert parsed.findings[0].severity is Severity.ERROR


VERSION, ROWS = b"\x15\x02", b"\x26\x02"  # fields 1 and 3, both 1; 3 follows 1 or 2
ROOT = b"\x48\x01r"  # an element's name
STOP = b"\0"


def varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])


def group(children: int) -> bytes:
    return ROOT + b"\x15" + varint(2 * children) + STOP


@pytest.mark.parametrize(
    ("footer", "message"),
    [
        (VERSION + b"\x19\xfc" + varint(2**31) + group(1), "2,147,483,648 values where"),
        (VERSION + b"\x19\xfc" + b"\xff" * 11, "more than 64 bits"),
        (VERSION + b"\x19\x1c" + group(2**30) + b"\x16\x02" + STOP, "fewer nodes"),
        (VERSION + b"\x19\x2c" + group(0) * 2 + b"\x16\x02" + STOP, "outside of its tree"),
        (VERSION + b"\x19\x1c" + ROOT + b"\x15\x01" + STOP + STOP, "less than no children"),
        (VERSION + b"\x19\xfc" + varint(100) + group(1) * 100 + STOP, "nested too deeply"),
        (VERSION + b"\x19\x18\x01x", "a list of type 8"),
        (VERSION + ROWS + b"\x19\x1c" + b"\x15\x02" * 3, "a value of 1 bytes where 0"),
        (VERSION + ROWS + b"\x1f", "a list is expected"),
        (VERSION + ROWS + b"\x6f", "there is no type 15"),
        (VERSION + ROWS + b"\x6c" + b"\x1c" * 200, "nested too deeply"),
        (VERSION + ROWS + b"\x69" + b"\x19" * 200, "nested too deeply"),
        (VERSION + ROWS + b"\x6b\xff\xff\xff\xff\x0f\x88", "values where"),
        (VERSION + ROWS + b"\x38\xff\xff\xff\xff\x0f", "a value of 4,294,967,295 bytes"),
        (STOP, "no version"),
    ],
)
def test_lies_in_thrift(footer: bytes, message: str) -> None:
    (finding,) = parse_soundly(parse_parquet, with_footer(footer)).findings
    assert finding.code == "parquet-footer-damaged"
    assert message in finding.message


@pytest.mark.parametrize(
    "more",
    [
        b"\x19\xfc" + varint(2**20) + STOP * 2**20,  # row groups
        b"\x69\xfc" + varint(2**20) + STOP * 2**20,  # an unknown list
        b"\x6c" + b"\x11" * 2**20,  # an unknown struct
    ],
)
def test_a_footer_of_too_many_values_keeps_what_is_known(more: bytes) -> None:
    parsed = parse_soundly(parse_parquet, with_footer(VERSION + ROWS + more + STOP))
    assert codes(parsed) == ["parquet-too-large"]
    assert parsed.metadata is not None
    assert parsed.metadata["rows"] == 1


def test_a_footer_over_the_limit_keeps_what_is_known() -> None:
    footer = VERSION + ROWS + b"\x38" + varint(17 * 2**20) + b"x" * 17 * 2**20 + STOP
    parsed = parse_soundly(parse_parquet, with_footer(footer))
    assert codes(parsed) == ["parquet-too-large"]
    assert parsed.metadata is not None
    assert parsed.metadata["rows"] == 1


def test_row_groups_that_contradict_the_footer() -> None:
    group_of_five = b"\x19\x1c" + b"\x36\x0a" + STOP
    parsed = parse_soundly(parse_parquet, with_footer(VERSION + ROWS + group_of_five + STOP))
    assert codes(parsed) == ["parquet-footer-lies"]
    assert "1 rows; its row groups have 5" in parsed.findings[0].message
    parsed = parse_soundly(parse_parquet, with_footer(VERSION + b"\x26\x01" + STOP))
    assert "-1 rows" in parsed.findings[0].message


def test_encrypted_footers() -> None:
    parsed = parse_soundly(parse_parquet, with_footer(b"\x12" * 50, b"PARE"))
    assert codes(parsed) == ["parquet-encrypted"]
    assert parsed.findings[0].severity is Severity.INFO
    assert parsed.metadata is not None
    assert (parsed.metadata["rows"], parsed.metadata["encrypted"]) == (None, True)
