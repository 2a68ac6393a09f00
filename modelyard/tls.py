"""TLS: the certificate that the server shows, changed without a restart, and one made on the spot."""

import ipaddress
import os
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.errors import Conflict, InvalidName, SettingsError
from core.settings import HttpSettings

log = structlog.get_logger(__name__)


class Certificate:
    """A certificate with its key, in two files."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Reads both. Raises `SettingsError` when they cannot be used together."""
        self._cert, self._key = cert, key
        self.context = self._load()

    def reload(self) -> None:
        """Reads the files again: new connections get the new certificate, open ones are not disturbed.

        Files that cannot be used are reported in the log, and the old certificate stays.
        """
        try:
            self._load()  # a context that failed half-way would be broken, so try it on another one
            self.context.load_cert_chain(self._cert, self._key)
        except (SettingsError, OSError) as error:
            log.warning("certificate not reloaded", reason=str(error))
        else:
            log.info("certificate reloaded", path=str(self._cert))

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_passphrase)
        except ssl.SSLError as error:
            raise SettingsError(
                f"[http] cert and key: {self._cert} and {self._key} are no PEM certificate and its key"
                f" ({error.reason})"
            ) from error
        except OSError as error:
            raise SettingsError(f"[http] cert and key: cannot read them: {error.strerror}") from error
        return context


def certificate_of(settings: HttpSettings) -> Certificate | None:
    """The certificate of `[http] cert` and `key`; None when the server speaks plain HTTP.

    Raises:
        SettingsError: one without the other, or files that cannot be used.
    """
    if not settings.cert and not settings.key:
        return None
    if not settings.cert or not settings.key:
        raise SettingsError("[http] cert and key: both or neither")
    return Certificate(Path(settings.cert), Path(settings.key))


def _no_passphrase() -> str:
    # Without this OpenSSL would ask at the terminal and stop the server there.
    raise SettingsError("[http] key: a key with a passphrase cannot be used")


def write_self_signed(
    cert: Path, key: Path, names: Sequence[str], *, days: int = 825, overwrite: bool = False
) -> None:
    """Makes a certificate for host names and addresses, for development and closed networks.

    The key is readable by its owner only. Both files appear by rename, the key first.

    Raises:
        InvalidName: no name, or one that no certificate can hold.
        Conflict: a file is there already and `overwrite` is not set.
        OSError: they cannot be written.
    """
    if not names:
        raise InvalidName("a certificate needs at least one host name or address")
    for path in (cert, key):
        if path.exists() and not overwrite:
            raise Conflict(f"{path} exists already")
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general_name(text) for text in names]), critical=False)
        # Its own authority: clients that are told to trust it (http.sslCAInfo) need not switch checks off.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(key, pem, 0o600)
    _write(cert, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass  # then it is a host name
    try:
        return x509.DNSName(text.encode("idna").decode())
    except UnicodeError as error:
        raise InvalidName("this is neither a host name nor an address", name=text[:100]) from error


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
