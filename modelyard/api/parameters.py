"""What a request may carry, as types: each is checked by msgspec and described in the OpenAPI document."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Meta, UnsetType

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Rule:
    """How a parameter is spelled in a URL, beyond what its type says.

    Attributes:
        slashes: the value may contain slashes.
        tail: it is the rest of the path, where slashes need no encoding.
        raw: it names a file in Git, where any byte but NUL may stand; bytes that are not UTF-8 become
            surrogate escapes, as in `os.fsdecode`.
    """

    slashes: bool = False
    tail: bool = False
    raw: bool = False


PLAIN = Rule()

Description = Annotated[str, Meta(max_length=1000)]
FullName = Annotated[str, Meta(max_length=200)]
Email = Annotated[str, Meta(max_length=254)]
Password = Annotated[str, Meta(min_length=1, max_length=1000)]
RefName = Annotated[str, Meta(min_length=1, max_length=500)]
Search = Annotated[str, Meta(max_length=200, description="Looked for in names and full names, in any case.")]
Title = Annotated[str, Meta(min_length=1, max_length=100)]

Name = Annotated[
    str,
    Meta(min_length=1, max_length=100, description="The name of an account, in any case."),
]
RepositoryName = Annotated[
    str,
    Meta(min_length=1, max_length=100, description="The name of a repository of the owner."),
]
TypePlural = Annotated[Literal["models", "datasets"], Meta(description="What kind of repository it is.")]
Id = Annotated[int, Meta(ge=1, le=2**53 - 1)]
RefSegment = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=500,
        description="The name of a branch or tag; a slash in it is written `%2F`.",
    ),
    Rule(slashes=True),
]
Revision = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=600,
        description="A branch, a tag, a full ref, `HEAD`, or a commit id of at least 7 digits; a slash in it "
        "is written `%2F`.",
    ),
    Rule(slashes=True),
]
StartRevision = Annotated[
    str,
    Meta(min_length=1, max_length=600, description="A branch, a tag, a full ref, `HEAD`, or a commit id."),
]
ExpectedOid = Annotated[
    str, Meta(min_length=40, max_length=64, description="The full id that the caller thinks it names.")
]
TailPath = Annotated[
    str,
    Meta(min_length=1, max_length=4096, description="A path in the repository, slashes included."),
    Rule(slashes=True, tail=True, raw=True),
]
QueryPath = Annotated[
    str,
    Meta(min_length=1, max_length=4096, description="A path in the repository."),
    Rule(slashes=True, raw=True),
]


def decode(encoded: str, rule: Rule) -> str | None:
    """Undoes percent-encoding, once; None when the value cannot be what `rule` asks for."""
    data = unquote_to_bytes(encoded)
    if b"\0" in data or (b"/" in data and not rule.slashes):
        return None
    try:
        return data.decode("utf-8", "surrogateescape" if rule.raw else "strict")
    except UnicodeDecodeError:
        return None


def where_and_why(error: msgspec.ValidationError) -> tuple[str, str]:
    """Splits msgspec's message into the JSON path of what does not fit, and the reason."""
    message, found, path = str(error).rpartition(" - at `")
    return (path.rstrip("`"), message) if found else ("$", str(error))


def given(value: Value | UnsetType) -> Value | None:
    """The member of a body, or None when it was left out."""
    return None if isinstance(value, UnsetType) else value
