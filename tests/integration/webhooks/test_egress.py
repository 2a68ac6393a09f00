"""Where deliveries do not go: private addresses by whatever way, redirects, proxies, strangers."""

import asyncio
import ssl
from pathlib import Path

import pytest

from core.database import Database
from modelyard.tls import write_self_signed
from tests.support.webhook_receiver import Receiver, answering, running_receiver
from tests.support.webhook_world import webhook_settings, webhook_world
from webhooks.destinations import Destinations
from webhooks.egress import Egress
from webhooks.errors import DestinationRefused
from webhooks.outcomes import Outcome
from webhooks.sending import Sender


class Names:
    """A name server with an answer for each time it is asked; the last one stays."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "169.254.169.254", "2130706433", "0177.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]"],
)
async def test_private_addresses_are_refused_at_once(database: Database, host: str) -> None:
    async with webhook_world(database, allowed_networks=(), allow_http=True) as world:
        for scheme in ("http", "https"):
            with pytest.raises(DestinationRefused) as refused:
                await world.subscribe(f"{scheme}://{host}:8080/latest/meta-data/")
            assert (refused.value.status, refused.value.code) == (422, "webhook_destination_refused")
        assert await world.notifying.subscriptions.list(world.ann, world.scope) == []
        webhook_id, _ = await world.subscribe("https://hooks.example.org/")
        with pytest.raises(DestinationRefused):
            await world.notifying.subscriptions.update(
                world.ann, world.scope, webhook_id, url=f"https://{host}/"
            )


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["10.0.0.1"],
    ],
)
async def test_names_of_private_addresses(
    database: Database, receiver: Receiver, addresses: list[str]
) -> None:
    names = Names(addresses)
    async with webhook_world(database, resolve=names, allowed_networks=(), allow_http=True) as world:
        await world.subscribe(f"http://hooks.example.org:{receiver.port}/")
        await world.happen(1)
        await world.tell()
        attempt = (await world.attempts())[0]
        assert attempt.outcome == Outcome.REFUSED
        assert attempt.error is not None
        bad = addresses[-1].removeprefix("::ffff:")
        assert attempt.error.startswith(f"hooks.example.org leads to {bad}, which is ")
        assert attempt.error.endswith("not in [webhooks] allowed_networks")
        assert attempt.status is None
    assert receiver.requests == []


async def test_a_name_that_changes_its_mind(database: Database, receiver: Receiver) -> None:
    """The address that was judged is the one that is connected to, and it is judged anew each time."""
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    async with webhook_world(
        database, resolve=names, allowed_networks=("127.0.0.1/32",), allow_http=True
    ) as world:
        await world.subscribe(f"http://hooks.example.org:{receiver.port}/")
        await world.happen(1)
        assert await world.tell() == 1
        assert names.asked == ["hooks.example.org"], "asked once, so nobody could answer otherwise"
        (got,) = receiver.requests
        assert got.headers["Host"] == f"hooks.example.org:{receiver.port}"
        await world.happen(2)
        await world.tell()
        assert len(receiver.requests) == 1
        first, second = (await world.attempts())[:2]
        assert (first.outcome, first.address) == (Outcome.DELIVERED, "127.0.0.1")
        assert (second.outcome, second.address) == (Outcome.REFUSED, None)
        assert "127.0.0.2" in str(second.error)


async def test_what_was_allowed_once(database: Database, receiver: Receiver) -> None:
    async with webhook_world(database) as world:
        await world.subscribe(receiver)
        strict = Egress(Destinations(webhook_settings(allowed_networks=(), allow_http=True)))
        answer = await Sender(strict, 1.0).send(receiver.url, {}, b"{}")
        await strict.close()
    assert answer.outcome is Outcome.REFUSED
    assert receiver.requests == []


async def test_redirects_are_not_followed(database: Database, receiver: Receiver) -> None:
    async with webhook_world(database) as world, running_receiver() as inner:
        webhook_id, _ = await world.subscribe(receiver)
        for status in (301, 302, 303, 307, 308):
            receiver.behave = answering(status, headers={"Location": inner.url})
            await world.notifying.subscriptions.ping(world.ann, world.scope, webhook_id)
            await world.notifying.deliveries.run_due()
        assert inner.requests == []
        attempts = await world.attempts()
        assert {one.outcome for one in attempts} == {Outcome.REDIRECTED}
        assert all("not followed" in str(one.error) for one in attempts)


async def test_no_proxy_no_cookies_no_netrc(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with webhook_world(database) as world, running_receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.base)
        receiver.behave = answering(200, headers={"Set-Cookie": "a=b; Path=/"})
        await world.subscribe(receiver)
        for number in range(2):
            await world.happen(number)
        await world.tell()
        assert proxy.requests == []
        assert len(receiver.requests) == 2
        for one in receiver.requests:
            assert not {"Cookie", "Authorization", "Proxy-Authorization"} & {*one.headers}


async def test_certificates_are_checked_by_name(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_self_signed(cert, key, ["hooks.example.org"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    names = Names(["127.0.0.1"])
    async with running_receiver(context=context) as receiver:
        async with webhook_world(database, resolve=names, timeout_seconds=5.0) as world:
            await world.subscribe(f"https://hooks.example.org:{receiver.port}/")
            await world.happen(1)
            await world.tell()
            attempt = (await world.attempts())[0]
            assert attempt.outcome == Outcome.UNREACHABLE
            assert "certificate" in str(attempt.error).lower()
            assert receiver.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        egress = Egress(Destinations(webhook_settings()), resolve=names)
        sender = Sender(egress, 5.0)
        url = f"https://hooks.example.org:{receiver.port}/a?b"
        trusted = await sender.send(url, {"X-A": "b"}, b"{}")
        other = await sender.send(url.replace("hooks.", "other."), {}, b"{}")
        literal = await sender.send(url.replace("hooks.example.org", "127.0.0.1"), {}, b"{}")
        await egress.close()
        assert (trusted.outcome, trusted.address) == (Outcome.DELIVERED, "127.0.0.1"), trusted
        assert [other.outcome, literal.outcome] == [Outcome.UNREACHABLE] * 2
        (got,) = receiver.requests
        assert (got.path, got.headers["X-A"]) == ("/a?b", "b")


async def test_the_next_address_is_tried_when_nobody_is_there(receiver: Receiver) -> None:
    names = Names(["127.0.0.2", "127.0.0.1"])
    egress = Egress(Destinations(webhook_settings(allow_http=True)), resolve=names)
    answer = await Sender(egress, 5.0).send(f"http://hooks.example.org:{receiver.port}/", {}, b"{}")
    await egress.close()
    assert (answer.outcome, answer.address) == (Outcome.DELIVERED, "127.0.0.1")


async def test_the_names_of_the_system(receiver: Receiver) -> None:
    egress = Egress(Destinations(webhook_settings(allowed_networks=("127.0.0.0/8", "::1/128"))))
    sender = Sender(egress, 20.0)
    local = await sender.send(f"http://localhost:{receiver.port}/", {}, b"{}")
    unknown = await sender.send("https://no-such-name.invalid/", {}, b"{}")
    await egress.close()
    assert local.outcome is Outcome.DELIVERED
    assert unknown.outcome is Outcome.UNREACHABLE
    assert "cannot be resolved" in str(unknown.error)


async def test_a_slow_name_server_is_a_time_out() -> None:
    async def slow(host: str, port: int) -> list[str]:
        await asyncio.sleep(300)
        return []

    egress = Egress(Destinations(webhook_settings()), resolve=slow)
    answer = await Sender(egress, 0.1).send("https://hooks.example.org/", {}, b"{}")
    await egress.close()
    assert answer.outcome is Outcome.TIMEOUT
    assert answer.milliseconds < 60_000


HOSTILE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n",
    "nothing": b"",
    "a header without an end": b"HTTP/1.1 200 OK\r\nA: " + b"a" * 100_000,
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
    "a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "a body that is too short": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
    "bytes that are no text": b"HTTP/1.1 200 \xff\r\nServer: \xff\xfe\r\nContent-Length: 3\r\n\r\n\xff\0a",
    "compression that is none": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "an endless body": b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 2_000_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_hostile_answers(database: Database, kind: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HOSTILE[kind])
        try:
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except ConnectionError:
            pass  # it has read enough

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, webhook_world(database) as world:
        port = server.sockets[0].getsockname()[1]
        await world.subscribe(f"http://127.0.0.1:{port}/")
        await world.happen(1)
        await world.tell()
        attempt = (await world.attempts())[0]
        assert attempt.outcome in {Outcome.DELIVERED, Outcome.UNREACHABLE}
        assert attempt.response is None or len(attempt.response) <= 4096
        assert "\n" not in str(attempt.error)
        assert len(str(attempt.error)) <= 300
