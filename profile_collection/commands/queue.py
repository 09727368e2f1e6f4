"""Measurements one after the other without a person at a prompt: `queue`."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, cast

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.profile_collection import startup
from mistral_txm.profile_collection.acquire import SIGNALS, handling
from mistral_txm.profile_collection.commands import CommandFailed
from mistral_txm.profile_collection.commands.arguments import data_option, port_number
from mistral_txm.profile_collection.session import DATA_VARIABLE, data_folder

PORT = 60615
"""Where `qserver` looks if nobody says otherwise; what the console prints is published 10 above."""
HOST = "127.0.0.1"
ANSWER_TIMEOUT_MS = 2000
OPEN_TIMEOUT_S = 300.0
END_TIMEOUT_S = 120.0
"""How long a plan may take to put everything back before the queue server is ended all the same, s."""
_MANAGER = (
    "from mistral_txm.services.lifeline import watch_parent; watch_parent(); "
    "from bluesky_queueserver.manager.start_manager import start_manager; start_manager()"
)


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of this group."""
    queue = commands.add_parser(
        "queue", help="run a queue of measurements, until Ctrl-C", description=_queue.__doc__
    )
    queue.add_argument("--simulated", action="store_true", help="start a simulated beamline")
    queue.add_argument("--config", type=Path, metavar="FILE", help="beamline configuration (TOML)")
    queue.add_argument(
        "--redis",
        default="localhost:6379",
        metavar="HOST:PORT",
        help="the Redis server that keeps the queue (default: localhost:6379)",
    )
    queue.add_argument(
        "--port",
        type=port_number,
        default=PORT,
        metavar="N",
        help=f"for qserver, on loopback (default: {PORT})",
    )
    data_option(queue)
    queue.set_defaults(run=_queue)


def _queue(arguments: argparse.Namespace) -> None:
    """Serve a queue of measurements on loopback until Ctrl-C; `qserver` adds to it, starts, pauses and resumes it.

    Needs a Redis server, which keeps the queue of each data folder. Ctrl-C aborts a plan that runs, so that everything
    is put back, and ends the services.
    """
    if find_spec("bluesky_queueserver") is None:
        raise CommandFailed("needs bluesky-queueserver: pip install 'mistral-txm[queue]'")
    folder = data_folder(arguments.data)
    if arguments.config is not None:
        load_configuration(arguments.config)
    _check_port(arguments.port)
    _check_redis(arguments.redis)
    with (
        _manager(folder, arguments) as manager,
        handling((signal.SIGINT, *SIGNALS), _interrupt),
    ):
        try:
            _wait(manager, arguments.port, lambda status: status["manager_state"] == "idle", 60.0)
            _open(manager, arguments.port)
            print(f"the queue of {folder}: qserver{_address(arguments.port)} status", flush=True)
            manager.wait()
        finally:
            with handling((signal.SIGINT, *SIGNALS), _insist):
                _end(manager, arguments.port)
    if manager.returncode:
        raise CommandFailed(f"the queue server ended with exit code {manager.returncode}")


def _manager(folder: Path, arguments: argparse.Namespace) -> "subprocess.Popen[bytes]":
    """Start the queue server: in a session of its own, so that Ctrl-C reaches this process alone."""
    from mistral_txm.profile_collection.queue_plans import CONFIG_VARIABLE, SIMULATED_VARIABLE

    start_up = Path(startup.__file__).parent
    known = folder / "queue"
    known.mkdir(parents=True, exist_ok=True)
    options = {
        "--zmq-control-addr": f"tcp://{HOST}:{arguments.port}",
        "--zmq-info-addr": f"tcp://{HOST}:{arguments.port + 10}",
        "--zmq-publish-console": "ON",
        "--redis-addr": arguments.redis,
        "--redis-name-prefix": f"mistral_txm:{folder}",
        "--startup-script": str(start_up / "start.py"),
        "--existing-plans-devices": str(known / "plans_and_devices.yaml"),
        "--user-group-permissions": str(start_up / "user_group_permissions.yaml"),
    }
    environment = {**os.environ, DATA_VARIABLE: str(folder)}
    environment[CONFIG_VARIABLE] = str(arguments.config.resolve()) if arguments.config else ""
    environment[SIMULATED_VARIABLE] = "1" if arguments.simulated else ""
    words = [word for option in options.items() for word in option]
    return subprocess.Popen(
        [sys.executable, "-c", _MANAGER, "--quiet", *words],
        env=environment,
        stdin=subprocess.PIPE,  # the lifeline
        start_new_session=True,
    )


