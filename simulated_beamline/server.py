"""The Channel Access server of the simulated beamline, on loopback alone."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

# caproto reads this when it is imported: by default it holds back monitors by 10 ms.
os.environ.setdefault("CAPROTO_SERVER_HIGH_LOAD_TIMEOUT_SEC", "0.001")

from caproto.asyncio.server import Context

from mistral_txm.devices.configuration import Axis, Configuration
from mistral_txm.simulated_beamline import source
from mistral_txm.simulated_beamline.beamline import Beamline
from mistral_txm.simulated_beamline.camera import Camera
from mistral_txm.simulated_beamline.channels import Database, double, menu, post
from mistral_txm.simulated_beamline.clock import Clock
from mistral_txm.simulated_beamline.faults import Faults
from mistral_txm.simulated_beamline.file_plugin import HDF5FilePlugin
from mistral_txm.simulated_beamline.motor import MotorRecord, MotorSettings
from mistral_txm.simulated_beamline.region import Region
from mistral_txm.simulated_beamline.settings import load_settings
from mistral_txm.simulated_beamline.state import State

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Mechanics:
    """How a motor moves, in its own unit: assumptions of the right size."""

    velocity: float
    acceleration_s: float
    initial: float = 0.0
    precision: int = 4


MECHANICS = {
    "theta": Mechanics(velocity=1.0, acceleration_s=0.2),
    "sample_x": Mechanics(velocity=200.0, acceleration_s=0.1),
    "sample_y": Mechanics(velocity=200.0, acceleration_s=0.1),
    "sample_z": Mechanics(velocity=200.0, acceleration_s=0.1),
    "zone_plate_z": Mechanics(velocity=50.0, acceleration_s=0.1),
    "jaw_up": Mechanics(velocity=0.5, acceleration_s=0.2, initial=2.5),
    "jaw_down": Mechanics(velocity=0.5, acceleration_s=0.2, initial=1.5),
    "energy": Mechanics(velocity=5.0, acceleration_s=0.5, initial=707.4, precision=3),
}
"""The motors by the names of the configuration's axes; they start where the beamline is set up."""


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


class Server:
    """Wires the process variables of `configuration` to the physics in `beamline`.

    `time_scale` multiplies exposures and motions into wall time; frames are rendered and written in
    `worker`, which must run one job at a time.
    """

    def __init__(
        self,
        configuration: Configuration,
        beamline: Beamline,
        time_scale: float,
        worker: Executor,
    ) -> None:
        if configuration.simulation is None:
            raise ValueError(f"{configuration.name}: not simulated, the section [simulation] lacks")
        self.database: Database = {}
        self._clock = Clock()
        self._faults = Faults(self.database, configuration.simulation.faults_address.name, {})
        self._beamline = beamline
        self._worker = worker
        self._motors = {
            name: self._make_motor(name, getattr(configuration.axes, name), time_scale)
            for name in MECHANICS
        }
        self._shutter_command = menu(("Close", "Open"))
        self._shutter_status = menu(("Closed", "Open"), read_only=True)
        self._shutter_command.on_put = self._shutter_put
        self._azimuth = double(0.0, units="deg", precision=3)
        self._ring_current = double(source.CURRENT_MA, units="mA", read_only=True)
        shutter = configuration.shutter.address.name
        self.database[f"{shutter}Cmd"] = self._shutter_command
        self.database[f"{shutter}Status"] = self._shutter_status
        self.database[configuration.simulation.azimuth_address.name] = self._azimuth
        self.database[configuration.ring_current.address.name] = self._ring_current
        ccd = configuration.ccd.address.name
        self.file_plugin = HDF5FilePlugin(
            self.database, f"{ccd}HDF1:", beamline.shape_vu, worker, self._faults
        )
        chip = load_settings("ideal").camera
        Camera(
            self.database,
            f"{ccd}cam1:",
            beamline.shape_vu,
            self,
            self.file_plugin,
            worker,
            time_scale,
            chip.readout_time_s,
            self._clock,
            self._faults,
            chip.temperature_c,
        )

    @property
    def prefix(self) -> str:
        """What the names of all process variables begin with."""
        first, last = min(self.database), max(self.database)
        length = 0
        while first[length] == last[length]:
            length += 1
        return first[:length]

    def _make_motor(self, name: str, axis: Axis, time_scale: float) -> MotorRecord:
        mechanics = MECHANICS[name]
        settings = MotorSettings(
            units=axis.unit,
            low_limit=axis.low_limit,
            high_limit=axis.high_limit,
            velocity=mechanics.velocity,
            acceleration_s=mechanics.acceleration_s,
            precision=mechanics.precision,
            initial=mechanics.initial,
            description=name.replace("_", " "),
        )
        return MotorRecord(
            self.database,
            axis.address.name,
            settings,
            time_scale,
            self._clock,
            self._faults,
            name,
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
        self, exposure_s: float, index_in_file: int | None, region: Region
    ) -> Callable[[], NDArray[np.uint16]]:
        """Freeze the state for one exposure; publishes the ring current that goes with it."""
        state = self.state(exposure_s)
        index = self._beamline.exposure_index(state) if index_in_file is None else index_in_file
        await post(self._ring_current, self._beamline.ring_current_ma(state, index))
        return partial(self._frame, state, index, region)

    def _frame(self, state: State, index: int, region: Region) -> NDArray[np.uint16]:
        frame_vu = self._beamline.frame(state, index)
        (ny, nx), by, bx = region.shape_vu, region.bin_y, region.bin_x
        v, u = region.min_y, region.min_x
        part_vu = frame_vu[v : v + ny * by, u : u + nx * bx].reshape(ny, by, nx, bx)
        return np.minimum(part_vu.sum(axis=(1, 3)), 65535).astype(np.uint16)

    async def end(self) -> None:
        """The light that an exposure sees is that of its begin."""

    async def captured(self, file: str, index: int) -> None:
        """Nobody keeps a log yet."""

    async def run(
        self, listener: socket.socket, stop: asyncio.Event, ready: Callable[[], None]
    ) -> None:
        """Serve until `stop` is set; `ready` is called once clients can connect. A file
        that is being captured then is closed, and keeps its temporary name."""
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
        # The first view compiles the texture: better now than in the first exposure.
        self._worker.submit(self._beamline.prepare, self.state(0.0))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await self.file_plugin.abandon_capture()
        serving.cancel()
        await serving
