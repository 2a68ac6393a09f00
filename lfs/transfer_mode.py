"""Whether the bytes of large files go through this server or between clients and the store."""

import asyncio

import structlog

from core.models import StoreKind
from core.settings import Settings
from lfs.stores import Stores
from storage.protocol import SignatureReport, Signatures

log = structlog.get_logger(__name__)

RETRY_SECONDS = 60.0

_REMEDY = (
    "put a proxy in front of the store that refuses unsigned trailers (deploy/README.md has one for nginx), "
    "and let clients reach nothing else of it"
)


def may_redirect(settings: Settings, current: StoreKind) -> bool:
    """Whether the settings want bytes to go past this server, where the store can do that.

    `auto` wants it where new objects go to MinIO and `[storage] public_endpoint` says where clients find it.
    """
    if settings.lfs.transfer == "auto":
        return current is StoreKind.MINIO and bool(settings.storage.public_endpoint)
    return settings.lfs.transfer == "redirect"


class TransferMode:
    """The mode of this process.

    `auto` is careful: bytes go through this server until `settle` has seen that the store checks signatures.
    `redirect` is the word of the operator, and holds from the beginning.
    """

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._stores = stores
        self._may_redirect = may_redirect(settings, stores.current_kind)
        self._insists = settings.lfs.transfer == "redirect"
        self._redirects = self._may_redirect and self._insists

    def redirects(self) -> bool:
        """Whether links should lead past this server now. It may begin to, and never stops."""
        return self._redirects

    async def settle(self) -> None:
        """Examines the store and decides; returns when that is final. Says once in the log what is wrong.

        Tries again while it cannot be found out, since a proxy may start after this server.
        """
        if not self._may_redirect:
            return
        is_told = False
        while (report := await self.examine()).signatures is Signatures.UNKNOWN:
            if not is_told:
                self._warn("the object store could not be examined from here", report)
                is_told = True
            await asyncio.sleep(RETRY_SECONDS)
        if report.signatures is Signatures.IGNORED:
            self._warn("the object store can be written to by anybody who has seen a link", report)
            return
        if not self._redirects:
            self._redirects = True
            log.info("lfs.transfer.redirects")

    async def examine(self) -> SignatureReport:
        """What is known of the stores that clients may be sent to; the worst, if there are several."""
        report = SignatureReport(Signatures.CHECKED, "it signs nothing")
        for kind in self._stores.kinds():
            store = self._stores[kind]
            if store.signs:
                report = await store.examine_signatures()
                if report.signatures is not Signatures.CHECKED:
                    break
        return report

    def _warn(self, what: str, report: SignatureReport) -> None:
        consequence = (
            "large files travel past this server all the same, as [lfs] transfer says"
            if self._insists
            else "large files travel through this server"
        )
        event = "lfs.transfer.unsafe" if self._insists else "lfs.transfer.proxied"
        log.warning(event, problem=what, reason=report.reason, consequence=consequence, remedy=_REMEDY)
