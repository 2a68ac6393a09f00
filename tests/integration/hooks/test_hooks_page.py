"""The examples in docs/hooks.md do what the page says."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.access import SYSTEM, Permission
from core.errors import PushRefused
from core.names import parse_address
from core.settings import HooksSettings, ServerSettings, Settings
from gitserver.commits import Put
from modelyard.services import Services, open_services
from tests.support.plugins import install_plugin
from tests.support.push_queue import running

PAGE = (Path(__file__).parents[3] / "docs" / "hooks.md").read_text()


def example(language: str, words: str) -> str:
    (found,) = [one for one in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if words in one]
    return str(found)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield tmp_path / "site"
    sys.modules.pop("plugin_acme", None)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(server=ServerSettings(data=str(tmp_path / "data")))


async def commit(services: Services, path: str, message: str) -> list[str]:
    """A commit on `main` of ann/model, as whoever may do anything."""
    address = parse_address("ann/model")
    repository = await services.repositories.open(SYSTEM, address, Permission.WRITE)
    made = await services.committer.commit(repository, SYSTEM, "main", [Put(path, b"x\n")], message)
    return list(made.messages)


async def prepare(services: Services) -> None:
    await services.accounts.create_user(SYSTEM, "ann", password="correct horse battery")
    await services.repositories.create(SYSTEM, parse_address("ann/model"))


async def test_the_plug_in(site: Path, settings: Settings) -> None:
    install_plugin(site, "acme", example("python", "CardRequired"))
    async with open_services(settings) as services:
        await prepare(services)
        with pytest.raises(PushRefused, match=r"refs/heads/main: add a README.md"):
            await commit(services, "a", "no card")
        async with running(services.pipeline):
            await commit(services, "README.md", "a card")
            assert "see https://models.example.org/ann/model" in await services.pipeline.received(1)


async def test_the_program(tmp_path: Path, settings: Settings) -> None:
    program = tmp_path / "hooks" / "pre-receive.d" / "10-message"
    program.parent.mkdir(parents=True)
    program.write_text(example("sh", "names a ticket"))
    program.chmod(0o755)
    hooks = HooksSettings(directory=str(tmp_path / "hooks"))
    async with open_services(Settings(server=settings.server, hooks=hooks)) as services:
        await prepare(services)
        with pytest.raises(PushRefused, match=r"pre-receive.d/10-message hook declined") as caught:
            await commit(services, "a", "careless")
        assert "careless" in str(caught.value.fields["messages"])
        assert await commit(services, "a", "ML-17: careful") == []
