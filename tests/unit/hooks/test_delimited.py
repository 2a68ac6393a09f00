import csv as standard_csv
import json
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pytest

from hooks.formats.delimited import parse_csv
from hooks.formats.json_lines import parse_jsonl
from hooks.formats.parsed import Parsed
from tests.support.dataset_files import csv, dataset, json_lines
from tests.support.parsed_checks import parse_soundly
from tests.support.path_source import PathSource

MIB = 1024**2


def codes(parsed: Parsed) -> list[str]:
    return [finding.code for finding in parsed.findings]


def metadata_of(parsed: Parsed) -> dict[str, Any]:
    assert parsed.metadata is not None, parsed.findings
    return dict(parsed.metadata)


def types_of(parsed: Parsed) -> dict[str, str]:
    return {column["name"]: column["type"] for column in metadata_of(parsed)["columns"]}


def as_pyarrow_says(table: pa.Table) -> dict[str, str]:
    names = {"date32": "date", "timestamp": "timestamp", "list": "list", "struct": "struct"}
    return {
        field.name: names.get(str(field.type).split("[")[0].split("<")[0], str(field.type))
        for field in table.schema
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_says_what_pyarrow_says(delimiter: str) -> None:
    data = csv(dataset(), delimiter=delimiter)
    parsed = parse_soundly(parse_csv, data)
    table = pyarrow.csv.read_csv(BytesIO(data), parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter))
    metadata = metadata_of(parsed)
    assert parsed.findings == ()
    assert types_of(parsed) == as_pyarrow_says(table)
    assert (metadata["rows"], metadata["rows_exact"]) == (table.num_rows, True)
    assert (metadata["delimiter"], metadata["header"]) == (delimiter, True)
    assert metadata["bytes_scanned"] == len(data)


@pytest.mark.parametrize(
    "cells",
    [
        "1 -2 0 9223372036854775807 -9223372036854775808",
        "1 9223372036854775808",
        "1 2.5 1e9 -.5 5. NaN",
        "inf -inf 1",
        "true false TRUE False",
        "2020-01-31 2021-12-01",
        "2020-01-31T10:00:00 2020-01-31",
        "2020-01-31T10:00:00Z 2020-01-31T11:00:00Z",
        "N/A NULL null nan #N/A",
        "None none",
        "1,5 2,5",
        "1_000 2",
        "x y",
        "007 1",
        "2020-1-1 2020-01-02",
        "10:20:30 11:00",
    ],
)
def test_cells_have_the_types_of_pyarrow(cells: str) -> None:
    file = StringIO()
    writer = standard_csv.writer(file)
    writer.writerows([["a", "x"], *([cell, "text"] for cell in cells.split())])
    data = file.getvalue().encode()
    said = as_pyarrow_says(pyarrow.csv.read_csv(BytesIO(data)))["a"].replace("time32", "string")
    assert types_of(parse_soundly(parse_csv, data))["a"] == said.replace("[s]", "")


