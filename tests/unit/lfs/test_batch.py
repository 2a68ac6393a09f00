import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.models import StoreKind
from lfs.batch import (
    BatchRequest,
    Decision,
    Expected,
    Offered,
    Operation,
    Present,
    Refused,
    Transfer,
    Wanted,
    choose_transfer,
    decide,
    parse_batch,
)
from lfs.errors import InvalidBatch, TooManyObjects
from lfs.objects import StoredObject

OID = "a" * 64
OTHER = "b" * 64
LIMIT = 1000


def stored(oid: str = OID, size: int = 5, *, damaged: bool = False) -> StoredObject:
    return StoredObject(oid, size, StoreKind.LOCAL, f"lfs/{oid}", damaged)


def body(**changes: object) -> bytes:
    plain = {"operation": "upload", "objects": [{"oid": OID, "size": 5}]}
    return json.dumps({**plain, **changes}).encode()


def parse(**changes: object) -> BatchRequest:
    return parse_batch(body(**changes), max_objects=10)


def upload(*objects: tuple[str, int], known: tuple[StoredObject, ...] = (), **more: str) -> list[Decision]:
    return verdicts(Operation.UPLOAD, *objects, known=known, **more)


def download(*objects: tuple[str, int], known: tuple[StoredObject, ...] = ()) -> list[Decision]:
    return verdicts(Operation.DOWNLOAD, *objects, known=known)


def verdicts(
    operation: Operation, *objects: tuple[str, int], known: tuple[StoredObject, ...], **more: str
) -> list[Decision]:
    request = BatchRequest(operation, tuple(Wanted(*one) for one in objects), **more)  # type: ignore[arg-type]
    return decide(request, {one.oid: one for one in known}, max_object_bytes=LIMIT)


def code(decision: Decision) -> int:
    assert isinstance(decision, Refused), decision
    return decision.code


# -- reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", [{}, None, {"name": None}])
def test_a_ref_may_be_nothing(ref: object) -> None:
    assert parse(ref=ref).ref is None


def test_a_ref_and_unknown_keys() -> None:
    assert parse(ref={"name": "refs/heads/main"}, surprise=[1]).ref == "refs/heads/main"


@pytest.mark.parametrize("changes", [{}, {"hash_algo": None}, {"hash_algo": ""}, {"hash_algo": "sha256"}])
def test_the_hash_is_sha256_unless_named(changes: dict[str, object]) -> None:
    assert parse(**changes).hash_algo == "sha256"


@pytest.mark.parametrize(
    ("transfers", "expected"),
    [
        (None, {Transfer.BASIC}),
        ([], {Transfer.BASIC}),
        (["lfs-standalone-file", "basic", "ssh"], {Transfer.BASIC}),
        (["basic", "multipart", "xet"], {Transfer.BASIC, Transfer.MULTIPART}),
        (["multipart-basic"], {Transfer.MULTIPART_BASIC}),
    ],
)
def test_transfers_that_are_unknown_are_passed_over(transfers: object, expected: set[Transfer]) -> None:
    assert parse(transfers=transfers).transfers == expected


@pytest.mark.parametrize("operation", ["upload", "download"])
def test_no_transfer_in_common(operation: str) -> None:
    with pytest.raises(InvalidBatch, match="basic"):
        parse(operation=operation, transfers=["tus", "ssh"])


def test_nobody_downloads_in_parts() -> None:
    assert parse(operation="download", transfers=["multipart", "basic"]).transfers == {Transfer.BASIC}
    with pytest.raises(InvalidBatch):
        parse(operation="download", transfers=["multipart"])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b'"\xed\xa0\x80"',
        b"[]",
        b"{}",
        b"nonsense",
        body(operation="delete"),
        body(operation="UPLOAD"),
        body(operation=None),
        body(objects=None),
        body(objects={}),
        body(objects=[1]),
        body(objects=[{"oid": OID}]),
        body(objects=[{"size": 1}]),
        body(objects=[{"oid": 1, "size": 1}]),
        body(objects=[{"oid": OID, "size": "1"}]),
        body(objects=[{"oid": OID, "size": 1.5}]),
        body(objects=[{"oid": OID, "size": True}]),
        body(transfers="basic"),
        body(ref="main"),
        body(hash_algo=1),
        body(objects=[{"oid": OID, "size": 2**63}]),
        body(objects=[{"oid": OID, "size": -(2**64)}]),
        b'{"operation":"upload","objects":' + b"[" * 100_000,
        b'{"operation":"upload","objects":[],"more":' + b"[" * 100_000,
    ],
)
def test_no_batch_request(data: bytes) -> None:
    with pytest.raises(InvalidBatch):
        parse_batch(data, max_objects=10)


def test_too_many_objects() -> None:
    objects = [{"oid": OID, "size": 5}] * 11
    with pytest.raises(TooManyObjects):
        parse(objects=objects)
    assert len(parse(objects=objects[:10]).objects) == 10


