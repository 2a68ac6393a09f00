"""Parquet files: schema and counts, from the footer alone.

https://github.com/apache/parquet-format/blob/master/README.md#file-format
"""

from typing import Any, Final

from hooks.formats.clean import clean_text
from hooks.formats.parquet_schema import Schema
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.formats.source import Source, TooMuchRead
from hooks.formats.thrift import Ended, Malformed, Thrift, TooManyValues

_MAGIC: Final = b"PAR1"
_ENCRYPTED: Final = b"PARE"
_TAIL: Final = 8
_LEAST: Final = 12
_FIRST_READ: Final = 64 * 1024
_MOST_FOOTER: Final = 16 * 1024**2
_MOST_VALUES: Final = 600_000
_MOST_KEYS: Final = 100
_KEY: Final = 200
_VALUE: Final = 1024  # bytes
_ARROW_SCHEMA: Final = "ARROW:schema"  # in base64, and says what the schema says


def parse_parquet(source: Source) -> Parsed:
    """Counts are None where the footer is encrypted, or too large to be read to its end."""
    try:
        return _parse(source)
    except TooMuchRead:
        return _refused("parquet-too-large", "the footer has more bytes than may be read", Severity.INFO)


def _parse(source: Source) -> Parsed:
    size = source.size
    if size < _LEAST:
        return _refused("parquet-invalid", f"{size} bytes are no Parquet file")
    tail = source.read(max(0, size - _FIRST_READ), _FIRST_READ)
    magic, length = tail[-4:], int.from_bytes(tail[-_TAIL:-4], "little")
    if magic not in {_MAGIC, _ENCRYPTED}:
        if source.read(0, 4) in {_MAGIC, _ENCRYPTED}:
            message = "it is cut: a Parquet file ends with a footer, this one does not. Upload it again"
            return _refused("parquet-cut", message)
        return _refused("parquet-invalid", "it is no Parquet file: it neither begins nor ends like one")
    if source.read(0, 4) != magic:
        return _refused("parquet-invalid", "it ends like a Parquet file, but does not begin like one")
    if length > size - _LEAST:
        message = f"the footer says it has {length:,} bytes; the file has {size - _LEAST:,} before it"
        return _refused("parquet-footer-lies", message)
    if magic == _ENCRYPTED:
        finding = Finding(Severity.INFO, "parquet-encrypted", "the footer is encrypted: nothing is known")
        return Parsed(_Footer().metadata() | {"encrypted": True}, (finding,))
    read = min(length, _MOST_FOOTER)
    inside = length + _TAIL <= len(tail)
    data = tail[-_TAIL - length : -_TAIL] if inside else source.read(size - _TAIL - length, read)
    return _understand(data, size, cut=read < length)


def _understand(data: bytes, size: int, *, cut: bool) -> Parsed:
    footer = _Footer()
    findings = []
    try:
        footer.read(Thrift(data, _MOST_VALUES))
        findings = footer.contradictions(size)
    except (Malformed, TooManyValues) as error:
        if isinstance(error, TooManyValues) or (cut and isinstance(error, Ended)):
            message = "the footer is too large to be read to its end: too many row groups and columns"
            findings = [Finding(Severity.INFO, "parquet-too-large", message)]
        else:
            return _refused("parquet-footer-damaged", f"the footer is damaged: {error}. Write the file again")
    if footer.encrypted:
        findings.append(Finding(Severity.INFO, "parquet-encrypted", "some of its columns are encrypted"))
    return Parsed(footer.metadata(), tuple(findings))


class _Footer:
    """FileMetaData."""

    def __init__(self) -> None:
        self.encrypted = False
        self._version: int | None = None
        self._rows: int | None = None
        self._row_groups: int | None = None
        self._rows_in_groups: int | None = None
        self._bytes_in_groups = 0
        self._created_by: str | None = None
        self._schema = Schema()
        self._key_values: dict[str, str | None] = {}

    def metadata(self) -> dict[str, Any]:
        return {
            "version": self._version,
            "rows": None if self._rows is None else max(0, self._rows),
            "row_groups": self._row_groups,
            "columns": self._schema.columns,
            "columns_total": self._schema.total,
            "created_by": self._created_by,
            "key_values": self._key_values,
            "encrypted": self.encrypted,
        }

    def read(self, thrift: Thrift) -> None:
        for number, kind in thrift.fields():
            match number:
                case 1:
                    self._version = thrift.integer(kind)
                case 2:
                    self._schema.read(thrift, kind)
                case 3:
                    self._rows = thrift.integer(kind)
                case 4:
                    self._groups(thrift, kind)
                case 5:
                    for _ in thrift.structs(kind):
                        self._key_value(thrift)
                case 6:
                    self._created_by = clean_text(thrift.text(kind, _VALUE), _KEY)
                case 8:
                    self.encrypted = True
                    thrift.skip(kind)
                case _:
                    thrift.skip(kind)
        if self._version is None or self._rows is None:
            raise Malformed("it has no version, or no number of rows")

    def contradictions(self, size: int) -> list[Finding]:
        """What the footer says of the file and of itself that cannot be."""
        wrong = []
        if self._rows is not None and self._rows < 0:
            wrong.append(f"it says that there are {self._rows:,} rows")
        elif self._rows_in_groups is not None and self._rows != self._rows_in_groups:
            wrong.append(f"it says {self._rows:,} rows; its row groups have {self._rows_in_groups:,}")
        if self._bytes_in_groups > size:
            wrong.append(f"its row groups have {self._bytes_in_groups:,} bytes; the file has {size:,}")
        return [
            Finding(Severity.ERROR, "parquet-footer-lies", f"the footer lies: {what}. Write the file again")
            for what in wrong
        ]

    def _groups(self, thrift: Thrift, kind: int) -> None:
        self._row_groups = thrift.items(kind)
        rows = 0
        for _ in range(self._row_groups):
            for number, inner in thrift.fields():
                if number == 3:
                    rows += thrift.integer(inner)
                elif number == 6:
                    self._bytes_in_groups += max(0, thrift.integer(inner))
                else:
                    thrift.skip(inner)
        self._rows_in_groups = rows

    def _key_value(self, thrift: Thrift) -> None:
        key, value = "", None
        for number, kind in thrift.fields():
            if number == 1:
                key = clean_text(thrift.text(kind, 4 * _KEY), _KEY)
            elif number == 2:
                value = thrift.text(kind, _VALUE + 1)
            else:
                thrift.skip(kind)
        if len(self._key_values) < _MOST_KEYS:
            shown = value is not None and len(value.encode()) <= _VALUE and key != _ARROW_SCHEMA
            self._key_values[key] = clean_text(value, _VALUE) if value is not None and shown else None


def _refused(code: str, message: str, severity: Severity = Severity.ERROR) -> Parsed:
    return Parsed(None, (Finding(severity, code, message),))
