"""Git over HTTP and SSH beside `git http-backend` and OpenSSH."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from statistics import median

from bench.gitclient import git, ssh_environment
from bench.material import CODE, MODEL, PUSH
from bench.stage import Row, Stage, cpu_of, paired, row
from bench.wire import GIT_HEADERS, at_once, fetch, fetch_body, ls_refs_body, request

_numbers = count()


def timed(action: Callable[[], object]) -> float:
    """Wall seconds."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def tips(path: Path) -> list[str]:
    """What a clone of the repository wants."""
    return sorted(set(git(path, "for-each-ref", "--format=%(objectname)").split()))


def warm_clone(stage: Stage) -> list[Row]:
    """Clones whose answer is in the cache: server processor time, and eight at once."""
    rows = []
    for name, shape, label in (("code", CODE, "105 MB"), ("model", MODEL, "8 MB")):
        source = stage.material.repository(name, shape)
        ours, theirs = stage.both(name, source)
        body = fetch_body(tips(source))
        samples = paired(
            stage.rounds(7),
            lambda: cpu_of(stage.ours, lambda: fetch(ours, body)),
            lambda: cpu_of(stage.apache, lambda: fetch(theirs, body)),
        )
        bar = 0.1 if name == "code" else None
        rows.append(row(f"warm clone, {label}, server CPU", "s", stage.apache.name, samples, bar=bar))
        for number in (1, 8, 64):
            samples = paired(
                stage.rounds(3 if number == 64 else 5),
                lambda: at_once(number, ours, body),
                lambda: at_once(number, theirs, body),
            )
            bar = 0.3 if name == "code" and number == 8 else None
            work = f"{number} warm clone{'s' if number > 1 else ''}, {label}, raw wall"
            rows.append(row(work, "s", stage.apache.name, samples, bar=bar))
    return rows


def cold_clone(stage: Stage) -> list[Row]:
    """Clones that nobody asked for before."""
    rows = []
    for name, shape, label in (("code", CODE, "105 MB"), ("model", MODEL, "8 MB")):
        source = stage.material.repository(name, shape)
        ours, theirs = stage.both(name, source)
        body = fetch_body(tips(source))

        def cold() -> None:
            stage.ours.forget_clones()
            fetch(ours, body)

        samples = paired(
            stage.rounds(11),
            lambda: cpu_of(stage.ours, cold),
            lambda: cpu_of(stage.apache, lambda: fetch(theirs, body)),
        )
        bar = 1.1 if name == "code" else None
        rows.append(row(f"cold clone, {label}, server CPU", "s", stage.apache.name, samples, bar=bar))
        samples = paired(stage.rounds(5), lambda: timed(cold), lambda: fetch(theirs, body).seconds)
        rows.append(row(f"cold clone, {label}, raw wall", "s", stage.apache.name, samples))
    return rows


def real_clone(stage: Stage) -> list[Row]:
    """What a person waits: the real client, who indexes the pack and checks out."""
    source = stage.material.repository("model", MODEL)
    ours, theirs = stage.both("model", source)

    def clone(url: str) -> float:
        target = stage.folder / f"clone{next(_numbers)}"
        try:
            return timed(lambda: git(stage.folder, "clone", "-q", url, target))
        finally:
            shutil.rmtree(target)

    samples = paired(stage.rounds(7), lambda: clone(ours), lambda: clone(theirs))
    return [row("git clone, 8 MB, wall", "s", stage.apache.name, samples)]


def incremental_fetch(stage: Stage) -> list[Row]:
    """The last ten commits of a large repository."""
    source = stage.material.repository("code", CODE)
    ours, theirs = stage.both("code", source)
    body = fetch_body(
        [git(source, "rev-parse", "main").strip()], [git(source, "rev-parse", "main~10").strip()]
    )
    samples = paired(stage.rounds(25), lambda: fetch(ours, body).seconds, lambda: fetch(theirs, body).seconds)
    return [row("fetch of 10 commits, wall", "s", stage.apache.name, samples, bar=1.1)]


def refs(stage: Stage) -> list[Row]:
    """What every fetch asks first."""
    rows = []
    for number, bar in ((10, 0.3), (10_000, 0.5)):
        ours, theirs = stage.both(f"refs{number}", stage.material.many_refs(number))
        body = ls_refs_body("refs/heads/", "refs/tags/", "HEAD")
        rounds = stage.rounds(100 if number == 10 else 25)
        samples = paired(rounds, lambda: fetch(ours, body).seconds, lambda: fetch(theirs, body).seconds)
        rows.append(row(f"ls-refs, {number:,} refs, p50", "s", stage.apache.name, samples, bar=bar))

        def advertise(url: str) -> float:
            return request(f"{url}/info/refs?service=git-upload-pack", headers=GIT_HEADERS).seconds

        samples = paired(rounds, lambda: advertise(ours), lambda: advertise(theirs))
        rows.append(row(f"info/refs, {number:,} refs, p50", "s", stage.apache.name, samples))
    return rows


