"""Run the simulated beamline: `python -m mistral_txm.simulated_beamline --data DIR`."""

import argparse
import asyncio
import json
import math
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.simulated_beamline import faults, textures
from mistral_txm.simulated_beamline.beamline import Beamline
from mistral_txm.simulated_beamline.exposure_log import ExposureLog, FolderTakenError
from mistral_txm.simulated_beamline.loopback import LOOPBACK, bind_loopback
from mistral_txm.simulated_beamline.sample import Sample
from mistral_txm.simulated_beamline.server import Server
from mistral_txm.simulated_beamline.settings import load_settings, names
from mistral_txm.simulated_beamline.truth import write_truth

FRAME_PIXELS = {"small": 256, "medium": 256, "paper": 1024}


def _time_scale(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of 0 or more")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 0 (any free port) to 65535")
    return value


def _fault(text: str) -> tuple[str, float]:
    try:
        return faults.parse(text)
    except ValueError as refusal:
        raise argparse.ArgumentTypeError(str(refusal)) from None


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python -m mistral_txm.simulated_beamline",
        description="Simulated beamline: an EPICS Channel Access server on loopback, until Ctrl-C.",
    )
    result.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder")
    result.add_argument(
        "--size",
        choices=sorted(FRAME_PIXELS),
        default="small",
        help="frames of 256 x 256 pixels, or 1024 x 1024 (paper)",
    )
    result.add_argument(
        "--texture",
        default="stripes",
        metavar="NAME|FILE",
        help=f"{', '.join(textures.names())}, or an .h5 file with mx, my, mz and voxel_nm",
    )
    result.add_argument(
        "--conditions",
        default="ideal",
        metavar="NAME|FILE",
        help=f"{' or '.join(names())}, or a .toml file with what differs from real",
    )
    result.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="something that goes wrong from the start; may be repeated",
    )
    result.add_argument("--seed", type=int, default=1, metavar="N", help="of noise and sample")
    result.add_argument(
        "--time-scale",
        type=_time_scale,
        default=0.0,
        metavar="X",
        help="multiplies exposures and moves: 1 is real time, 0 leaves computing time alone",
    )
    result.add_argument(
        "--port", type=_port, default=0, metavar="N", help="Channel Access port; 0: any free one"
    )
    result.add_argument(
        "--lifeline", action="store_true", help="exit when standard input reaches its end"
    )
    return result


async def serve(
    server: Server, listener: socket.socket, announcement: str, *, lifeline: bool
) -> None:
    """Serve until SIGTERM, SIGINT, or the end of standard input where that is the lifeline."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if lifeline:

        def watch_standard_input() -> None:
            while sys.stdin.buffer.read(4096):
                pass
            loop.call_soon_threadsafe(stop.set)

        threading.Thread(target=watch_standard_input, name="lifeline", daemon=True).start()
    await server.run(listener, stop, lambda: print(announcement, flush=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulated beamline; returns the exit code, 2 for input that cannot be used."""
    arguments = parser().parse_args(argv)
    data: Path = arguments.data
    seed: int = arguments.seed
    try:
        settings = load_settings(arguments.conditions)
        texture = textures.load(arguments.texture)
    except (OSError, ValueError) as error:
        return _refuse(str(error))
    try:
        listener = bind_loopback(arguments.port)
    except OSError as error:
        return _refuse(f"port {arguments.port} on {LOOPBACK}: {error.strerror or error}")
    pixels = FRAME_PIXELS[arguments.size]
    sample = Sample(texture, seed, settings.fiducials)
    with listener, ThreadPoolExecutor(max_workers=1, thread_name_prefix="frames") as worker:
        try:
            data.mkdir(parents=True, exist_ok=True)
            beamline = Beamline(sample, settings, (pixels, pixels), seed)
            log = ExposureLog(data, beamline, arguments.texture, seed)
            write_truth(data / "truth.h5", sample, pixels, seed, settings)
        except FolderTakenError as error:
            return _refuse(str(error))
        except OSError as error:
            return _refuse(f"--data {data}: {error.strerror or error}")
        with closing(log):
            server = Server(
                load_configuration(),
                beamline,
                arguments.time_scale,
                worker,
                log,
                dict(arguments.fault),
            )
            ready = {
                "ready": True,
                "port": listener.getsockname()[1],
                "prefix": server.prefix,
                "data": str(data),
            }
            asyncio.run(serve(server, listener, json.dumps(ready), lifeline=arguments.lifeline))
    return 0


def _refuse(reason: str) -> int:
    print(f"simulated beamline: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
