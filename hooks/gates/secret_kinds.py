"""What secrets look like, as those who issue them document it.

Everything works on bytes: files are of any encoding, and a secret is ASCII.
"""

import math
import re
import string
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from core.tokens import is_well_formed

_BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_CHECKSUM: Final = 6
# What people write where a secret goes, and what they type when they make one up.
_PLACEHOLDERS: Final = re.compile(
    rb"xxxx|example|your|dummy|placeholder|redacted|changeme|abcdef|123456", re.IGNORECASE
)
# Bits per character; of 36 random letters and digits hardly ever below 4, of 32 hexadecimal digits below 3.
_ENTROPY: Final = 3.0
# An access key of AWS is an id and a secret of 40 characters. The id alone stands in every signed link.
_AWS_SECRET: Final = re.compile(rb"(?<![A-Za-z0-9/+=])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")
_AWS_NEAR: Final = 400


def looks_random(text: bytes) -> bool:
    """Whether nobody made this up or left it as a placeholder."""
    if _PLACEHOLDERS.search(text):
        return False
    total = len(text)
    entropy = -sum(n / total * math.log2(n / total) for n in Counter(text).values())
    return entropy >= _ENTROPY


def has_checksum(body: bytes) -> bool:
    """Whether the last six characters are the CRC-32 of the rest in base 62."""
    value, expected = zlib.crc32(body[:-_CHECKSUM]), ""
    for _ in range(_CHECKSUM):
        value, index = divmod(value, len(_BASE62))
        expected = _BASE62[index] + expected
    return body[-_CHECKSUM:] == expected.encode()


def _random(match: re.Match[bytes]) -> bool:
    return looks_random(match["body"])


def _checked(match: re.Match[bytes]) -> bool:
    return has_checksum(match["body"])


def _ours(match: re.Match[bytes]) -> bool:
    return is_well_formed(match[0].decode())


