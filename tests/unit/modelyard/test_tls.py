import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from core.errors import Conflict, InvalidName, SettingsError
from core.settings import HttpSettings
from modelyard.tls import Certificate, certificate_of, write_self_signed


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "tls" / "cert.pem", tmp_path / "tls" / "key.pem"
    write_self_signed(cert, key, ["models.example.org", "127.0.0.1", "::1", "bücher.example"])
    return cert, key


def test_names_and_modes(pair: tuple[Path, Path]) -> None:
    cert, key = pair
    names = (
        x509.load_pem_x509_certificate(cert.read_bytes())
        .extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
        .value
    )
    assert isinstance(names, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName) == ["models.example.org", "xn--bcher-kva.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert key.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in sorted(cert.parent.iterdir())] == ["cert.pem", "key.pem"]


def test_nothing_is_overwritten_unless_asked(pair: tuple[Path, Path]) -> None:
    before = pair[1].read_bytes()
    with pytest.raises(Conflict):
        write_self_signed(*pair, ["localhost"])
    assert pair[1].read_bytes() == before
    write_self_signed(*pair, ["localhost"], overwrite=True)
    assert pair[1].read_bytes() != before
    Certificate(*pair)


@pytest.mark.parametrize("names", [[], ["a" * 70 + ".example"], ["..", "x"]])
def test_impossible_names(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(InvalidName):
        write_self_signed(tmp_path / "c", tmp_path / "k", names)


def test_half_a_configuration_names_the_setting(pair: tuple[Path, Path]) -> None:
    assert certificate_of(HttpSettings()) is None
    with pytest.raises(SettingsError, match="both or neither"):
        certificate_of(HttpSettings(cert=str(pair[0])))


def test_files_that_cannot_be_used(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        Certificate(pair[0], tmp_path / "missing")
    with pytest.raises(SettingsError, match="no PEM certificate and its key"):
        Certificate(pair[0], pair[0])
    other = tmp_path / "other"
    write_self_signed(other / "c", other / "k", ["localhost"])
    with pytest.raises(SettingsError, match="no PEM certificate and its key"):
        Certificate(pair[0], other / "k")


def test_a_bad_reload_keeps_the_old_certificate(pair: tuple[Path, Path]) -> None:
    certificate = Certificate(*pair)
    pair[1].write_text("garbage")
    certificate.reload()
    pair[1].unlink()
    certificate.reload()
    assert isinstance(certificate.context, ssl.SSLContext)
    assert _handshake(certificate.context, pair[0])


def _handshake(server_context: ssl.SSLContext, trusted: Path) -> bool:
    """A whole TLS handshake in memory."""
    client_in, client_out, server_in, server_out = (ssl.MemoryBIO() for _ in range(4))
    client_context = ssl.create_default_context(cafile=trusted)
    client = client_context.wrap_bio(client_in, client_out, server_hostname="models.example.org")
    server = server_context.wrap_bio(server_in, server_out, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (client, server):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass  # the other side's turn
            server_in.write(client_out.read())
            client_in.write(server_out.read())
    return len(done) == 2
