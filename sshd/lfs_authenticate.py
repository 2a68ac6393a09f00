"""`git-lfs-authenticate`: tells a client of SSH where the HTTP face is, and gives it leave to use it.

https://github.com/git-lfs/git-lfs/blob/main/docs/api/server-discovery.md, section SSH
"""

import json
from dataclasses import dataclass

from core.access import Actor
from core.names import Address
from lfs.batch import Operation
from lfs.service import LfsService
from sshd.lfs_transfer import PERMISSIONS


@dataclass(frozen=True, slots=True)
class HttpFace:
    """Where the HTTP face is.

    Attributes:
        public_url: what clients are told, if it is set; scheme, host and prefix.
        scheme, port: of the listener.
        public_host: the name of this machine for its clients, if it is set.
    """

    public_url: str
    scheme: str
    port: int
    public_host: str = ""

    def base_url(self, local_address: str) -> str:
        """Without a slash at the end, for a client that reached this server at `local_address`."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = self.public_host or local_address
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


async def authentication(
    service: LfsService,
    face: HttpFace,
    actor: Actor,
    address: Address,
    operation: Operation,
    local_address: str,
) -> bytes:
    """The answer, one line of JSON.

    Raises:
        RepositoryNotFound, PermissionDenied: the actor may not do that.
    """
    repository = await service.open(actor, address, PERMISSIONS[operation])
    token, seconds = service.start_session(repository, actor, writes=operation is Operation.UPLOAD)
    answer = {
        "href": f"{face.base_url(local_address)}/{repository.path}.git/info/lfs",
        "header": {"Authorization": f"Bearer {token}"},
        "expires_in": seconds,
    }
    return f"{json.dumps(answer)}\n".encode()
