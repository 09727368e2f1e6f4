"""The Channel Access server of the simulated beamline: process variables, motors, camera, on loopback alone."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

# caproto reads this when it is imported: by default it holds back monitors by 10 ms.
os.environ.setdefault("CAPROTO_SERVER_HIGH_LOAD_TIMEOUT_SEC", "0.001")

from caproto.asyncio.server import Context  # noqa: E402  # after the setting above

from mistral_txm.simulated_beamline import source
from mistral_txm.simulated_beamline.area_detector import Camera, HDF5FilePlugin  # noqa: E402
from mistral_txm.simulated_beamline.beamline import Beamline  # noqa: E402
from mistral_txm.simulated_beamline.channels import Database, double, menu, post  # noqa: E402
from mistral_txm.simulated_beamline.motor import MotorRecord, MotorSettings  # noqa: E402
from mistral_txm.simulated_beamline.state import State  # noqa: E402

LOOPBACK = "127.0.0.1"
PREFIX = "SIM:"

STAGE = MotorSettings("um", -2000.0, 2000.0, velocity=200.0, acceleration_s=0.1, precision=4)
MOTORS: dict[str, tuple[str, MotorSettings]] = {
    "theta": (
        "GON:THETA",
        MotorSettings("deg", -70.0, 70.0, velocity=1.0, acceleration_s=0.2, precision=4),
    ),
    "sample_x": ("GON:X", STAGE),
    "sample_y": ("GON:Y", STAGE),
    "sample_z": ("GON:Z", STAGE),
    "zone_plate_z": (
        "ZP:Z",
        MotorSettings("um", -1000.0, 1000.0, velocity=50.0, acceleration_s=0.1, precision=4),
    ),
    "jaw_up": (
        "SLIT:UP",
        MotorSettings("mm", -10.0, 10.0, 0.5, 0.2, precision=4, initial=2.5),
    ),
    "jaw_down": (
        "SLIT:DOWN",
        MotorSettings("mm", -10.0, 10.0, 0.5, 0.2, precision=4, initial=1.5),
    ),
    "energy": (
        "MONO:ENERGY",
        MotorSettings("eV", 270.0, 2600.0, 5.0, 0.5, precision=3, initial=707.4),
    ),
}
"""Address after the prefix, and settings, of each motor; the names are those of `state.State` without units."""


class LoopbackContext(Context):  # type: ignore[misc]  # caproto is untyped
    """caproto's server on a socket that is already bound to loopback, without Nagle's delay, without broadcasts."""

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

    The same UDP port is tried, too, since clients search for the server there. Accepted connections inherit TCP_NODELAY.

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


class Server:
    """Wires the process variables to the physics in `beamline`."""

    def __init__(self, beamline: Beamline, time_scale: float, worker: Executor) -> None:
        self.database: Database = {}
        self._beamline = beamline
        self._motors = {
            name: MotorRecord(self.database, PREFIX + address, settings, time_scale)
            for name, (address, settings) in MOTORS.items()
        }
        self._shutter_command = menu(("Close", "Open"))
        self._shutter_status = menu(("Closed", "Open"), read_only=True)
        self._shutter_command.on_put = self._shutter_put
        self._azimuth = double(0.0, units="deg", precision=3)
        self._ring_current = double(source.CURRENT_MA, units="mA", precision=4, read_only=True)
        self.database[f"{PREFIX}SHUTTER:Cmd"] = self._shutter_command
        self.database[f"{PREFIX}SHUTTER:Status"] = self._shutter_status
        self.database[f"{PREFIX}SAMPLE:Azimuth"] = self._azimuth
        self.database[f"{PREFIX}RING:Current"] = self._ring_current
        self.file_plugin = HDF5FilePlugin(
            self.database, f"{PREFIX}CCD:HDF1:", beamline.shape_vu, worker
        )
        Camera(
            self.database,
            f"{PREFIX}CCD:cam1:",
            beamline.shape_vu,
            self,
            self.file_plugin,
            worker,
            time_scale,
        )

    async def _shutter_put(self, value: str) -> None:
        await post(self._shutter_status, 1 if value == "Open" else 0)

    def state(self, exposure_s: float) -> State:
        """Read the state of the beamline from the motors and the shutter."""
        position = {name: motor.dial_position for name, motor in self._motors.items()}
        return State(
            theta_deg=position["theta"],
            azimuth_deg=float(self._azimuth.value),
            sample_x_um=position["sample_x"],
            sample_y_um=position["sample_y"],
            sample_z_um=position["sample_z"],
            zone_plate_z_um=position["zone_plate_z"],
            jaw_down_mm=position["jaw_down"],
            jaw_up_mm=position["jaw_up"],
            energy_ev=position["energy"],
            shutter_open=self._shutter_status.value == "Open",
            exposure_s=exposure_s,
        )

    async def begin(
        self, exposure_s: float, index_in_file: int | None
    ) -> Callable[[], NDArray[np.uint16]]:
        """Freeze the state for one exposure; publishes the ring current that goes with it."""
        state = self.state(exposure_s)
        index = self._beamline.exposure_index(state) if index_in_file is None else index_in_file
        await post(self._ring_current, self._beamline.ring_current_ma(state, index))
        return partial(self._beamline.frame, state, index)

    async def run(
        self, listener: socket.socket, stop: asyncio.Event, ready: Callable[[], None]
    ) -> None:
        """Serve until `stop` is set; `ready` is called once clients can connect. Ends an open capture."""
        started = asyncio.Event()

        async def on_start(_library: Any) -> None:
            started.set()

        listener.listen(64)
        context = LoopbackContext(self.database, listener)
        serving = asyncio.create_task(context.run(startup_hook=on_start))
        starting = asyncio.create_task(started.wait())
        await asyncio.wait({serving, starting}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            starting.cancel()
            serving.result()
        ready()
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await self.file_plugin.end_capture()
        serving.cancel()
        await serving
