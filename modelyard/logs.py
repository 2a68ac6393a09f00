"""Logging: structlog and every library through one stdlib handler, and never a credential.

Whatever is logged passes the same last steps: secrets are struck out by name and by shape, and control
characters are escaped, so that no client can forge a line. `request_id` and `push_id` travel in contextvars.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from structlog.typing import EventDict, Processor

from core.settings import ServerSettings

REDACTED = "[redacted]"

_SECRET_NAMES = re.compile(
    r"authorization|cookie|passw|secret|token|credentials|api_?key|access_?key|private_?key|signature",
    re.IGNORECASE,
)
# Names that match above and hold no secret: the id in `token_id` says which one, not what it is.
_SECRET_NAME_EXCEPTIONS = re.compile(r"(?:_id|_name|_count|_type|fingerprint)$", re.IGNORECASE)

_SECRET_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\bmyd_[A-Za-z0-9]+"), f"myd_{REDACTED}"),
    (re.compile(r"\b(Basic|Bearer|Digest|Negotiate)(\s+)[^\s'\",;]{4,}", re.IGNORECASE), rf"\1\2{REDACTED}"),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)(?!git@)[^\s/?#@]*@", re.IGNORECASE), rf"\1{REDACTED}@"),
    (
        re.compile(
            r"([?&;\s'\"{](?:[\w-]*(?:token|password|passwd|secret|signature)[\w-]*|sig)['\"]?\s*[=:]\s*['\"]?)"
            r"[^&\s'\",;}]+",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
        ),
        REDACTED,
    ),
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

# The only value that keeps its lines; a traceback on one line helps nobody.
_MULTILINE = "exception"


def configure(settings: ServerSettings, *, stream: TextIO | None = None, worker: int | None = None) -> None:
    """Sends everything that is logged to `stream` (standard error by default), formatted as the settings say.

    `worker` is put on every line. Replaces what an earlier call set up.
    """
    stream = stream or sys.stderr

    def add_worker(_logger: object, _method: str, event: EventDict) -> EventDict:
        return event if worker is None else {"worker": worker, **event}

    shared: list[Processor] = [
        add_worker,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            redact,
            escape,
            _renderer(settings.log_format, stream),
        ],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    handler.addFilter(_soften_bad_requests)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for chatty in ("asyncio", "asyncssh", "urllib3", "sqlalchemy", "alembic"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Strikes out every value with a secret's name, and every part of a text with a secret's shape."""
    return {name: _redacted(name, value) for name, value in event.items()}


def escape(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Writes control characters as escapes; only a traceback keeps its lines."""
    return {
        _escaped(name, _CONTROL): _escaped(value, _CONTROL_BUT_LINES if name == _MULTILINE else _CONTROL)
        for name, value in event.items()
    }


def redacted_text(text: str) -> str:
    """The text without anything that looks like a credential."""
    for shape, replacement in _SECRET_SHAPES:
        text = shape.sub(replacement, text)
    return text


def _redacted(name: str, value: Any) -> Any:
    if _SECRET_NAMES.search(name) and not _SECRET_NAME_EXCEPTIONS.search(name) and value is not None:
        return value if isinstance(value, (bool, int, float)) else REDACTED
    match value:
        case str():
            return redacted_text(value)
        case Mapping():
            return {key: _redacted(str(key), item) for key, item in value.items()}
        case (str(key), item):  # headers travel as pairs too
            return [key, _redacted(key, item)]
        case list() | tuple() | set() | frozenset():
            return [_redacted("", item) for item in value]
        case bool() | int() | float() | None:
            return value
        case _:
            return redacted_text(str(value))


def _escaped(value: Any, pattern: re.Pattern[str]) -> Any:
    match value:
        case str():
            return pattern.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), value)
        case Mapping():
            return {_escaped(key, pattern): _escaped(item, pattern) for key, item in value.items()}
        case list():
            return [_escaped(item, pattern) for item in value]
        case _:
            return value


def _renderer(wanted: Literal["auto", "json", "console"], stream: TextIO) -> Processor:
    if wanted == "json" or (wanted == "auto" and not stream.isatty()):
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    # Pretty tracebacks would show local variables, and with them what nobody redacted.
    plain = structlog.dev.plain_traceback
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)


def _soften_bad_requests(record: logging.LogRecord) -> bool:
    """Makes a short warning of aiohttp's error with traceback for bytes that are not HTTP: not our bug."""
    error = record.exc_info[1] if record.exc_info else None
    if record.name == "aiohttp.server" and isinstance(error, HttpProcessingError | web.RequestPayloadError):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args = f"{record.getMessage()}: {type(error).__name__}", ()
        record.exc_info = None
    return True


def bind(**values: str) -> None:
    """Adds ids to every line that the current task logs from here on."""
    structlog.contextvars.bind_contextvars(**values)
