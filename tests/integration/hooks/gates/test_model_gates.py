"""Gates about models: missing shards, damaged files, configurations that contradict the weights."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from core.settings import GatesSettings
from tests.support.gates import MAIN, Gated
from tests.support.hooks_world import pointer_to
from tests.support.model_files import (
    CONFIG,
    llama_tensors,
    raw_safetensors,
    write_adapter,
    write_gguf,
    write_model,
    write_sharded,
)

STRICT = GatesSettings(config="refuse")


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def split(files: Mapping[str, bytes]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Small ones, and those for LFS."""
    large = {path: data for path, data in files.items() if path.endswith((".safetensors", ".gguf"))}
    return {path: data for path, data in files.items() if path not in large}, large


@pytest.fixture
def sharded(tmp_path: Path) -> dict[str, bytes]:
    write_sharded(tmp_path / "sharded", llama_tensors(), 3)
    return files_in(tmp_path / "sharded")


@pytest.mark.parametrize("folder", ["", "sub dir/"])
async def test_a_missing_shard(gated: Gated, sharded: dict[str, bytes], folder: str) -> None:
    small, large = split({folder + path: data for path, data in sharded.items()})
    lost = f"{folder}model-00002-of-00003.safetensors"
    kept = large.pop(lost)
    await gated.commit(small, lfs=large)
    pushed = await gated.push()
    message = (
        f"{folder}model.safetensors.index.json: names model-00002-of-00003.safetensors, which is not there"
    )
    assert pushed.report.refs == {MAIN: message}
    assert pushed.remote == [
        message,
        "  add it (`git add -f`), or write the model again with `save_pretrained`, so that the index fits",
        "  `git push -o gate.allow=missing_shard` lets it through;"
        " it is for administrators of this repository",
    ]
    await gated.commit(lfs={lost: kept})
    assert (await gated.push()).ok


async def test_a_shard_that_goes(gated: Gated, sharded: dict[str, bytes]) -> None:
    """No new file says so; and what is not changed is not asked for again."""
    small, large = split(sharded)
    await gated.commit(small, lfs=large)
    assert (await gated.push()).ok
    await gated.commit({"model-00003-of-00003.safetensors": None})
    assert not (await gated.push()).ok
    gated.use(GatesSettings(missing_shard="warn"))
    pushed = await gated.push()
    assert pushed.ok
    assert pushed.remote[0].startswith("warning: model.safetensors.index.json: names model-00003")
    gated.use(GatesSettings())
    await gated.commit({"notes.txt": b"1"})
    await gated.commit({"another.safetensors": large["model-00001-of-00003.safetensors"]})
    pushed = await gated.push()
    assert pushed.ok
    assert pushed.remote == []


