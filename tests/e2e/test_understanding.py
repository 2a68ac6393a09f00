"""Real models and datasets, pushed by real clients: however they come, they are understood alike, once."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pyarrow.parquet as pq
import pytest
from aiohttp import ClientSession
from gguf import GGUFReader
from safetensors import safe_open
from sqlalchemy import select

from core.models import ModelVersion, OutboxEvent, ParsedFile, RepositoryType
from lfs.pointer import Pointer, write_pointer
from tests.support.api import Caller, commit
from tests.support.database import Databases
from tests.support.dataset_files import csv, dataset, diffusers_layout, json_lines, onnx_model, parquet
from tests.support.git import Git
from tests.support.git_lfs import NEWEST, LfsClient, lfs_client
from tests.support.lfs_places import storage_environment
from tests.support.lfs_raw import RawLfs
from tests.support.lfs_world import oid_of
from tests.support.minio_server import MinioServer
from tests.support.model_files import write_adapter
from tests.support.real_models import smollm2_gguf, write_smollm2
from tests.support.server import running_server
from tests.support.yard import USER, Yard

# So that the report is whole, however busy the machine is.
PATIENT = {"MODELYARD_HOOKS__REPORT_SECONDS": "120"}
LARGE = (".safetensors", ".gguf", ".onnx", ".parquet")
ATTRIBUTES = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LARGE)
CARD = b"---\nlicense: apache-2.0\nlanguage: en\npipeline_tag: text-generation\n---\n# Small\n"
WAYS = ("http", "ssh", "api")

Files = dict[str, bytes]


def gguf(folder: Path) -> None:
    (folder / "README.md").write_bytes(CARD)
    (folder / "model.gguf").symlink_to(smollm2_gguf())


def sharded(folder: Path) -> None:
    (folder / "README.md").write_bytes(CARD)
    write_smollm2(folder, shards=3, layers=2)


def whole(folder: Path) -> None:
    write_smollm2(folder, layers=1)


def adapter(folder: Path) -> None:
    (folder / "README.md").write_bytes(CARD)
    write_adapter(folder, "HuggingFaceTB/SmolLM2-135M")


def onnx_export(folder: Path) -> None:
    onnx.save_model(onnx_model(), folder / "model.onnx")


def rows(folder: Path) -> None:
    table = dataset(rows=1000)
    (folder / "README.md").write_bytes(b"---\nlicense: mit\nlanguage: en\n---\n")
    (folder / "data").mkdir()
    (folder / "data" / "train.parquet").write_bytes(parquet(table))
    (folder / "data" / "validation.csv").write_bytes(csv(table))
    (folder / "data" / "test.jsonl").write_bytes(json_lines(table))


LAYOUTS: Mapping[str, Callable[[Path], None]] = {
    "gguf": gguf,
    "safetensors": whole,
    "sharded": sharded,
    "adapter": adapter,
    "diffusers": diffusers_layout,
    "onnx": onnx_export,
    "dataset": rows,
}


def _parameters(folder: Path) -> int:
    """As `safetensors` itself sees it."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                size = 1
                for length in file.get_slice(name).get_shape():
                    size *= length
                total += size
    return total


def _expect(layout: str, folder: Path, summary: dict[str, Any]) -> None:
    """What the libraries say that these files are made by."""
    match layout:
        case "gguf":
            reader = GGUFReader(folder / "model.gguf")
            assert summary["parameters"] == sum(int(one.n_elements) for one in reader.tensors)
            context = reader.get_field("llama.context_length")
            assert context is not None
            assert summary["context_length"] == context.contents()
            assert summary["quantisation"] == "Q4_1"
        case "safetensors" | "sharded":
            assert summary["parameters"] == _parameters(folder)
            assert summary["parameters_by_dtype"] == {"F16": _parameters(folder)}
            assert summary["architectures"] == ["LlamaForCausalLM"]
        case "adapter":
            assert summary["adapter_parameters"] == _parameters(folder)
            assert summary["base_models"] == [{"model": "HuggingFaceTB/SmolLM2-135M", "relation": "adapter"}]
        case "diffusers":
            assert (summary["library"], summary["architectures"]) == (
                "diffusers",
                ["StableDiffusionPipeline"],
            )
        case "onnx":
            assert summary["parameters"] == 4 * 8 + 8
        case "dataset":
            assert summary["rows"] == 3 * pq.read_metadata(folder / "data/train.parquet").num_rows
            schema = pq.read_schema(folder / "data/train.parquet")
            assert set(schema.names) <= {one["name"] for one in summary["columns"]}
        case _:
            raise AssertionError(layout)


