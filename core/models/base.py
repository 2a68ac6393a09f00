"""What all mapped classes share."""

from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import BigInteger, DateTime, Enum, Integer, MetaData, String, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase

# INTEGER PRIMARY KEY is the only auto-incrementing type of SQLite; 64 bits there too.
Identity = BigInteger().with_variant(Integer, "sqlite")

# Names that Git or the web compare byte by byte; PostgreSQL's default collation would sort them by language.
Bytewise = String().with_variant(String(collation="C"), "postgresql")


def now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


class Timestamp(TypeDecorator[datetime]):
    """An aware UTC time on every database; SQLite would forget the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive time cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(AsyncAttrs, DeclarativeBase):
    """Mapped classes. Relationships are not mapped: a query says what it reads."""

    # StrEnums are stored as their value, in text that needs no migration for a new member.
    type_annotation_map = {
        StrEnum: Enum(
            StrEnum, native_enum=False, length=16, values_callable=lambda kind: [one.value for one in kind]
        )
    }
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
