"""The catalogue: every event has a schema that its example fits; and patterns over names."""

import copy
from datetime import UTC, datetime

import jsonschema_rs
import msgspec
import pytest

from core.errors import Unprocessable
from core.models import OutboxEvent
from core.outbox import EventName
from webhooks.envelopes import body_of
from webhooks.events import catalogue, check_patterns, example_data, example_repository, matches, version_of


def test_every_event_is_in_the_catalogue() -> None:
    assert [kind.name for kind in catalogue()] == list(EventName)


@pytest.mark.parametrize("name", EventName)
def test_schemas_fit_their_examples_and_not_everything(name: EventName) -> None:
    (kind,) = (one for one in catalogue() if one.name is name)
    jsonschema_rs.meta.validate(kind.schema)
    jsonschema_rs.validate(kind.schema, kind.example)
    assert kind.description
    changes: list[dict[str, object]] = [{"type": "other"}, {"version": 2}, {"data": {}}, {"repository": 1}]
    for change in changes:
        with pytest.raises(jsonschema_rs.ValidationError):
            jsonschema_rs.validate(kind.schema, {**copy.deepcopy(kind.example), **change})


@pytest.mark.parametrize("name", EventName)
def test_what_is_sent_fits_the_schema(name: EventName) -> None:
    (kind,) = (one for one in catalogue() if one.name is name)
    payload = {**example_data(name), "actor": "ann", "repository": {"id": "not told twice"}}
    event = OutboxEvent(id=5, name=name.value, payload=payload, created_at=datetime(2026, 1, 2, tzinfo=UTC))
    body = msgspec.json.decode(body_of(event, example_repository(), max_bytes=10**6))
    jsonschema_rs.validate(kind.schema, body)
    assert (body["id"], body["timestamp"]) == ("evt_5", "2026-01-02T00:00:00.000000Z")
    assert body["data"] == example_data(name)
    assert body["truncated"] is False


def test_long_payloads_lose_their_largest_members() -> None:
    payload = {"actor": "ann", "push_id": 1, "large": ["x" * 100] * 100, "larger": "y" * 20_000, "small": "z"}
    event = OutboxEvent(id=5, name="push", payload=payload, created_at=datetime.now(UTC))
    for limit, left in (
        (50_000, None),
        (20_000, {"large", "small", "push_id"}),
        (5_000, {"small", "push_id"}),
    ):
        text = body_of(event, None, max_bytes=limit)
        body = msgspec.json.decode(text)
        assert len(text.encode()) <= limit
        assert body["truncated"] is (left is not None)
        assert left is None or set(body["data"]) == left


def test_what_is_not_utf_8_holds_nothing_up() -> None:
    payload = {"actor": "ann", "push_id": 1, "path": "a\udc80b", "more": "\U0001f600" * 100}
    event = OutboxEvent(id=5, name="push", payload=payload, created_at=datetime.now(UTC))
    body = msgspec.json.decode(body_of(event, None, max_bytes=10_000))
    assert body["data"] == {"push_id": 1, "path": "a?b", "more": "\U0001f600" * 100}
    assert "more" not in msgspec.json.decode(body_of(event, None, max_bytes=300))["data"]


def test_patterns() -> None:
    assert matches(["*"], "push")
    assert matches(["run.*"], "run.queued")
    assert matches(["model.*"], "model.version.created")
    assert matches(["model.version.*"], "model.version.created")
    assert matches(["push", "tag"], "tag")
    assert not matches(["run.*"], "run")
    assert not matches(["run.*"], "running.late")
    assert not matches(["pus"], "push")
    assert not matches([], "push")
    assert check_patterns(["tag", "push", "tag"]) == ["push", "tag"]
    assert version_of("push") == version_of("from another version of this program") == 1


@pytest.mark.parametrize(
    "patterns", [[], ["pushed"], ["push", ""], ["*.*"], ["push*"], ["run.**"], [".*"], ["a\n"], ["push"] * 51]
)
def test_patterns_that_match_nothing(patterns: list[str]) -> None:
    with pytest.raises(Unprocessable) as refused:
        check_patterns(patterns)
    assert "\n" not in refused.value.message