@dataclass
class Place:
    """A server with its clients."""

    yard: Yard
    client: LfsClient

    @asynccontextmanager
    async def caller(self) -> AsyncIterator[Caller]:
        """The REST API as ann."""
        async with ClientSession() as session:
            headers = {"Authorization": f"Bearer {self.yard.secret}"}
            yield Caller(session, self.yard.server.http, headers)

    async def push(self, way: str, repository: str, folder: Path) -> tuple[str, list[str]]:
        """Brings everything in a folder into an empty repository; returns the commit, and what was said."""
        files = await asyncio.to_thread(_read, folder)
        if way == "api":
            return await self._commit(repository, files), []
        url = self.yard.url(repository) if way == "http" else self.yard.ssh_url(repository)
        git = self.yard.git(self.yard.new_folder())
        git = self.client.over(git) if way == "http" else self.client.over_ssh(git, url, pure=True)
        return await asyncio.to_thread(_push, git, url, files)

    async def _commit(self, repository: str, files: Files) -> str:
        raw = RawLfs(self.yard, repository)
        sent = {}
        for path, data in files.items():
            sent[path] = data
            if path.endswith(LARGE):
                oid = oid_of(data)
                reply = await raw.batch("upload", (oid, len(data)))
                actions = json.loads(reply.body)["objects"][0].get("actions")
                if actions:  # else the repository has it
                    target = await raw.link(oid, len(data))
                    assert (await raw.at_link("PUT", target, data)).status == 200
                sent[path] = write_pointer(Pointer(oid, len(data)))
        plural = repository if repository.startswith("datasets/") else f"models/{repository}"
        async with self.caller() as call:
            made = await commit(call, f"/repositories/{plural}", sent)
        return str(made["oid"])

    async def version(self, repository_id: str, commit_id: str) -> ModelVersion:
        """The row of a commit, as soon as there is one."""
        async with self.yard.server.services() as services, asyncio.timeout(60):
            while True:
                async with services.database.read() as session:
                    row = await session.get(ModelVersion, (repository_id, commit_id))
                if row is not None and row.announced:
                    return row
                await asyncio.sleep(0.1)

    async def parsed(self) -> dict[tuple[str, str], object]:
        """When each content was parsed, by parser."""
        async with self.yard.server.services() as services, services.database.read() as session:
            rows = await session.scalars(select(ParsedFile))
            return {(row.digest, row.parser): row.parsed_at for row in rows}

    async def announced(self, repository_id: str) -> list[OutboxEvent]:
        """The events that tell of versions."""
        query = select(OutboxEvent).where(
            OutboxEvent.name.like("%.version.created"), OutboxEvent.repository_id == repository_id
        )
        async with self.yard.server.services() as services, services.database.read() as session:
            return list(await session.scalars(query))


def _read(folder: Path) -> Files:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _push(git: Git, url: str, files: Files) -> tuple[str, list[str]]:
    git("init", "-q", "-b", "main", ".")
    made = git.commit({".gitattributes": ATTRIBUTES, **files})
    pushed = git.run("push", url, "main")
    assert pushed.status == 0, pushed.output
    said = [line.removeprefix("remote: ") for line in pushed.stderr.splitlines() if "remote: " in line]
    return made, [line.rstrip() for line in said]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, databases: Databases
) -> Iterator[Place]:
    """SQLite and a local store, or PostgreSQL and MinIO."""
    folder = tmp_path_factory.mktemp("understanding")
    with asyncio.Runner() as runner, ExitStack() as stack:
        url, environment = "", dict(PATIENT)
        if request.param == "postgresql":
            database = databases.fresh("postgresql")
            url = runner.run(database.__aenter__())
            stack.callback(lambda: runner.run(database.__aexit__(None, None, None)))
            minio = stack.enter_context(MinioServer(folder / "minio"))
            environment |= storage_environment("proxy", minio, "models")
        server = running_server(folder / "server", database_url=url, env=environment)
        stack.enter_context(server)
        yield Place(runner.run(Yard.open(server, folder / "clients")), lfs_client(NEWEST, folder))


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
async def test_the_same_however_it_comes(place: Place, layout: str, tmp_path: Path) -> None:
    await asyncio.to_thread(LAYOUTS[layout], tmp_path)
    kind = RepositoryType.DATASET if layout == "dataset" else RepositoryType.MODEL
    found: dict[str, ModelVersion] = {}
    before: dict[tuple[str, str], object] = {}
    for way in WAYS:
        made = await place.yard.server.add_repository(USER, f"{layout}-{way}", type=kind)
        commit_id, said = await place.push(way, made.path, tmp_path)
        found[way] = await place.version(made.id, commit_id)
        assert [one.payload["commit"] for one in await place.announced(made.id)] == [commit_id]
        if way != "api":  # nobody waits for the report of a commit made there
            assert any(line.startswith(("Model: ", "Dataset: ")) for line in said), said
        # The second and the third time, nothing is parsed.
        after = await place.parsed()
        assert before == {} or after == before
        before = after
    rows = [(row.files, row.summary, row.findings, row.version) for row in found.values()]
    assert rows[0] == rows[1] == rows[2]
    assert [one for one in found["http"].findings if one["severity"] == "error"] == []
    await asyncio.to_thread(_expect, layout, tmp_path, found["http"].summary)


@pytest.mark.slow
async def test_what_was_pushed_can_be_found(place: Place, tmp_path: Path) -> None:
    await asyncio.to_thread(whole, tmp_path)
    (tmp_path / "README.md").write_bytes(CARD)
    repository = await place.yard.new_repository()
    commit_id, said = await place.push("http", repository, tmp_path)
    assert said[0].startswith("Model: LlamaForCausalLM, 3")
    assert said[0].endswith("M parameters (F16), apache-2.0")
    parameters = _parameters(tmp_path)
    async with place.caller() as call:
        query = f"task=text-generation&architecture=LlamaForCausalLM&min_parameters={parameters}"
        listed = [one for page in await call.pages(f"/repositories?{query}") for one in page]
        assert repository in [one["path"] for one in listed]
        shown = await call.ok(
            "GET", f"/repositories/models/{repository}/revisions/main/metadata?tensors=true"
        )
    assert shown["commit"] == commit_id
    assert shown["summary"]["parameters"] == parameters
    [file] = [one for one in shown["files"] if one["parser"] == "safetensors"]
    with safe_open(tmp_path / "model.safetensors", "np") as weights:
        assert {name: one["shape"] for name, one in file["metadata"]["tensors"].items()} == {
            name: weights.get_slice(name).get_shape()
            for name in weights.keys()  # noqa: SIM118 - it is no mapping
        }
