"""What no honest client sends, byte by byte, over HTTP and SSH.

Each case: a clean error that a client would show, nothing changed, no process and no quarantine left.
"""

import asyncio
import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.git import Git
from tests.support.wire import (
    CAPABILITIES,
    ZERO,
    Answer,
    PackBuilder,
    commit_body,
    copy_delta,
    pkt,
    push_request,
    read_report,
    simple_commit,
    tree_body,
    varint,
)
from tests.support.yard import Yard

MAIN = "refs/heads/main"


@dataclass
class Target:
    """One repository with one commit on main, reached over one transport."""

    yard: Yard
    path: str
    head: str
    transport: str

    async def send(self, body: bytes, *, length: int | None = None) -> Answer:
        if self.transport == "http":
            return await self.yard.post(self.path, "git-receive-pack", body, length=length)
        return await self.yard.ssh_raw(f"git-receive-pack '{self.path}'", body)

    async def refs(self) -> dict[str, str]:
        return await asyncio.to_thread(Git(self.yard.folder).refs, self.yard.url(self.path))

    async def unchanged(self) -> None:
        """Nothing moved, nothing is left behind."""
        refs = await self.refs()
        assert {name: oid for name, oid in refs.items() if name != "HEAD"} == {MAIN: self.head}
        await self.yard.quiet()


@pytest.fixture(params=["http", "ssh"])
async def target(request: pytest.FixtureRequest, yard: Yard) -> Target:
    path = await yard.new_repository()
    work = Git(await asyncio.to_thread(yard.new_folder))
    await asyncio.to_thread(work, "init", "-q", ".")
    head = await asyncio.to_thread(work.commit, {"a": "1\n"})
    await asyncio.to_thread(work, "push", "-q", yard.url(path), "main")
    return Target(yard, path, head, request.param)


async def refused(target: Target, body: bytes, reason: str, *, ref: str = MAIN) -> None:
    answer = await target.send(body)
    report = read_report(answer.body)
    assert reason in report.refs.get(ref, report.unpack), (report, answer.message)
    assert not report.ok
    await target.unchanged()


async def test_an_honest_push_by_hand_lands(target: Target) -> None:
    """Otherwise every refusal below would prove nothing."""
    pack = PackBuilder()
    tip = simple_commit(pack, content=b"by hand\n", parents=[target.head])
    report = read_report((await target.send(push_request([(target.head, tip, MAIN)], pack.build()))).body)
    assert report.ok, report
    assert (await target.refs())[MAIN] == tip


async def test_stale_old_value(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack, content=b"2\n")
    await refused(target, push_request([("1" * 40, tip, MAIN)], pack.build()), "fetch first")


async def test_create_over_existing(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack, content=b"2\n")
    await refused(target, push_request([(ZERO, tip, MAIN)], pack.build()), "reference already exists")


async def test_stale_delete(target: Target) -> None:
    branch = "refs/heads/side"
    body = push_request([("1" * 40, ZERO, branch)])
    await refused(target, body, "remote ref does not exist", ref=branch)


async def test_deleting_nothing(target: Target) -> None:
    branch = "refs/heads/side"
    await refused(target, push_request([(ZERO, ZERO, branch)]), "remote ref does not exist", ref=branch)


async def test_ref_to_a_missing_object(target: Target) -> None:
    body = push_request([(ZERO, "2" * 40, "refs/heads/x")], PackBuilder().build())
    await refused(target, body, "missing necessary objects", ref="refs/heads/x")


async def test_missing_parent(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack, parents=["3" * 40])
    answer = await target.send(push_request([(ZERO, tip, "refs/heads/x")], pack.build()))
    report = read_report(answer.body)
    assert not report.ok
    assert "3" * 40 in report.unpack or "missing necessary objects" in report.refs["refs/heads/x"], report
    await target.unchanged()


async def test_missing_blob(target: Target) -> None:
    pack = PackBuilder()
    tree = pack.add("tree", tree_body([("100644", "a", "4" * 40)]))
    tip = pack.add("commit", commit_body(tree))
    report = read_report((await target.send(push_request([(ZERO, tip, "refs/heads/x")], pack.build()))).body)
    assert not report.ok
    assert "4" * 40 in report.unpack or "missing necessary objects" in report.refs["refs/heads/x"], report
    await target.unchanged()


async def test_a_branch_must_name_a_commit(target: Target) -> None:
    pack = PackBuilder()
    blob = pack.add("blob", b"no commit")
    body = push_request([(ZERO, blob, "refs/heads/x")], pack.build())
    await refused(target, body, "must name a commit", ref="refs/heads/x")


