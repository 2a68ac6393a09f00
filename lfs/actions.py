"""From decisions to the JSON of a batch answer: for each object the requests that move its bytes.

Every link authorises itself, so that the client sends no credentials with it: a presigned URL of an object
store refuses a second authorisation, and clients of huggingface_hub send none.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from core.access import Actor
from core.opening import RepositoryInfo
from core.settings import LfsSettings
from lfs import multipart_actions
from lfs.batch import (
    HASH,
    BatchRequest,
    Decision,
    Expected,
    Offered,
    Present,
    Refused,
    Transfer,
    choose_transfer,
)
from lfs.direct import DirectUploads
from lfs.links import MAX_LINK_SECONDS, Grant, Links, Use
from lfs.multipart import MultipartUploads
from lfs.objects import StoredObject
from lfs.part_plan import PartPlan
from lfs.stores import Stores
from storage.protocol import SignedPut

# S3 takes no more in one PUT.
MAX_DIRECT_BYTES = 5 * 1024**3

# A link has some 400 characters: behind these, the other objects of a batch have to wait for the next one.
_ENOUGH_PARTS = 30_000
_TOO_MANY_PARTS = {"code": 413, "message": "too many parts for one batch; ask again for this object"}

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Answering:
    """What all links of one answer have in common."""

    repository: RepositoryInfo
    base: str
    seconds: int
    grant: Grant


class Actions:
    """Writes batch answers."""

    def __init__(
        self,
        stores: Stores,
        links: Links,
        direct: DirectUploads,
        multipart: MultipartUploads,
        settings: LfsSettings,
        *,
        redirects: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`redirects`: as `TransferMode.redirects`; `clock`: Unix time."""
        self._stores = stores
        self._links = links
        self._direct = direct
        self._multipart = multipart
        self._settings = settings
        self._redirects = redirects
        self._clock = clock

    async def answer(
        self,
        repository: RepositoryInfo,
        actor: Actor,
        request: BatchRequest,
        decisions: Sequence[Decision],
        base_url: str,
    ) -> Json:
        """The whole answer. `base_url` has scheme, host and prefix of this server, as the client sees it."""
        seconds = self._life(decisions)
        base = f"{base_url}/{repository.path}.git/info/lfs"
        grant = self._links.grant(repository.id, actor, int(self._clock()) + seconds)
        call = _Answering(repository, base, seconds, grant)
        transfer = choose_transfer(request, decisions, multipart_bytes=self._settings.multipart_bytes)
        uploads = await self._uploads(call, request, decisions, transfer)
        objects: list[Json] = []
        for decision in decisions:
            match decision:
                case Refused(oid, size, code, message):
                    objects.append({"oid": oid, "size": size, "error": {"code": code, "message": message}})
                case Present(oid, size):
                    objects.append({"oid": oid, "size": size, "authenticated": True})
                case Expected(oid, size) if oid in uploads:
                    objects.append(_entry(oid, size, uploads[oid]))
                case Expected(oid, size):
                    objects.append({"oid": oid, "size": size, "error": _TOO_MANY_PARTS})
                case Offered(oid, size, stored):
                    objects.append(_entry(oid, size, {"download": await self._download(call, stored)}))
        return {"transfer": transfer.value, "objects": objects, "hash_algo": HASH}

    def _life(self, decisions: Sequence[Decision]) -> int:
        """Seconds that the links are good for: the last object waits until all before it are through."""
        bytes_to_move = sum(one.size for one in decisions if isinstance(one, Expected | Offered))
        needed = bytes_to_move // max(1, self._settings.slowest_bytes_per_second)
        return min(self._settings.link_seconds + needed, MAX_LINK_SECONDS)

    async def _download(self, call: _Answering, stored: StoredObject) -> Json:
        if self._redirects():
            url = await self._stores[stored.store].signed_get(stored.key, seconds=call.seconds)
            if url is not None:
                return _action(url, call)
        return _action(_object(call, Use.DOWNLOAD, stored.oid, stored.size), call)

    async def _uploads(
        self, call: _Answering, request: BatchRequest, decisions: Sequence[Decision], transfer: Transfer
    ) -> Mapping[str, Json]:
        """The actions for each object that is to come, but for those that would make the answer too long."""
        sizes = {one.oid: one.size for one in decisions if isinstance(one, Expected)}
        signed = await self._signed_puts(call, request, sizes, transfer)
        actions: dict[str, Json] = {}
        parts = 0
        for oid, size in sizes.items():
            if transfer is not Transfer.BASIC and size > 0:  # nothing has no parts
                if parts < _ENOUGH_PARTS:
                    plan = await self._multipart.begin(call.repository.id, oid, size)
                    parts += plan.count
                    actions[oid] = await self._parts(call, transfer, plan)
            elif oid in signed:
                actions[oid] = {
                    "upload": _action(signed[oid].url, call, signed[oid].headers),
                    "verify": _verify(call, oid, size),
                }
            else:
                # What we take ourselves is verified before we answer: nothing is left to ask about.
                actions[oid] = {"upload": _action(_object(call, Use.UPLOAD, oid, size), call)}
        return actions

    async def _signed_puts(
        self, call: _Answering, request: BatchRequest, sizes: Mapping[str, int], transfer: Transfer
    ) -> Mapping[str, SignedPut]:
        """Presigned URLs, for clients that send the headers of an action with its request, as git-lfs does.

        Clients that know `multipart` are huggingface_hub, which does not.
        """
        if not self._redirects() or transfer is not Transfer.BASIC or Transfer.MULTIPART in request.transfers:
            return {}
        fitting = [(oid, size) for oid, size in sizes.items() if size <= MAX_DIRECT_BYTES]
        return await self._direct.begin_many(call.repository.id, fitting, call.seconds) if fitting else {}

    async def _parts(self, call: _Answering, transfer: Transfer, plan: PartPlan) -> Json:
        oid, size = plan.oid, plan.size
        signed = await self._multipart.signed_parts(plan, call.seconds)

        def url(path: str, use: Use, part: int = 0) -> str:
            return _url(call, path, use, oid, size, upload_id=plan.upload_id, part=part)

        def part(number: int) -> str:
            return url(multipart_actions.part_path(plan, number), Use.PART, number)

        complete = url(multipart_actions.complete_path(plan), Use.COMPLETE)
        verify = _url(call, "objects/verify", Use.VERIFY, oid, size)
        if transfer is Transfer.MULTIPART:
            actions = multipart_actions.hf(
                plan, part=part, complete=complete, signed=signed, expires_in=call.seconds
            )
            return {**actions, "verify": _verify(call, oid, size)}
        return multipart_actions.giftless(
            plan,
            part=part,
            complete=complete,
            abort=url(multipart_actions.abort_path(plan), Use.ABORT),
            verify=verify,
            signed=signed,
            expires_in=call.seconds,
        )


def _verify(call: _Answering, oid: str, size: int) -> Json:
    return _action(_url(call, "objects/verify", Use.VERIFY, oid, size), call)


def _object(call: _Answering, use: Use, oid: str, size: int) -> str:
    return _url(call, f"objects/{oid}", use, oid, size)


def _url(
    call: _Answering, path: str, use: Use, oid: str, size: int, *, upload_id: str = "", part: int = 0
) -> str:
    return f"{call.base}/{path}?link={call.grant.sign(use, oid, size, upload_id=upload_id, part=part)}"


def _entry(oid: str, size: int, actions: Mapping[str, object]) -> Json:
    return {"oid": oid, "size": size, "authenticated": True, "actions": actions}


def _action(href: str, call: _Answering, header: Mapping[str, str] | None = None) -> Json:
    action: Json = {"href": href, "expires_in": call.seconds}
    if header:
        action["header"] = dict(header)
    return action
