import asyncio
import pytest
from storage.local import LocalStore
from storage.local_files import Draft
from tests.support.part_uploads import PartUploads
from tests.support.streams import noise

async def test_other_parts_while_another_process_completes(bench: PartUploads, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(bench.world.store, LocalStore):
        pytest.skip("local")
    data = bench.data()
    first, second = bench.process(), bench.process()
    plan = await bench.begin(first, data)
    await bench.put_all(first, plan, data)
    store = bench.world.store
    held, go, count = asyncio.Event(), asyncio.Event(), 0
    real = store._publish
    async def slow(draft, target):
        nonlocal count
        count += 1
        if count == 1:   # the attacker's: a slow fsync
            held.set()
            await go.wait()
        await real(draft, target)
    # attacker puts a bad part, completes on one process
    await bench.put(first, plan, 1, data, noise(plan.size_of(1), "bad"))
    monkeypatch.setattr(store, "_publish", slow)
    bad = asyncio.create_task(bench.complete(second, plan))
    await held.wait()
    # puts the good part again, completes on the other
    monkeypatch.setattr(store, "_publish", real)
    await bench.put(first, plan, 1, data)
    await bench.complete(first, plan)
    assert await bench.world.read(plan.oid) == data
    go.set()
    print(await asyncio.gather(bad, return_exceptions=True))
    await bench.expect_whole(data)
