"""Plans switch what goes wrong at the simulated beamline, over Channel Access."""

from operator import attrgetter

import bluesky.plan_stubs as bps
import pytest
from bluesky import RunEngine

from mistral_txm.simulated_beamline.faults import FAULTS

ANSWERED = [name for name in FAULTS if name not in ("silence", "server_killed")]
VALUES = {"switch": 1, "count": 2, "amount": 0.5, "number": 3}


@pytest.fixture(scope="module")
def engine():
    return RunEngine({})


@pytest.fixture(scope="module")
def faults(simulated_beamline):
    from mistral_txm.devices.configuration import load_configuration
    from mistral_txm.profile_collection.simulated_faults import make_faults

    device = make_faults(load_configuration().simulation.faults_address)
    device.wait_for_connection(timeout=120)
    return device


@pytest.mark.parametrize("name", ANSWERED)
def test_a_plan_switches_each_fault_on_and_off(engine, faults, name):
    fault = attrgetter(name)(faults)
    value = VALUES[FAULTS[name].kind]
    engine(bps.mv(fault, value))
    assert fault.get() == value
    assert faults.on == {name: value}
    engine(bps.mv(fault, 0))
    assert fault.get() == 0
    assert faults.on == {}


def test_amounts_carry_their_unit(faults):
    assert faults.describe()["faults_azimuth_error"]["units"] == "deg"
    assert faults.describe()["faults_storage_delay"]["units"] == "s"


def test_the_prompt_completes_what_is_typed(faults):
    assert {"beam_dump", "storage_delay", "theta", "energy"} <= set(dir(faults))
    assert {"stall", "encoder_jump"} <= set(dir(faults.theta))
