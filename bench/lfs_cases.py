"""Large files beside nginx, MinIO, giftless and the bare work of hashing and writing."""

import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

from bench.git_cases import timed
from bench.ours import Modelyard
from bench.peer import Peer
from bench.stage import Row, Stage, cpu_of, forget, paired, row
from bench.wire import request

_GIGABYTE = 10**9
_BATCH = 100
_LFS = {"Accept": "application/vnd.git-lfs+json", "Content-Type": "application/vnd.git-lfs+json"}
_seeds = count(1)

# What no upload can do without: the peer of an upload through the server.
_HASH_AND_WRITE = """
import hashlib, os, sys
source, target = sys.argv[1:]
digest = hashlib.sha256()
with open(source, "rb", buffering=0) as read, open(target, "wb", buffering=0) as write:
    while chunk := read.read(1 << 20):
        digest.update(chunk)
        write.write(chunk)
    os.fsync(write.fileno())
"""


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def change(path: Path) -> str:
    """Makes another file of it, and has it on disk before anything is measured; returns its sha256."""
    with path.open("r+b") as file:
        file.write(os.urandom(16))
        file.flush()
        os.fsync(file.fileno())
    return sha256(path)


class Repository:
    """One repository for large files on one server."""

    def __init__(self, server: Modelyard, name: str) -> None:
        server.add(name)
        self._url = f"{server.url}/ann/{name}.git/info/lfs"
        self._headers = {**_LFS, "Authorization": f"Bearer {server.token}"}

    def batch(self, operation: str, objects: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
        """Asks for actions."""
        body = json.dumps(
            {"operation": operation, "objects": [{"oid": oid, "size": size} for oid, size in objects]}
        )
        asked = urllib.request.Request(f"{self._url}/objects/batch", body.encode(), self._headers)
        with urllib.request.urlopen(asked) as answer:
            found: list[dict[str, Any]] = json.load(answer)["objects"]
        return found

    def upload(self, *files: tuple[Path, str]) -> None:
        """Asks for up to 100 at a time, puts eight at once and verifies, as git-lfs does."""
        sizes = [(oid, file.stat().st_size) for file, oid in files]
        for start in range(0, len(files), _BATCH):
            answers = self.batch("upload", sizes[start : start + _BATCH])
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(self._put, (file for file, _ in files[start : start + _BATCH]), answers))

    def _put(self, file: Path, answer: dict[str, Any]) -> None:
        actions = answer.get("actions", {})
        if "upload" not in actions:
            raise RuntimeError("the object is there already: nothing would be measured")
        put = actions["upload"]
        request(put["href"], method="PUT", headers=put.get("header", {}), file=file)
        if verify := actions.get("verify"):
            body = json.dumps({"oid": answer["oid"], "size": answer["size"]}).encode()
            request(verify["href"], method="POST", headers={**_LFS, **verify.get("header", {})}, body=body)

    def download(self, *objects: tuple[str, int]) -> None:
        """Asks for up to 100 at a time, takes eight at once, and throws away what comes."""
        for start in range(0, len(objects), _BATCH):
            answers = self.batch("download", objects[start : start + _BATCH])
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(self._get, answers))

    def _get(self, answer: dict[str, Any]) -> None:
        get = answer["actions"]["download"]
        if request(get["href"], headers=get.get("header", {})).bytes < answer["size"]:
            raise RuntimeError("the download was cut")


