"""`model_index.json`, which lists the components of a diffusers pipeline."""

from typing import Any, Final

from hooks.formats.clean import clean_text
from hooks.formats.json_files import Fields, read_object, scalars
from hooks.formats.parsed import Finding, Parsed, Severity
from hooks.formats.source import Source

_LIMIT: Final = 1024**2
_MOST_COMPONENTS: Final = 200


def parse_diffusers(source: Source) -> Parsed:
    """`components` maps the name of each (a directory of the repository) to library and class.

    A component that the pipeline does without has None for both.
    """
    values, findings = read_object(source, _LIMIT)
    if values is None:
        return Parsed(None, tuple(findings))
    class_name = values.get("_class_name")
    custom = isinstance(class_name, list)
    if isinstance(class_name, list):  # [module in the repository, class]
        class_name = next((item for item in reversed(class_name) if isinstance(item, str)), None)
    if not isinstance(class_name, str):
        message = 'it has no "_class_name": diffusers does not know which pipeline to load'
        findings.append(Finding(Severity.ERROR, "diffusers-no-class", message))
        class_name = None
    components = {
        clean_text(name, 200): found
        for name, value in values.items()
        if not name.startswith("_") and (found := _component(value)) is not None
    }
    fields = Fields(values, "diffusers-bad-value", findings)
    metadata = {
        "class_name": clean_text(class_name, 200) if class_name is not None else None,
        "diffusers_version": fields.text("_diffusers_version"),
        "custom_pipeline": custom,
        "components": dict(list(components.items())[:_MOST_COMPONENTS]),
        "components_total": len(components),
        "raw": scalars(values),
    }
    return Parsed(metadata, tuple(findings))


def _component(value: Any) -> list[str | None] | None:
    if not isinstance(value, list) or len(value) not in {2, 3}:  # modular pipelines add a specification
        return None
    library, name = value[:2]
    if not isinstance(library, str | None) or not isinstance(name, str | None):
        return None
    return [None if part is None else clean_text(part, 200) for part in (library, name)]
