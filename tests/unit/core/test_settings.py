"""Settings: what config.toml promises, and that no mistake is taken for a default."""

import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.errors import SettingsError
from core.settings import Settings, load_settings

CONFIG = Path(__file__).parents[3] / "config.toml"


def _keys() -> Iterator[tuple[str, str]]:
    for section in msgspec.structs.fields(Settings):
        for field in msgspec.structs.fields(section.type):
            yield section.name, field.name


def _write(folder: Path, text: str) -> Path:
    file = folder / "modelyard.toml"
    file.write_text(text)
    return file


def test_config_toml_says_exactly_the_defaults() -> None:
    assert load_settings(CONFIG, environ={}) == Settings()


def test_config_toml_names_every_key_and_no_other() -> None:
    written = [(section, key) for section, keys in tomllib.loads(CONFIG.read_text()).items() for key in keys]
    assert written == list(_keys())


def test_config_toml_says_why_above_every_key() -> None:
    lines = CONFIG.read_text().splitlines()
    bare = [
        line
        for above, line in itertools.pairwise(lines)
        if re.match(r"[a-z_]+ = ", line) and not above.startswith("# ")
    ]
    assert bare == []


def test_no_file_and_no_environment_is_the_default() -> None:
    assert load_settings(environ={}) == Settings()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[http]\nlissten = '0.0.0.0:80'", r"lissten.*\$\.http"),
        ("[htpp]\nlisten = '0.0.0.0:80'", "htpp"),
        ("listen = '0.0.0.0:80'", "listen"),
        ("[http", "not valid TOML"),
        ("[server]\nworkers = 'many'", r"int.*\$\.server\.workers"),
        ("[lfs]\nconcurrent_transfers = 0", r">= 1.*\$\.lfs\.concurrent_transfers"),
        ("[lfs]\nupload_days = 0", r">= 1.*\$\.lfs\.upload_days"),
        ("[lfs]\ntrash_days = -1", r">= 0.*\$\.lfs\.trash_days"),
        ("[server]\nlog_level = 'loud'", r"loud.*\$\.server\.log_level"),
        ("[http]\ntrusted_proxies = '10.0.0.0/8'", r"array.*\$\.http\.trusted_proxies"),
        ("[ssh]\nenabled = 'perhaps'", r"bool.*\$\.ssh\.enabled"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load_settings(_write(tmp_path, text), environ={})


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("MODELYARD_HTTP__LISSTEN", "x", r"lissten.*\$\.http"),
        ("MODELYARD_HTPP__LISTEN", "x", "htpp"),
        ("MODELYARD_LISTEN", "x", "MODELYARD_LISTEN"),
        ("MODELYARD_SERVER__WORKERS", "two", r"\$\.server\.workers"),
    ],
)
def test_a_mistake_in_the_environment_is_named(name: str, value: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load_settings(environ={name: value})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.toml: No such file"):
        load_settings(tmp_path / "missing.toml", environ={})


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("SERVER__WORKERS", "3", 3),
        ("SSH__ENABLED", "false", False),
        ("SSH__ENABLED", "1", True),
        ("GIT__KEEPALIVE_SECONDS", "0.5", 0.5),
        ("HTTP__LISTEN", "127.0.0.1:0", "127.0.0.1:0"),
        ("SERVER__LOG_LEVEL", "debug", "debug"),
        ("STORAGE__SECRET_KEY", "12345678", "12345678"),
        ("HTTP__TRUSTED_PROXIES", "10.0.0.0/8, ::1", ("10.0.0.0/8", "::1")),
    ],
)
def test_the_environment_sets_every_type(variable: str, text: str, value: object) -> None:
    settings = load_settings(environ={f"MODELYARD_{variable}": text, "PATH": "/bin"})
    section, key = variable.lower().split("__")
    found = getattr(getattr(settings, section), key)
    assert found == value
    assert type(found) is type(value)


def test_an_empty_list_in_the_environment_is_empty() -> None:
    assert load_settings(environ={"MODELYARD_HTTP__TRUSTED_PROXIES": ""}).http.trusted_proxies == ()


def test_every_key_can_be_set_from_the_environment() -> None:
    defaults = Settings()
    for section, key in _keys():
        value = getattr(getattr(defaults, section), key)
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        assert load_settings(environ={f"MODELYARD_{section}__{key}".upper(): text}) == defaults


@pytest.mark.parametrize("name", ["MODELYARD_FAILPOINT", "MODELYARD_CONFIG", "MODELYARD_PUSH_ID"])
def test_variables_of_the_program_itself_are_no_settings(name: str) -> None:
    assert load_settings(environ={name: "anything"}) == Settings()


def test_the_later_layer_wins_key_by_key(tmp_path: Path) -> None:
    file = _write(tmp_path, "[server]\nworkers = 2\ndrain_seconds = 2\nlog_level = 'debug'")
    settings = load_settings(
        file,
        environ={"MODELYARD_SERVER__WORKERS": "3", "MODELYARD_SERVER__DRAIN_SECONDS": "3"},
        overrides={"server": {"workers": 4}},
    ).server
    assert (settings.workers, settings.drain_seconds, settings.log_level) == (4, 3, "debug")
    assert settings.data == Settings().server.data


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().server.workers = 2  # type: ignore[misc]


def test_paths_follow_the_data_directory(tmp_path: Path) -> None:
    settings = load_settings(environ={"MODELYARD_SERVER__DATA": str(tmp_path)})
    assert settings.store_dir == tmp_path / "objects"
    assert settings.cache_dir == tmp_path / "cache"
    assert settings.database_url == f"sqlite+aiosqlite:///{tmp_path / 'modelyard.db'}"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_plain_postgresql_url_gets_the_async_driver(scheme: str) -> None:
    settings = load_settings(environ={"MODELYARD_DATABASE__URL": f"{scheme}://u:p@h/d"})
    assert settings.database_url == "postgresql+psycopg://u:p@h/d"