def test_quoted_cells_hold_delimiters_and_lines() -> None:
    data = b'a,b\r\n"1,\r\n""x""\n",2\r\n\r\n3,4\r\n'
    metadata = metadata_of(parse_soundly(parse_csv, data))
    assert (
        metadata["rows"]
        == pyarrow.csv.read_csv(
            BytesIO(data), parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)
        ).num_rows
    )
    assert [column["name"] for column in metadata["columns"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1,2\n3,4\n", None),
        ("a,1\nb,2\n", None),
        ("id,2001,2002\n7,1,2\n", ["id", "2001", "2002"]),
        (",x\n0,1\n", ["", "x"]),
        ("a,b\n", ["a", "b"]),
        ("2020-01-01\n", None),
    ],
)
def test_headers(text: str, names: list[str] | None) -> None:
    metadata = metadata_of(parse_soundly(parse_csv, text.encode()))
    assert metadata["header"] is (names is not None)
    expected = names or [f"column_{number}" for number in range(len(metadata["columns"]))]
    assert [column["name"] for column in metadata["columns"]] == expected
    assert metadata["rows"] == text.count("\n") - (names is not None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings(encoding: str) -> None:
    parsed = parse_soundly(parse_csv, "größe,b\n1,ü\n".encode(encoding))
    assert types_of(parsed) == {"größe": "int64", "b": "string"}
    assert codes(parsed) == ([] if encoding.startswith("utf-8") else ["csv-not-utf8"])


def test_line_ends_of_old_macintoshes() -> None:
    assert metadata_of(parse_soundly(parse_csv, b"a,b\r1,2\r3,4\r"))["rows"] == 2


def test_a_mixed_column_is_a_finding() -> None:
    lines = ["id,n", *(f"a{number},{number}" for number in range(50)), "b,unknown", "c,?"]
    parsed = parse_soundly(parse_csv, "\n".join(lines).encode())
    (finding,) = parsed.findings
    assert (finding.code, finding.line) == ("csv-mixed-column", 52)
    assert '"n" has 50 values of type int64 and 2 others, the first of type string' in finding.message
    assert types_of(parsed)["n"] == "string"


def test_ragged_rows_are_a_finding() -> None:
    (finding,) = parse_soundly(parse_csv, b'a,b\n1,2\n"3\n",4\n5\n6,7,8\n').findings
    assert (finding.code, finding.line) == ("csv-ragged-rows", 5)
    assert finding.message.startswith("2 rows")


def test_columns_of_the_same_name_are_a_finding() -> None:
    assert codes(parse_soundly(parse_csv, b"a,b,a\n1,2,3\n")) == ["csv-duplicate-column"]


def test_a_quotation_mark_that_is_not_closed() -> None:
    parsed = parse_soundly(parse_csv, b'a,b\n1,"2\n' + b"3,4\n" * MIB)
    assert codes(parsed) == ["csv-row-too-long"]
    assert parsed.findings[0].line == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "csv-empty"),
        (b"\n\r\n\n", "csv-empty"),
        (b"a,b\n\0\0", "csv-binary"),
        (b"," * 3 * MIB, "csv-row-too-long"),
        (b"x" * 9 * MIB, "csv-row-too-long"),
    ],
)
def test_what_is_no_table(data: bytes, code: str) -> None:
    parsed = parse_soundly(parse_csv, data)
    assert (parsed.metadata, codes(parsed)) == (None, [code])


def test_rows_are_counted_exactly_up_to_the_scanned_size() -> None:
    data = b"a,b\n" + b"1,x\n\r\n" * MIB
    metadata = metadata_of(parse_soundly(parse_csv, data))
    assert (metadata["rows"], metadata["rows_exact"]) == (MIB, True)


