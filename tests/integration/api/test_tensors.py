"""Two revisions, compared tensor by tensor, over REST."""

from pathlib import Path
from urllib.parse import quote

import pytest

from core.access import SYSTEM, Permission
from core.names import parse_address
from lfs.pointer import Pointer, write_pointer
from tests.support.api import ApiServer, Caller, commit
from tests.support.lfs_world import oid_of
from tests.support.model_files import GgufBytes
from tests.support.streams import pieces
from tests.support.tensor_world import base_model, fine_tuned, weights

FILE = "model.safetensors"
BASE = base_model()
NAMES = sorted(BASE)
AFTER = fine_tuned(BASE, [NAMES[4], NAMES[8]])
AFTER["new"] = AFTER.pop(NAMES[0])


@pytest.fixture
async def alice(each_api: ApiServer) -> Caller:
    return await each_api.user("alice")


async def push(
    api: ApiServer, owner: Caller, path: str, data: bytes, *, file: str = FILE, branch: str = "main"
) -> str:
    """Commits weights in LFS; returns the commit."""
    info = await api.services.repositories.open(
        SYSTEM, parse_address(path.removeprefix("/repositories/")), Permission.WRITE
    )
    await api.services.large_files.uploads.receive(info.id, SYSTEM, oid_of(data), len(data), pieces(data))
    pointer = write_pointer(Pointer(oid_of(data), len(data)))
    return str((await commit(owner, path, {file: pointer}, branch=branch))["oid"])


async def test_complete_once_it_was_read(each_api: ApiServer, alice: Caller, tmp_path: Path) -> None:
    path = await each_api.repository(alice, "tiny")
    base = await push(each_api, alice, path, weights(tmp_path, BASE))
    await alice.ok("POST", f"{path}/branches", {"name": "a/b", "revision": "main"})
    head = await push(each_api, alice, path, weights(tmp_path, AFTER), branch="a/b")
    url = f"{path}/tensors/{base}...{quote('a/b', safe='')}"
    first = await alice("GET", url)
    found = first.json
    assert (found["base"], found["head"], found["complete"], found["left_out"]) == (base, head, False, 0)
    [one] = found["checkpoints"]
    size = len(weights(tmp_path, BASE))
    assert (one["before"], one["after"], one["format"], one["problem"]) == (FILE, FILE, "safetensors", None)
    assert (one["tensors_before"], one["tensors_after"], one["undecided"]) == (40, 40, 39)
    assert (one["unchanged"], one["uncompared_bytes"]) == (0, 0)
    assert one["pending_bytes"] == one["bytes_before"] + one["bytes_after"] > size
    assert [change["kinds"] for change in one["tensors"]] == [["removed"], ["added"]]

    assert await each_api.services.understanding.digester.run_due() == 2
    again = await alice("GET", url, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status == 200
    found = again.json
    assert found["complete"]
    [one] = found["checkpoints"]
    assert (one["pending_bytes"], one["undecided"], one["unchanged"]) == (0, 0, 37)
    assert one["counts"] == {
        "added": 0, "removed": 0, "renamed": 1, "reshaped": 0, "retyped": 0, "changed": 2,
    }  # fmt: skip
    raw = BASE[NAMES[0]]
    old = {
        "name": NAMES[0],
        "dtype": raw.dtype,
        "shape": list(raw.elements.shape),
        "bytes": raw.elements.nbytes,
    }
    assert one["tensors"][-1] == {"kinds": ["renamed"], "before": old, "after": old | {"name": "new"}}
    assert [change["after"]["name"] for change in one["tensors"][:2]] == [NAMES[4], NAMES[8]]
    # The other way round, and short.
    back = await alice.ok("GET", f"{path}/tensors/{quote('a/b', safe='')}...main?limit=1")
    assert back["checkpoints"][0]["counts"] == one["counts"]
    assert len(back["checkpoints"][0]["tensors"]) == 1
    none = await alice.ok("GET", f"{path}/tensors/main...main")
    assert (none["checkpoints"], none["complete"]) == ([], True)


async def test_new_gone_and_broken(each_api: ApiServer, alice: Caller, tmp_path: Path) -> None:
    path = await each_api.repository(alice, "tiny")
    start = (await alice.ok("GET", f"{path}/branches/main"))["oid"]
    whole = await push(each_api, alice, path, weights(tmp_path, BASE))
    for base, head, kind, (old, new) in (
        (start, whole, "added", (None, FILE)),
        (whole, start, "removed", (FILE, None)),
    ):
        found = await alice.ok("GET", f"{path}/tensors/{base}...{head}?limit=3")
        assert found["complete"]
        [one] = found["checkpoints"]
        assert (one["before"], one["after"]) == (old, new)
        assert one["counts"][kind] == 40
        assert [change["kinds"] for change in one["tensors"]] == [[kind]] * 3
    before = await push(each_api, alice, path, GgufBytes().file(), file="model.gguf")
    # Gates let pass what is newer than the server.
    await push(each_api, alice, path, GgufBytes(version=9).file(), file="model.gguf")
    found = await alice.ok("GET", f"{path}/tensors/{before}...main")
    assert found["complete"]
    assert found["checkpoints"][0]["problem"] == "model.gguf cannot be understood; its metadata says why"


async def test_who_may_not_know(each_api: ApiServer, alice: Caller, tmp_path: Path) -> None:
    path = await each_api.repository(alice, "tiny")
    base = await push(each_api, alice, path, weights(tmp_path, BASE))
    url = f"{path}/tensors/{base}...main"
    bob = await each_api.user("bob")
    assert (await bob("GET", url)).code == "repository_not_found"
    assert (await each_api.anonymous("GET", url)).status == 401
    for wrong in (f"{base}...nothing", f"nothing...{base}", f"{'0' * 40}...main"):
        assert (await alice("GET", f"{path}/tensors/{wrong}")).code == "revision_not_found"
    for query in ("limit=-1", "limit=20001", "limit=x", "unknown=1"):
        assert (await alice("GET", f"{url}?{query}")).status == 422