def pushes(stage: Stage) -> list[Row]:
    """The real client pushes: a small change, a first push, and many small ones at once."""
    apache, ours = stage.apache, stage.ours

    def targets() -> tuple[str, str]:
        name = f"push{next(_numbers)}"
        ours.add(name)
        return ours.push_url(name), apache.add(name)

    rows = []
    for shape, name, label, bar in ((PUSH, "push", "48 MB", 1.2), (CODE, "code", "105 MB", None)):
        source = stage.material.repository(name, shape)
        a, b = [], []
        for _ in range(stage.rounds(5 if name == "push" else 3) + 1):
            mine, theirs = targets()
            a.append(timed(lambda: git(source, "push", "-q", mine, "main")))
            stage.quiet()
            b.append(timed(lambda: git(source, "push", "-q", theirs, "main")))
        samples = (tuple(a[1:]), tuple(b[1:]))
        rows.append(row(f"push of {label}, wall", "s", apache.name, samples, bar=bar))

    work = stage.folder / f"small{next(_numbers)}"
    git(stage.folder, "clone", "-q", stage.material.repository("model", MODEL), work)
    mine, theirs = targets()
    # The histories hold pointers of objects that nobody has.
    missing = ("-o", "lfs.allow-missing")
    git(work, "push", "-q", *missing, mine, "main")
    git(work, "push", "-q", theirs, "main")
    stage.quiet()

    def small(url: str) -> float:
        (work / "change").write_text(str(next(_numbers)))
        git(work, "add", "change")
        git(work, "commit", "-q", "-m", "change")
        return timed(lambda: git(work, "push", "-q", url, "main"))

    samples = paired(stage.rounds(15), lambda: small(mine), lambda: small(theirs))
    rows.append(row("push of 1 commit, wall", "s", apache.name, samples, bar=1.3))

    stage.quiet()
    refspec = "main~150:refs/heads/main"

    def many(urls: list[str], *options: str) -> float:
        def push(url: str) -> None:
            git(work, "push", "-q", *options, url, refspec)

        with ThreadPoolExecutor(32) as pool:
            return timed(lambda: list(pool.map(push, urls)))

    a, b = [], []
    for _ in range(stage.rounds(3)):
        pairs = [targets() for _ in range(32)]
        a.append(many([mine for mine, _ in pairs], *missing))
        b.append(many([theirs for _, theirs in pairs]))
    rows.append(row("32 pushes to 32 repositories at once, wall", "s", apache.name, (tuple(a), tuple(b))))
    return rows


def ssh(stage: Stage) -> list[Row]:
    """The real client over SSH."""
    source = stage.material.repository("code", CODE)
    stage.both("code", source)
    theirs = stage.sshd.add("code", source)
    key = {"ours": ssh_environment(stage.ours.key), "theirs": ssh_environment(stage.key)}

    def clone(side: str, url: str) -> float:
        target = stage.folder / f"ssh{next(_numbers)}"
        try:
            return timed(lambda: git(stage.folder, "clone", "-q", "--bare", url, target, extra=key[side]))
        finally:
            shutil.rmtree(target)

    samples = paired(
        stage.rounds(3),
        lambda: clone("ours", stage.ours.ssh_url("code")),
        lambda: clone("theirs", theirs),
    )
    return [row("clone over SSH, 105 MB, wall", "s", stage.sshd.name, samples, bar=1.5)]


def fairness(stage: Stage) -> list[Row]:
    """A small fetch while somebody else runs 16 cold clones: p95, against the same on a quiet server."""
    source = stage.material.repository("code", CODE)
    ours, theirs = stage.both("code", source)
    small = fetch_body(
        [git(source, "rev-parse", "main").strip()], [git(source, "rev-parse", "main~10").strip()]
    )
    wants = tips(source)
    rows = []
    # Places are shared out by account, and nobody's by address: the mirror is ann's, the reader is nobody.
    for url, name, token in ((ours, stage.ours.name, stage.ours.token), (theirs, stage.apache.name, "")):
        quiet = sorted(fetch(url, small).seconds for _ in range(20))
        # Different wants, so that no answer serves two of them.
        bodies = [fetch_body(wants[number:]) for number in range(16)]
        with ThreadPoolExecutor(16) as pool:
            clones = [pool.submit(fetch, url, body, token=token) for body in bodies]
            busy = []
            while not all(one.done() for one in clones):
                busy.append(fetch(url, small).seconds)
        busy.sort()
        p95 = busy[int(len(busy) * 0.95)] if busy else 0.0
        rows.append(Row(f"{name}: fetch of 10 commits, p50 quiet", "s", median(quiet)))
        rows.append(Row(f"{name}: the same while 16 cold clones run, p95", "s", p95))
    return rows
