"""`modelyard webhook listen`: a receiver on this machine, for trying webhooks and rules out."""

import base64
import hmac
import random
import time
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import typer
from aiohttp import web

from core.errors import BadRequest
from modelyard.cli.framework import Invocation, Noun
from modelyard.cli.output import one_line
from modelyard.cli.settings import settings_of
from modelyard.cli.webhook_scopes import TrialSecret
from modelyard.stopping import Stop, signals
from webhooks.destinations import Destinations
from webhooks.errors import DestinationRefused
from webhooks.sealing import check_secret, key_of

_HOST = "127.0.0.1"
_MAX_BODY = 64 * 1024**2
# As Standard Webhooks has it: an old delivery may be one that somebody overheard.
_TOLERANCE_SECONDS = 300


def add_commands(noun: Noun) -> None:
    """Makes the commands of this module a part of `noun`."""
    noun.command("listen")(listen)


async def listen(
    context: typer.Context,
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0 picks a free one.")] = 8787,
    secret: TrialSecret = None,
    status: Annotated[int, typer.Option(metavar="CODE", min=200, max=599, help="What to answer.")] = 200,
    fail: Annotated[
        float, typer.Option(metavar="RATE", min=0, max=1, help="This share is answered with 500 instead.")
    ] = 0.0,
) -> None:
    """Receive deliveries on this machine and print them, until Ctrl-C.

    Without `--secret` no signature is checked. With `--json` each delivery is one line.
    """
    receiver = _Receiver(
        secret=check_secret(secret) if secret else None,
        status=status,
        fail=fail,
        as_json=Invocation.of(context).json,
    )
    app = web.Application(client_max_size=_MAX_BODY)
    app.router.add_post("/{path:.*}", receiver.receive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await _start(runner, port)
        url = f"http://{_HOST}:{runner.addresses[0][1]}/"
        try:
            Destinations(settings_of(context).webhooks).check(url)
        except DestinationRefused as refusal:
            typer.echo(
                f"modelyard: with this configuration nothing is sent here: {refusal.message}", err=True
            )
        receiver.show({"listening": url}, f"listening on {url}; Ctrl-C ends")
        stop = Stop()
        with signals(stop, stop.request):
            await stop.requested.wait()
    finally:
        await runner.cleanup()


async def _start(runner: web.AppRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, _HOST, port).start()
    except OSError as error:
        raise BadRequest(f"cannot listen on port {port}: {error.strerror}") from error


class _Receiver:
    def __init__(self, *, secret: str | None, status: int, fail: float, as_json: bool) -> None:
        self._secret = secret
        self._status = status
        self._fail = fail
        self._as_json = as_json

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        status = 500 if random.random() < self._fail else self._status  # noqa: S311 - a rehearsal
        objection = objection_to(self._secret, request.headers, body, time.time()) if self._secret else None
        verified = None if self._secret is None else objection is None
        document = {
            "event": _header(request, "X-Modelyard-Event"),
            "id": _header(request, "webhook-id"),
            "attempt": _header(request, "X-Modelyard-Attempt"),
            "verified": verified,
            "objection": objection,
            "answered": status,
        }
        checked = {None: "not checked", True: "verified", False: f"NOT VERIFIED: {objection}"}[verified]
        parsed, pretty = _read(body)
        self.show(
            {**document, "body": parsed},
            f"{document['event']}  {document['id']}  attempt {document['attempt']}  {checked}  "
            f"answered {status}\n{pretty}",
        )
        return web.Response(status=status)

    def show(self, document: Mapping[str, Any], text: str) -> None:
        typer.echo(msgspec.json.encode(document).decode() if self._as_json else text)


def objection_to(secret: str, headers: Mapping[str, str], body: bytes, at: float) -> str | None:
    """Why a delivery is not one that was signed with the secret, about the Unix time `at`; None if it is."""
    delivery_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not delivery_id or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16):
        return "it has no webhook-id or no webhook-timestamp"
    if abs(at - int(timestamp)) > _TOLERANCE_SECONDS:
        return f"it was signed {abs(at - int(timestamp)):.0f} seconds away from now"
    signed = f"{delivery_id}.{timestamp}.".encode("utf-8", "surrogateescape") + body
    wanted = b"v1," + base64.b64encode(hmac.digest(key_of(secret), signed, "sha256"))
    given = headers.get("webhook-signature", "").encode("utf-8", "surrogateescape").split(b" ")
    return (
        None if any(hmac.compare_digest(one, wanted) for one in given) else "no signature is of this secret"
    )


def _header(request: web.Request, name: str) -> str:
    return one_line(request.headers.get(name, ""))


def _read(body: bytes) -> tuple[Any, str]:
    """A body as JSON, and as lines for a terminal without anything that it would obey."""
    try:
        parsed = msgspec.json.decode(body)
        text = msgspec.json.format(msgspec.json.encode(parsed), indent=2).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        parsed = text = body.decode("utf-8", "replace")
    return parsed, "\n".join(
        "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in line)
        for line in text.splitlines()
    )
