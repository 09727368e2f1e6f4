"""Points this process's Channel Access client at one control server on loopback.

libca reads its environment once, when ophyd is imported: `use_control_server` comes before that.
"""

import os
import socket
import struct
import sys
import threading

REPEATER_CONFIRM = 17
"""Command of the Channel Access protocol that answers a client's registration with the repeater."""


def use_control_server(port: int) -> None:
    """Let every Channel Access client of this process search on loopback, at one port alone.

    Raises
    ------
    RuntimeError
        If ophyd was imported already for another server: libca would not see the change.
    """
    wanted = str(port)
    if "ophyd" in sys.modules and os.environ.get("EPICS_CA_SERVER_PORT") != wanted:
        raise RuntimeError(
            "the Channel Access client of this process is already set up for another control server "
            "(ophyd was imported before start()); call start() first, in a fresh interpreter"
        )
    os.environ.update(
        EPICS_CA_ADDR_LIST="127.0.0.1",
        EPICS_CA_AUTO_ADDR_LIST="NO",
        EPICS_CA_SERVER_PORT=wanted,
    )
    if "EPICS_CA_REPEATER_PORT" not in os.environ:
        os.environ["EPICS_CA_REPEATER_PORT"] = str(_confirm_registrations())


def _confirm_registrations() -> int:
    """Stand in for the CA repeater, and return its port.

    libca registers with a repeater of beacons and complains on the operator's screen if there is none; the
    pyepics wheel brings no such program, and caproto's does not confirm. The simulated server sends no beacons, so
    to confirm is all that there is to do.
    """
    repeater = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    repeater.bind(("127.0.0.1", 0))
    loopback = struct.unpack(">I", socket.inet_aton("127.0.0.1"))[0]
    confirmation = struct.pack(">HHHHII", REPEATER_CONFIRM, 0, 0, 0, 0, loopback)

    def confirm() -> None:
        while True:
            _, client = repeater.recvfrom(1024)
            repeater.sendto(confirmation, client)

    threading.Thread(target=confirm, name="ca-repeater", daemon=True).start()
    port: int = repeater.getsockname()[1]
    return port
