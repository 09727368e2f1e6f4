"""Each fault, turned on by its process variable, reaches what the physics sees."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np
import pytest
from caproto import ChannelType

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.simulated_beamline import textures
from mistral_txm.simulated_beamline.beamline import Beamline
from mistral_txm.simulated_beamline.exposure_log import ExposureLog
from mistral_txm.simulated_beamline.region import Region
from mistral_txm.simulated_beamline.sample import Sample
from mistral_txm.simulated_beamline.server import Server
from mistral_txm.simulated_beamline.settings import load_settings

REGION = Region(0, 0, 64, 64)


@pytest.fixture(scope="module")
def beamline():
    settings = load_settings("ideal")
    sample = Sample(textures.load("uniform"), 1, settings.fiducials)
    return Beamline(sample, settings, (64, 64), 1)


@pytest.fixture
def make_server(beamline, tmp_path):
    log = ExposureLog(tmp_path, beamline, "uniform", 1)
    with ThreadPoolExecutor(max_workers=1) as worker:
        yield lambda **faults: Server(load_configuration(), beamline, 0.0, worker, log, faults)
    log.close()


async def put(server, name, value):
    """Write as a client does, whose numbers are numpy's."""
    channel = server.database[f"SIM:FAULT:{name}"]
    kind = ChannelType.DOUBLE if isinstance(value, float) else ChannelType.LONG
    await channel.write_from_dbr(np.array([value]), kind, None)


@pytest.mark.parametrize(
    ("fault", "value", "field", "expected"),
    [
        ("azimuth_error", 5.0, "azimuth_error_deg", 5.0),
        ("sample_slip", 0.25, "sample_x_um", 0.25),
        ("sample_slip", 0.25, "sample_y_um", 0.25),
        ("fiducials_lost", 2, "fiducials_lost", 2),
        ("fiducials_merged", 1, "fiducials_merged", 1),
        ("helicity_swapped", 1, "helicity_swapped", True),
        ("dark_drift", 12.0, "dark_offset_counts", 12.0),
        ("cooler_off", 1, "temperature_c", 20.0),
        ("front_end_closed", 1, "lit_fraction", 0.0),
        ("beam_dump", 1, "lit_fraction", 0.0),
        ("shutter_stuck_open", 1, "shutter_open", True),
        ("theta:encoder_jump", 0.5, "theta_deg", 0.5),
        ("jaw_up:encoder_jump", 0.5, "jaw_up_mm", 3.0),
        ("energy:encoder_jump", 0.5, "energy_ev", 707.9),
    ],
)
def test_a_fault_changes_the_state(make_server, fault, value, field, expected):
    async def states():
        server = make_server()
        before = server.state(1.0, REGION)
        await put(server, fault, value)
        return before, server.state(1.0, REGION)

    before, after = asyncio.run(states())
    assert getattr(before, field) != expected
    assert json.loads(json.dumps(asdict(after))) == asdict(
        after
    )  # it goes into the log of the truth
    assert getattr(after, field) == pytest.approx(expected)


@pytest.mark.parametrize("fault", ["injection", "zinger_burst"])
def test_a_count_befalls_as_many_exposures(make_server, fault):
    async def befallen():
        server = make_server()
        await put(server, fault, 2)
        found = []
        for number in range(3):
            render = await server.begin(1.0, number, REGION)
            found.append(getattr(render.args[0], fault))
            await server.end()
        return found

    assert asyncio.run(befallen()) == [True, True, False]


def test_an_exposure_that_loses_its_beam_has_half_of_the_light(make_server):
    async def exposed():
        server = make_server(shutter_stuck_open=1, beam_lost=1)
        render = await server.begin(8.0, 0, REGION)
        changed = await server.end()
        return render(), changed(), server.database["SIM:FAULT:beam_dump"].value

    whole, half, dumped = asyncio.run(exposed())
    assert dumped == 1
    assert (half.mean() - 300) / (whole.mean() - 300) == pytest.approx(0.5, rel=0.01)
