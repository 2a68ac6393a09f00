"""The most memory that a server and its children use while something large goes through."""

from collections.abc import Callable
from itertools import count

from bench.git_cases import tips
from bench.gitclient import git
from bench.material import CODE
from bench.peer import Peer
from bench.processes import Peak
from bench.stage import Row, Stage, row
from bench.wire import at_once, fetch_body

_numbers = count()


def memory(stage: Stage) -> list[Row]:
    """Peak memory of clones and of a push, beside `git http-backend`."""
    source = stage.material.repository("code", CODE)
    ours, theirs = stage.both("code", source)
    body = fetch_body(tips(source))

    def cold() -> None:
        stage.ours.forget_clones()
        at_once(8, ours, body)

    def push(peer: Peer, url: Callable[[], str]) -> float:
        target = url()
        return peak(peer, lambda: git(source, "push", "-q", target, "main"))

    def ours_new() -> str:
        name = f"memory{next(_numbers)}"
        stage.ours.add(name)
        return stage.ours.push_url(name)

    name = stage.apache.name
    works: list[tuple[str, Callable[[], float], Callable[[], float]]] = [
        (
            "8 cold clones, 105 MB, peak memory",
            lambda: peak(stage.ours, cold),
            lambda: peak(stage.apache, lambda: at_once(8, theirs, body)),
        ),
        (
            "8 warm clones, 105 MB, peak memory",
            lambda: peak(stage.ours, lambda: at_once(8, ours, body)),
            lambda: peak(stage.apache, lambda: at_once(8, theirs, body)),
        ),
        (
            "push of 105 MB, peak memory",
            lambda: push(stage.ours, ours_new),
            lambda: push(stage.apache, lambda: stage.apache.add(f"memory{next(_numbers)}")),
        ),
    ]
    rows = []
    for work, a, b in works:
        samples = [(a(), b()) for _ in range(stage.rounds(3))]
        rows.append(row(work, "MB", name, (tuple(x for x, _ in samples), tuple(y for _, y in samples))))
    return rows


def peak(peer: Peer, action: Callable[[], object]) -> float:
    """Megabytes, everything counted: the idle server as well."""
    with Peak(peer.pid) as most:
        action()
    return most.bytes / 1e6
