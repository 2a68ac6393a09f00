"""Which public keys are accepted, against what `ssh-keygen` makes and says."""

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from core.ssh_keys import ACCEPTED_TYPES, InvalidKey, parse_public_key
from tests.support.ssh_public_keys import public_key_text


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data


def _security_key(kind: str) -> str:
    """A key as a hardware token would show it; nobody here has one."""
    if "ed25519" in kind:
        raw = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        body = _string(raw)
    else:
        point = ec.generate_private_key(ec.SECP256R1()).public_key()
        raw = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        body = _string(b"nistp256") + _string(raw)
    blob = _string(kind.encode()) + body + _string(b"ssh:")
    return f"{kind} {base64.b64encode(blob).decode()} token"


def _rsa(bits: int) -> str:
    key = rsa.generate_private_key(65537, bits).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.mark.parametrize(
    "options",
    [
        ["-t", "ed25519"],
        ["-t", "ecdsa", "-b", "256"],
        ["-t", "ecdsa", "-b", "384"],
        ["-t", "ecdsa", "-b", "521"],
        ["-t", "rsa", "-b", "2048"],
    ],
    ids="-".join,
)
def test_what_ssh_keygen_makes(tmp_path: Path, options: list[str]) -> None:
    keygen = shutil.which("ssh-keygen")
    if keygen is None:
        pytest.skip("ssh-keygen is not installed")
    file = tmp_path / "key"
    subprocess.run([keygen, "-q", *options, "-N", "", "-C", "alice@laptop", "-f", file], check=True)
    public = file.with_suffix(".pub")
    parsed = parse_public_key(public.read_text())
    listed = subprocess.run([keygen, "-lf", public], check=True, capture_output=True, text=True).stdout
    assert parsed.fingerprint == listed.split()[1]
    assert f"{parsed.openssh} alice@laptop\n" == public.read_text()
    assert parsed.comment == "alice@laptop"
    assert parsed.type in ACCEPTED_TYPES
    with pytest.raises(InvalidKey, match="private key"):
        parse_public_key(file.read_text())


@pytest.mark.parametrize("kind", sorted(kind for kind in ACCEPTED_TYPES if kind.startswith("sk-")))
def test_security_keys(kind: str) -> None:
    parsed = parse_public_key(_security_key(kind))
    assert (parsed.type, parsed.comment) == (kind, "token")


def test_weak_and_unknown_keys() -> None:
    with pytest.raises(InvalidKey, match="2048"):
        parse_public_key(_rsa(1024))
    for text, reason in (
        ("ssh-dss AAAAB3NzaC1kc3MAAACB", "none of"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "certificates"),
        ("", "one line"),
        ("hello", "none of"),
        ("ssh-ed25519", "damaged"),
        ("ssh-ed25519 !!!!", "base64"),
        ("ssh-ed25519 AAAA", "damaged"),
        ('command="sh" ' + public_key_text(), "none of"),
        (public_key_text() + "\n" + public_key_text(), "one line"),
        (public_key_text() + "x" * 20_000, "one line"),
        (public_key_text().replace("ssh-ed25519", "ssh-rsa"), "another type"),
    ):
        with pytest.raises(InvalidKey, match=reason):
            parse_public_key(text)


def test_damaged_keys() -> None:
    kind, encoded, _ = public_key_text().split()
    blob = base64.b64decode(encoded)
    for damaged in (blob[:-1], blob + b"x", blob[:4] + b"\xff" + blob[5:]):
        with pytest.raises(InvalidKey):
            parse_public_key(f"{kind} {base64.b64encode(damaged).decode()}")


def test_a_comment_is_printable_and_short() -> None:
    parsed = parse_public_key(public_key_text("\x1b[31m" + "ö" * 200))
    assert parsed.comment == "[31m" + "ö" * 96


@given(st.text(max_size=200) | st.builds("ssh-ed25519 {}".format, st.text(max_size=100)))
def test_nothing_else_escapes(text: str) -> None:
    with pytest.raises(InvalidKey):
        parse_public_key(text)
