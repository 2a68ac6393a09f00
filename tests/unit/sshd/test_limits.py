from sshd.limits import ConnectionLimits, normal_address


def test_the_total_is_bounded_and_released() -> None:
    limits = ConnectionLimits(2, 2)
    assert limits.admit("192.0.2.1")
    assert limits.admit("192.0.2.2")
    assert not limits.admit("192.0.2.3")
    limits.release("192.0.2.1")
    assert limits.admit("192.0.2.3")


def test_one_address_is_bounded_without_hurting_others() -> None:
    limits = ConnectionLimits(10, 1)
    assert limits.admit("192.0.2.1")
    assert not limits.admit("192.0.2.1")
    assert limits.admit("192.0.2.2")
    limits.release("192.0.2.1")
    assert limits.admit("192.0.2.1")


def test_an_ipv6_network_counts_as_one_address() -> None:
    limits = ConnectionLimits(10, 1)
    assert limits.admit("2001:db8::1")
    assert not limits.admit("2001:db8::ffff:1")
    assert limits.admit("2001:db8:0:1::1")


def test_spellings_of_one_address_are_one() -> None:
    assert normal_address("::ffff:192.0.2.1") == "192.0.2.1"
    assert normal_address("fe80::1%eth0") == "fe80::1"
    assert normal_address("2001:DB8:0::1") == "2001:db8::1"
    assert normal_address("") == ""
