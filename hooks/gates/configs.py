"""The gate `config`: a `config.json` that contradicts the weights beside it."""

import posixpath
from typing import Any, Final

from hooks.formats.registry import format_of
from hooks.gates.contradictions import Config, of_gguf, of_safetensors
from hooks.gates.problem import Problem
from hooks.gates.view import GateView, Tip

_NAME: Final = "config.json"
_WEIGHTS: Final = "model.safetensors"
_INDEX: Final = "model.safetensors.index.json"
# Parts of another model, whose numbers are not those of the model.
_PARTS: Final = frozenset({"clip", "mmproj", None})
_REMEDY: Final = "push the `config.json` that was saved with these weights, or the weights that it belongs to"
_SHARDS: Final = 1000
_GGUFS: Final = 20


class Contradictions:
    """Looks at the tips where a `config.json` or weights beside it changed.

    Adapters, parts of diffusers pipelines and models of several parts are left alone.
    """

    code = "config"

    async def findings(self, view: GateView) -> list[Problem]:
        """One for each contradiction. Raises `SourceUnreadable`, `DatabaseUnavailable`: try again."""
        problems = []
        for tip in view.tips:
            for path in tip.tree.files:
                folder, name = posixpath.split(path)
                if name == _NAME and not _is_part(tip, folder):
                    messages = await _Model(view, tip, folder).contradictions()
                    problems += [Problem(path, message, _REMEDY, refs=tip.refs) for message in messages]
        return problems


def _is_part(tip: Tip, folder: str) -> bool:
    above = [posixpath.join(folder, "adapter_config.json"), posixpath.join(folder, "model_index.json")]
    if folder:
        above.append(posixpath.join(posixpath.dirname(folder), "model_index.json"))
    return any(path in tip.tree.files for path in above)


class _Model:
    """A `config.json` and what lies beside it."""

    def __init__(self, view: GateView, tip: Tip, folder: str) -> None:
        self._view = view
        self._tip = tip
        self._folder = folder

    async def contradictions(self) -> list[str]:
        """None where nothing has changed, or nothing can be compared."""
        files = self._tip.tree.files
        index = await self._metadata(self._path(_INDEX)) if self._path(_INDEX) in files else None
        shards = [self._path(name) for name in (index["shards"] if index else [_WEIGHTS])]
        weights = [path for path in shards if path in files]
        ggufs = [path for path in files if posixpath.dirname(path) == self._folder and _is_gguf(path)]
        looked_at = [self._path(_NAME), self._path(_INDEX), *shards, *ggufs]
        if len(shards) > _SHARDS or not any(map(self._tip.has_changed, looked_at)):
            return []
        described = await self._metadata(self._path(_NAME))
        if described is None or described["parts"]:
            return []
        config = Config.of(described)
        found = await self._of_weights(config, weights, complete=len(weights) == len(shards))
        found += await self._of_ggufs(config, ggufs[:_GGUFS])
        return list(dict.fromkeys(found))

    async def _of_weights(self, config: Config, paths: list[str], *, complete: bool) -> list[str]:
        tensors: dict[str, Any] = {}
        for path in paths:
            metadata = await self._metadata(path)
            if metadata is None or metadata["tensors_total"] != len(metadata["tensors"]):
                complete = False
            tensors |= metadata["tensors"] if metadata else {}
        return list(of_safetensors(config, tensors, complete=complete))

    async def _of_ggufs(self, config: Config, paths: list[str]) -> list[str]:
        found = []
        for path in paths:
            metadata = await self._metadata(path)
            if metadata is not None and metadata["architecture"] not in _PARTS:
                found.append(list(of_gguf(config, metadata, posixpath.basename(path))))
        # Where one of several agrees, the others are of other models.
        return found[0] if found and all(found) else []

    async def _metadata(self, path: str) -> Any:
        file = self._tip.tree.files.get(path)
        if file is None or not self._tip.tree.has(file):
            return None
        understood = await self._view.parsing.parse(self._tip.tree, file, remember=False)
        return understood[1].metadata if understood else None

    def _path(self, name: str) -> str:
        return posixpath.join(self._folder, name)


def _is_gguf(path: str) -> bool:
    known = format_of(path)
    return known is not None and known.name == "gguf"
