"""What cases share: material, servers that are started when the first case wants them, and paired rounds."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from bench.forges import Gitea, SoftServe
from bench.gitclient import make_key
from bench.material import Material
from bench.ours import Modelyard
from bench.peer import Peer
from bench.peers import Apache, Giftless, MinioServer, Nginx, OpenSsh

P = TypeVar("P", bound=Peer)

_QUIET_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: medians of both sides, in `unit`, and the most that their ratio may be.

    A row without a peer is a plain figure. With `more_is_better` the bar is the least that the ratio may be.
    """

    work: str
    unit: str
    ours: float
    peer_name: str = ""
    peer: float | None = None
    bar: float | None = None
    more_is_better: bool = False
    samples: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())

    @property
    def ratio(self) -> float | None:
        return self.ours / self.peer if self.peer else None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None when there is none."""
        measured = self.ratio if self.peer_name else self.ours
        if self.bar is None or measured is None:
            return None
        return measured >= self.bar if self.more_is_better else measured <= self.bar


class Stage:
    """Starts servers once, and ends them all."""

    def __init__(self, folder: Path, material: Material, *, quick: bool) -> None:
        self.folder = folder
        self.material = material
        self.quick = quick
        self._stack = ExitStack()
        self._started: dict[str, Peer] = {}
        self._added: dict[tuple[str, str], str] = {}
        self.key = make_key(folder / "client-key")

    def close(self) -> None:
        self._stack.close()

    def quiet(self) -> None:
        """Waits for what was left to be done, so that no work pays for the one before it.

        Pushes leave repacks behind, and whatever is written leaves pages that the disk has yet to see.
        """
        deadline = time.monotonic() + _QUIET_SECONDS
        for server in self._started.values():
            while isinstance(server, Modelyard) and server.maintains():
                if time.monotonic() > deadline:
                    print("  maintenance does not end: measured beside it", file=sys.stderr, flush=True)
                    break
                time.sleep(0.2)
        os.sync()
        for server in self._started.values():
            settle(server)

    def rounds(self, count: int) -> int:
        """So many, or one when only trying out."""
        return 1 if self.quick else count

    @property
    def ours(self) -> Modelyard:
        return self._start("modelyard", lambda: Modelyard(self.folder))

    @property
    def unhooked(self) -> Modelyard:
        """Modelyard that understands no push."""
        folder = self.folder / "unhooked"
        folder.mkdir(exist_ok=True)
        return self._start("unhooked", lambda: Modelyard(folder, {"MODELYARD_HOOKS__ENABLED": "false"}))

    @property
    def apache(self) -> Apache:
        return self._start("apache", lambda: Apache(self.folder))

    @property
    def nginx(self) -> Nginx:
        return self._start("nginx", lambda: Nginx(self.folder))

    @property
    def sshd(self) -> OpenSsh:
        public = self.key.with_suffix(".pub").read_text()
        return self._start("sshd", lambda: OpenSsh(self.folder, public))

    @property
    def giftless(self) -> Giftless:
        return self._start("giftless", lambda: Giftless(self.folder))

    @property
    def minio(self) -> MinioServer:
        return self._start("minio", lambda: MinioServer(self.folder))

    @property
    def soft_serve(self) -> SoftServe:
        return self._start("soft-serve", lambda: SoftServe(self.folder, self.key))

    @property
    def gitea(self) -> Gitea:
        return self._start("gitea", lambda: Gitea(self.folder))

    @property
    def redirecting(self) -> Modelyard:
        """Modelyard on MinIO, whose large files go past it."""
        minio = self.minio
        minio.client()
        endpoint = f"127.0.0.1:{minio.port}"
        settings = {
            "STORAGE__KIND": "minio",
            "STORAGE__ENDPOINT": endpoint,
            "STORAGE__PUBLIC_ENDPOINT": endpoint,
            "STORAGE__BUCKET": "bench",
            "STORAGE__PREFIX": "modelyard",
            "STORAGE__ACCESS_KEY": minio.access_key,
            "STORAGE__SECRET_KEY": minio.secret_key,
            "STORAGE__SECURE": "false",
            "LFS__TRANSFER": "redirect",
        }
        folder = self.folder / "redirecting"
        folder.mkdir(exist_ok=True)
        return self._start(
            "redirecting",
            lambda: Modelyard(folder, {f"MODELYARD_{name}": value for name, value in settings.items()}),
        )

    def _start(self, name: str, make: Callable[[], P]) -> P:
        if name not in self._started:
            self._started[name] = self._stack.enter_context(make())
        found: P = self._started[name]  # type: ignore[assignment]
        return found

    def both(self, name: str, source: Path) -> tuple[str, str]:
        """The same repository on Modelyard and behind `git http-backend`; returns both URLs."""
        key = ("both", name)
        if key not in self._added:
            self._added[key] = f"{self.ours.add(name, source)} {self.apache.add(name, source)}"
        ours, theirs = self._added[key].split()
        return ours, theirs


def paired(
    rounds: int, ours: Callable[[], float], peer: Callable[[], float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Both in turn, A B A B, after one of each that does not count."""
    ours(), peer()
    a, b = [], []
    for _ in range(rounds):
        a.append(ours())
        b.append(peer())
    return tuple(a), tuple(b)


def row(
    work: str,
    unit: str,
    peer_name: str,
    samples: tuple[tuple[float, ...], tuple[float, ...]],
    *,
    bar: float | None = None,
    more_is_better: bool = False,
) -> Row:
    """A line from paired samples."""
    return Row(work, unit, median(samples[0]), peer_name, median(samples[1]), bar, more_is_better, samples)


def cpu_of(peer: Peer, action: Callable[[], object]) -> float:
    """Processor seconds that the peer needs for it."""
    before = peer.cpu()
    action()
    # The last child is reaped a moment after its client has everything.
    settle(peer)
    return peer.cpu() - before


def settle(peer: Peer) -> None:
    """Waits until the peer uses no processor time any more, at most two seconds."""
    last = peer.cpu()
    for _ in range(20):
        time.sleep(0.1)
        now = peer.cpu()
        if now == last:
            return
        last = now


def forget(path: Path) -> None:
    """Gives the memory back that caches a file, which must be on disk.

    A virtual machine gets memory that it never touched page by page from its host, which was seen to triple
    the time of writing a gigabyte: whoever always writes new files is slow, and whoever writes over its old
    one is not. Both write into memory that was given back a moment before.
    """
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
