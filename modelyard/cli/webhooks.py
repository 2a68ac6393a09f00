"""`modelyard webhook …`: who is told of what; the other commands are in the modules beside."""

from typing import Annotated

import typer

from core.access import SYSTEM
from modelyard.cli import webhook_deliveries, webhook_listening, webhook_trials
from modelyard.cli.administration import Yes, administer, confirm
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer, Document, done, listing, record
from modelyard.cli.webhook_scopes import SecretStdin, WebhookId, Where, read_secret, scope_of
from webhooks.subscriptions import WebhookInfo

command = Noun()

Events = Annotated[
    list[str] | None,
    typer.Option(
        "--event",
        metavar="NAME",
        help="What it is for: a name as `events` shows it, `repository.*`, or `*`; may be repeated.",
        show_default=False,
    ),
]
Name = Annotated[str | None, typer.Option(metavar="TEXT", help="What people call it.", show_default=False)]


@command.command("list")
async def list_(context: typer.Context, where: Where) -> Answer:
    """List the webhooks of a repository, of an owner, or of the server."""
    async with administer(context) as services:
        found = await services.notifying.subscriptions.list(SYSTEM, scope_of(where))
    return listing(map(_view, found), "id name url events active failures failing_since")


@command.command("show")
async def show(context: typer.Context, where: Where, webhook_id: WebhookId) -> Answer:
    """Show a webhook, without its secrets."""
    async with administer(context) as services:
        found = await services.notifying.subscriptions.get(SYSTEM, scope_of(where), webhook_id)
    return record(_view(found))


@command.command("create")
async def create(
    context: typer.Context,
    where: Where,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where deliveries go.", show_default=False)],
    events: Events = None,
    name: Name = None,
    secret_stdin: SecretStdin = False,
) -> Answer:
    """Tell a URL of events; without `--event`, of all. Prints the secret alone; nobody can see it again."""
    secret = read_secret(from_stdin=secret_stdin)
    async with administer(context) as services:
        made, secret = await services.notifying.subscriptions.create(
            SYSTEM, scope_of(where), url, events or ["*"], name=name or "", secret=secret
        )
    return done(secret, secret=secret, **_view(made))


@command.command("update")
async def update(
    context: typer.Context,
    where: Where,
    webhook_id: WebhookId,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where deliveries go.", show_default=False)
    ] = None,
    events: Events = None,
    name: Name = None,
) -> Answer:
    """Change what is given."""
    async with administer(context) as services:
        changed = await services.notifying.subscriptions.update(
            SYSTEM, scope_of(where), webhook_id, url=url, events=events or None, name=name
        )
    return done(f"changed the webhook {webhook_id}", **_view(changed))


@command.command("delete")
async def delete(context: typer.Context, where: Where, webhook_id: WebhookId, yes: Yes = False) -> Answer:
    """Delete a webhook, with all that was delivered to it, and all that was to be."""
    confirm(f"Delete the webhook {webhook_id} of {where}?", yes=yes)
    async with administer(context) as services:
        await services.notifying.subscriptions.delete(SYSTEM, scope_of(where), webhook_id)
    return done(f"deleted the webhook {webhook_id}", id=webhook_id)


@command.command("rotate")
async def rotate(
    context: typer.Context,
    where: Where,
    webhook_id: WebhookId,
    keep_hours: Annotated[
        float, typer.Option(metavar="HOURS", help="For how long the former secrets sign too, 0 to 720.")
    ] = 24.0,
    secret_stdin: SecretStdin = False,
) -> Answer:
    """Give a webhook a new secret and print it, alone; nobody can see it again."""
    secret = read_secret(from_stdin=secret_stdin)
    async with administer(context) as services:
        changed, secret = await services.notifying.subscriptions.rotate_secret(
            SYSTEM, scope_of(where), webhook_id, keep_hours=keep_hours, secret=secret
        )
    return done(secret, secret=secret, **_view(changed))


@command.command("pause")
async def pause(context: typer.Context, where: Where, webhook_id: WebhookId) -> Answer:
    """Send nothing more. What is pending waits; what happens meanwhile is not told later."""
    async with administer(context) as services:
        paused = await services.notifying.subscriptions.pause(SYSTEM, scope_of(where), webhook_id)
    return done(f"paused the webhook {webhook_id}", **_view(paused))


@command.command("resume")
async def resume(context: typer.Context, where: Where, webhook_id: WebhookId) -> Answer:
    """Go on, also with what the server paused: a running server tries at once what is pending."""
    async with administer(context) as services:
        resumed = await services.notifying.subscriptions.resume(SYSTEM, scope_of(where), webhook_id)
    return done(f"resumed the webhook {webhook_id}", **_view(resumed))


webhook_trials.add_commands(command)
webhook_deliveries.add_commands(command)
webhook_listening.add_commands(command)


def _view(webhook: WebhookInfo) -> Document:
    return {
        "id": webhook.id,
        "scope": webhook.scope,
        "target": webhook.target,
        "name": webhook.name,
        "url": webhook.url,
        "events": webhook.events,
        "active": webhook.active,
        "paused_reason": webhook.paused_reason,
        "failures": webhook.failures,
        "failing_since": webhook.failing_since,
        "secrets": len(webhook.secrets),
        "created_by": webhook.created_by,
        "created_at": webhook.created_at,
        "updated_at": webhook.updated_at,
    }