def _open(manager: "subprocess.Popen[bytes]", port: int) -> None:
    """Start the session in the queue server, and wait for it."""
    _ask(port, "environment_open")
    status = _wait(manager, port, lambda now: now["manager_state"] == "idle", OPEN_TIMEOUT_S)
    if not status["worker_environment_exists"]:
        raise CommandFailed("the session did not start; the lines above say why")


def _end(manager: "subprocess.Popen[bytes]", port: int) -> None:
    """Abort the plan that runs, close the environment and stop the queue server; in the worst case kill it."""
    with suppress(CommandFailed):
        status = _ask(port, "status")
        if status["manager_state"] == "executing_queue":
            _ask(port, "re_pause", option="immediate")
            status = _wait(
                manager, port, lambda now: now["manager_state"] != "executing_queue", END_TIMEOUT_S
            )
        if status["manager_state"] == "paused":
            _ask(port, "re_abort")
            status = _wait(manager, port, lambda now: now["manager_state"] == "idle", END_TIMEOUT_S)
        if status["worker_environment_exists"]:
            _ask(port, "environment_close")
            _wait(manager, port, lambda now: not now["worker_environment_exists"], END_TIMEOUT_S)
        _ask(port, "manager_stop")
        with suppress(subprocess.TimeoutExpired):
            manager.wait(10.0)
    if manager.poll() is None:
        manager.terminate()


def _wait(
    manager: "subprocess.Popen[bytes]",
    port: int,
    condition: Callable[[dict[str, Any]], bool],
    timeout_s: float,
) -> dict[str, Any]:
    deadline_s = time.monotonic() + timeout_s
    while True:
        with suppress(CommandFailed):
            status = _ask(port, "status")
            if condition(status):
                return status
        if manager.poll() is not None:
            raise CommandFailed(f"the queue server ended with exit code {manager.returncode}")
        if time.monotonic() > deadline_s:
            raise CommandFailed(f"the queue server did not do as asked within {timeout_s:g} s")
        time.sleep(0.1)


def _ask(port: int, method: str, **parameters: Any) -> dict[str, Any]:
    """Send one request; a refusal, or no answer, is a `CommandFailed`."""
    import zmq

    with zmq.Context() as context, context.socket(zmq.REQ) as channel:
        channel.linger = 0
        channel.connect(f"tcp://{HOST}:{port}")
        channel.send_json({"method": method, "params": parameters})
        if not channel.poll(ANSWER_TIMEOUT_MS):
            raise CommandFailed("the queue server does not answer")
        answer = cast(dict[str, Any], channel.recv_json())
    if not answer.get("success", True):
        raise CommandFailed(f"the queue server refused {method}: {answer['msg']}")
    return answer


def _check_port(port: int) -> None:
    for number in (port, port + 10):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, number))
            except OSError:
                raise CommandFailed(
                    f"{HOST}:{number} is taken, perhaps by another queue; end that, or choose another --port"
                ) from None


def _check_redis(address: str) -> None:
    host, _, port = address.partition(":")
    try:
        number = port_number(port or "6379")
        socket.create_connection((host, number), timeout=5.0).close()
    except (OSError, argparse.ArgumentTypeError):
        raise CommandFailed(
            f"no Redis server at {address}; start one (Debian: apt install redis-server), or give --redis HOST:PORT"
        ) from None


def _address(port: int) -> str:
    return "" if port == PORT else f" --zmq-control-addr tcp://localhost:{port}"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _insist(number: int, frame: FrameType | None) -> None:
    print("everything is being put back and ended; please wait", file=sys.stderr)
