"""Points this process's Channel Access client at one control server.

libca reads its environment once, when ophyd is imported: `use_control_server` comes before that.
"""

import os
import socket
import sys
import threading

import caproto.sync.repeater


def free_udp_port() -> int:
    """Return a UDP port of the loopback interface that nobody uses at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def use_control_server(port: int) -> None:
    """Let every Channel Access client of this process search on loopback, at one port alone.

    A CA repeater of this process's own runs in a daemon thread: libca would otherwise look for an
    executable that the pyepics wheel does not bring, and complain on the operator's screen.

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
        os.environ["EPICS_CA_REPEATER_PORT"] = str(free_udp_port())
        threading.Thread(
            target=caproto.sync.repeater.run, args=("127.0.0.1",), name="ca-repeater", daemon=True
        ).start()