def through_the_server(stage: Stage) -> list[Row]:
    """One gigabyte up and down, and many files of one megabyte."""
    repository = Repository(stage.ours, "large")
    rounds = stage.rounds(5)
    spare = stage.folder / "spare"

    file = stage.folder / "upload"
    file.write_bytes(stage.material.file(_GIGABYTE, 1).read_bytes())
    a, b = [], []
    for _ in range(rounds + 1):
        oid = change(file)
        a.append(timed(lambda: repository.upload((file, oid))))
        forget(stage.ours.object_file(oid))
        b.append(
            timed(lambda: subprocess.run([sys.executable, "-c", _HASH_AND_WRITE, file, spare], check=True))
        )
        forget(spare)
        spare.unlink()  # ours is a new file each time, too
    rows = [
        row("LFS upload of 1 GB, wall", "s", "sha256, write, fsync", (tuple(a[1:]), tuple(b[1:])), bar=1.5)
    ]
    oid = sha256(file)
    url = stage.nginx.add(file)
    samples = paired(
        stage.rounds(15),
        lambda: timed(lambda: repository.download((oid, _GIGABYTE))),
        lambda: request(url).seconds,
    )
    rows.append(row("LFS download of 1 GB, wall", "s", stage.nginx.name, samples, bar=1.25))

    files = [stage.material.file(1_000_000, 1000 + number) for number in range(500)]
    known = [(one, sha256(one)) for one in files]
    with ThreadPoolExecutor(8) as pool:
        up = timed(lambda: repository.upload(*known))
        urls = [stage.nginx.add(one) for one in files]
        samples = paired(
            stage.rounds(3),
            lambda: timed(lambda: repository.download(*((oid, 1_000_000) for _, oid in known))),
            lambda: timed(lambda: list(pool.map(request, urls))),
        )
    rows.append(Row("LFS upload of 500 × 1 MB, 8 at once, wall", "s", up))
    rows.append(row("LFS download of 500 × 1 MB, 8 at once, wall", "s", stage.nginx.name, samples))
    return rows


def past_the_server(stage: Stage) -> list[Row]:
    """The same gigabyte between client and MinIO, and straight to MinIO with its own signed URLs.

    MinIO hashes an upload with MD5 in any case. What is said to have a sha256 it hashes once more, which is
    what makes it an object of a repository: the second peer of the upload is told to, too.
    """
    repository = Repository(stage.redirecting, "large")
    client = stage.minio.client()
    source = stage.material.file(_GIGABYTE, 2)
    file = stage.folder / "direct"
    file.write_bytes(source.read_bytes())
    a, b, c = [], [], []
    oid = ""
    for number in range(stage.rounds(3) + 1):
        oid = change(file)
        a.append(timed(lambda: repository.upload((file, oid))))
        url = client.presigned_put_object("bench", f"plain{number}")
        b.append(timed(lambda: request(url, method="PUT", file=file)))
        summed = client.presigned_put_object("bench", f"summed{number}")
        headers = {"x-amz-checksum-sha256": b64encode(bytes.fromhex(oid)).decode()}
        c.append(timed(lambda: request(summed, method="PUT", headers=headers, file=file)))
    work = "LFS upload of 1 GB, redirected"
    rows = [
        row(work, "s", "MinIO", (tuple(a[1:]), tuple(b[1:])), bar=1.1),
        row(work, "s", "MinIO, which checks the sha256", (tuple(a[1:]), tuple(c[1:]))),
    ]
    url = client.presigned_get_object("bench", "plain0")
    samples = paired(
        stage.rounds(9),
        lambda: timed(lambda: repository.download((oid, _GIGABYTE))),
        lambda: request(url).seconds,
    )
    rows.append(row("LFS download of 1 GB, redirected", "s", "MinIO", samples, bar=1.1))
    return rows


def batches(stage: Stage) -> list[Row]:
    """Batch requests of objects that are not there yet, per second of processor time."""
    ours, giftless = stage.ours, stage.giftless
    ours.add("batch")
    targets: tuple[tuple[Peer, str, dict[str, str]], ...] = (
        (ours, f"{ours.url}/ann/batch.git/info/lfs/objects/batch", {"Authorization": f"Bearer {ours.token}"}),
        (giftless, giftless.batch_url(), {}),
    )
    rows = []
    for size, times in ((1, 100), (100, 40), (1000, 8)):
        objects = [{"oid": f"{number:064x}", "size": number + 1} for number in range(size)]
        body = json.dumps(
            {
                "operation": "upload",
                "transfers": ["basic"],
                "ref": {"name": "refs/heads/main"},
                "objects": objects,
            }
        ).encode()

        def rate(which: int) -> float:
            peer, url, extra = targets[which]

            def ask() -> None:
                for _ in range(times):
                    request(url, method="POST", headers={**_LFS, **extra}, body=body)

            return times / cpu_of(peer, ask)

        samples = paired(stage.rounds(9), lambda: rate(0), lambda: rate(1))
        bar = 5.0 if size == 100 else None
        work = f"LFS batch of {size:,}, requests per CPU second"
        rows.append(row(work, "/s", giftless.name, samples, bar=bar, more_is_better=True))
    return rows
