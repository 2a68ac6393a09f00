import pytest

from core.errors import RangeNotSatisfiable
from lfs.ranges import Range, select_range

ETAG = '"abc"'


@pytest.mark.parametrize(
    ("asked", "offset", "length"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, 10),
        ("bytes=3-", 3, 7),
        ("bytes=3-5", 3, 3),
        ("bytes=9-99999999999999999999", 9, 1),
        ("bytes=-4", 6, 4),
        ("bytes=-99", 0, 10),
        ("bytes= 3-5 ", 3, 3),
    ],
)
def test_one_part(asked: str, offset: int, length: int) -> None:
    assert select_range(asked, None, ETAG, 10) == Range(offset, length, 10, partial=True)


@pytest.mark.parametrize(
    "asked",
    [
        None,
        "",
        "bytes=",
        "bytes=-",
        "bytes=0-1,3-4",
        "bytes=5-3",
        "bytes=a-b",
        "items=0-1",
        "bytes=\u0663-\u0665",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1",
        "bytes=0x1-2",
        f"bytes={'9' * 5000}-",
        "bytes=1-2;q=1",
    ],
)
def test_the_whole(asked: str | None) -> None:
    assert select_range(asked, None, ETAG, 10) == Range(0, 10, 10)


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-12", "bytes=99999999999999999999-", "bytes=-0"])
def test_nothing(asked: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        select_range(asked, None, ETAG, 10)
    assert caught.value.fields["size"] == 10


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=-1", "bytes=0-0"])
def test_nothing_of_an_empty_object(asked: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        select_range(asked, None, ETAG, 0)


def test_conditions() -> None:
    assert select_range("bytes=1-2", ETAG, ETAG, 10).partial
    for other in ('"other"', 'W/"abc"', "abc", "Wed, 21 Oct 2026 07:28:00 GMT", "*", ""):
        assert select_range("bytes=1-2", other, ETAG, 10) == Range(0, 10, 10)


def test_content_range() -> None:
    assert select_range("bytes=3-5", None, ETAG, 10).content_range == "bytes 3-5/10"
