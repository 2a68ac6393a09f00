from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.errors import SettingsError
from modelyard.secret_files import ensure_private_directory, load_or_create_key


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = load_or_create_key(path)
    assert len(key) == 32
    assert load_or_create_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600


def test_many_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(load_or_create_key, [tmp_path / "key"] * 64))
    assert len(keys) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_damaged_key_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(SettingsError, match="damaged"):
        load_or_create_key(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == b"short"


def test_directories(tmp_path: Path) -> None:
    ensure_private_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="file"):
        ensure_private_directory(tmp_path / "file")
