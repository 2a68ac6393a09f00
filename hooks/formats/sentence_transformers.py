"""`modules.json`, which lists the modules of a sentence-transformers model, and where each of them lies."""

from typing import Any, Final

from hooks.formats.clean import BadJson, clean_text, load_json
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.formats.source import Source, TooMuchRead

LIMIT: Final = 256 * 1024
_MOST_MODULES: Final = 100


def parse_modules(source: Source) -> Parsed:
    """`modules` are those that the file has, in its order: `{"name", "path", "type"}`, texts or None."""
    if source.size > LIMIT:
        return _refused("it is too large to be looked into", Severity.WARNING)
    try:
        value = load_json(source.read(0, LIMIT))
    except TooMuchRead:
        return _refused("it is too large to be looked into", Severity.WARNING)
    except BadJson as error:
        return _refused(error.message, Severity.ERROR, error.line)
    if not isinstance(value, list):
        return _refused("it is not a list of modules", Severity.ERROR)
    modules = [_module(one) for one in value[:_MOST_MODULES] if isinstance(one, dict)]
    return Parsed({"modules": modules})


def _refused(message: str, severity: Severity, line: int | None = None) -> Parsed:
    return Parsed(None, (Finding(severity, "modules-invalid", message, line=line),))


def _module(module: dict[str, Any]) -> dict[str, str | None]:
    texts = {key: module.get(key) for key in ("name", "path", "type")}
    return {key: clean_text(text, 300) if isinstance(text, str) else None for key, text in texts.items()}
