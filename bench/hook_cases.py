"""What understanding a push costs whoever pushes."""

import json
import struct
import time
from itertools import count
from pathlib import Path
from statistics import median

from bench.git_cases import timed
from bench.gitclient import git
from bench.ours import Modelyard
from bench.stage import Row, Stage, paired

_numbers = count()
_CARD = "---\nlicense: apache-2.0\nlanguage: en\npipeline_tag: text-generation\n---\n# A model\n"


def pipeline(stage: Stage) -> list[Row]:
    """A push of 20 files of a model: gates and post-receive steps beside the same server without them."""
    servers = (stage.ours, stage.unhooked)
    works = [_work(stage.folder / f"pipeline{next(_numbers)}", one) for one in servers]

    def push(number: int) -> float:
        work = works[number]
        _write_model(work, str(next(_numbers)))
        git(work, "add", ".")
        git(work, "commit", "-q", "-m", "another model")
        seconds = timed(lambda: git(work, "push", "-q", "origin", "main"))
        time.sleep(0.2)  # what goes on in the background is not the next push's
        return seconds

    samples = paired(stage.rounds(25), lambda: push(0), lambda: push(1))
    on, off = median(samples[0]), median(samples[1])
    return [
        Row("push of 20 files, wall", "s", on, "the same without the pipeline", off, samples=samples),
        Row("what the pipeline adds to it", "s", on - off, bar=0.15),
    ]


def _work(work: Path, server: Modelyard) -> Path:
    name = f"pipeline{next(_numbers)}"
    server.add(name)
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    git(work, "remote", "add", "origin", server.push_url(name))
    return work


def _write_model(work: Path, salt: str) -> None:
    """Twenty files, all of them new: weights in two shards, what describes them, a card, and data."""
    shape = [64, 64]
    count_of = shape[0] * shape[1] * 4
    shards: dict[str, str] = {}
    for number in (1, 2):
        tensors = {
            f"model.layers.{layer}.weight": {
                "dtype": "F32",
                "shape": shape,
                "data_offsets": [at * count_of, (at + 1) * count_of],
            }
            for at, layer in enumerate(range(4 * number, 4 * number + 4))
        }
        header = json.dumps({"__metadata__": {"salt": salt}, **tensors}).encode()
        name = f"model-{number:05}-of-00002.safetensors"
        body = salt.encode().ljust(count_of * 4, b"\1")
        (work / name).write_bytes(struct.pack("<Q", len(header)) + header + body)
        shards |= dict.fromkeys(tensors, name)
    texts = {
        "model.safetensors.index.json": {"metadata": {"total_size": count_of * 8}, "weight_map": shards},
        "config.json": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "salt": salt},
        "generation_config.json": {"temperature": 0.7, "salt": salt},
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "salt": salt},
        "special_tokens_map.json": {"bos_token": "<s>", "salt": salt},
        "tokenizer.json": {"model": {"type": "BPE", "vocab": {f"{salt}-{n}": n for n in range(5000)}}},
    }
    for name, value in texts.items():
        (work / name).write_text(json.dumps(value))
    (work / "README.md").write_text(_CARD + salt)
    for number in range(11):
        (work / f"data-{number}.jsonl").write_text(json.dumps({"text": f"{salt} {number}"}) + "\n")