async def test_shards_of_a_pickled_checkpoint(gated: Gated) -> None:
    index = json.dumps({"metadata": {}, "weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}).encode()
    await gated.commit({"pytorch_model.bin.index.json": index})
    pushed = await gated.push()
    assert "names pytorch_model-00001-of-00002.bin, which is not there" in pushed.report.refs[MAIN]
    await gated.commit({"pytorch_model-00001-of-00002.bin": b"weights"})
    assert (await gated.push()).ok


@pytest.mark.parametrize("in_lfs", [False, True])
async def test_damaged_safetensors(gated: Gated, tmp_path: Path, in_lfs: bool) -> None:
    whole = write_model(tmp_path / "model").read_bytes()
    broken = {
        "cut.safetensors": whole[:-10],
        "lies.safetensors": raw_safetensors({}, length=2**63),
        "overlap.safetensors": raw_safetensors(
            {
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
            },
            bytes(12),
        ),
    }
    await gated.commit({"README.md": b"hello"})
    for path, data in broken.items():
        await gated.commit(lfs={path: data}) if in_lfs else await gated.commit({path: data})
        pushed = await gated.push()
        assert not pushed.ok, path
        assert pushed.report.refs[MAIN].startswith(f"{path}: ")
        assert any(line.startswith(f"{path}: ") for line in pushed.remote)
        # The commit that mends it is all that it takes: nobody has to rewrite anything.
        await gated.commit({path: pointer_to(whole) if in_lfs else whole})
        await gated.world.lfs.upload(whole)
        assert (await gated.push()).ok, path


async def test_a_cut_gguf(gated: Gated, tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "model.gguf", llama_tensors()).read_bytes()
    await gated.commit(lfs={"model.gguf": whole[:-1000]})
    pushed = await gated.push()
    assert pushed.report.refs[MAIN].startswith("model.gguf: the file is cut")
    await gated.commit(lfs={"model.gguf": whole})
    assert (await gated.push()).ok


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hidden_size", 48, "`hidden_size` is 48, but model.embed_tokens.weight has {hidden_size} columns"),
        (
            "num_hidden_layers",
            30,
            "`num_hidden_layers` is 30, but the weights have {num_hidden_layers} layers",
        ),
        ("num_hidden_layers", 1, "`num_hidden_layers` is 1, but the weights have {num_hidden_layers} layers"),
        ("vocab_size", 9999, "`vocab_size` is 9999, but model.embed_tokens.weight has {vocab_size} rows"),
    ],
)
@pytest.mark.parametrize("shards", [1, 3])
async def test_a_configuration_of_another_model(
    gated: Gated, tmp_path: Path, key: str, value: int, message: str, shards: int
) -> None:
    gated.use(STRICT)
    folder = tmp_path / "model"
    write_model(folder)
    if shards > 1:
        (folder / "model.safetensors").unlink()
        write_sharded(folder, llama_tensors(), shards)
    small, large = split(files_in(folder))
    await gated.commit(small, lfs=large)
    assert (await gated.push()).ok
    await gated.commit({"config.json": json.dumps({**CONFIG, key: value}).encode()})
    pushed = await gated.push()
    assert not pushed.ok
    assert f"config.json: {message.format(**CONFIG)}" in pushed.remote
    assert any("that was saved with these weights" in line for line in pushed.remote)
    # By default it is a warning.
    gated.use(GatesSettings())
    pushed = await gated.push()
    assert pushed.ok
    assert f"warning: config.json: {message.format(**CONFIG)}" in pushed.remote


async def test_what_is_no_contradiction(gated: Gated, tmp_path: Path) -> None:
    gated.use(STRICT)
    for name in ("model", "padded", "adapter", "pipeline/text_encoder", "parts", "packed"):
        write_model(tmp_path / "all" / name)
    other = {**CONFIG, "hidden_size": 48, "num_hidden_layers": 99}
    folder = tmp_path / "all"
    (folder / "padded/config.json").write_text(
        json.dumps({**CONFIG, "vocab_size": CONFIG["vocab_size"] - 7, "num_nextn_predict_layers": 1})
    )
    write_adapter(folder / "adapter")
    (folder / "adapter/config.json").write_text(json.dumps(other))
    (folder / "pipeline/model_index.json").write_text('{"_class_name": "P"}')
    (folder / "pipeline/text_encoder/config.json").write_text(json.dumps(other))
    (folder / "parts/config.json").write_text(
        json.dumps({"model_type": "two", "text_config": {"model_type": "t", "hidden_size": 1}})
    )
    quantised = {**CONFIG, "hidden_size": 48, "quantization_config": {"quant_method": "gptq"}}
    (folder / "packed/config.json").write_text(json.dumps(quantised))
    small, large = split(files_in(folder))
    await gated.commit(small, lfs=large)
    pushed = await gated.push()
    assert pushed.ok, pushed.remote
    assert pushed.remote == []


async def test_a_configuration_beside_gguf(gated: Gated, tmp_path: Path) -> None:
    gated.use(STRICT)
    hidden = CONFIG["hidden_size"]
    import gguf

    value = gguf.GGUFValueType.UINT32
    data = write_gguf(
        tmp_path / "m.gguf",
        llama_tensors(),
        [("llama.embedding_length", hidden, value, None), ("llama.block_count", 7, value, None)],
    ).read_bytes()
    await gated.commit({"config.json": json.dumps(CONFIG).encode()}, lfs={"m.gguf": data})
    pushed = await gated.push()
    layers = CONFIG["num_hidden_layers"]
    assert pushed.report.refs[MAIN] == (
        f"config.json: `num_hidden_layers` is {layers}, but m.gguf has 7 blocks"
    )
    await gated.commit({"config.json": json.dumps({**CONFIG, "num_hidden_layers": 7}).encode()})
    assert (await gated.push()).ok


async def test_an_object_that_is_not_there(gated: Gated) -> None:
    """Whether pointers need their objects is another rule's matter, which tells enough."""
    await gated.commit({"model.safetensors": pointer_to(b"never uploaded"), "m.pkl": pointer_to(b"nor this")})
    pushed = await gated.push()
    assert pushed.ok
    assert pushed.remote == []
