"""What can be wrong with webhooks."""

from core.errors import Conflict, NotFound, Unavailable, Unprocessable


class WebhookNotFound(NotFound):
    """There is no such subscription here; another scope may have it."""

    code = "webhook_not_found"


class DeliveryNotFound(NotFound):
    code = "webhook_delivery_not_found"


class DestinationRefused(Unprocessable):
    """The server will not send there; the message says why."""

    code = "webhook_destination_refused"


class DestinationUnknown(Unprocessable):
    """The name of the receiver leads nowhere now."""

    code = "webhook_destination_unknown"


class WebhookPaused(Conflict):
    """Nothing is sent to a subscription that is not active; resume it first."""

    code = "webhook_paused"


class SecretsUnreadable(Unavailable):
    """The secrets were sealed with another key than the server has now; rotating the secret mends it."""

    code = "webhook_secrets_unreadable"