def test_only_what_can_exist_is_looked_up() -> None:
    objects = [{"oid": oid, "size": 1} for oid in (OID, OTHER, OID.upper(), "a" * 70, "../etc", "")]
    assert parse(objects=objects).oids() == {OID, OTHER}


# -- deciding ----------------------------------------------------------------------------------------


def test_upload() -> None:
    known = (stored(),)
    assert upload((OID, 5), (OTHER, 7), (OTHER[:-1] + "c", 0), known=known) == [
        Present(OID, 5),
        Expected(OTHER, 7),
        Expected(OTHER[:-1] + "c", 0),
    ]


def test_download() -> None:
    known = stored()
    offered, missing = download((OID, 5), (OTHER, 7), known=(known,))
    assert offered == Offered(OID, 5, known)
    assert code(missing) == 404


def test_damaged_objects_are_uploaded_again() -> None:
    known = (stored(damaged=True),)
    assert upload((OID, 5), known=known) == [Expected(OID, 5)]
    assert code(download((OID, 5), known=known)[0]) == 410


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize(
    "oid", ["", "a" * 63, "a" * 70, "A" * 64, "g" * 64, f"{'a' * 63}\n", "../" * 21 + "a"]
)
def test_no_oid(operation: Operation, oid: str) -> None:
    (refused,) = verdicts(operation, (oid, 1), known=())
    assert code(refused) == 422
    assert refused.oid == oid


@pytest.mark.parametrize("operation", list(Operation))
def test_sizes(operation: Operation) -> None:
    assert code(verdicts(operation, (OID, -1), known=())[0]) == 422
    assert code(verdicts(operation, (OID, 6), known=(stored(),))[0]) == 422
    assert code(verdicts(operation, (OID, 6), known=(stored(damaged=True),))[0]) == 422


@pytest.mark.parametrize("size", [LIMIT + 1, 2**63, 2**200])
def test_too_large(size: int) -> None:
    assert code(upload((OID, size))[0]) == 413
    assert code(download((OID, size))[0]) == 404


def test_a_limit_above_what_can_be_stored() -> None:
    request = BatchRequest(Operation.UPLOAD, (Wanted(OID, 2**63),))
    assert code(decide(request, {}, max_object_bytes=2**70)[0]) == 413


def test_another_hash() -> None:
    assert [code(one) for one in upload((OID, 5), (OTHER, 1), known=(stored(),), hash_algo="sha512")] == [
        409,
        409,
    ]


def test_the_same_object_again() -> None:
    assert upload((OTHER, 1), (OTHER, 1)) == [Expected(OTHER, 1), Expected(OTHER, 1)]
    first, second, third = upload((OTHER, 1), (OTHER, 2), (OTHER, 1))
    assert first == third == Expected(OTHER, 1)
    assert code(second) == 422


@given(
    operation=st.sampled_from(Operation),
    objects=st.lists(st.tuples(st.sampled_from([OID, OTHER, "x", OID.upper()]), st.integers())),
    known=st.lists(st.tuples(st.sampled_from([OID, OTHER]), st.integers(0, LIMIT), st.booleans())),
)
def test_every_entry_is_answered_as_it_was_sent(
    operation: Operation, objects: list[tuple[str, int]], known: list[tuple[str, int, bool]]
) -> None:
    rows = tuple(stored(oid, size, damaged=damaged) for oid, size, damaged in known)
    answers = verdicts(operation, *objects, known=rows)
    assert [(one.oid, one.size) for one in answers] == objects
    for one in answers:
        assert not isinstance(one, Offered | Present) or not any(
            row.oid == one.oid and row.size != one.size for row in {row.oid: row for row in rows}.values()
        )


# -- ways --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transfers", "size", "chosen"),
    [
        ({"basic"}, 500, "basic"),
        ({"basic", "multipart"}, 99, "basic"),
        ({"basic", "multipart"}, 100, "multipart"),
        ({"basic", "multipart", "multipart-basic"}, 100, "multipart-basic"),
        ({"multipart"}, 1, "multipart"),
    ],
)
def test_choice_of_a_way(transfers: set[str], size: int, chosen: str) -> None:
    request = BatchRequest(Operation.UPLOAD, (), frozenset(map(Transfer, transfers)))
    assert choose_transfer(request, [Expected(OID, 1), Expected(OTHER, size)], multipart_bytes=100) == chosen


def test_only_what_is_to_come_counts() -> None:
    request = BatchRequest(Operation.UPLOAD, (), frozenset(Transfer))
    decisions: list[Decision] = [Present(OID, 500), Refused(OTHER, 500, 422, ""), Expected("c", 1)]
    assert choose_transfer(request, decisions, multipart_bytes=100) is Transfer.BASIC