@pytest.mark.parametrize("parse", [parse_csv, parse_jsonl])
def test_a_large_file_is_estimated(tmp_path: Path, parse: Any) -> None:
    line = b'{"a": 1, "b": "some text"}\n' if parse is parse_jsonl else b"12345678,some text\n"
    file = tmp_path / "large"
    file.write_bytes((b"" if parse is parse_jsonl else b"a,b\n") + line * (20 * MIB // len(line)))
    source = PathSource(file, 9 * MIB)
    metadata = metadata_of(parse(source))
    assert not metadata["rows_exact"]
    assert metadata["rows"] == pytest.approx(20 * MIB // len(line), rel=0.001)
    assert metadata["bytes_scanned"] <= source.bytes_read <= 8 * MIB
    assert [column["name"] for column in metadata["columns"]] == ["a", "b"]


@pytest.mark.parametrize("parse", [parse_csv, parse_jsonl])
def test_too_small_an_allowance_is_a_finding(tmp_path: Path, parse: Any) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a,b\n" * 1000)
    parsed = parse(PathSource(file, 100))
    assert parsed.metadata is None
    assert codes(parsed)[0].endswith("-too-large")


def test_wide_tables_are_cut() -> None:
    header = ",".join(f"{number:0250}" for number in range(5000))
    metadata = metadata_of(parse_soundly(parse_csv, f"{header}\n{'1,' * 4999}1\n".encode()))
    assert (len(metadata["columns"]), metadata["columns_total"]) == (2000, 5000)
    line = json.dumps({f"{number:0250}": number for number in range(5000)})
    metadata = metadata_of(parse_soundly(parse_jsonl, line.encode()))
    assert (len(metadata["columns"]), metadata["columns_total"]) == (2000, 5000)


def test_json_lines_say_what_pyarrow_says() -> None:
    data = json_lines(dataset())
    parsed = parse_soundly(parse_jsonl, data)
    table = pyarrow.json.read_json(BytesIO(data))
    metadata = metadata_of(parsed)
    assert parsed.findings == ()
    assert types_of(parsed) == as_pyarrow_says(table)
    assert (metadata["rows"], metadata["rows_exact"]) == (table.num_rows, True)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ("1 -2 9223372036854775807 -9223372036854775808", "int64"),
        ("1 9223372036854775808", "double"),
        ("1 2.5 1e3", "double"),
        ("null null", "null"),
        ("null true false", "bool"),
        ('"a" null', "string"),
        ("[] [1]", "list"),
        ('{} {"a":[1]}', "struct"),
        ('1 "a"', "mixed"),
        ("[] {}", "mixed"),
        ("123456789012345678901234567890", "double"),
    ],
)
def test_types_of_json_values(values: str, kind: str) -> None:
    data = "".join(f'{{"a": {value} }}\n' for value in values.split()).encode()
    parsed = parse_soundly(parse_jsonl, data)
    assert types_of(parsed) == {"a": kind}
    assert codes(parsed) == (["jsonl-mixed-column"] if kind == "mixed" else [])


def test_a_mixed_json_column_says_where() -> None:
    (finding,) = parse_soundly(parse_jsonl, b'{"a": 1}\n{"a": 2}\n\n{"a": "x"}\n{"b": 1}').findings
    assert (finding.code, finding.line) == ("jsonl-mixed-column", 4)
    assert "2 int64, 1 string" in finding.message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[1, 2]", "no object"),
        (b'{"a": 1', "truncated"),
        (b'{"a": 1} {"a": 2}', "trailing"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"\xff": 1}', "not UTF-8"),
    ],
)
def test_bad_lines_are_findings(line: bytes, message: str) -> None:
    parsed = parse_soundly(parse_jsonl, b'\xef\xbb\xbf{"a": 1}\n' + line + b"\n")
    finding = next(finding for finding in parsed.findings if finding.code == "jsonl-bad-line")
    assert finding.line == 2
    assert message in finding.message
    assert metadata_of(parsed)["rows"] == 2


def test_values_that_are_not_utf8_are_a_finding() -> None:
    parsed = parse_soundly(parse_jsonl, b'{"a": "x"}\n{"a": "\xff"}\n')
    assert [(finding.code, finding.line) for finding in parsed.findings] == [("jsonl-not-utf8", 2)]


def test_many_bad_lines_are_counted() -> None:
    parsed = parse_soundly(parse_jsonl, b"{}\n" + b"x\n" * 100)
    assert codes(parsed) == ["jsonl-bad-line"] * 6
    assert parsed.findings[-1].message.startswith("95 more lines")


def test_one_document_over_many_lines_is_no_json_lines() -> None:
    parsed = parse_soundly(parse_jsonl, b'\n[\n  {"a": 1},\n  {"a": 2}\n]\n')
    assert (parsed.metadata, codes(parsed)) == (None, ["jsonl-array"])


@pytest.mark.parametrize(
    ("data", "code", "rows"),
    [
        (b"", "jsonl-empty", None),
        (b"\n \n", "jsonl-empty", None),
        (b'{"a": "' + b"x" * 9 * MIB, "jsonl-long-lines", None),
        (b'{"a": "' + b"x" * 5 * MIB + b'"}\n{"a": 1}\n', "jsonl-long-lines", 2),
    ],
)
def test_empty_files_and_long_lines(data: bytes, code: str, rows: int | None) -> None:
    parsed = parse_soundly(parse_jsonl, data)
    assert codes(parsed) == [code]
    assert (parsed.metadata or {}).get("rows") == rows


@pytest.mark.parametrize("line", [b"{}\n", b'{"a":1}\n', b"\n", b"1\n"])
def test_millions_of_short_lines_are_counted(line: bytes) -> None:
    parsed = parse_soundly(parse_jsonl, line * (4 * MIB // len(line)))
    if line.startswith(b"{"):
        assert metadata_of(parsed)["rows"] == 4 * MIB // len(line)
