"""The monitor: a read-only web page that shows a measurement while it runs.

``python -m mistral_txm.services.monitor --data DIR`` serves it on loopback and prints one line of
JSON with its address. On another address (``--address``) it asks for a token, which stands in the
address that it prints. The page is made with Bokeh and plotly.js; a browser needs nothing from
outside. All clients share one `LiveView`, which looks at the files; a client costs only the sending
of what changed.
"""

import argparse
import asyncio
import json
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.server.server import BaseServer
from bokeh.server.util import bind_sockets
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import StaticFileHandler

from mistral_txm.services.lifeline import watch_parent
from mistral_txm.services.live_view import LiveView
from mistral_txm.services.monitor_door import GuardedTornado, is_loopback, new_token
from mistral_txm.services.monitor_page import PLOTLY_ADDRESS, Page, Shared

LOOPBACK = "127.0.0.1"


async def serve(data: Path, port: int, address: str = LOOPBACK) -> None:
    """Serve the page until SIGTERM or SIGINT; print the ready line when it can be opened.

    Args:
        data: the data folder.
        port: 0 takes a free one.
        address: where it listens. Where others than this machine can reach it, a token is made, and asked for.

    Raises:
        OSError: the port is taken, or the address is not one of this machine.
    """
    sockets, bound_port = bind_sockets(address, port)
    token = None if is_loopback(address) else new_token()
    with LiveView(data) as view:
        shared = Shared(view)
        application = Application(FunctionHandler(lambda document: Page(shared).add_to(document)))
        cookie = f"mistral-txm-monitor-{bound_port}"
        own = [f"{host}:{bound_port}" for host in ("127.0.0.1", "localhost", "[::1]")]
        server = BaseServer(
            IOLoop.current(),
            tornado := GuardedTornado(
                {"/": application},
                token=token,
                cookie=cookie,
                exclude_cookies=[cookie],  # Bokeh writes those of a request into its page
                exclude_headers=["Cookie"],
                extra_websocket_origins=own if token is None else ["*"],  # it looks itself, then
                extra_patterns=[_plotly()],
            ),
            http := HTTPServer(tornado),
        )
        http.add_sockets(sockets)
        server.start()
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        uri = f"http://{_host(address)}:{bound_port}/" + (f"?token={token}" if token else "")
        print(json.dumps({"ready": True, "uri": uri}), flush=True)
        await ended.wait()
        server.stop()


def _plotly() -> tuple[str, type[StaticFileHandler], dict[str, str]]:
    """The one file of plotly.js that the page asks for, as its package brings it."""
    folder = str(files("plotly").joinpath("package_data"))
    return (
        PLOTLY_ADDRESS.replace("plotly.min.js", "(plotly[.]min[.]js)"),
        StaticFileHandler,
        {"path": folder},
    )


def _host(address: str) -> str:
    """The name under which others reach an address."""
    if address in ("0.0.0.0", "::", ""):
        return socket.getfqdn()
    return f"[{address}]" if ":" in address else address


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the monitor as a process of its own."""
    parser = argparse.ArgumentParser(
        prog="python -m mistral_txm.services.monitor",
        description="Serve the web page of a measurement, until it is terminated.",
    )
    parser.add_argument("--data", type=Path, required=True, help="the beamline's data folder")
    parser.add_argument("--port", type=int, default=0, help="TCP port; without it a free one")
    parser.add_argument(
        "--address", default=LOOPBACK, help="where to listen; not loopback: a token"
    )
    parser.add_argument("--lifeline", action="store_true", help="stop when the standard input ends")
    options = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    if options.lifeline:
        watch_parent()
    try:
        asyncio.run(serve(options.data, options.port, options.address))
    except OSError as cause:
        place = "" if options.address == LOOPBACK else f"{options.address} "
        print(
            f"monitor: {place}port {options.port}: {cause.strerror}; take another one",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
