"""The example consumer and `webhook listen`, told of real pushes by a real server."""

import asyncio
import json
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.support.printing_child import PrintingChild, printing_child
from tests.support.processes import wait_until
from tests.support.program import PROJECT, Program, start_forkserver
from tests.support.server import running_server
from tests.support.yard import Yard
from webhooks.sealing import new_secret

CONSUMER = PROJECT / "examples" / "webhook_consumer.py"
SETTINGS = {
    "MODELYARD_WEBHOOKS__ALLOWED_NETWORKS": "127.0.0.0/8",
    "MODELYARD_WEBHOOKS__ALLOW_HTTP": "true",
    "MODELYARD_WEBHOOKS__POLL_SECONDS": "0.5",
}


@pytest.fixture(scope="session", autouse=True)
def forkserver() -> None:
    start_forkserver()


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("consumer")
    with running_server(folder / "server", env=SETTINGS) as server:
        yield asyncio.run(Yard.open(server, folder / "clients"))


@pytest.fixture
def program(yard: Yard) -> Program:
    """The command line beside the running server."""
    return Program(yard.data, yard.folder, SETTINGS)


@pytest.fixture
def secret() -> str:
    return new_secret()


@pytest.fixture
def consumer(program: Program, secret: str, tmp_path: Path) -> Iterator[PrintingChild]:
    command = [sys.executable, "-I", str(CONSUMER), "0"]
    environment = {**program.child_environment(), "WEBHOOK_SECRET": secret}
    with printing_child(command, tmp_path / "consumer", environment, cwd=tmp_path) as child:
        yield child


def push(yard: Yard, path: str) -> str:
    """Pushes a commit to `main`; returns its id."""
    git = yard.git(yard.new_folder())
    git("init", "-q", "-b", "main")
    git.commit({"README.md": "# hello\n"})
    git("push", "-q", yard.url(path), "main")
    return git("rev-parse", "HEAD").strip()


def status_of_length(url: str, length: str) -> int:
    """What is answered to a request that announces so many bytes."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.putrequest("POST", "/")
        connection.putheader("Content-Length", length)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


async def test_the_example_consumer_is_told_of_a_push(
    yard: Yard, program: Program, consumer: PrintingChild, secret: str
) -> None:
    assert len(CONSUMER.read_text().splitlines()) < 60
    path = await yard.new_repository()
    create = ("webhook", "create", path, consumer.url, "--event", "push", "--secret-stdin")
    made = await asyncio.to_thread(program.run, *create, stdin=f"{secret}\n")
    assert made.out == f"{secret}\n"
    commit = await asyncio.to_thread(push, yard, path)
    (line,) = await asyncio.to_thread(consumer.wait_for, 1)
    said, delivery, told = line.split(" ", 2)
    assert (said, delivery[:4]) == ("verified", "msg_")
    body = json.loads(told)
    assert (body["type"], body["actor"], body["repository"]["path"]) == ("push", "ann", path)
    assert [one["new"] for one in body["data"]["updates"]] == [commit]

    # The same one again is printed once, and what is not signed is not printed at all.
    found = (await asyncio.to_thread(program.run, "webhook", "list", path)).rows[0][0]
    await asyncio.to_thread(program.done, "webhook", "redeliver", path, found, delivery)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
    for forged in (headers, {}):
        answer = await asyncio.to_thread(requests.post, consumer.url, data=b"{}", headers=forged, timeout=30)
        assert answer.status_code == 401
    assert await asyncio.to_thread(status_of_length, consumer.url, f"{0:012}99999999999") == 413
    pinged = (await asyncio.to_thread(program.run, "webhook", "ping", path, found, "--json")).json
    assert (pinged["outcome"], pinged["status"]) == ("delivered", 204)
    lines = await asyncio.to_thread(consumer.wait_for, 2)
    assert [json.loads(one.split(" ", 2)[2])["type"] for one in lines] == ["push", "ping"]

    def came_twice() -> bool:
        history = program.json("webhook", "delivery", path, found, delivery)["history"]
        return [one["status"] for one in history] == [204, 204]

    await asyncio.to_thread(wait_until, came_twice, "the push came twice")


async def test_listen_and_test(yard: Yard, program: Program, secret: str, tmp_path: Path) -> None:
    path = await yard.new_repository()
    command = program.command("webhook", "listen", "--port", "0", "--json")
    environment = {**program.child_environment(), "WEBHOOK_SECRET": secret}
    with printing_child(command, tmp_path / "listener", environment, cwd=PROJECT) as listener:
        create = ("webhook", "create", path, listener.url, "--secret-stdin", "--json")
        made = (await asyncio.to_thread(program.run, *create, stdin=f"{secret}\n")).json
        tried = ("webhook", "test", "training.requested", path, str(made["id"]))
        assert (await asyncio.to_thread(program.json, *tried))["outcome"] == "delivered"
        (line,) = await asyncio.to_thread(listener.wait_for, 1)
        seen = json.loads(line)
        assert (seen["event"], seen["verified"], seen["answered"]) == ("training.requested", True, 200)
        assert seen["body"]["test"] is True
        assert seen["body"]["repository"]["path"] == path
        commit = await asyncio.to_thread(push, yard, path)
        lines = [json.loads(one) for one in await asyncio.to_thread(listener.wait_for, 3)]
        assert all(one["verified"] for one in lines)
        assert commit in str(lines[1:])
        assert await asyncio.to_thread(listener.end) == 0
