"""A small model as a commit, and what a server should make of it."""

import json
from pathlib import Path

from tests.support.hooks_world import HooksWorld
from tests.support.model_files import CONFIG, llama_tensors, write_safetensors

CARD = b"""---
license: apache-2.0
language: en
pipeline_tag: text-generation
base_model: Tiny/Base
---
# Tiny
"""
PARAMETERS = sum(tensor.size for tensor in llama_tensors().values())


def small_weights(folder: Path) -> bytes:
    """All of `PARAMETERS`, as float32."""
    return write_safetensors(folder / "model.safetensors", llama_tensors()).read_bytes()


async def commit_small_model(world: HooksWorld, weights: bytes) -> str:
    """Commits it to `main`, its weights in LFS, among other files."""
    files = {"README.md": CARD, "config.json": json.dumps(CONFIG).encode(), "train.py": b"pass\n"}
    return await world.commit(files, lfs={"model.safetensors": weights})
