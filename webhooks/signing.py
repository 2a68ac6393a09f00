"""Headers of a delivery: Standard Webhooks, and the signature that receivers made for GitHub check.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hmac
from collections.abc import Sequence

from webhooks.sealing import key_of

USER_AGENT = "Modelyard-Webhooks/1"


def headers(
    secrets: Sequence[str], *, delivery_id: str, timestamp: int, event: str, attempt: int, body: bytes
) -> dict[str, str]:
    """What goes with `body`, signed by each secret; the first one is the newest. `timestamp` is Unix time.

    `webhook-id` stays the same however often a delivery is tried, and `X-Modelyard-Attempt` counts the tries.
    The key of `X-Hub-Signature-256` is the text of the newest secret as it was shown, `whsec_` included.
    """
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    signatures = [
        "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, "sha256")).decode() for secret in secrets
    ]
    hub = hmac.digest(secrets[0].encode(), body, "sha256").hex()
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
        "X-Hub-Signature-256": f"sha256={hub}",
        "X-Modelyard-Event": event,
        "X-Modelyard-Delivery": delivery_id,
        "X-Modelyard-Attempt": str(attempt),
    }
