"""The guard of tests/conftest.py can fail."""

import subprocess

from tests.support import children


def test_a_child_that_stays_is_named_and_killed() -> None:
    before = children.running()
    child = subprocess.Popen(["sleep", "60"])
    assert children.left_behind(before, grace_seconds=0.1) == ["sleep 60"]
    assert child.wait(5) == -9


def test_a_child_that_ends_in_time_is_forgiven() -> None:
    before = children.running()
    with subprocess.Popen(["sleep", "0.2"]):
        assert children.left_behind(before) == []


def test_a_kept_child_is_its_fixtures_business() -> None:
    before = children.running()
    with subprocess.Popen(["sleep", "60"]) as child:
        children.keep(child.pid)
        assert children.left_behind(before, grace_seconds=0.1) == []
        children.release(child.pid)
        assert child.poll() is None
        child.kill()
