"""Tokenizers: `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and chat templates."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hooks.formats.clean import BadJson, clean_text, load_json
from hooks.formats.json_files import Fields, read_object, scalars
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.formats.source import Source, TooMuchRead

_TOKENIZER_LIMIT: Final = 48 * 1024**2  # the largest in use have 34 MB
_ADDED_LIMIT: Final = 8 * 1024**2
_CONFIG_LIMIT: Final = 8 * 1024**2
_TEMPLATE_LIMIT: Final = 2 * 1024**2
_TEMPLATE_SHOWN: Final = 64 * 1024
_ADDED_SHOWN: Final = 500
_SHORT: Final = 1000
_MOST_ENTRIES: Final = 2_000_000
_ROLES: Final = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# transformers writes int(1e30) for "as long as you like".
_NO_LENGTH_LIMIT: Final = 2**62
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


_NULL: Final = msgspec.Raw(b"null")


class _AddedToken(msgspec.Struct):
    id: int
    content: str
    special: bool = False


class _Model(msgspec.Struct):
    type: msgspec.Raw = _NULL
    vocab: msgspec.Raw = _NULL
    merges: msgspec.Raw = _NULL
    unk_token: msgspec.Raw = _NULL


class _Tokenizer(msgspec.Struct):
    model: _Model
    added_tokens: msgspec.Raw = _NULL


def parse_tokenizer(source: Source) -> Parsed:
    """`tokenizer.json`. `vocab_size` counts the tokens of the model and those added to it, each once.

    The vocabulary is counted where it lies: building it takes ten times the memory of the file.
    """
    if source.size > _TOKENIZER_LIMIT:
        return _refused("tokenizer-too-large", f"{source.size:,} bytes are too many to be looked into")
    try:
        data = source.read(0, _TOKENIZER_LIMIT)
        tokenizer = msgspec.json.decode(data, type=_Tokenizer)
        if len(memoryview(tokenizer.added_tokens)) > _ADDED_LIMIT:
            return _refused("tokenizer-too-large", "it adds too many tokens to be looked into")
        added = msgspec.json.decode(tokenizer.added_tokens, type=list[_AddedToken] | None) or []
    except TooMuchRead:
        return _refused("tokenizer-too-large", "it has more bytes than may be read")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _refused("tokenizer-invalid", f"it is no tokenizer: {error}", Severity.ERROR)
    except RecursionError:
        return _refused("tokenizer-invalid", "the JSON is nested too deeply", Severity.ERROR)
    size, missing = _vocabulary(tokenizer.model.vocab, {token.content for token in added})
    findings = []
    if size is None:
        message = f"it has more than {_MOST_ENTRIES:,} tokens; they are not counted"
        findings.append(Finding(Severity.INFO, "tokenizer-too-large", message))
    metadata = {
        "kind": _kind(tokenizer.model),
        "vocab_size": None if size is None else size + len(missing),
        "special_tokens": {},
        "model_max_length": None,
        "added_tokens": {clean_text(token.content, 200): token.id for token in added[:_ADDED_SHOWN]},
        "added_tokens_total": len(added),
        "unk_token": _short_text(tokenizer.model.unk_token),
    }
    return Parsed(metadata, tuple(findings))


def _kind(model: _Model) -> str | None:
    kind = _short_text(model.type)
    if kind is not None:
        return kind
    # Older files leave it out; the library tells them apart by what there is.
    if _first_byte(model.vocab) == b"[":
        return "Unigram"
    return "BPE" if _first_byte(model.merges) == b"[" else None


def _first_byte(value: msgspec.Raw) -> bytes:
    return bytes(memoryview(value)[:1])


def _short_text(value: msgspec.Raw) -> str | None:
    """None for what is not a text, or a very long one."""
    if len(memoryview(value)) > _SHORT or _first_byte(value) != b'"':
        return None
    try:
        return clean_text(msgspec.json.decode(value, type=str), 200)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _vocabulary(vocab: msgspec.Raw, added: set[str]) -> tuple[int | None, set[str]]:
    """How many tokens there are (None: too many), and which of the added ones are not among them.

    A vocabulary is `{"token": id, …}` or, with Unigram, `[["token", score], …]`: one text for each token.
    """
    written = {form: token for token in added for form in _written(token)}
    missing = set(added)
    count = 0
    for count, text in enumerate(_STRING.finditer(memoryview(vocab)), start=1):
        if count > _MOST_ENTRIES:
            return None, missing
        token = written.get(text[0])
        if token is not None:
            missing.discard(token)
    return count, missing


def _written(token: str) -> tuple[bytes, bytes]:
    """How Rust's and Python's writers write it in JSON."""
    return msgspec.json.encode(token), json.dumps(token).encode()


def parse_tokenizer_config(source: Source) -> Parsed:
    """`tokenizer_config.json`, and `special_tokens_map.json`, which is a part of it on its own."""
    values, findings = read_object(source, _CONFIG_LIMIT)
    if values is None:
        return Parsed(None, tuple(findings))
    fields = Fields(values, "tokenizer-bad-value", findings)
    added = values.get("added_tokens_decoder")
    metadata = {
        "kind": fields.text("tokenizer_class"),
        "vocab_size": fields.count("vocab_size"),
        "special_tokens": _special_tokens(values),
        "model_max_length": _max_length(values.get("model_max_length")),
        "added_tokens_total": len(added) if isinstance(added, dict) else None,
        "chat_template": _config_template(values.get("chat_template")),
        "raw": scalars({key: value for key, value in values.items() if key != "chat_template"}),
    }
    return Parsed(metadata, tuple(findings))


def _special_tokens(values: Mapping[str, Any]) -> dict[str, str | list[str]]:
    tokens: dict[str, str | list[str]] = {}
    for role in _ROLES:
        token = _token(values.get(f"{role}_token"))
        if token is not None:
            tokens[f"{role}_token"] = token
    more = values.get("additional_special_tokens")
    if isinstance(more, list):
        found = [token for item in more[:_ADDED_SHOWN] if (token := _token(item)) is not None]
        tokens["additional_special_tokens"] = found
    return tokens


def _token(value: Any) -> str | None:
    if isinstance(value, dict):  # AddedToken
        value = value.get("content")
    return clean_text(value, 200) if isinstance(value, str) else None


def _max_length(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _NO_LENGTH_LIMIT:
        return None
    return int(value)


def _config_template(value: Any) -> dict[str, Any] | None:
    """The template itself, or the one named "default" of several."""
    if isinstance(value, list):
        named = [item for item in value if isinstance(item, dict) and isinstance(item.get("template"), str)]
        default = [item for item in named if item.get("name") == "default"]
        value = next((item["template"] for item in [*default, *named]), None)
    return _template(value) if isinstance(value, str) else None


def parse_chat_template(source: Source) -> Parsed:
    """`chat_template.jinja`, or the older `chat_template.json` with the template in a text."""
    if source.size > _TEMPLATE_LIMIT:
        return _refused("chat-template-too-large", f"{source.size:,} bytes are too many for a template")
    try:
        text = source.read(0, _TEMPLATE_LIMIT).decode("utf-8-sig")
    except TooMuchRead:
        return _refused("chat-template-too-large", "it has more bytes than may be read")
    except UnicodeDecodeError as error:
        message = f"byte {error.start:,} is not UTF-8: save the template in UTF-8"
        return _refused("chat-template-not-utf8", message, Severity.ERROR)
    if text.lstrip().startswith("{") and not text.lstrip().startswith(("{%", "{{", "{#")):
        try:
            value = load_json(text.encode())
        except BadJson as error:
            message = f"neither a template nor JSON with one: {error.message}"
            return _refused("chat-template-invalid", message, Severity.ERROR)
        found = _config_template(value.get("chat_template")) if isinstance(value, dict) else None
        if found is None:
            return _refused("chat-template-invalid", 'the JSON has no "chat_template"', Severity.ERROR)
        return Parsed(found)
    findings: tuple[Finding, ...] = ()
    if not text.strip():
        findings = (Finding(Severity.WARNING, "chat-template-empty", "the chat template is empty"),)
    return Parsed(_template(text), findings)


def _template(text: str) -> dict[str, Any]:
    return {"template": clean_text(text, _TEMPLATE_SHOWN), "bytes": len(text.encode("utf-8", "replace"))}


def _refused(code: str, message: str, severity: Severity = Severity.WARNING) -> Parsed:
    return Parsed(None, (Finding(severity, code, message),))
