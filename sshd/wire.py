"""The connection itself, with what asyncssh leaves out: the socket's backpressure and a say in the cipher."""

import asyncio
from typing import cast

import asyncssh

# Output waiting for the socket, over all channels of a connection.
_OUTPUT_BYTES = 512 * 1024
_REKEY_POLL_SECONDS = 0.02


class Wire(asyncssh.SSHServerConnection):
    """A server connection that knows whether its socket keeps up.

    asyncssh bounds its output by the window that the client grants and ignores the socket, so a client that
    grants four gigabytes and reads nothing would have them all queued in memory.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHServerConnectionOptions) -> None:
        super().__init__(loop, options)
        self._room = asyncio.Event()
        self._room.set()
        self._socket: asyncio.Transport | None = None

    @property
    def has_room(self) -> bool:
        """Whether what is sent now goes to the socket, instead of piling up."""
        return self._room.is_set() and self._kex_complete

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        if self._socket is None or self._socket.is_closing():
            return 0
        return self._socket.get_write_buffer_size()

    async def wait_for_room(self) -> None:
        """Returns when `has_room`; may never, once the connection is lost."""
        while not self.has_room:
            await self._room.wait()
            # Packets are held back while keys are exchanged, once per gigabyte; no event tells its end.
            if not self._kex_complete:
                await asyncio.sleep(_REKEY_POLL_SECONDS)

    def _send_kexinit(self) -> None:
        # The client's order decides, and OpenSSH before 10 lists AES-CTR first, which costs 1.7 times the
        # processor time here. Every OpenSSH since 6.2 has AES-GCM, so to those nothing else is offered.
        if str(self.get_extra_info("client_version", "")).startswith("SSH-2.0-OpenSSH_"):
            self._enc_algs = [name for name in self._enc_algs if b"-gcm@" in name]
        super()._send_kexinit()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._socket.set_write_buffer_limits(_OUTPUT_BYTES)
        super().connection_made(transport)

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()
