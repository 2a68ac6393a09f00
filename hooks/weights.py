"""How large a model is and what its numbers are, counted once, in however many files and formats it lies."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hooks.formats.clean import named
from hooks.formats.parsed import Finding, Severity
from hooks.parsed_tree import ParsedFile, ParsedTree, counted

_SHARD: Final = re.compile(r"(?P<stem>.+?)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<rest>(?:\.[\w-]+)?)")
# What libraries load when nobody names a file; other names beside them are variants of the same.
_USUAL: Final = ("model", "diffusion_pytorch_model", "pytorch_model")
_ADAPTERS: Final = ("adapter_model", "pytorch_lora_weights")
_CONFIG_DTYPES: Final = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's numbers.

    Attributes:
        parameters: None where they cannot be counted; then `by_dtype` is empty, too.
        adapter_parameters: those of adapters to another model, which are not among `parameters`.
        dtypes: names as in the files, those with the most parameters first.
        quantisation: of the file that was counted, or what the configuration says.
        quantisations: of all GGUF files.
    """

    parameters: int | None = None
    by_dtype: Mapping[str, int] = field(default_factory=dict)
    adapter_parameters: int | None = None
    dtypes: tuple[str, ...] = ()
    quantisation: str | None = None
    quantisations: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(slots=True)
