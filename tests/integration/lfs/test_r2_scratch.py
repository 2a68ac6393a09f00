"""two collectors + pushes on PostgreSQL while a link is being uploaded: what a push judged"""
import asyncio, random, time, collections
from core.access import SYSTEM
from core.errors import ModelyardError
from core.models import LfsLink
from core.settings import LfsSettings
from gitserver.commits import Put
from lfs.pointer import Pointer, write_pointer
from tests.support.lfs_keeping import open_keeping
from tests.support.lfs_world import oid_of
from tests.support.streams import noise, pieces
from sqlalchemy import select, update
from modelyard.lfs_policy import MissingObjects
from gitserver.landing import Lander
import inspect

async def test_i2(database, tmp_path):
    st = LfsSettings(unreferenced_days=0, trash_days=0)
    async with open_keeping(database, tmp_path, settings=st) as k:
        w = k.world
        errors = collections.Counter()
        lander = None
        for name in dir(k.git):
            pass
        committer = k.git.committer
        lander = getattr(committer, "_lander", None)
        gate = getattr(committer, "_gate", None)
        if lander is None: lander = getattr(gate, "_lander")
        lander._policies = [*lander._policies, MissingObjects(database, k.git.git, w.objects, st)]
        stop = time.monotonic()+10
        landed = []
        n = 0
        async def push(i):
            nonlocal n
            while time.monotonic() < stop:
                n += 1
                d = noise(500, f"{i}-{n%5}")
                try:
                    await w.upload(d)
                    pass
                    await committer.commit(k.repository, SYSTEM, f"b{i}", [Put(f"f{n}", write_pointer(Pointer(oid_of(d), len(d))))], "x")
                    landed.append(oid_of(d))
                except ModelyardError as e:
                    errors[f"{type(e).__name__}:{e.message[:60]}"] += 1
        async def gc():
            while time.monotonic() < stop:
                try:
                    for one in (await k.files.collector.collect()).repositories:
                        errors["gc:"+one.error] += 1
                        if one.trashed: errors["trashed"] += one.trashed
                        if one.purged: errors["purged"] += one.purged
                except ModelyardError as e:
                    errors[f"gc {type(e).__name__}:{e.message[:60]}"] += 1
                await asyncio.sleep(random.random()*0.12)
        await asyncio.gather(*(push(i) for i in range(3)), gc(), gc())
        missing = await w.objects.missing(k.repository.id, set(landed))
        print(database.dialect, len(landed), errors, "MISSING", missing)
        assert not missing
        assert 0
