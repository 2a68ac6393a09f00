"""Model and dataset cards: README.md with metadata in front, validated as the Hugging Face Hub does.

The Hub refuses a push for what is an `ERROR` here and shows what is a `WARNING`. The wording is the Hub's, so
that what people find when they search for it helps them here too.
"""

import re
from codecs import utf_8_decode
from typing import Any, Final

from hooks.formats.card_fields import Fields, Findings
from hooks.formats.card_results import configurations, eval_results, known_splits
from hooks.formats.card_values import (
    LANGUAGE_WORDS,
    LANGUAGES,
    LICENSES,
    RELATIONS,
    SIZES,
    SUBTASKS,
    TASKS,
    is_repository_id,
)
from hooks.formats.clean import clean_text, quoted
from hooks.formats.front_matter import split, title
from hooks.formats.parsed import Parsed, Severity
from hooks.formats.source import Source, TooMuchRead
from hooks.formats.yaml_values import BadYaml, Document, read_yaml

MAX_BYTES: Final = 2 * 1024**2
_MAX_TITLE: Final = 300

_MISSING: Final = "empty or missing yaml metadata in repo card"
_LANGUAGE_RULE: Final = (
    "It must be an ISO 639-1, 639-2 or 639-3 code (two/three letters), or a special value like "
    '"code", "multilingual". If you want to use BCP-47 identifiers, you can specify them in language_bcp47.'
)
_LANGUAGE: Final = re.compile(r"[a-z]{3}")
_LICENSE_NAME: Final = re.compile(r"[a-z0-9.-]+")


def parse_card(source: Source) -> Parsed:
    """The metadata of a card.

    `metadata` has a key for each field that the card has, lists where the Hub takes one or many, and `title`.
    It is None where the front matter cannot be read at all.
    """
    findings = Findings()
    try:
        data = source.read(0, MAX_BYTES)
    except TooMuchRead:
        data = b""
    parts = split(_decoded(data, source.size > len(data), findings))
    heading = title(parts.body)
    titled = {} if heading is None else {"title": clean_text(heading, _MAX_TITLE)}
    if parts.block is None or not parts.block.strip():
        hint = ": the opening --- has no closing ---" if parts.unclosed else ""
        findings.add(Severity.WARNING, "card-metadata-missing", _MISSING + hint, 1)
        return Parsed(titled, findings.all())
    try:
        document = read_yaml(parts.block, parts.first_line)
    except BadYaml as error:
        findings.add(Severity.ERROR, error.code, f"Invalid YAML: {error.message}", error.line)
        return Parsed(None, findings.all())
    for found in document.findings:
        findings.add(found.severity, found.code, found.message, found.line)
    if document.value is None:
        findings.add(Severity.WARNING, "card-metadata-missing", _MISSING, 1)
        return Parsed(titled, findings.all())
    if not isinstance(document.value, dict):
        message = "repo card metadata block should be a dict"
        findings.add(Severity.ERROR, "card-metadata-type", message, parts.first_line)
        return Parsed(None, findings.all())
    metadata = _metadata(Fields(document.value, document, findings), document) | titled
    return Parsed(metadata, findings.all())


def _decoded(data: bytes, cut: bool, findings: Findings) -> str:
    try:
        return utf_8_decode(data, "strict", not cut)[0]
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        findings.add(Severity.ERROR, "card-encoding", "it is not in UTF-8", line)
        return data.decode(errors="replace")


def _metadata(card: Fields, document: Document) -> dict[str, Any]:
    model_name, results, total = eval_results(card)
    metadata = {
        **_license(card),
        "language": _languages(card),
        "tags": _texts(card, "tags"),
        **_task(card),
        "library_name": card.text("library_name"),
        **_lineage(card),
        "datasets": _ids(card, "datasets", "dataset"),
        "metrics": _texts(card, "metrics"),
        "model_name": model_name,
        "eval_results": results,
        "eval_results_total": total if total > len(results) else None,
        "pretty_name": card.text("pretty_name"),
        "size_categories": _sizes(card),
        "source_datasets": _texts(card, "source_datasets"),
        "configs": configurations(card),
        "dataset_info": known_splits(card),
        "fields": [clean_text(key, 100) for key in list(document.value)[:200]],
    }
    return {key: value for key, value in metadata.items() if value is not None and value != []}


def _texts(card: Fields, key: str) -> list[str]:
    return [item.text for item in card.texts(key)]


def _license(card: Fields) -> dict[str, Any]:
    licenses = card.texts("license")
    for item in licenses:
        card.one_of("license", LICENSES, item)
    name, link = card.text("license_name"), card.text("license_link")
    if name is not None and not _LICENSE_NAME.fullmatch(name):
        pattern = "fails to match the required pattern: /^[a-z0-9-.]+$/"
        card.refuse("license_name", f"with value {quoted(name)} {pattern}")
    if link is not None and link not in ("LICENSE", "LICENSE.md") and "://" not in link:
        card.warn(
            "license_link", f'"license_link" must be LICENSE, LICENSE.md or a valid uri, not {quoted(link)}'
        )
    other = next((item for item in licenses if item.text == "other"), None)
    if other is not None and name is None:
        card.warn("license", 'with "license: other", say in "license_name" which one it is', other)
    return {"license": [item.text for item in licenses], "license_name": name, "license_link": link}


def _languages(card: Fields) -> list[str]:
    items = card.texts("language")
    for item in items:
        if item.text in LANGUAGES or item.text in LANGUAGE_WORDS or _LANGUAGE.fullmatch(item.text):
            continue
        card.refuse("language", f"with value {quoted(item.text)} is not valid. {_LANGUAGE_RULE}", item)
    return [item.text for item in items]


def _task(card: Fields) -> dict[str, Any]:
    task = card.item("pipeline_tag")
    categories, ids = card.texts("task_categories"), card.texts("task_ids")
    if task is not None:
        card.official("pipeline_tag", "pipeline tag", TASKS, task)
    for item in categories:
        card.official("task_categories", "task_categories", TASKS, item)
    for item in ids:
        card.official("task_ids", "task_ids", SUBTASKS, item)
    return {
        "pipeline_tag": None if task is None else task.text,
        "task_categories": [item.text for item in categories],
        "task_ids": [item.text for item in ids],
    }


def _lineage(card: Fields) -> dict[str, Any]:
    models = card.texts("base_model")
    for item in models:
        if not is_repository_id(item.text):
            card.refuse(
                "base_model", f"with value {quoted(item.text)} is not valid. Use the id of a model.", item
            )
    relation = card.item("base_model_relation")
    if relation is not None:
        card.one_of("base_model_relation", RELATIONS, relation)
    return {
        "base_model": [item.text for item in models],
        "base_model_relation": None if relation is None else relation.text,
    }


def _ids(card: Fields, key: str, what: str) -> list[str]:
    items = card.texts(key)
    for item in items:
        if not is_repository_id(item.text):
            name = quoted(item.name)
            message = (
                f"{name} with value {quoted(item.text)} is not valid. If possible, use the id of a {what}."
            )
            card.warn(key, message, item)
    return [item.text for item in items]


def _sizes(card: Fields) -> list[str]:
    items = card.texts("size_categories")
    for item in items:
        card.official("size_categories", "size_categories", SIZES, item)
    return [item.text for item in items]
