"""Run the simulated beamline: `python -m mistral_txm.simulated_beamline --data DIR`."""

import argparse
import asyncio
import json
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mistral_txm.simulated_beamline.beamline import Beamline
from mistral_txm.simulated_beamline.sample import Sample
from mistral_txm.simulated_beamline.server import PREFIX, Server, bind_loopback
from mistral_txm.simulated_beamline.textures import load
from mistral_txm.simulated_beamline.truth import write_truth

FRAME_PIXELS = {"small": 256, "medium": 256, "paper": 1024}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python -m mistral_txm.simulated_beamline",
        description="Simulated beamline: an EPICS Channel Access server on loopback, until Ctrl-C.",
    )
    result.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder")
    result.add_argument("--size", choices=sorted(FRAME_PIXELS), default="small")
    result.add_argument("--texture", default="stripes", metavar="NAME", help="magnetic texture")
    result.add_argument("--seed", type=int, default=1, metavar="N", help="of noise and sample")
    result.add_argument(
        "--time-scale",
        type=float,
        default=0.0,
        metavar="X",
        help="multiplies exposures and moves; 1 is real time, 0 leaves computing time alone",
    )
    result.add_argument("--port", type=int, default=0, metavar="N", help="0: any free port")
    result.add_argument(
        "--lifeline", action="store_true", help="exit when standard input reaches its end"
    )
    return result


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until a signal, or the end of standard input with --lifeline."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if arguments.lifeline:

        def watch_standard_input() -> None:
            while sys.stdin.buffer.read(4096):
                pass
            loop.call_soon_threadsafe(stop.set)

        threading.Thread(target=watch_standard_input, name="lifeline", daemon=True).start()
    listener = bind_loopback(arguments.port)
    pixels = FRAME_PIXELS[arguments.size]

    def announce() -> None:
        ready = {
            "ready": True,
            "port": listener.getsockname()[1],
            "prefix": PREFIX,
            "data": str(arguments.data),
        }
        print(json.dumps(ready), flush=True)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="frames") as worker:
        sample = Sample(load(arguments.texture), arguments.seed)
        write_truth(arguments.data / "truth.h5", sample, pixels, arguments.seed)
        beamline = Beamline(sample, (pixels, pixels), arguments.seed)
        server = Server(beamline, arguments.time_scale, worker)
        await server.run(listener, stop, announce)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulated beamline; returns the exit code, 2 for bad input."""
    arguments = parser().parse_args(argv)
    arguments.data.mkdir(parents=True, exist_ok=True)
    asyncio.run(serve(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
