"""Signatures as the reference library checks them, and secrets at rest."""

import base64
import hmac
import time

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from core.errors import Unprocessable
from webhooks.errors import SecretsUnreadable
from webhooks.sealing import (
    SecretBox,
    StoredSecret,
    check_secret,
    key_of,
    new_secret,
    signing,
)
from webhooks.signing import headers

BODY = '{"a":"ä"}'.encode()


def signed(*secrets: str, at: int | None = None) -> dict[str, str]:
    return headers(
        secrets, delivery_id="msg_1", timestamp=at or int(time.time()), event="push", attempt=3, body=BODY
    )


def test_the_reference_library_agrees() -> None:
    secret = new_secret()
    assert Webhook(secret).verify(BODY, signed(secret)) == {"a": "ä"}
    for changed in (BODY + b" ", BODY[:-1]):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(changed, signed(secret))
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, signed(secret))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, signed(secret, at=int(time.time()) - 3600))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, {**signed(secret), "webhook-id": "msg_2"})


def test_every_secret_signs_while_they_are_rotated() -> None:
    newest, former = new_secret(), new_secret()
    both = signed(newest, former)
    assert len(both["webhook-signature"].split(" ")) == 2
    for secret in (newest, former):
        Webhook(secret).verify(BODY, both)
    # Receivers made for GitHub know one signature: by the newest.
    expected = hmac.new(newest.encode(), BODY, "sha256").hexdigest()
    assert both["X-Hub-Signature-256"] == f"sha256={expected}"


def test_the_known_answer() -> None:
    # The test vector of the reference implementation.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    made = headers(
        [secret],
        delivery_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        event="push",
        attempt=1,
        body=body,
    )
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_are_random_and_sealed_to_their_subscription() -> None:
    secret = new_secret()
    assert secret != new_secret()
    assert len(key_of(secret)) == 32
    box = SecretBox(b"k" * 32)
    stored = [StoredSecret(secret, 100), StoredSecret(new_secret(), 50, 200)]
    sealed = box.seal(7, stored)
    assert sealed != box.seal(7, stored)
    assert secret.encode() not in sealed
    assert base64.b64decode(secret.removeprefix("whsec_")) not in sealed
    assert box.open(7, sealed) == stored
    flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for id_, text, opener in (
        (8, sealed, box),
        (7, flipped, box),
        (7, b"", box),
        (7, sealed[:12], box),
        (7, sealed, SecretBox(b"K" * 32)),
    ):
        with pytest.raises(SecretsUnreadable):
            opener.open(id_, text)


def test_secrets_expire() -> None:
    secrets = [StoredSecret("new", 100), StoredSecret("old", 50, 200)]
    assert signing(secrets, 199.9) == ["new", "old"]
    assert signing(secrets, 200) == ["new"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        "secret",
        "whsec_!!!!",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        base64.b64encode(b"x" * 32).decode(),
        "whsec_ä" * 9,
    ],
)
def test_secrets_that_are_none(text: str) -> None:
    with pytest.raises(Unprocessable):
        check_secret(text)


def test_secrets_that_somebody_chose() -> None:
    for size in (24, 32, 64):
        text = "whsec_" + base64.b64encode(b"x" * size).decode()
        assert check_secret(text) == text
