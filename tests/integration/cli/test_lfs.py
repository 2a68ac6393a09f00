"""`modelyard lfs …`, run as an administrator runs it."""

import asyncio
from pathlib import Path

import pytest

from core.access import SYSTEM, Permission
from core.names import parse_address
from core.settings import load_settings
from gitserver.commits import Put
from lfs.pointer import Pointer, write_pointer
from modelyard.services import open_services
from tests.support.lfs_world import oid_of
from tests.support.minio_server import MinioServer
from tests.support.program import Program
from tests.support.streams import pieces

AT_ONCE = {"MODELYARD_LFS__UNREFERENCED_DAYS": "0", "MODELYARD_LFS__TRASH_DAYS": "0"}
NOBODY = "0" * 64


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """An installation whose ann/model uses `used`, and has `unused` as well."""
    program = Program(tmp_path / "data", tmp_path)
    program.done("user", "create", "ann", "--no-password")
    program.done("repo", "create", "ann/model")
    upload(program, "ann/model", b"used", commit=True)
    upload(program, "ann/model", b"unused")
    return program


def upload(program: Program, path: str, data: bytes, *, commit: bool = False) -> str:
    """Uploads bytes in this process, and commits a pointer to them."""

    async def work() -> None:
        settings = load_settings(
            environ=program.environment, overrides={"server": {"data": str(program.data)}}
        )
        async with open_services(settings) as services:
            repository = await services.repositories.open(SYSTEM, parse_address(path), Permission.WRITE)
            await services.large_files.uploads.receive(
                repository.id, SYSTEM, oid_of(data), len(data), pieces(data)
            )
            if commit:
                pointer = write_pointer(Pointer(oid_of(data), len(data)))
                await services.committer.commit(repository, SYSTEM, "main", [Put("w.bin", pointer)], "add")

    asyncio.run(work())
    return oid_of(data)


def hurried(program: Program) -> Program:
    """The same where nothing waits."""
    return Program(program.data, program.directory, {**program.environment, **AT_ONCE})


def stored(program: Program) -> list[Path]:
    assert program.data is not None
    return sorted(path for path in (program.data / "objects/data/lfs").rglob("*") if path.is_file())


def test_from_use_to_the_end(program: Program) -> None:
    now = hurried(program)
    used, unused = oid_of(b"used"), oid_of(b"unused")
    assert program.json("lfs", "gc", "--dry-run")["repositories"][0]["links"] == {
        "referenced": {"objects": 1, "bytes": 4},
        "young": {"objects": 1, "bytes": 6},
    }
    plan = now.json("lfs", "gc", "--dry-run")
    assert plan["stores"][0]["held"] == {"objects": 2, "bytes": 10}
    assert plan["stores"][0]["reasons"] == {
        "referenced": {"objects": 1, "bytes": 4},
        "to_trash": {"objects": 1, "bytes": 6},
    }
    said = now.done("lfs", "gc", "--dry-run").out
    assert "ann/model\n" in said
    assert "not in use: goes to the trash" in said
    assert "all together" in said
    assert len(stored(program)) == 2

    done = Program(program.data, program.directory, {"MODELYARD_LFS__UNREFERENCED_DAYS": "0"}).json(
        "lfs", "gc"
    )
    assert [(one["path"], one["trashed"]) for one in done["repositories"]] == [("ann/model", 1)]
    (row,) = program.json("lfs", "trash", "ann/model")
    assert (row["oid"], row["size"]) == (unused, 6)
    until = program.json("lfs", "gc", "--dry-run")["repositories"][0]["trash_until"]
    assert until == {row["until"][:10]: {"objects": 1, "bytes": 6}}
    assert program.json("lfs", "trash") == []
    usage = program.json("lfs", "usage", "ann/model")
    assert (usage["bytes"], usage["trashed_bytes"]) == (4, 6)

    assert program.json("lfs", "restore", "ann/model", unused)["restored"] == 1
    now.done("lfs", "gc")
    assert program.done("lfs", "restore", "ann/model", "--all").out == "restored 1 objects to ann/model\n"
    now.done("lfs", "gc")
    assert "deleted 1 objects (6 bytes)" in now.done("lfs", "gc").out
    assert [path.name[:64] for path in stored(program)] == [used]
    actions = {entry["action"] for entry in program.json("audit", "list")}
    assert {"lfs:gc", "lfs:trash", "lfs:restore", "lfs:purge"} <= actions
    program.done("lfs", "fsck")


def test_what_a_deleted_repository_had(program: Program) -> None:
    program.done("repo", "create", "ann/other")
    program.done("repo", "delete", "ann/model", "--yes")
    program.done("lfs", "gc")
    rows = program.json("lfs", "trash")
    assert {row["oid"] for row in rows} == {oid_of(b"used"), oid_of(b"unused")}
    program.run("lfs", "restore", "ann/other", oid_of(b"used")).refused("not in this trash")
    restored = program.json("lfs", "restore", "ann/other", oid_of(b"used"), "--unlinked")
    assert restored == {"path": "ann/other", "restored": 1}
    assert program.json("lfs", "usage", "ann/other")["bytes"] == 4


