"""Secrets are found by what their issuers document, and placeholders are not secrets."""

import base64
import random
import string
import zlib

import pytest

from core.tokens import new_secret
from hooks.gates.new_blobs import MAX_READ_BYTES, NewBlob
from hooks.gates.secret_kinds import KINDS, has_checksum, looks_random
from hooks.gates.secret_search import Hit, find_secrets, may_have_secrets
from tests.support.costs import costs_at_most

WORDS = string.ascii_letters + string.digits
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def drawn(length: int, alphabet: str = WORDS) -> str:
    """Random, and the same in every run; in pieces, so that no scanner finds it in this file."""
    return "".join(random.Random(length).choices(alphabet, k=length))


def checked(length: int) -> str:
    body = drawn(length - 6)
    value, end = zlib.crc32(body.encode()), ""
    while len(end) < 6:
        value, index = divmod(value, 62)
        end = BASE62[index] + end
    return body + end


PEM = base64.b64encode(random.Random(1).randbytes(300)).decode()
SECRETS = {
    "a Modelyard token": [new_secret()],
    "a Hugging Face token": [
        "hf_" + drawn(34, string.ascii_letters),
        "api_org_" + drawn(34, string.ascii_letters),
    ],
    "a GitHub token": [f"gh{kind}_{checked(36)}" for kind in "pousr"]
    + [f"github_pat_{drawn(22)}_{drawn(59)}"],
    "a GitLab token": ["glpat-" + drawn(20), f"glpat-{drawn(30)}.01.{drawn(9)}", "glrt-" + drawn(20)],
    "an npm token": ["npm_" + checked(36)],
    "a PyPI token": ["pypi-AgEIcHlwaS5vcmc" + drawn(120)],
    "an AWS access key": [
        f"AKIA{drawn(16, string.ascii_uppercase + '234567')}\naws_secret_access_key = {drawn(40)}\n"
    ],
    "a Google API key": ["AIza" + drawn(35)],
    "a Google OAuth secret": ["GOCSPX-" + drawn(28)],
    "an OpenAI key": [f"sk-{drawn(20)}T3BlbkFJ{drawn(21)}", f"sk-proj-{drawn(74)}T3BlbkFJ{drawn(73)}"],
    "an Anthropic key": [f"sk-ant-api03-{drawn(93)}AA"],
    "an OpenRouter key": ["sk-or-v1-" + drawn(64, "0123456789abcdef")],
    "a Groq key": ["gsk_" + drawn(52)],
    "a Replicate token": ["r8_" + drawn(37)],
    "a Databricks token": ["dapi" + drawn(32, "0123456789abcdef")],
    "a Slack token": [f"xoxb-{drawn(12, string.digits)}-{drawn(13, string.digits)}-{drawn(24)}"],
    "a Slack webhook": [f"https://hooks.slack.com/services/T{drawn(9)}/B{drawn(10)}/{drawn(24)}"],
    "a Stripe key": ["sk_live_" + drawn(24), "rk_live_" + drawn(99)],
    "a SendGrid key": [f"SG.{drawn(22)}.{drawn(43)}"],
    "a DigitalOcean token": ["dop_v1_" + drawn(64, "0123456789abcdef")],
    "a Docker token": ["dckr_pat_" + drawn(27)],
    "an Azure storage key": [f"AccountName=a;AccountKey={drawn(86)}=="],
    "an age key": ["AGE-SECRET-KEY-1" + drawn(58, "023456789ACDEFGHJKLMNPQRSTUVWXYZ")],
    "a private key": [
        f"-----BEGIN PRIVATE KEY-----\n{PEM}\n",
        f"-----BEGIN RSA PRIVATE KEY-----\r\nProc-Type: 4,ENCRYPTED\r\nDEK-Info: A,B\r\n\r\n{PEM}\r\n",
        f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\n{PEM}\n",
        '{"private_key": "-----BEGIN PRIVATE KEY-----\\n' + PEM + '\\n-----END"}',
        f'key = ("-----BEGIN EC PRIVATE KEY-----"\n  "{PEM}")',
    ],
}


def test_each_kind_has_a_case() -> None:
    assert {kind.name for kind in KINDS} == SECRETS.keys()


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("around", ["{}", "# a comment\n\nTOKEN='{}'\n", 'x: ["{}"]', "https://u:{}@host/"])
def test_found_in_its_line(kind: str, around: str) -> None:
    for secret in SECRETS[kind]:
        text = around.replace("{}", secret)
        line = text[: text.index(secret)].count("\n") + 1
        assert find_secrets(text.encode()) == [Hit(kind, line)], secret


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "hf_your_token_here hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
        "hf_hub_download_with_a_very_long_name_of_a_function",
        f"ghp_{drawn(36)}",  # the checksum is wrong
        "AKIAIOSFODNN7EXAMPLE wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        f"X-Amz-Credential=AKIA{drawn(16, string.ascii_uppercase)}%2F20260101",  # an id alone is no secret
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "-----BEGIN PUBLIC KEY-----\n" + PEM,
        "sk-ant-api03-" + "x" * 95,
        "myd_" + "a" * 46,
        f"xhf_{drawn(34, string.ascii_letters)}",
        f"hf_{drawn(40, string.ascii_letters)}",
        "sk_test_" + drawn(24),
    ],
)
def test_no_secret(text: str) -> None:
    assert find_secrets(text.encode()) == []


def test_a_checksum_that_is_wrong() -> None:
    text = new_secret()
    assert find_secrets((text[:-1] + ("1" if text.endswith("0") else "0")).encode()) == []


def test_not_in_what_is_no_text() -> None:
    assert find_secrets(b"\0" + new_secret().encode()) == []
    assert find_secrets(b"\xff\xfe" + new_secret().encode()) != []


def test_few_for_each_file() -> None:
    assert len(find_secrets("\n".join(new_secret() for _ in range(500)).encode())) == 10


def test_which_files_are_worth_reading() -> None:
    assert may_have_secrets(NewBlob("a", "src/.env", MAX_READ_BYTES))
    assert not may_have_secrets(NewBlob("a", "src/.env", MAX_READ_BYTES + 1))
    assert not may_have_secrets(NewBlob("a", "IMAGE.PNG", 10))


def test_checksums_and_randomness() -> None:
    assert has_checksum(b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ" + b"0mLq17")  # from GitHub's own article
    assert not has_checksum(b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ" + b"0mLq18")
    assert looks_random(drawn(30).encode())
    assert not looks_random(b"aaaaaaaaaabbbbbbbbbb")


@pytest.mark.parametrize(
    "text",
    [
        b"sk-" * 350_000 + b"T3BlbkFJ",
        b"glpat-" * 170_000,
        b"-----BEGIN PRIVATE KEY-----" + b" " * 1_000_000,
        b"-----BEGIN PRIVATE KEY-----\n" * 37_000,
        (b"-----BEGIN PRIVATE KEY-----\n" + b"Ab: c\n" * 5) * 17_000,
        b"xoxb-1-" * 140_000,
        b"AKIAABCDEFGHIJKLMNOP" * 50_000,
    ],
)
def test_hostile_texts_take_no_time(text: bytes) -> None:
    with costs_at_most(5):
        find_secrets(text)
