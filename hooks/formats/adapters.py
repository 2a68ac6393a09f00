"""`adapter_config.json`, with which PEFT says what an adapter adapts, and how."""

import re
from typing import Any, Final

from hooks.formats.clean import clean_json, quoted
from hooks.formats.json_files import Fields, read_object, scalars
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.formats.source import Source

_LIMIT: Final = 4 * 1024**2
_MOST_TARGETS: Final = 1000
_LOCAL_PATH = re.compile(r"[/.~\\]|[A-Za-z]:[\\/]|[^/]+/[^/]+/")


def parse_adapter(source: Source) -> Parsed:
    """The base model is as the file has it: a repository's name, or a path on somebody's machine."""
    values, findings = read_object(source, _LIMIT)
    if values is None:
        return Parsed(None, tuple(findings))
    fields = Fields(values, "adapter-bad-value", findings)
    peft_type = fields.text("peft_type")
    if peft_type is None:
        message = 'it has no "peft_type": PEFT does not load it. Save the adapter with `save_pretrained`'
        findings.append(Finding(Severity.ERROR, "adapter-no-type", message))
    base_model = fields.text("base_model_name_or_path")
    findings += _about_base(base_model)
    metadata = {
        "base_model": base_model or None,
        "base_revision": fields.text("revision"),
        "peft_type": peft_type,
        "task_type": fields.text("task_type"),
        "r": fields.count("r"),
        "lora_alpha": _number(values.get("lora_alpha")),
        "lora_dropout": _number(values.get("lora_dropout")),
        "target_modules": _targets(values.get("target_modules")),
        "modules_to_save": fields.texts("modules_to_save"),
        "raw": scalars(values),
    }
    return Parsed(metadata, tuple(findings))


def _about_base(base_model: str | None) -> list[Finding]:
    if not base_model:
        message = 'it names no base model: set "base_model_name_or_path" to the repository it was trained on'
        return [Finding(Severity.WARNING, "adapter-no-base-model", message)]
    if _LOCAL_PATH.match(base_model):
        message = (
            f"its base model {quoted(base_model)} is a path on one machine: "
            'set "base_model_name_or_path" to a repository'
        )
        return [Finding(Severity.WARNING, "adapter-local-base-model", message)]
    return []


def _number(value: Any) -> Any:
    return clean_json(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _targets(value: Any) -> list[str] | str | None:
    """Names of modules, or one expression that matches them."""
    if isinstance(value, str):
        return str(clean_json(value, text=2000))
    if isinstance(value, list):
        names = [item for item in value if isinstance(item, str)]
        return [clean_json(name, text=300) for name in names[:_MOST_TARGETS]]
    return None
