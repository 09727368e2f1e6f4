"""Channel Access on loopback alone."""

import os
import socket
from collections.abc import Awaitable, Callable

# caproto reads this when it is imported: by default it holds back monitors by 10 ms.
os.environ.setdefault("CAPROTO_SERVER_HIGH_LOAD_TIMEOUT_SEC", "0.001")

from caproto.asyncio.server import Context

from mistral_txm.simulated_beamline.channels import Database

LOOPBACK = "127.0.0.1"


class LoopbackContext(Context):  # type: ignore[misc]  # caproto is untyped
    """caproto's server on a socket that is already bound to loopback, and without broadcasts."""

    def __init__(self, database: Database, listener: socket.socket) -> None:
        super().__init__(database, interfaces=[LOOPBACK])
        self._listener = listener
        self.ca_server_port = listener.getsockname()[1]

    async def _bind_tcp_sockets_with_consistent_port_number(
        self, _make_socket: Callable[..., Awaitable[socket.socket]]
    ) -> tuple[int, dict[str, socket.socket]]:
        return self.ca_server_port, {LOOPBACK: self._listener}

    async def broadcast_beacon_loop(self) -> None:
        """Send no beacons: they would leave this machine."""


def bind_loopback(port: int) -> socket.socket:
    """Bind a listening socket for Channel Access on loopback; port 0 takes a free one.

    The same UDP port is tried, too, since clients search for the server there. Accepted connections
    inherit TCP_NODELAY: with Nagle's algorithm, caproto's default, a round trip takes 44 ms.

    Raises OSError where the port is taken.
    """
    for _attempt in range(100):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.setblocking(False)
            listener.bind((LOOPBACK, port))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind(listener.getsockname())
        except OSError:
            listener.close()
            if port != 0:
                raise
            continue
        return listener
    raise OSError("no port is free for both TCP and UDP on loopback")
