import socket

import pytest

from core.errors import SettingsError
from core.settings import HttpSettings, Settings, SshSettings
from modelyard.listening import AddressInUse, Listen, Listeners

SETTINGS = Settings(http=HttpSettings(listen="127.0.0.1:0"), ssh=SshSettings(listen="127.0.0.1:0"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", Listen("127.0.0.1", 80)),
        ("[::1]:0", Listen("::1", 0)),
        (":8080", Listen("", 8080)),
        ("localhost:65535", Listen("localhost", 65535)),
    ],
)
def test_addresses(text: str, expected: Listen) -> None:
    assert Listen.parse("[http] listen", text) == expected


@pytest.mark.parametrize("text", ["", "8080", "host", "host:", "host:65536", "host:-1", "host:x", "host:²"])
def test_bad_addresses_name_the_setting(text: str) -> None:
    with pytest.raises(SettingsError, match=r"\[http\] listen"):
        Listen.parse("[http] listen", text)


def test_the_file_says_what_can_be_dialled() -> None:
    assert Listen("0.0.0.0", 1).reachable == "127.0.0.1:1"
    assert Listen("::", 1).reachable == "[::1]:1"
    assert Listen("models.example.org", 1).reachable == "models.example.org:1"


def test_ports_that_the_system_chose_can_be_shared() -> None:
    with Listeners(SETTINGS, share=True) as first:
        pinned = first.pinned(SETTINGS)
        assert not pinned.http.listen.endswith(":0")
        with Listeners(pinned, share=True) as second:
            assert second.endpoints == first.endpoints


def test_a_taken_port_is_refused_even_when_it_could_be_shared() -> None:
    with Listeners(SETTINGS, share=True) as first:
        first.http.listen()
        pinned = first.pinned(SETTINGS)
        with pytest.raises(AddressInUse, match="Address already in use"):
            Listeners.require_free(pinned)


def test_nothing_stays_bound_when_one_face_cannot_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(http=SETTINGS.http, ssh=SshSettings(listen=f"127.0.0.1:{port}"))
        with pytest.raises(AddressInUse):
            Listeners(settings, share=False)


def test_ssh_can_be_off() -> None:
    settings = Settings(http=SETTINGS.http, ssh=SshSettings(enabled=False))
    with Listeners(settings, share=False) as listeners:
        assert listeners.ssh is None
        assert listeners.endpoints.ssh == ""
