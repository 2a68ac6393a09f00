"""What a revision is, over REST; and lists of repositories, narrowed by what is in them."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import delete, update

from core.access import SYSTEM, Permission
from core.models import ParsedFile
from core.names import parse_address
from lfs.pointer import Pointer, write_pointer
from modelyard.api import metadata
from tests.support.api import ApiServer, Caller, commit
from tests.support.lfs_world import oid_of
from tests.support.model_files import CONFIG, llama_tensors, write_safetensors
from tests.support.streams import pieces

TENSORS = llama_tensors()
PARAMETERS = sum(tensor.size for tensor in TENSORS.values())


def card(**fields: str) -> bytes:
    lines = "".join(f"{key}: {value}\n" for key, value in fields.items())
    return f"---\n{lines}---\n# A model\n".encode()


@pytest.fixture
async def alice(each_api: ApiServer) -> Caller:
    return await each_api.user("alice")


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return write_safetensors(tmp_path / "model.safetensors", TENSORS, {"format": "pt"}).read_bytes()


async def upload(api: ApiServer, repository: str, data: bytes) -> bytes:
    """Uploads bytes to a repository, past HTTP; returns the pointer."""
    address = parse_address(repository.removeprefix("/repositories/"))
    info = await api.services.repositories.open(SYSTEM, address, Permission.WRITE)
    await api.services.large_files.uploads.receive(info.id, SYSTEM, oid_of(data), len(data), pieces(data))
    return write_pointer(Pointer(oid_of(data), len(data)))


async def model(api: ApiServer, owner: Caller, name: str, weights: bytes, readme: bytes) -> str:
    """A repository with a small model; returns its path in the API."""
    path = await api.repository(owner, name)
    files = {
        "README.md": readme,
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": await upload(api, path, weights),
    }
    await commit(owner, path, files)
    return path


async def test_a_revision_is_understood(each_api: ApiServer, alice: Caller, weights: bytes) -> None:
    path = await model(each_api, alice, "tiny", weights, card(license="mit", pipeline_tag="text-generation"))
    found = await alice.ok("GET", f"{path}/revisions/main/metadata")
    head = await alice.ok("GET", f"{path}/branches/main")
    assert found["commit"] == head["oid"]
    assert found["type"] == "model"
    assert found["summary"]["parameters"] == PARAMETERS
    assert found["summary"]["licenses"] == ["mit"]
    assert [file["path"] for file in found["files"]] == ["README.md", "config.json", "model.safetensors"]
    assert found["files_total"] == 3
    assert found["findings"] == []
    file = found["files"][2]
    assert (file["parser"], file["size"]) == ("safetensors", len(weights))
    assert file["digest"] == f"sha256:{oid_of(weights)}"
    assert file["metadata"]["parameters_total"] == PARAMETERS
    assert file["metadata"]["metadata"] == {"format": "pt"}
    assert "tensors" not in file["metadata"]
    assert found["files"][1]["digest"].startswith("git:")


async def test_one_file_with_its_tensors(each_api: ApiServer, alice: Caller, weights: bytes) -> None:
    path = await model(each_api, alice, "tiny", weights, card())
    url = f"{path}/revisions/main/metadata?path=model.safetensors&tensors=true"
    [file] = (await alice.ok("GET", url))["files"]
    assert {name: entry["shape"] for name, entry in file["metadata"]["tensors"].items()} == {
        name: list(tensor.shape) for name, tensor in TENSORS.items()
    }
    answer = await alice("GET", f"{path}/revisions/main/metadata?path=src/main.py")
    assert answer.code == "entry_not_found"


async def test_any_revision_will_do(each_api: ApiServer, alice: Caller) -> None:
    path = await each_api.repository(alice, "tiny")
    first = (await alice.ok("GET", f"{path}/branches/main"))["oid"]
    await alice.ok("POST", f"{path}/branches", {"name": "a/b", "revision": "main"})
    await commit(alice, path, {"README.md": card(license="mit")}, branch="a/b")
    for revision, licences in ((first, []), (first[:8], []), ("HEAD", []), ("a/b", ["mit"])):
        found = await alice.ok("GET", f"{path}/revisions/{quote(revision, safe='')}/metadata")
        assert found["summary"]["licenses"] == licences
    assert (await alice("GET", f"{path}/revisions/nothing/metadata")).code == "revision_not_found"
    assert (await alice("GET", f"{path}/revisions/{'0' * 40}/metadata")).code == "revision_not_found"
    answer = await alice("GET", f"{path}/revisions/main/metadata", headers={"If-None-Match": "*"})
    assert answer.status == 304


async def test_what_is_wrong_is_told(each_api: ApiServer, alice: Caller, weights: bytes) -> None:
    path = await each_api.repository(alice, "tiny")
    await commit(alice, path, {"config.json": b"{", "README.md": card(license="mit")})
    found = await alice.ok("GET", f"{path}/revisions/main/metadata")
    [finding] = [one for one in found["findings"] if one["path"] == "config.json"]
    assert (finding["severity"], finding["line"]) == ("error", 1)
    [file] = [one for one in found["files"] if one["path"] == "config.json"]
    assert file["metadata"] is None
    only = await alice.ok("GET", f"{path}/revisions/main/metadata?path=README.md")
    assert [one["path"] for one in only["findings"]] == []


async def test_pages_of_files(each_api: ApiServer, alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    path = await each_api.repository(alice, "rows")
    await commit(alice, path, {f"{number}.csv": b"a,b\n1,2\n" for number in range(5)})
    url = f"{path}/revisions/main/metadata"
    found = await alice.ok("GET", f"{url}?skip=1&limit=2")
    assert [file["path"] for file in found["files"]] == ["0.csv", "1.csv"]
    assert found["files_total"] == 6
    assert (await alice.ok("GET", f"{url}?limit=0"))["files"] == []
    assert (await alice.ok("GET", f"{url}?skip=6"))["files"] == []
    monkeypatch.setattr(metadata, "_ANSWER_BYTES", 100)
    found = await alice.ok("GET", f"{url}?skip=1")
    assert [file["path"] for file in found["files"]] == ["0.csv"]
    for query in ("skip=-1", "limit=201", "tensors=maybe", "path=", "unknown=1"):
        assert (await alice("GET", f"{url}?{query}")).status == 422


async def test_what_was_parsed_long_ago_is_parsed_again(each_api: ApiServer, alice: Caller) -> None:
    path = await each_api.repository(alice, "rows")
    await commit(alice, path, {"a.csv": b"a,b\n1,2\n"})
    assert await each_api.services.pipeline.run_due()
    url = f"{path}/revisions/main/metadata?path=a.csv"
    before = await alice.ok("GET", url)
    async with each_api.services.database.transaction() as session:
        await session.execute(delete(ParsedFile))
    each_api.services.understanding.parsing._files._memory.clear()
    assert await alice.ok("GET", url) == before
    async with each_api.services.database.transaction() as session:
        await session.execute(update(ParsedFile).values(version=ParsedFile.version - 1))
    each_api.services.understanding.parsing._files._memory.clear()
    assert await alice.ok("GET", url) == before


async def names(caller: Caller, query: str) -> list[str]:
    return [one["name"] for page in await caller.pages(f"/repositories?{query}") for one in page]


async def test_lists_are_narrowed(each_api: ApiServer, alice: Caller, weights: bytes) -> None:
    fields: dict[str, Any] = {
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "language": "en",
        "base_model": "Tiny/Base",
        "datasets": "alice/rows",
        "tags": "[small, tested]",
    }
    await model(each_api, alice, "tiny", weights, card(**fields))
    other = await each_api.repository(alice, "other")
    await commit(alice, other, {"README.md": card(license="mit")})
    await each_api.repository(alice, "rows", type="dataset")
    while await each_api.services.pipeline.run_due():
        pass
    for query in (
        "license=apache-2.0",
        "license=Apache-2.0",
        "task=text-generation",
        "library=transformers",
        "language=en",
        "architecture=LlamaForCausalLM",
        "dtype=F32",
        "base_model=tiny/base",
        "dataset=alice/rows",
        "tag=small",
        f"min_parameters={PARAMETERS}&max_parameters={PARAMETERS}",
        "license=apache-2.0&task=text-generation&tag=tested&type=model&owner=alice&search=ti&limit=1",
    ):
        assert await names(alice, query) == ["tiny"], query
    for query in (
        "license=apache",
        "license=apache-2.0&tag=other",
        f"min_parameters={PARAMETERS + 1}",
        f"max_parameters={PARAMETERS - 1}",
        "dtype=small",
    ):
        assert await names(alice, query) == [], query
    assert await names(alice, "license=mit") == ["other"]
    assert sorted(await names(alice, "")) == ["other", "rows", "tiny"]
    for query in ("license=", "min_parameters=-1", "min_parameters=many", f"tag={'x' * 201}", "colour=red"):
        assert (await alice("GET", f"/repositories?{query}")).status == 422, query
    for query in ("tag=%00", "tag=a%0ab"):
        assert (await alice("GET", f"/repositories?{query}")).status == 422, query


async def test_narrowing_shows_nothing_that_is_hidden(each_api: ApiServer, alice: Caller) -> None:
    path = await each_api.repository(alice, "hidden", visibility="private")
    await commit(alice, path, {"README.md": card(license="mit")})
    while await each_api.services.pipeline.run_due():
        pass
    bob = await each_api.user("bob")
    assert await names(alice, "license=mit") == ["hidden"]
    assert await names(bob, "license=mit") == []
    assert (await bob("GET", f"{path}/revisions/main/metadata")).code == "repository_not_found"
    assert (await each_api.anonymous("GET", f"{path}/revisions/main/metadata")).status == 401


async def test_another_default_branch_is_noticed(each_api: ApiServer, alice: Caller) -> None:
    path = await each_api.repository(alice, "tiny")
    await alice.ok("POST", f"{path}/branches", {"name": "next", "revision": "main"})
    await commit(alice, path, {"README.md": card(license="mit")}, branch="next")
    while await each_api.services.pipeline.run_due():
        pass
    assert await names(alice, "license=mit") == []
    heads = each_api.services.understanding.heads
    heads._hinted.clear()
    await alice.ok("PATCH", path, {"description": "the same branch"})
    assert not heads._hinted.is_set()
    await alice.ok("PATCH", path, {"default_branch": "next"})
    assert heads._hinted.is_set()
    await heads.catch_up()
    assert await names(alice, "license=mit") == ["tiny"]
