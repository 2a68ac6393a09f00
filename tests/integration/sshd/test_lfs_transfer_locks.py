"""Locks over `git-lfs-transfer`, as a raw client says it."""

from tests.support.lfs_ssh_world import SECRET, LfsSshWorld
from tests.support.lfs_talk import Told


async def test_locks(lfs_world: LfsSshWorld) -> None:
    ada, bob = await lfs_world.talk("ada", "upload"), await lfs_world.talk("bob", "upload")
    made = await ada.ask("lock", "path=weights/a model.bin", "refname=refs/heads/main")
    assert (made.status, made.packets) == (201, None)
    assert made.arguments["path"] == "weights/a model.bin"
    assert made.arguments["ownername"] == "ada"
    assert made.arguments["locked-at"].endswith("Z")
    taken = await bob.ask("lock", "path=weights/a model.bin")
    assert (taken.status, taken.arguments) == (409, made.arguments)
    assert taken.message == "weights/a model.bin is locked by ada already"
    his = (await bob.ask("lock", "path=b.bin")).arguments

    def shown(lock: dict[str, str], side: str) -> list[str]:
        name = lock["id"]
        return [
            f"lock {name}",
            f"path {name} {lock['path']}",
            f"locked-at {name} {lock['locked-at']}",
            f"ownername {name} {lock['ownername']}",
            f"owner {name} {side}",
        ]

    hers = dict(made.arguments)
    everything = [*shown(dict(his), "theirs"), *shown(hers, "ours")]
    assert (await ada.ask("list-lock")).lines == everything
    assert (await ada.ask("list-locks", "refname=refs/heads/dev")).lines == everything
    assert (await ada.ask("list-lock", "refspec=refs/heads/dev")).lines == shown(dict(his), "theirs")
    assert (await ada.ask("list-lock", "path=b.bin")).lines == shown(dict(his), "theirs")
    assert (await ada.ask("list-lock", f"id={hers['id']}")).lines == shown(hers, "ours")
    page = await ada.ask("list-lock", "limit=1")
    assert page.lines == shown(dict(his), "theirs")
    rest = await ada.ask("list-lock", "limit=1", f"cursor={page.arguments['next-cursor']}")
    assert (rest.lines, rest.arguments) == (shown(hers, "ours"), {})
    reader = await lfs_world.talk("reader", "download")
    assert [line for line in (await reader.ask("list-lock")).lines if line.endswith(" ours")] == []
    for bad in ("limit=x", "cursor=!"):
        assert (await ada.ask("list-lock", bad)).status == 400

    refused = await bob.ask(f"unlock {hers['id']}", "force=true")
    assert (refused.status, "administrator" in refused.message) == (403, True)
    assert (await ada.ask(f"unlock {his['id']}")).status == 403
    assert await ada.ask(f"unlock {his['id']}", "force=true", "refname=refs/heads/main") == Told(
        200, his, None
    )
    assert await ada.ask(f"unlock {hers['id']}") == Told(200, hers, None)
    assert (await ada.ask(f"unlock {hers['id']}")).status == 404
    assert (await ada.ask("list-lock")).lines == []
    for bad in ("path=../x", "path=/x", "path="):
        assert (await ada.ask("lock", bad)).status == 422
    assert (await ada.ask("lock")).status == 422
    assert (await ada.ask("lock", "path=x", "refname=main")).status == 422


async def test_no_lock_of_another_repository_is_seen(lfs_world: LfsSshWorld) -> None:
    carol = await lfs_world.talk("carol", "upload", SECRET)
    secret = (await carol.ask("lock", "path=plan.bin")).arguments
    ada = await lfs_world.talk("ada", "upload")
    assert (await ada.ask("list-lock", f"id={secret['id']}")).lines == []
    assert (await ada.ask("list-lock", "path=plan.bin")).lines == []
    absent = await ada.ask(f"unlock {'0' * 32}", "force=true")
    assert await ada.ask(f"unlock {secret['id']}", "force=true") == absent
    assert absent.status == 404
    assert len((await carol.ask("list-lock")).lines) == 5
