"""Which files are parsed, by which parser, and how many bytes of each may be read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hooks.formats.adapters import parse_adapter
from hooks.formats.card import parse_card
from hooks.formats.configs import parse_config, parse_generation_config
from hooks.formats.delimited import parse_csv
from hooks.formats.diffusers import parse_diffusers
from hooks.formats.gguf import parse_gguf
from hooks.formats.json_lines import parse_jsonl
from hooks.formats.onnx import parse_onnx
from hooks.formats.parquet import parse_parquet
from hooks.formats.parsed import Parsed
from hooks.formats.pytorch import parse_pytorch
from hooks.formats.safetensors import parse_safetensors
from hooks.formats.safetensors_index import parse_safetensors_index
from hooks.formats.sentence_transformers import parse_modules
from hooks.formats.source import Source
from hooks.formats.tokenizers import parse_chat_template, parse_tokenizer, parse_tokenizer_config

_MIB: Final = 1024**2


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file that is understood, known by its path alone.

    Attributes:
        name: stable, stored with what was parsed.
        version: of the parser: another one parses known contents anew.
        max_bytes: how many bytes of a file the parser may read, all its reads together.
        parse: see `hooks.formats.parsed`. Blocking, for a thread; raises nothing but `SourceUnreadable`.
        endings: of file names, in lower case, matched in any case; names: of files, matched exactly.
        only_root: whether files in directories are something else.
    """

    name: str
    version: int
    max_bytes: int
    parse: Callable[[Source], Parsed]
    endings: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    only_root: bool = False

    def matches(self, path: str) -> bool:
        """Whether the file at this path, with slashes, from the root of the repository, is one of these."""
        directory, _, name = path.rpartition("/")
        if self.only_root and directory:
            return False
        return name in self.names or name.lower().endswith(self.endings)


def _named(
    name: str, parse: Callable[[Source], Parsed], mib: int, *names: str, only_root: bool = False
) -> Format:
    return Format(name, 1, mib * _MIB, parse, names=frozenset(names), only_root=only_root)


def _ending(name: str, parse: Callable[[Source], Parsed], mib: int, *endings: str) -> Format:
    return Format(name, 1, mib * _MIB, parse, endings=endings)


def _last(name: str) -> str:
    """What follows the last dot of a name, with the dot."""
    return name[name.rfind(".") :].lower()


_INDEXES: Final = tuple(f".safetensors.index{variant}.json" for variant in ("", ".fp16", ".bf16", ".non_ema"))

# Those that tell most of a repository come first; no file is of two. The numbers are MiB: parsers keep below
# them by themselves, so that they can say what is too large.
FORMATS: Final = (
    _named("card", parse_card, 2, "README.md", only_root=True),
    _named("config", parse_config, 4, "config.json"),
    _named("adapter", parse_adapter, 4, "adapter_config.json"),
    _named("diffusers", parse_diffusers, 1, "model_index.json"),
    _named("sentence-transformers", parse_modules, 1, "modules.json", only_root=True),
    _ending("safetensors-index", parse_safetensors_index, 32, *_INDEXES),
    _ending("safetensors", parse_safetensors, 17, ".safetensors"),
    _ending("pytorch-index", parse_safetensors_index, 32, ".bin.index.json"),
    _ending("gguf", parse_gguf, 64, ".gguf"),
    _ending("onnx", parse_onnx, 64, ".onnx"),
    _ending("pytorch", parse_pytorch, 17, ".bin", ".pt", ".pth", ".ckpt"),
    _named("generation-config", parse_generation_config, 4, "generation_config.json"),
    _named("tokenizer", parse_tokenizer, 64, "tokenizer.json"),
    _named("tokenizer-config", parse_tokenizer_config, 8, "tokenizer_config.json", "special_tokens_map.json"),
    _named("chat-template", parse_chat_template, 2, "chat_template.jinja", "chat_template.json"),
    _ending("parquet", parse_parquet, 32, ".parquet"),
    _ending("csv", parse_csv, 16, ".csv", ".tsv"),
    _ending("jsonl", parse_jsonl, 16, ".jsonl", ".ndjson"),
)


_BY_NAME: Final = {name: known for known in FORMATS for name in known.names}
_BY_ENDING: Final = {
    last: [known for known in FORMATS if any(_last(ending) == last for ending in known.endings)]
    for last in {_last(ending) for known in FORMATS for ending in known.endings}
}


def format_of(path: str) -> Format | None:
    """Which kind of file lies at `path`; None where it is not one that is parsed. Fast: trees are large."""
    name = path[path.rfind("/") + 1 :]
    named = _BY_NAME.get(name)
    some = _BY_ENDING.get(_last(name), ()) if named is None else (named,)
    return next((known for known in some if known.matches(path)), None)
