"""A camera with its plug-in, written to as the Channel Access server writes to them."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from caproto import ChannelType

from mistral_txm.simulated_beamline.camera import Camera
from mistral_txm.simulated_beamline.clock import Clock
from mistral_txm.simulated_beamline.faults import Faults
from mistral_txm.simulated_beamline.file_plugin import HDF5FilePlugin
from mistral_txm.simulated_beamline.settings import load_settings

SHAPE_VU = (6, 8)


class NumberingExposer:
    """Renders frames full of their number, from 1 on; an entry of `light` changes one at its end."""

    def __init__(self):
        self.begun = []
        self.changes = {}
        self.told = []

    async def begin(self, exposure_s, number, region):
        self.begun.append((exposure_s, number, region))
        number = len(self.begun)
        return lambda: np.full(region.shape_vu, number, np.uint16)

    async def end(self):
        number = len(self.begun)
        if number not in self.changes:
            return None
        region = self.begun[-1][2]
        return lambda: np.full(region.shape_vu, self.changes[number], np.uint16)

    async def captured(self, file, index):
        self.told.append((file, index))


class Bench:
    """The two of them, and what a client can do with them."""

    def __init__(self, time_scale=0.0, readout_time_s=0.5):
        self.database = {}
        self.clock = Clock()
        self.faults = Faults(self.database, "F:", {})
        self.worker = ThreadPoolExecutor(1)
        self.exposer = NumberingExposer()
        self.plugin = HDF5FilePlugin(self.database, "H:", SHAPE_VU, self.worker, self.faults)
        self.camera = Camera(
            self.database,
            "C:",
            SHAPE_VU,
            self.exposer,
            self.plugin,
            self.worker,
            time_scale,
            load_settings("ideal").camera.model_copy(update={"readout_time_s": readout_time_s}),
            self.clock,
            self.faults,
        )

    async def put(self, **values):
        """Put records by `C_name` or `H_name`, one after the other, each to its completion."""
        for name, value in values.items():
            channel = self.database[name.replace("_", ":", 1)]
            if isinstance(value, str):
                data_type = channel.data_type
                if data_type == ChannelType.CHAR:
                    await channel.write_from_dbr(
                        np.frombuffer(value.encode() + b"\0", np.uint8), data_type, None
                    )
                else:
                    await channel.write_from_dbr([value.encode()], ChannelType.STRING, None)
            else:
                number_type = ChannelType.DOUBLE if isinstance(value, float) else ChannelType.LONG
                if channel.data_type == ChannelType.ENUM:
                    number_type = ChannelType.INT
                await channel.write_from_dbr([value], number_type, None)

    def get(self, name):
        return self.database[name.replace("_", ":", 1)].value

    def record(self, name):
        """Collect every value that is published."""
        channel, seen = self.database[name.replace("_", ":", 1)], []
        publish = channel.publish

        async def spy(flags):
            seen.append(channel.value)
            await publish(flags)

        channel.publish = spy
        return seen


@pytest.fixture
def with_camera():
    """Run a coroutine that takes a bench."""

    def run(case, **options):
        async def main():
            bench = Bench(**options)
            try:
                await asyncio.wait_for(case(bench), 20)
            finally:
                bench.worker.shutdown()

        asyncio.run(main())

    return run