def test_gc_names_what_it_cannot_read(program: Program) -> None:
    program.done("repo", "create", "ann/other")
    upload(program, "ann/other", b"rubbish")
    assert program.data is not None
    for folder in (program.data / "objects/data/git", program.data / "cache"):
        for file in folder.rglob("*.pack"):
            file.unlink()
    outcome = hurried(program).run("lfs", "gc")
    assert outcome.status == 1
    assert outcome.err.startswith("modelyard: ann/model: ")
    assert "trashed 1 objects (7 bytes)" in outcome.out
    assert program.json("lfs", "trash", "ann/model") == []


def test_fsck(program: Program) -> None:
    assert program.done("lfs", "fsck").out == "checked 2 objects, 10 bytes: all sound\n"
    file = next(path for path in stored(program) if path.name.startswith(oid_of(b"used")))
    file.chmod(0o600)
    file.write_bytes(b"USED")
    outcome = program.run("lfs", "fsck", "ann/model")
    assert (outcome.status, outcome.err) == (1, "modelyard: 1 of 2 objects are not sound\n")
    assert outcome.out.startswith(f"{oid_of(b'used')}  wrong_bytes  local  ")
    (finding,) = program.run("lfs", "fsck", "--oid", oid_of(b"used"), "--json").json["findings"]
    assert finding["problem"] == "wrong_bytes"
    program.done("lfs", "fsck", "--oid", oid_of(b"unused"))
    file.write_bytes(b"used")
    assert "1 of them whole again" in program.done("lfs", "fsck").out


def test_migrating_to_minio_and_back(program: Program, tmp_path: Path) -> None:
    with MinioServer(tmp_path / "minio") as minio:
        environment = minio.environment(bucket="moving")
        del environment["MODELYARD_STORAGE__KIND"]
        both = Program(program.data, program.directory, environment)
        outcome = both.done("lfs", "migrate-store", "--to", "minio")
        assert outcome.out == (
            "moved 2 objects, 10 bytes, to minio\n"
            'new objects still go to local: set [lfs] store = "minio" and restart\n'
        )
        both.done("lfs", "fsck")
        reasons = {one["store"]: one["reasons"] for one in both.json("lfs", "gc", "--dry-run")["stores"]}
        assert reasons["local"] == {"replaced": {"objects": 2, "bytes": 10}}
        assert reasons["minio"]["referenced"] == {"objects": 1, "bytes": 4}
        switched = Program(program.data, program.directory, {**environment, "MODELYARD_LFS__STORE": "minio"})
        assert switched.json("lfs", "migrate-store", "--to", "minio")["objects"] == 0
        assert both.json("lfs", "migrate-store", "--to", "local")["objects"] == 2
        both.done("lfs", "fsck")
    program.run("lfs", "migrate-store", "--to", "minio").refused("does not describe")


def test_usage_and_quotas(program: Program) -> None:
    program.done("repo", "create", "ann/empty")
    assert [row["path"] for row in program.json("lfs", "usage")] == ["ann/model"]
    assert program.json("lfs", "usage", "ann/empty")["bytes"] == 0
    owner = program.json("lfs", "usage", "ann")
    assert (owner["bytes"], owner["objects"], owner["quota_bytes"]) == (10, 2, None)
    assert program.done("lfs", "quota", "ann").out == "the quota of ann is no limit\n"
    assert program.json("lfs", "quota", "ann", "5GiB")["quota_bytes"] == 5 * 1024**3
    assert program.json("lfs", "usage", "ann")["quota_bytes"] == 5 * 1024**3
    assert program.json("lfs", "quota", "ann", "none")["quota_bytes"] is None
    assert program.json("lfs", "quota", "ann", "12")["quota_bytes"] == 12
    assert program.json("lfs", "quota", "ann", "default")["quota_bytes"] is None
    program.run("lfs", "quota", "nobody", "1").refused("no such account")


def test_refusals(program: Program) -> None:
    program.run("lfs", "restore", "ann/model").refused("OID", status=2)
    program.run("lfs", "restore", "ann/model", NOBODY, "--all").refused("OID", status=2)
    program.run("lfs", "restore", "ann/model", "ABC").refused("hexadecimal", status=2)
    program.run("lfs", "restore", "ann/model", NOBODY).refused("not in this trash")
    program.run("lfs", "restore", "ann/nothing", NOBODY).refused("no such repository")
    program.run("lfs", "fsck", "--oid", "x").refused("hexadecimal", status=2)
    program.run("lfs", "quota", "ann", "much").refused("number of bytes", status=2)
    program.run("lfs", "quota", "ann", "9999999999999999999").refused("quota")
    program.run("lfs", "trash", "ann/nothing").refused("no such repository")
    program.run("lfs", "gc", "--repo", "ann/nothing").refused("no such repository")
