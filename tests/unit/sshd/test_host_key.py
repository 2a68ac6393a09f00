import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.errors import SettingsError
from sshd.host_key import fingerprint, load_or_create


def test_is_made_once_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "host_key"
    first = fingerprint(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create(path).get_algorithm() == "ssh-ed25519"
    assert fingerprint(path) == first
    assert [file.name for file in path.parent.iterdir()] == ["host_key"]


def test_openssh_reads_it_and_agrees_on_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "host_key"
    ours = fingerprint(path)
    shown = subprocess.run(["ssh-keygen", "-l", "-f", path], capture_output=True, text=True, check=True)
    assert ours in shown.stdout.split()


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(fingerprint, [tmp_path / "host_key"] * 8))
    assert len(found) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["host_key"]


def test_an_unusable_file_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "host_key"
    path.write_text("not a key")
    with pytest.raises(SettingsError, match="host_key"):
        load_or_create(path)
    assert path.read_text() == "not a key"


def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "host_key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", path],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    with pytest.raises(SettingsError, match="passphrase"):
        load_or_create(path)
