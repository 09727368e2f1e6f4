"""The devices on the simulated beamline, over real Channel Access."""

from pathlib import Path
from typing import Any

import pytest

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.devices.instrument import make_instrument


def test_axes_move(instrument: Any) -> None:
    instrument.theta.set(-3.0).wait(120)
    assert instrument.theta.position == -3.0
    instrument.theta.set(0.0).wait(120)
    reading = instrument.theta.read()
    assert list(reading) == ["theta"]
    assert instrument.theta.describe()["theta"]["units"] == "deg"


def test_the_polarization_follows_the_jaws(instrument: Any) -> None:
    instrument.polarization.set(-1).wait(120)
    assert instrument.polarization.helicity == -1
    instrument.jaw_up.set(-1.0).wait(120)
    assert instrument.polarization.helicity == 0
    instrument.polarization.set(1).wait(120)
    assert instrument.polarization.helicity == 1
    assert instrument.zone_plate_z.position == 0.0


def test_the_energy_takes_up_its_backlash(instrument: Any) -> None:
    instrument.energy.set(707.4).wait(120)
    assert instrument.energy.is_at(707.4)


def test_names_that_do_not_answer_are_told(instrument: Any, tmp_path: Path) -> None:
    text = load_configuration().model_dump(mode="json", exclude_none=True)
    text["shutter"]["address"] = "ca://SIM:NOWHERE:"
    wrong = type(instrument.configuration).model_validate(text)
    with pytest.raises(TimeoutError, match=r"2 of \d+ names did not answer .* SIM:NOWHERE:Cmd"):
        make_instrument(wrong, tmp_path).connect(0.5)