def _with_its_secret(match: re.Match[bytes]) -> bool:
    near = match.string[max(0, match.start() - _AWS_NEAR) : match.end() + _AWS_NEAR]
    return looks_random(match["body"]) and any(looks_random(one[0]) for one in _AWS_SECRET.finditer(near))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of secret.

    Attributes:
        name: with its article, for a sentence.
        signs: a file that has none of these has no such secret.
        pattern: what one looks like; the group `body` is what was drawn at random.
        proof: whether a match is one.
    """

    name: str
    signs: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    proof: Callable[[re.Match[bytes]], bool] = _random


def _kind(
    name: str,
    signs: str,
    pattern: str,
    proof: Callable[[re.Match[bytes]], bool] = _random,
    *,
    end: str = r"\w",
) -> Kind:
    """`signs` are separated by bars; what `end` matches must not follow: a longer thing is no secret."""
    whole = re.compile(rf"(?<![A-Za-z0-9]){pattern}(?!{end})".encode(), re.ASCII)
    return Kind(name, tuple(sign.encode() for sign in signs.split("|")), whole, proof)


KINDS: Final = (
    # core/tokens.py
    _kind("a Modelyard token", "myd_", r"myd_(?P<body>[A-Za-z0-9]{46})", _ours),
    # https://huggingface.co/docs/hub/security-tokens; letters only, so far.
    _kind("a Hugging Face token", "hf_|api_org_", r"(?:hf|api_org)_(?P<body>[A-Za-z]{34})"),
    # https://github.blog/engineering/behind-githubs-new-authentication-token-formats/ has the checksum, too.
    _kind(
        "a GitHub token",
        "ghp_|gho_|ghu_|ghs_|ghr_",
        r"gh[pousr]_(?P<body>[A-Za-z0-9]{36})",
        _checked,
    ),
    _kind("a GitHub token", "github_pat_", r"github_pat_(?P<body>[A-Za-z0-9]{22}_[A-Za-z0-9]{59})"),
    # https://docs.gitlab.com/security/tokens/#token-prefixes
    _kind(
        "a GitLab token",
        "glpat-|gldt-|glrt-|glrtr-|glcbt-|glptt-|glft-|glimt-|glagent-|glsoat-|gloas-|glffct-",
        r"gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|soat|oas|ffct)-(?P<body>[\w-]{20,300}(?:\.\w{2,20}){0,2})",
        end=r"[\w-]",
    ),
    # https://github.blog/changelog/2021-09-23-npm-has-a-new-access-token-format/: as GitHub's.
    _kind("an npm token", "npm_", r"npm_(?P<body>[A-Za-z0-9]{36})", _checked),
    # https://pypi.org/help/#apitoken: a macaroon whose first packet names the host.
    _kind(
        "a PyPI token",
        "pypi-",
        r"pypi-AgE(?:IcHlwaS5vcmc|NdGVzdC5weXBpLm9yZw)(?P<body>[\w-]{50,1000})",
        end=r"[\w-]",
    ),
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
    _kind("an AWS access key", "AKIA|ASIA", r"A[KS]IA(?P<body>[A-Z2-7]{16})", _with_its_secret),
    # https://cloud.google.com/docs/authentication/api-keys
    _kind("a Google API key", "AIza", r"AIza(?P<body>[\w-]{35})", end=r"[\w-]"),
    _kind("a Google OAuth secret", "GOCSPX-", r"GOCSPX-(?P<body>[\w-]{28})", end=r"[\w-]"),
    # https://platform.openai.com/docs/api-reference/authentication; the middle is "OpenAI" in base 64.
    _kind(
        "an OpenAI key",
        "T3BlbkFJ",
        r"sk-(?:[a-z]{3,10}-)?(?P<body>[\w-]{20,200}T3BlbkFJ[\w-]{20,200})",
        end=r"[\w-]",
    ),
    # https://docs.anthropic.com/en/api/overview#authentication
    _kind("an Anthropic key", "sk-ant-", r"sk-ant-[a-z]{3,8}\d\d-(?P<body>[\w-]{80,200})", end=r"[\w-]"),
    # https://openrouter.ai/docs/api-reference/authentication
    _kind("an OpenRouter key", "sk-or-v1-", r"sk-or-v1-(?P<body>[0-9a-f]{64})"),
    # https://console.groq.com/docs/quickstart
    _kind("a Groq key", "gsk_", r"gsk_(?P<body>[A-Za-z0-9]{52})"),
    # https://replicate.com/docs/reference/http#authentication
    _kind("a Replicate token", "r8_", r"r8_(?P<body>[A-Za-z0-9]{37})"),
    # https://docs.databricks.com/en/dev-tools/auth/pat.html
    _kind("a Databricks token", "dapi", r"dapi(?P<body>[0-9a-f]{32})(?:-\d)?"),
    # https://api.slack.com/concepts/token-types and https://api.slack.com/messaging/webhooks
    _kind(
        "a Slack token",
        "xoxa-|xoxb-|xoxp-|xoxr-|xoxs-|xapp-",
        r"(?:xox[abprs]|xapp)-(?P<body>[0-9]{1,15}-[A-Za-z0-9-]{20,200})",
        end=r"[\w-]",
    ),
    _kind(
        "a Slack webhook",
        "hooks.slack.com",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<body>T\w{6,14}/\w{6,20}/\w{18,50})",
    ),
    # https://docs.stripe.com/keys; those of test mode move no money.
    _kind("a Stripe key", "sk_live_|rk_live_", r"[rs]k_live_(?P<body>[A-Za-z0-9]{24,250})"),
    # https://www.twilio.com/docs/sendgrid/ui/account-and-settings/api-keys
    _kind("a SendGrid key", "SG.", r"SG\.(?P<body>[\w-]{22}\.[\w-]{43})", end=r"[\w-]"),
    # https://docs.digitalocean.com/reference/api/create-personal-access-token/
    _kind("a DigitalOcean token", "dop_v1_|doo_v1_|dor_v1_", r"do[opr]_v1_(?P<body>[0-9a-f]{64})"),
    # https://docs.docker.com/security/access-tokens/
    _kind("a Docker token", "dckr_pat_|dckr_oat_", r"dckr_[op]at_(?P<body>[\w-]{27,40})", end=r"[\w-]"),
    # https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string
    _kind("an Azure storage key", "AccountKey=", r"AccountKey=(?P<body>[A-Za-z0-9+/]{86}==)", end=r"[\w+/=]"),
    # https://github.com/C2SP/C2SP/blob/main/age.md
    _kind("an age key", "AGE-SECRET-KEY-", r"AGE-SECRET-KEY-1(?P<body>[02-9AC-HJ-NP-Z]{58})"),
    # https://www.rfc-editor.org/rfc/rfc7468#section-10, OpenSSH's and OpenPGP's; also in JSON, on one line.
    _kind(
        "a private key",
        "PRIVATE KEY",
        r"-----BEGIN (?:[A-Z0-9]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:\\[rn]|[\s\"',])*(?:[A-Z][\w-]{2,20}: [^\n]{0,200}\n\s*){0,5}(?P<body>[A-Za-z0-9+/=]{40})",
        end=r"\x00",
    ),
)