class _Set:
    """Files that are loaded together. `expected` names those that there should be; `index` says so."""

    stem: str
    files: list[ParsedFile] = field(default_factory=list)
    expected: set[str] | None = None
    expected_total: int | None = None
    index: ParsedFile | None = None

    @property
    def place(self) -> ParsedFile:
        """Where it says what it is."""
        return self.index or self.files[0]

    @property
    def is_complete(self) -> bool:
        if self.expected is not None:
            return self.expected <= {file.name for file in self.files}
        return self.expected_total is None or len(self.files) == self.expected_total

    @property
    def parameters(self) -> int | None:
        counts = [file.count("parameters_total") for file in self.files]
        known = [count for count in counts if count is not None]
        return counted(sum(known)) if self.files and self.is_complete and len(known) == len(counts) else None

    @property
    def by_dtype(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for file in self.files:
            counts = file.metadata.get("parameters") or {}
            total.update({dtype: count for dtype, count in counts.items() if counted(count) is not None})
        return dict(total)

    @property
    def is_adapter(self) -> bool:
        return self.stem.startswith(_ADAPTERS)

    @property
    def usual(self) -> int:
        return _USUAL.index(self.stem) if self.stem in _USUAL else len(_USUAL)


def weigh(tree: ParsedTree) -> Weights:
    """Safetensors count before GGUF, and that before ONNX: they hold one model, in this order of detail."""
    sets = _sets(tree.of("safetensors"), tree.of("safetensors-index"))
    adapters = [one for one in _flat(sets) if one.is_adapter]
    models = [one for one in _flat(sets) if not one.is_adapter]
    chosen = _chosen_safetensors(tree, models)
    ggufs = _flat(_sets(tree.of("gguf"), ()))
    if not chosen:
        chosen = _largest([one for one in ggufs if "mmproj" not in one.stem.lower()] or ggufs)
    if not chosen:
        chosen = _largest([_Set(file.path, [file]) for file in tree.of("onnx")])
    counts: Counter[str] = Counter()
    for one in chosen:
        counts.update(one.by_dtype)
    parameters = _sum(one.parameters for one in chosen)
    config = tree.main("config")
    dtypes = tuple(sorted(counts, key=lambda dtype: (-counts[dtype], dtype))) or _configured(config)
    return Weights(
        parameters=parameters,
        by_dtype={dtype: counts[dtype] for dtype in dtypes if dtype in counts}
        if parameters is not None
        else {},
        adapter_parameters=_sum(one.parameters for one in adapters if not one.place.is_copy),
        dtypes=dtypes,
        quantisation=_quantisation(chosen, config),
        quantisations=tuple(sorted({text for one in ggufs if (text := _file_type(one)) is not None})),
        findings=tuple(_missing(one) for one in [*models, *ggufs] if not one.is_complete),
    )


def _sets(files: Iterable[ParsedFile], indexes: Iterable[ParsedFile]) -> dict[str, list[_Set]]:
    """The sets in each directory."""
    shards: dict[str, _Set] = {}
    found: defaultdict[str, list[_Set]] = defaultdict(list)
    for index in indexes:
        stem = index.name.removesuffix(".json").replace(".safetensors.index", "")
        names = {name for name in index.metadata.get("shards") or () if isinstance(name, str)}
        one = _Set(stem, expected=names, index=index)
        found[index.directory].append(one)
        for name in names:
            shards.setdefault(_join(index.directory, name), one)
    by_stem: dict[tuple[str, str], _Set] = {}
    for file in files:
        listed = shards.get(file.path)
        if listed is not None:
            listed.files.append(file)
            continue
        stem = file.name.rpartition(".")[0]
        shard = _SHARD.fullmatch(stem)
        total = int(shard["total"]) if shard else None
        key = (file.directory, shard["stem"] + shard["rest"] if shard else stem)
        if key not in by_stem:
            by_stem[key] = _Set(key[1], expected_total=total)
            found[file.directory].append(by_stem[key])
        by_stem[key].files.append(file)
    return {
        directory: [one for one in group if one.files or one.expected] for directory, group in found.items()
    }


def _flat(sets: Mapping[str, Sequence[_Set]]) -> list[_Set]:
    return [one for directory in sorted(sets) for one in sets[directory]]


def _chosen_safetensors(tree: ParsedTree, models: Sequence[_Set]) -> list[_Set]:
    sets: defaultdict[str, list[_Set]] = defaultdict(list)
    for one in models:
        sets[one.place.directory].append(one)
    there = set(sets)
    # A pipeline's root has copies of all its components in one file, if it has any weights.
    parts = _component_directories(tree) or {""} | _module_directories(tree)
    directories = sorted(there & parts) or _shallowest(there, sets)
    return [one for directory in directories for one in _preferred(sets[directory])]


def _module_directories(tree: ParsedTree) -> set[str]:
    modules = tree.at("modules.json", "sentence-transformers").get("modules") or ()
    return {str(module.get("path") or "").strip("/") for module in modules}


def _component_directories(tree: ParsedTree) -> set[str]:
    components = tree.at("model_index.json", "diffusers").get("components") or {}
    return set(components)


def _shallowest(there: set[str], sets: Mapping[str, Sequence[_Set]]) -> list[str]:
    """The directory that is nearest to the root, with the largest model where there are several."""
    own = [at for at in there if not sets[at][0].place.is_copy]
    return sorted(own, key=lambda at: (at.count("/"), -(_most(sets[at]) or 0), at))[:1]


def _most(sets: Sequence[_Set]) -> int | None:
    return max((one.parameters for one in sets if one.parameters is not None), default=None)


def _preferred(sets: Sequence[_Set]) -> list[_Set]:
    return sorted(sets, key=lambda one: (not one.is_complete, one.usual, -(one.parameters or 0), one.stem))[
        :1
    ]


def _largest(sets: Sequence[_Set]) -> list[_Set]:
    return sorted(sets, key=lambda one: (-(one.parameters or 0), one.place.path))[:1]


def _sum(counts: Iterable[int | None]) -> int | None:
    """Together; None where one is not known, or there are none."""
    known = list(counts)
    return counted(sum(count or 0 for count in known)) if known and None not in known else None


def _configured(config: Mapping[str, Any]) -> tuple[str, ...]:
    dtype = config.get("torch_dtype")
    return (_CONFIG_DTYPES.get(dtype, dtype.upper()),) if isinstance(dtype, str) and dtype else ()


def _file_type(one: _Set) -> str | None:
    text = one.place.metadata.get("quantisation")
    return text if isinstance(text, str) and text else None


def _quantisation(chosen: Sequence[_Set], config: Mapping[str, Any]) -> str | None:
    for one in chosen:
        if text := _file_type(one):
            return text
    method = (config.get("quantization_config") or {}).get("quant_method")
    return method if isinstance(method, str) and method else None


def _missing(one: _Set) -> Finding:
    names = sorted((one.expected or set()) - {file.name for file in one.files})
    which = f": {named(names, len(names))}" if names else ""
    message = f"parameters are not counted, because parts of the model are missing or cannot be read{which}"
    return Finding(Severity.WARNING, "weights-incomplete", message, one.place.path)


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name
