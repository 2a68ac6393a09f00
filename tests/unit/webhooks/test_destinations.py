"""Which URLs are taken, and which addresses: the part of the egress policy that needs no network."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import SettingsError
from core.settings import WebhooksSettings
from webhooks.addresses import objection, parse_networks
from webhooks.destinations import Destinations, parse
from webhooks.errors import DestinationRefused

STRICT = Destinations(WebhooksSettings())

PRIVATE = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16 169.254.169.254
172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.7 203.0.113.9
224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::2 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 100::1 64:ff9b:1::1
64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 2001::1 2001:0:7f00:1::1 2001:db8::1 2002:7f00:1::1 2002:a9fe:a9fe::
2002:c0a8:101::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1
""".split()
PUBLIC = """
1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.167.0.1 223.255.255.255
2001:4860:4860::8888 2606:4700::1111 2a00:1450:4001::1 64:ff9b::8.8.8.8 2002:808:808::1 ::ffff:8.8.8.8
""".split()


@pytest.mark.parametrize("text", PRIVATE)
def test_addresses_that_are_not_global(text: str) -> None:
    assert objection(ip_address(text)) is not None
    host = f"[{text}]" if ":" in text else text
    with pytest.raises(DestinationRefused) as refused:
        STRICT.check(f"https://{host}:8443/hook")
    assert "allowed_networks" in refused.value.message


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_that_are(text: str) -> None:
    assert objection(ip_address(text)) is None
    host = f"[{text}]" if ":" in text else text
    assert STRICT.check(f"https://{host}/").literal is not None


@pytest.mark.parametrize(
    "host",
    """
    2130706433 127.1 127.0.1 0177.0.0.1 0x7f.0.0.1 0x7f000001 017700000001 0x7F.1 127.0.0.01 127.0.0.1.
    1.2.3.4.5 256.1.1.1 127.0.0.0x1 1e3.4 a.0x 0 00 0x 999999999999 foo.127 3232235777 0251.0376.0251.0376
    """.split(),
)
def test_other_spellings_of_addresses(host: str) -> None:
    with pytest.raises(DestinationRefused):
        STRICT.check(f"https://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "//example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://example.org:70/_x",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "https://user@example.org/",
        "https://user:pass@example.org/",
        "https://example.org@127.0.0.1/",
        "https://127.0.0.1#@example.org/",
        "https://example.org/#fragment",
        "https://example.org/#",
        "https://example.org:0/",
        "https://example.org:/",
        "https://example.org:65536/",
        "https://example.org:-1/",
        "https://example.org:80:80/",
        "https://example.org:8x/",
        "https://example..org/",
        "https://.example.org/",
        "https://example.org./",
        "https://-example.org/",
        "https://exam ple.org/",
        "https://example.org/a b",
        "https://example.org/\r\nX: y",
        "https://example.org\\@127.0.0.1/",
        "https://example%2eorg/",
        "https://127.0.0.1%2f@example.org/",
        "https://[::1/",
        "https://::1/",
        "https://[::1]x/",
        "https://x[::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[v1.a]/",
        "https://[127.0.0.1]/",
        "https://\u217027.0.0.1/",
        "https://①27.0.0.1/",
        "https://127。0。0。1/",
        "https://bücher.example/",
        "https://example.org/\x7f",
        "https://" + "a" * 64 + ".org/",
        "https://" + "a." * 130 + "org/",
        "https://example.org/" + "a" * 2000,
        "http://example.org/",
        "http://8.8.8.8/",
        "https://localhost/",
        "https://LOCALHOST/",
        "https://foo.localhost/",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(DestinationRefused) as refused:
        STRICT.check(url)
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("url", "requested", "receiver"),
    [
        ("https://Example.ORG", "https://example.org/", "example.org:443"),
        ("HTTPS://example.org:443/a?b=c%20d", "https://example.org/a?b=c%20d", "example.org:443"),
        ("https://example.org:8443/%2e%2e/", "https://example.org:8443/%2e%2e/", "example.org:8443"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/", "xn--bcher-kva.example:443"),
        ("https://a_b.example.org/", "https://a_b.example.org/", "a_b.example.org:443"),
        ("https://[2606:4700::1111]:99/", "https://[2606:4700::1111]:99/", "[2606:4700::1111]:99"),
        ("https://[2606:4700:0:0::1111]/", "https://[2606:4700::1111]/", "[2606:4700::1111]:443"),
        ("https://example.org?x", "https://example.org/?x", "example.org:443"),
    ],
)
def test_urls_that_are_taken(url: str, requested: str, receiver: str) -> None:
    destination = STRICT.check(url)
    assert (destination.url, destination.receiver) == (requested, receiver)


def test_what_the_settings_allow() -> None:
    lenient = Destinations(WebhooksSettings(allow_http=True))
    assert lenient.check("http://example.org/").port == 80
    with pytest.raises(DestinationRefused):
        lenient.check("http://127.0.0.1/")

    local = Destinations(WebhooksSettings(allowed_networks=("10.0.0.0/8", "fd00::/8", "127.0.0.0/8")))
    for url in ("http://10.1.2.3/", "https://[fd00::1]/", "http://[::ffff:10.0.0.1]/", "http://localhost/"):
        local.check(url)
    for url in ("http://8.8.8.8/", "https://192.168.0.1/", "https://[::1]/", "https://[64:ff9b::a00:1]/"):
        with pytest.raises(DestinationRefused):
            local.check(url)
    named = local.check("http://trainer.internal/")
    local.judge(named, [ip_address("10.0.0.9")])
    with pytest.raises(DestinationRefused, match="https"):
        local.judge(named, [ip_address("10.0.0.9"), ip_address("8.8.8.8")])


def test_one_bad_address_refuses_the_name() -> None:
    destination = STRICT.check("https://hooks.example.org/")
    STRICT.judge(destination, [ip_address("8.8.8.8"), ip_address("2606:4700::1")])
    with pytest.raises(
        DestinationRefused, match=r"hooks\.example\.org leads to 10\.0\.0\.1, which is private"
    ):
        STRICT.judge(destination, [ip_address("8.8.8.8"), ip_address("10.0.0.1")])


@pytest.mark.parametrize("text", ["10.0.0.1/8", "ten", "10.0.0.0/33", ""])
def test_networks_that_are_none(text: str) -> None:
    with pytest.raises(SettingsError, match="allowed_networks"):
        parse_networks([text])


@given(st.text(max_size=60))
def test_nothing_but_refusals(rest: str) -> None:
    for start in ("", "https://", "https://[", "https://example.org:"):
        try:
            destination = parse(start + rest)
        except DestinationRefused:
            continue
        again = parse(destination.url)
        assert again == destination
        assert destination.url.isascii()


@given(st.ip_addresses())
def test_every_address_has_an_answer(address: object) -> None:
    words = objection(address)  # type: ignore[arg-type]
    assert words is None or words