async def test_truncated_pack(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack, content=bytes(range(256)) * 40)
    answer = await target.send(push_request([(target.head, tip, MAIN)], pack.build()[:-60]))
    report = read_report(answer.body)
    assert report.unpack not in ("", "ok"), (report, answer)
    assert report.refs == {MAIN: "unpacker error"}
    await target.unchanged()


async def test_corrupt_checksum(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack)
    data = pack.build()[:-20] + b"\0" * 20
    report = read_report((await target.send(push_request([(target.head, tip, MAIN)], data))).body)
    assert report.unpack not in ("", "ok"), report
    await target.unchanged()


async def test_count_of_objects_lies(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack)
    data = pack.build(count=4_000_000_000)
    report = read_report((await target.send(push_request([(target.head, tip, MAIN)], data))).body)
    assert report.unpack not in ("", "ok"), report
    await target.unchanged()


async def test_five_gigabytes_declared_and_one_kilobyte_sent(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack, content=random.Random(1).randbytes(4000))
    body = push_request([(target.head, tip, MAIN)], pack.build()[:1024])
    await target.send(body, length=5 * 1024**3)
    await target.unchanged()


async def test_delta_bomb(target: Target) -> None:
    """60 KB that unfold to 64 MB, then to far more than one object may weigh."""
    pack = PackBuilder()
    base = pack.add("blob", b"\0" * 60_000)
    first = copy_delta(60_000, copies=1100)
    size = 60_000 * 1100
    pack.add_ref_delta(base, first)
    middle = hashlib.sha1(f"blob {size}\0".encode() + b"\0" * size).hexdigest()
    # Copies of 64 KB parts of the middle: 3 bytes of instruction for 65,536 of output.
    second = _varints(size, 65_536 * 70_000) + b"\x80" * 70_000
    pack.add_ref_delta(middle, second)
    tree = pack.add("tree", tree_body([("100644", "a", middle)]))
    tip = pack.add("commit", commit_body(tree))
    report = read_report((await target.send(push_request([(ZERO, tip, "refs/heads/x")], pack.build()))).body)
    assert report.unpack not in ("", "ok"), report
    await target.unchanged()


def _varints(*numbers: int) -> bytes:
    return b"".join(varint(number) for number in numbers)


@pytest.mark.parametrize(
    "name",
    [
        "main", "HEAD", "refs/heads/..", "refs/heads/a..b", "refs/heads/a b", "refs/heads/a.lock",
        "refs/heads/.a", "refs/heads/a//b", "refs/heads/a/", "refs/heads/a~1", "refs/heads/a^",
        "refs/heads/a:b", "refs/heads/a?", "refs/heads/a*", "refs/heads/[a", "refs/heads/a\\b",
        "refs/heads/a@{1}", "refs/heads/\x07", "refs/x", "../refs/heads/a", "refs/../../etc/passwd",
        "refs/heads/" + "l" * 600, "refs/heads/a\x7f",
    ],
)  # fmt: skip
async def test_bad_ref_names(target: Target, name: str) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack)
    answer = await target.send(push_request([(ZERO, tip, name)], pack.build()))
    assert f"ng {name} funny refname\n".encode() in answer.body
    await target.unchanged()


async def test_ref_name_that_is_not_utf8(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack)
    line = f"{ZERO} {tip} refs/heads/".encode() + b"\xff\xfe" + f"\0 {CAPABILITIES}".encode()
    answer = await target.send(pkt(line) + b"0000" + b"0000" + pack.build())
    assert b"funny refname" in answer.body
    await target.unchanged()


async def test_file_against_directory(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack)
    body = push_request([(ZERO, tip, "refs/heads/main/x")], pack.build())
    await refused(target, body, "name conflicts", ref="refs/heads/main/x")


async def test_file_against_directory_within_one_push(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack)
    commands = [(ZERO, tip, "refs/heads/d/x"), (ZERO, tip, "refs/heads/d")]
    body = push_request(commands, pack.build(), capabilities="report-status side-band-64k")
    report = read_report((await target.send(body)).body)
    assert report.refs["refs/heads/d/x"] == "ok"
    assert "name conflicts" in report.refs["refs/heads/d"]


@pytest.mark.parametrize(
    "name", ["refs/pull/1/head", "refs/pr/7", "refs/convert/parquet", "refs/modelyard/x"]
)
async def test_hidden_names(target: Target, name: str) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack)
    await refused(target, push_request([(ZERO, tip, name)], pack.build()), "hidden ref", ref=name)


