"""`modelyard webhook …`, run as an administrator runs it, without a server."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest
import requests

from core.outbox import EventName
from tests.support.printing_child import PrintingChild, printing_child
from tests.support.program import PROJECT, Outcome, Program
from tests.support.webhook_receiver import Receiver, answering, running_receiver
from webhooks.sealing import new_secret
from webhooks.signing import headers

URL = "https://receiver.invalid/hook"
LOOPBACK = {"MODELYARD_WEBHOOKS__ALLOWED_NETWORKS": "127.0.0.0/8"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """An installation with ann/net, whose webhooks may go to this machine and are dead when they fail."""
    directory = tmp_path_factory.mktemp("installation")
    program = Program(directory / "data", directory, {**LOOPBACK, "MODELYARD_WEBHOOKS__RETRY_HOURS": "0"})
    program.done("user", "create", "ann", "--no-password")
    program.done("repo", "create", "ann/net")
    return program


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


def make(program: Program, where: str, url: str = URL, *options: str) -> tuple[str, str]:
    """A webhook: its id and its secret."""
    made = program.json("webhook", "create", where, url, *options)
    return str(made["id"]), made["secret"]


@pytest.mark.parametrize("where", ["ann/net", "ann", "server"])
def test_the_life_of_a_webhook(program: Program, where: str) -> None:
    made = program.done("webhook", "create", where, URL, "--event", "push", "--event", "run.*", "--name", "x")
    assert made.out.startswith("whsec_")
    assert made.out.count("\n") == 1, "the secret alone"
    shown = program.json("webhook", "list", where)[-1]
    number = str(shown["id"])
    assert (shown["target"], shown["events"], shown["name"]) == (where, ["push", "run.*"], "x")
    assert program.json("webhook", "show", where, number) == shown
    changed = program.json("webhook", "update", where, number, "--event", "*")
    assert (changed["events"], changed["url"]) == (["*"], URL)
    rotated = program.done("webhook", "rotate", where, number, "--keep-hours", "1")
    assert rotated.out.startswith("whsec_")
    assert rotated.out != made.out
    assert program.json("webhook", "show", where, number)["secrets"] == 2
    program.done("webhook", "pause", where, number)
    program.run("webhook", "ping", where, number).refused("paused")
    program.done("webhook", "resume", where, number)
    program.done("webhook", "delete", where, number, "--yes")
    program.run("webhook", "show", where, number).refused("no such webhook")


def test_what_is_refused(program: Program) -> None:
    for arguments, reason in {
        ("create", "ann/nothing", URL): "no such repository",
        ("create", "nobody", URL): "no such account",
        ("create", "ann/net", "https://10.0.0.1/"): "allowed_networks",
        ("create", "ann/net", URL, "--event", "pushed"): "there is no event pushed",
        ("ping", "ann/net", "999"): "no such webhook",
        ("delivery", "ann/net", "999", "msg_x"): "no such webhook",
    }.items():
        program.run("webhook", *arguments).refused(reason)
    program.run("webhook", "create", "ann/net", URL, "--secret-stdin", stdin="x\n").refused("whsec_")
    for wrong in (
        ("test", "push"),
        ("test", "push", "ann/net"),
        ("test", "push", "ann/net", "1", "--url", URL),
        ("test", "pushed", "ann/net", "1"),
        ("redeliver", "ann/net", "1"),
        ("redeliver", "ann/net", "1", "msg_x", "--since", "2026-01-01"),
        ("redeliver", "ann/net", "1", "--since", "yesterday"),
        ("deliveries", "ann/net", "--since", "0001-01-01T00:00+01:00", "--until", "x"),
        ("delete", "ann/net", "1"),
    ):
        assert program.run("webhook", *wrong).status == 2, wrong
    assert program.json("webhook", "list", "ann/net") == []


async def run(program: Program, *arguments: str) -> Outcome:
    return await asyncio.to_thread(program.run, *arguments)


async def test_a_receiver_is_tried_out_and_its_deliveries_are_kept(
    program: Program, receiver: Receiver
) -> None:
    number, secret = await asyncio.to_thread(make, program, "ann/net", receiver.url, "--event", "push")
    pinged = (await run(program, "webhook", "ping", "ann/net", number, "--json")).json
    assert (pinged["outcome"], pinged["status"]) == ("delivered", 200)
    receiver.behave = answering(500, text="out of \x1b[31morder")
    failed = await run(program, "webhook", "test", "run.failed", "ann/net", number)
    assert (failed.status, failed.err) == (1, "modelyard: the receiver answered 500\n")
    assert "out of \ufffd[31morder" in failed.out
    receiver.behave = answering(200)
    assert [one.event for one in receiver.requests] == ["ping", "run.failed"]
    for request in receiver.requests:
        request.verify(secret)

    listed = (await run(program, "webhook", "deliveries", "ann/net", number, "--json")).json
    assert [one["state"] for one in listed] == ["dead", "delivered"]
    dead = (await run(program, "webhook", "deliveries", "ann/net", "--state", "dead")).rows
    assert [(row[0], row[2]) for row in dead] == [(listed[0]["id"], "run.failed")]
    whole = (await run(program, "webhook", "delivery", "ann/net", number, listed[0]["id"], "--json")).json
    assert whole["body"].encode() == receiver.requests[1].body
    assert [one["status"] for one in whole["history"]] == [500]
    text = (await run(program, "webhook", "delivery", "ann/net", number, listed[0]["id"])).out
    assert "the receiver answered 500" in text

    again = await run(program, "webhook", "redeliver", "ann/net", number, listed[0]["id"])
    assert again.out == "queued 1 deliveries\n"
    assert len(receiver.requests) == 2, "there is no server that would send it"
    await run(program, "webhook", "cancel", "ann/net", number, listed[0]["id"])
    since = ("redeliver", "ann/net", number, "--since", "2020-01-01")
    assert (await run(program, "webhook", *since, "--json")).json["deliveries"] == 1
    assert (await run(program, "webhook", *since, "--state", "delivered")).out == "queued 1 deliveries\n"


async def test_a_ping_waits_for_earlier_ones(program: Program, receiver: Receiver) -> None:
    number, _ = await asyncio.to_thread(make, program, "server", receiver.url)
    patient = Program(
        program.data,
        program.directory,
        {**LOOPBACK, "MODELYARD_WEBHOOKS__TIMEOUT_SECONDS": "0.5", "MODELYARD_WEBHOOKS__POLL_SECONDS": "0.1"},
    )
    receiver.behave = answering(503)
    assert (await run(patient, "webhook", "ping", "server", number)).status == 1
    waiting = await run(patient, "webhook", "ping", "server", number)
    assert (waiting.status, "earlier deliveries" in waiting.err) == (1, True)
    assert len(receiver.requests) == 1
    await run(program, "webhook", "delete", "server", number, "--yes")


async def test_an_example_for_a_url(program: Program, receiver: Receiver) -> None:
    secret = new_secret()
    for name in EventName:
        if name in (EventName.PUSH, EventName.PING):
            sent = await run(program, "webhook", "test", name, "--url", receiver.url, "--secret", secret)
            assert (sent.status, sent.err) == (0, "")
            receiver.requests[-1].verify(secret)
            assert (receiver.requests[-1].event, receiver.requests[-1].json["test"]) == (name, True)
    strict = Program(program.data, program.directory)
    refused = await run(strict, "webhook", "test", "push", "--url", receiver.url, "--json")
    assert (refused.status, refused.json["outcome"]) == (1, "refused")
    assert "allowed_networks" in refused.err
    assert len(receiver.requests) == 2
    assert (await run(program, "webhook", "test", "push", "--url", URL, "--secret", "x")).status == 1


def test_the_catalogue(untouched: Program) -> None:
    assert [row[0] for row in untouched.done("webhook", "events").rows] == list(EventName)
    assert '"type": "training.requested"' in untouched.done("webhook", "events", "training.requested").out
    shown = untouched.json("webhook", "events", "push")
    assert (shown["name"], shown["example"]["type"]) == ("push", "push")
    assert untouched.data is not None
    assert not untouched.data.exists(), "it needs no installation"


# -- listen ------------------------------------------------------------------------------------------


Listen: TypeAlias = Callable[..., PrintingChild]


@pytest.fixture
def listen(program: Program, tmp_path: Path) -> Iterator[Listen]:
    """Starts `webhook listen` with options, on a free port."""
    with ExitStack() as stack:

        def start(*options: str, by: Program = program) -> PrintingChild:
            command = by.command("webhook", "listen", "--port", "0", *options)
            child = printing_child(command, tmp_path / "listener", by.child_environment(), cwd=PROJECT)
            return stack.enter_context(child)

        yield start


def send(child: PrintingChild, secret: str, body: bytes = b"{}", **changes: str) -> int:
    """A signed delivery, after the changes to its headers; returns the status of the answer."""
    signed = headers(
        [secret], delivery_id="msg_1", timestamp=int(time.time()), event="push", attempt=1, body=body
    )
    changed = {**signed, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return requests.post(child.url, data=body, headers=changed, timeout=60).status_code


def test_listening(program: Program, listen: Listen) -> None:
    secret = new_secret()
    child = listen("--secret", secret)
    program.done("webhook", "test", "training.requested", "--url", child.url, "--secret", secret)
    lines = child.wait_for(5)
    assert lines[0].startswith("training.requested  msg_")
    assert lines[0].endswith("  attempt 1  verified  answered 200\n")
    assert lines[1] == "{\n"
    assert '  "type": "training.requested",\n' in lines
    busy = program.run("webhook", "listen", "--port", child.url.rstrip("/").rpartition(":")[2])
    busy.refused("in use")
    assert (child.end(), child.err.read_text()) == (0, "")


def test_what_listening_makes_of_deliveries(listen: Listen) -> None:
    secret = new_secret()
    child = listen("--secret", secret, "--json", "--status", "410")
    assert send(child, secret, b'{"a": [1]}') == 410
    assert send(child, new_secret()) == 410
    assert send(child, secret, webhook_timestamp="1700000000") == 410
    assert send(child, secret, webhook_timestamp="x") == 410
    assert send(child, secret, webhook_id="msg_2") == 410
    both = headers(
        [new_secret(), secret], delivery_id="msg_1", timestamp=int(time.time()), event="", attempt=1, body=b""
    )
    assert send(child, secret, b"", webhook_signature=both["webhook-signature"]) == 410
    seen = [json.loads(line) for line in child.wait_for(6)]
    assert [one["verified"] for one in seen] == [True, False, False, False, False, True]
    assert (seen[0]["body"], seen[0]["answered"], seen[0]["objection"]) == ({"a": [1]}, 410, None)
    assert seen[1]["objection"] == "no signature is of this secret"
    assert "seconds away" in seen[2]["objection"]


def test_nothing_that_is_received_moves_the_terminal(program: Program, listen: Listen) -> None:
    by = Program(program.data, program.directory)
    child = listen("--fail", "1", by=by)
    assert "allowed_networks" in child.err.read_text(), "this configuration sends nothing here"
    hostile = '{"a": "\\u001b[2J\u009b2J\u202e", "b": 1e999}'.encode()
    for body in (hostile, b"\xff\x1b[2J", b"[" * 100_000, b"1" * 400, b'"\\ud800"'):
        assert send(child, new_secret(), body, X_Modelyard_Event="push\x9b2J") == 500
    child.wait_for(5)
    text = child.out.read_text()
    assert text.count("  not checked  answered 500\n") == 5
    assert all(one.isprintable() or one == "\n" for one in text)
    assert child.end() == 0
