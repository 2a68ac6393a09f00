import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from aiohttp.http_exceptions import BadStatusLine

from core.settings import ServerSettings
from modelyard import logs

TOKEN = "myd_" + "a1B2c3D4e5" * 4 + "000000"
SECRETS = ("hunter2hunter2", TOKEN, "YWRtaW46aHVudGVyMmh1bnRlcjI=")


class Log:
    """What was written, as text and as JSON documents."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def last(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.text.splitlines()[-1])
        return document


@pytest.fixture
def log() -> Iterator[Log]:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    logs.configure(ServerSettings(log_level="debug"), stream=stream)
    yield Log(stream)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": "Basic YWRtaW46aHVudGVyMmh1bnRlcjI="},
        {"headers": {"Authorization": f"Bearer {TOKEN}", "Host": "here"}},
        {"headers": [("Cookie", "hunter2hunter2"), {"Set-Cookie": "hunter2hunter2"}]},
        {"password": "hunter2hunter2"},
        {"new_password": b"hunter2hunter2"},
        {"token": TOKEN},
        {"text": f"somebody sent {TOKEN} as a user name"},
        {"url": "https://ann:hunter2hunter2@example.org/ann/demo.git"},
        {"url": f"https://{TOKEN}@example.org/ann/demo.git"},
        {"url": f"http://example.org/raw?access_token={TOKEN}&x=1"},
        {"url": "http://example.org/raw?password=hunter2hunter2"},
        {"text": "Authorization: Basic YWRtaW46aHVudGVyMmh1bnRlcjI="},
        {"text": "connecting with {'password': 'hunter2hunter2'}"},
        {"settings": {"storage": {"secret_key": "hunter2hunter2", "access_key": "hunter2hunter2"}}},
        {"url": "postgresql+psycopg://modelyard:hunter2hunter2@db/modelyard"},
        {"reason": ValueError("bad URL https://ann:hunter2hunter2@example.org")},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_no_secret_is_ever_written(log: Log, fields: dict[str, object]) -> None:
    structlog.get_logger("test").info("event", **fields)
    assert not [secret for secret in SECRETS if secret in log.text], log.text
    assert logs.REDACTED in log.text


def test_secrets_in_messages_and_tracebacks_of_libraries_are_struck_out(log: Log) -> None:
    try:
        _raise(ConnectionError("cannot reach https://ann:hunter2hunter2@example.org"))
    except ConnectionError:
        logging.getLogger("some.library").exception("retry with %s", f"Bearer {TOKEN}")
    assert "some.library" in log.text
    assert "ConnectionError" in log.last["exception"]
    assert not [secret for secret in SECRETS if secret in log.text], log.text


def test_what_is_no_secret_stays(log: Log) -> None:
    structlog.get_logger("test").info(
        "event",
        token_id=7,
        credential="token:7",
        ssh="ssh://git@example.org:22/x",
        key="SHA256:abc",
        author="Bea",
    )
    fields = ("token_id", "credential", "ssh", "key", "author")
    assert [log.last[field] for field in fields] == [
        7,
        "token:7",
        "ssh://git@example.org:22/x",
        "SHA256:abc",
        "Bea",
    ]


@pytest.mark.parametrize("format", ["json", "console"])
def test_nobody_can_forge_a_line(format: str) -> None:  # noqa: A002
    stream = io.StringIO()
    logs.configure(ServerSettings(log_format=format), stream=stream)  # type: ignore[arg-type]
    evil = 'x\r\n{"event": "login", "actor": "root"}\x1b[2J\u2028\u202e'
    structlog.get_logger("test").info("event", agent=evil, nested={"a": [evil]}, **{evil: 1})
    structlog.reset_defaults()
    assert stream.getvalue().count("\n") == 1
    assert not any(character in stream.getvalue() for character in "\r\x1b\u2028\u202e")
    assert "\\r\\n" in stream.getvalue() or "\\\\r\\\\n" in stream.getvalue()


def test_a_traceback_at_the_terminal_shows_no_local_variables() -> None:
    stream = io.StringIO()
    logs.configure(ServerSettings(log_format="console"), stream=stream)
    local = "hunter2" * 2
    try:
        _raise(RuntimeError("boom"))
    except RuntimeError:
        structlog.get_logger("test").exception("event")
    structlog.reset_defaults()
    assert "RuntimeError: boom" in stream.getvalue()
    assert local not in stream.getvalue()


def test_ids_of_the_context_and_the_worker_are_on_every_line() -> None:
    stream = io.StringIO()
    logs.configure(ServerSettings(), stream=stream, worker=2)
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        logging.getLogger("some.library").warning("from a library")
        structlog.get_logger("test").info("from us")
    structlog.reset_defaults()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["request_id"], line["worker"]) for line in lines] == [("abc", 2), ("abc", 2)]


def test_bytes_that_are_not_http_are_a_warning_without_traceback(log: Log) -> None:
    try:
        _raise(BadStatusLine("\x16\x03\x01"))
    except BadStatusLine:
        logging.getLogger("aiohttp.server").exception("Error handling request from %s", "192.0.2.1")
    assert log.last["level"] == "warning"
    assert "exception" not in log.last
    assert "192.0.2.1" in log.last["event"]


def test_the_level_is_respected() -> None:
    stream = io.StringIO()
    logs.configure(ServerSettings(log_level="warning"), stream=stream)
    structlog.get_logger("test").info("quiet")
    logging.getLogger("other").info("quiet")
    structlog.get_logger("test").warning("loud")
    structlog.reset_defaults()
    assert stream.getvalue().count("\n") == 1


def _raise(error: Exception) -> None:
    raise error