async def test_too_many_commands(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack)
    commands = [(ZERO, tip, f"refs/heads/b{number}") for number in range(20_000)]
    answer = await target.send(push_request(commands, pack.build()))
    assert b"push in parts" in answer.body + answer.message.encode(), answer.message
    await target.unchanged()


async def test_duplicate_commands(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack)
    commands = [(ZERO, tip, "refs/heads/x"), (ZERO, tip, "refs/heads/x")]
    await refused(target, push_request(commands, pack.build()), "multiple updates", ref="refs/heads/x")


@pytest.mark.parametrize(
    "body",
    [
        b"zzzz",
        b"0003",
        b"fff1" + b"a" * 100,
        b"00ff" + b"short",
        b"-001",
        b"0x10",
        b"0008abcd0000",
        b"\0\0\0\0",
    ],
)
async def test_pkt_line_lengths_lie(target: Target, body: bytes) -> None:
    answer = await target.send(body)
    assert answer.status not in (0, 200, 500), answer
    assert answer.message.strip(), "the client is told why"
    await target.unchanged()


async def test_unknown_capabilities_are_ignored(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack, parents=[target.head])
    body = push_request(
        [(target.head, tip, MAIN)], pack.build(), capabilities=f"{CAPABILITIES} fly-to-moon x=y"
    )
    assert read_report((await target.send(body)).body).ok


async def test_wrong_object_format(target: Target) -> None:
    body = push_request([("0" * 40, "1" * 40, MAIN)], capabilities="report-status object-format=sha256")
    answer = await target.send(body)
    assert b"this repository uses sha1" in answer.body + answer.message.encode()
    await target.unchanged()


async def test_atomic_is_all_or_nothing(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack)
    commands = [(ZERO, tip, "refs/heads/good"), ("1" * 40, tip, MAIN)]
    report = read_report((await target.send(push_request(commands, pack.build()))).body)
    assert report.refs["refs/heads/good"] != "ok"
    await target.unchanged()


async def test_without_atomic_the_good_half_lands(target: Target) -> None:
    pack = PackBuilder()
    tip = simple_commit(pack)
    commands = [(ZERO, tip, "refs/heads/good"), ("1" * 40, tip, MAIN)]
    body = push_request(commands, pack.build(), capabilities="report-status side-band-64k")
    report = read_report((await target.send(body)).body)
    assert report.refs["refs/heads/good"] == "ok"
    assert report.refs[MAIN] != "ok"


async def test_push_certificate_is_refused(target: Target) -> None:
    answer = await target.send(pkt(b"push-cert\0" + CAPABILITIES.encode()) + b"0000")
    assert b"signed pushes are not offered" in answer.body + answer.message.encode()
    await target.unchanged()


async def test_header_of_ten_megabytes(yard: Yard) -> None:
    path = await yard.new_repository()
    answer = await yard.post(path, "git-receive-pack", b"0000", headers=[("X-Big", "a" * 10_000_000)])
    assert answer.status in (0, 400, 431)
    await yard.quiet()


@pytest.mark.parametrize("protocol", ["version=2:evil", "version=9", "version=2\tx", "evil", ":" * 300])
async def test_protocol_header_is_no_way_into_the_environment(yard: Yard, protocol: str) -> None:
    path = await yard.new_repository()
    answer = await yard.post(path, "git-upload-pack", b"0000", headers=[("Git-Protocol", protocol)])
    assert answer.status in (200, 400)
    await yard.quiet()


@pytest.mark.parametrize(
    "body",
    [
        b"0011command=fetch0001" + pkt("want " + "f" * 40) + pkt("done") + b"0000",
        pkt("command=evil") + b"0000",
        pkt("command=ls-refs") + b"0001" + pkt("rm -rf") + b"0000",
        pkt("command=fetch") + pkt("object-format=sha256") + b"0000",
        pkt("command=fetch") + b"0001" + pkt("want-ref refs/heads/none") + pkt("done") + b"0000",
        pkt("command=fetch") + b"0001" + pkt("filter --upload-pack=evil") + pkt("done") + b"0000",
        b"00zz",
    ],
)
async def test_bad_fetch_requests(yard: Yard, body: bytes) -> None:
    path = await yard.new_repository()
    answer = await yard.post(path, "git-upload-pack", body, headers=[("Git-Protocol", "version=2")])
    assert answer.status == 400 or b"ERR" in answer.body, answer
    await yard.quiet()


def test_folder_of_quarantines_is_where_the_tests_look(yard: Yard) -> None:
    """`Yard.quiet` would find nothing if the folder had another name."""
    assert (Path(yard.data) / "cache" / "quarantine").is_dir()
