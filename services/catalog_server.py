"""The Tiled server of one data folder, on loopback.

It is a program, ``python -m mistral_txm.services.catalog_server``, that is started and watched by
:mod:`mistral_txm.services.catalog`; nobody else needs to.
"""

import argparse
import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import uvicorn

from mistral_txm.services.lifeline import watch_parent

LOOPBACK = "127.0.0.1"
"""The only address that the server listens on."""


class _Server(uvicorn.Server):  # type: ignore[misc]  # the base class is not typed
    """A server that says on standard output when it answers."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer, then print the ready line."""
        await super().startup(sockets=sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(json.dumps({"ready": True, "uri": f"http://{host}:{port}/api/v1/"}), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, Ctrl-C, or the end of the parent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data folder")
    parser.add_argument("--port", type=int, default=0, help="port on loopback; 0 takes a free one")
    parser.add_argument("--lifeline", action="store_true", help="stop when standard input ends")
    options = parser.parse_args(argv)
    if options.lifeline:
        watch_parent()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, options.port))
    except OSError as error:
        print(
            f"port {options.port} on {LOOPBACK}: {error.strerror}; choose another", file=sys.stderr
        )
        return 3
    folder = (options.data / "catalog").resolve()
    database = f"sqlite:///{folder / 'catalog.db'}"
    preparing = _prepare(folder, database)
    # Imported while the database is prepared: each takes seconds.
    application = import_module("mistral_txm.services.catalog_application").application
    if preparing is not None:
        if preparing.wait() != 0:
            return 3
        (folder / "prepared").touch()
    api_key = (folder / "api_key").read_text().strip()
    configuration = uvicorn.Config(
        application(options.data, database, api_key),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    _Server(configuration).run(sockets=[listener])
    return 0


def _prepare(folder: Path, database: str) -> "subprocess.Popen[bytes] | None":
    """Start to create the tables of a new database; ``None`` if that was done before."""
    if (folder / "prepared").exists():
        return None
    command = [sys.executable, "-m", "tiled", "catalog", "init", "--if-not-exists", database]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
