"""The control server of the simulated beamline: process variables on one side, physics on the other."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.devices.configuration import Axis, Configuration
from mistral_txm.simulated_beamline.beamline import Beamline
from mistral_txm.simulated_beamline.camera import Camera
from mistral_txm.simulated_beamline.channels import Database, double, post
from mistral_txm.simulated_beamline.clock import Clock
from mistral_txm.simulated_beamline.exposure_log import ExposureLog
from mistral_txm.simulated_beamline.faults import Faults
from mistral_txm.simulated_beamline.file_plugin import HDF5FilePlugin
from mistral_txm.simulated_beamline.light import Light
from mistral_txm.simulated_beamline.loopback import LoopbackContext
from mistral_txm.simulated_beamline.motor import MotorRecord, MotorSettings
from mistral_txm.simulated_beamline.region import Region
from mistral_txm.simulated_beamline.settings import Motor
from mistral_txm.simulated_beamline.state import State

Render = Callable[[], NDArray[np.uint16]]

TICK_S = 0.5
"""Wall time between two publications of clock and ring."""
ANSWER_S = 0.1
"""How long a client has to see that its put was taken, before the server falls silent."""


@dataclass(frozen=True)
class Exposure:
    """What one frame is made of: the state, and the number that its noise is drawn with."""

    state: State
    number: int
    loses_beam: bool


class Server:
    """Wires the process variables of `configuration` to the physics in `beamline`.

    `time_scale` multiplies exposures and motions into wall time; frames are rendered and written in
    `worker`, which must run one job at a time, and the truth behind each goes to `log`. `faults` are
    on from the start, beside those of the beamline's settings.
    """

    def __init__(
        self,
        configuration: Configuration,
        beamline: Beamline,
        time_scale: float,
        worker: Executor,
        log: ExposureLog,
        faults: Mapping[str, float],
    ) -> None:
        simulation = configuration.simulation
        if simulation is None:
            raise ValueError(f"{configuration.name}: not simulated, the section [simulation] lacks")
        self.database: Database = {}
        self._beamline = beamline
        self._worker = worker
        self._log = log
        settings = beamline.settings
        self._clock = Clock()
        self._time_scale = time_scale
        self._place: tuple[float, ...] = ()
        self._visits = 0
        self._time_is_running = settings.clock.kind == "running"
        self._faults = Faults(
            self.database, simulation.faults_address.name, {**settings.faults, **faults}
        )
        self._faults.watch(self._fault_changed)
        self._motors = {
            name: MotorRecord(
                self.database,
                getattr(configuration.axes, name).address.name,
                motor_settings(
                    name, getattr(configuration.axes, name), getattr(settings.motors, name)
                ),
                time_scale,
                self._clock,
                self._faults,
                name,
            )
            for name in type(settings.motors).model_fields
        }
        self._light = Light(self.database, configuration, self._faults, settings.ring.current_ma)
        self._azimuth = double(0.0, units="deg", precision=3)
        self.database[simulation.azimuth_address.name] = self._azimuth
        self._time = double(0.0, units="s", precision=1, read_only=True)
        self.database[simulation.clock_address.name] = self._time
        ccd = configuration.ccd.address.name
        self.file_plugin = HDF5FilePlugin(
            self.database, f"{ccd}HDF1:", beamline.shape_vu, worker, self._faults
        )
        self._camera = Camera(
            self.database,
            f"{ccd}cam1:",
            beamline.shape_vu,
            self,
            self.file_plugin,
            worker,
            time_scale,
            settings.camera,
            self._clock,
            self._faults,
        )
        self._exposure: Exposure | None = None

    @property
    def prefix(self) -> str:
        """What the names of all process variables begin with."""
        first, last = min(self.database), max(self.database)
        length = 0
        while first[length] == last[length]:
            length += 1
        return first[:length]

    def state(self, exposure_s: float, region: Region) -> State:
        """Read the state of the beamline from the mechanisms, the shutters and the faults."""
        position = {name: motor.mechanism_position for name, motor in self._motors.items()}
        amount = self._faults.amount
        if self._time_is_running:
            self._count_visits()
        return State(
            theta_deg=position["theta"],
            azimuth_deg=float(self._azimuth.value),
            azimuth_error_deg=amount("azimuth_error"),
            sample_x_um=position["sample_x"] + amount("sample_slip"),
            sample_y_um=position["sample_y"] + amount("sample_slip"),
            sample_z_um=position["sample_z"],
            zone_plate_z_um=position["zone_plate_z"],
            jaw_down_mm=position["jaw_down"],
            jaw_up_mm=position["jaw_up"],
            energy_ev=position["energy"],
            shutter_open=self._light.shutter_is_open,
            exposure_s=exposure_s,
            region=region,
            time_s=self._clock.time_s if self._time_is_running else 0.0,
            visit=self._visits,
            lit_fraction=float(self._light.is_there),
            helicity_swapped=self._faults.is_on("helicity_swapped"),
            dark_offset_counts=amount("dark_drift"),
            temperature_c=self._camera.temperature_c,
            fiducials_lost=int(amount("fiducials_lost")),
            fiducials_merged=int(amount("fiducials_merged")),
        )

    def _count_visits(self) -> None:
        """Notice that the sample has been moved since the last time somebody asked."""
        axes = ("theta", "sample_x", "sample_y", "sample_z")
        place = (
            *(self._motors[name].mechanism_position for name in axes),
            float(self._azimuth.value),
        )
        if place != self._place:
            self._place = place
            self._visits += 1

    async def begin(self, exposure_s: float, number: int, region: Region) -> Render:
        """Freeze the state for one exposure; publishes the ring current that goes with it."""
        state = replace(
            self.state(exposure_s, region),
            injection=await self._faults.spend("injection"),
            zinger_burst=await self._faults.spend("zinger_burst"),
        )
        self._exposure = Exposure(state, number, await self._faults.spend("beam_lost"))
        self._light.begin_exposure()
        await self._light.publish_current(self._beamline.ring_current_ma(state, number))
        if self._time_is_running or state.injection:
            began_s = self._beamline.began_s(state, number)
            await self._light.publish_to_injection(self._beamline.to_injection_s(began_s))
        return partial(self._beamline.frame, state, number)

    async def end(self) -> Render | None:
        """Return another way to render the frame if the light changed since its exposure began."""
        exposure = self._exposure
        if exposure is None:
            return None
        if self._time_is_running or exposure.state.injection:
            await self._publish_ring()
        before = exposure.state.lit_fraction * exposure.state.shutter_open
        lit = self._light.lit_share()
        if exposure.loses_beam:
            lit = min(lit, 0.5)
            await self._faults.turn("beam_dump", 1)
            await self._light.refresh()
        if lit == before:
            return None
        state = replace(exposure.state, shutter_open=True, lit_fraction=lit)
        self._exposure = replace(exposure, state=state)
        return partial(self._beamline.frame, state, exposure.number)

    async def captured(self, file: str, index: int) -> None:
        """Log the truth of a frame that was written."""
        if self._exposure is not None:
            self._log.add(file, index, self._exposure.state, self._exposure.number)

    async def _fault_changed(self, name: str) -> None:
        if name == "server_killed" and self._faults.is_on(name):
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "silence" and self._faults.is_on(name):
            asyncio.get_running_loop().call_later(ANSWER_S, self._be_silent)
        await self._light.refresh()

    def _be_silent(self) -> None:
        """Stop the loop, and with it every answer."""
        time.sleep(self._faults.amount("silence"))
        self._silence = asyncio.ensure_future(self._faults.turn("silence", 0))

    async def _keep_time(self) -> None:
        """Let time pass where nothing moves and nothing is exposed, and publish what changes by itself.

        Idle time is that of the wall, as much shortened as everything else; at time scale 0 it is not.
        """
        idle_s = TICK_S / (self._time_scale or 1.0)
        before = self._clock.activity()
        while True:
            await asyncio.sleep(TICK_S)
            now = self._clock.activity()
            if now == before and now[0] == 0:
                with self._clock.during(idle_s):
                    pass
                now = self._clock.activity()
                await self._publish_ring()
            before = now
            await post(self._time, self._clock.time_s)

    async def _publish_ring(self) -> None:
        if self._time_is_running:
            time_s = self._clock.time_s
            await self._light.publish_current(self._beamline.current_ma(time_s))
            await self._light.publish_to_injection(self._beamline.to_injection_s(time_s))
        else:
            # Where time is repeatable, the current stays that of the last exposure until the next one,
            # and no injection comes but into an exposure that a fault says.
            await self._light.publish_to_injection(self._beamline.to_injection_s(0.0))

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
        height, width = self._beamline.shape_vu
        state = self.state(0.0, Region(0, 0, width, height))
        self._worker.submit(self._beamline.prepare, state)
        for name in self._faults.on:
            await self._fault_changed(name)
        await self._publish_ring()
        timing = asyncio.create_task(self._keep_time())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        timing.cancel()
        await self.file_plugin.abandon_capture()
        serving.cancel()
        await serving
        # Until Python 3.12, wait_for may forget that its task was cancelled: caproto's then wait for ever.
        while rest := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in rest:
                task.cancel()
            await asyncio.wait(rest, timeout=1.0)


def motor_settings(name: str, axis: Axis, motor: Motor) -> MotorSettings:
    """Return what the motor record of an axis shows and does."""
    return MotorSettings(
        units=axis.unit,
        low_limit=axis.low_limit,
        high_limit=axis.high_limit,
        velocity=motor.velocity,
        acceleration_s=motor.acceleration_s,
        precision=motor.precision,
        initial=motor.initial,
        backlash=motor.backlash,
        settle_s=motor.settle_s,
        description=name.replace("_", " "),
    )
