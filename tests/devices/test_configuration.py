"""The configuration is strict, and says in one line what is wrong and where."""

import re
from pathlib import Path

import pytest

from mistral_txm.devices.address import Address
from mistral_txm.devices.configuration import SIMULATED, load_configuration
from mistral_txm.devices.strict_toml import ConfigurationError
from mistral_txm.plans.measurement import PRESETS


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = SIMULATED.read_text()
    assert old in text
    path = tmp_path / "beamline.toml"
    path.write_text(text.replace(old, new, 1))
    return path


def test_the_packaged_configuration_is_the_simulated_beamline() -> None:
    configuration = load_configuration()
    assert configuration.axes.theta.address == Address("ca", "SIM:GON:THETA")
    assert (configuration.axes.theta.low_limit, configuration.axes.theta.high_limit) == (-70, 70)
    assert configuration.axes.theta.approach == 0.5
    assert configuration.axes.sample_x.approach == 0
    assert configuration.polarization.of(1).jaw_up_mm == 2.5
    assert configuration.polarization.of(-1).jaw_down_mm == -2.5


def test_every_number_carries_its_origin_in_a_comment() -> None:
    for number, line in enumerate(SIMULATED.read_text().splitlines(), start=1):
        if re.match(r"\w+ = [-\d]", line):
            assert re.search(r"# \S+ \S+|# \[assumed\]", line), (
                f"line {number} says no origin: {line}"
            )


WRONG = [
    ("tolerance_deg", "tolerence_deg", r".toml:16: unknown key .*; the nearest .* 'tolerance_deg'"),
    ("[shutter]", "[shuter]", r": unknown key 'shuter'; the nearest valid key is 'shutter'$"),
    (
        "control_timeout_s",
        "timeout_s",
        r":10: .* in \[control_systems.ca\]; .* 'control_timeout_s'$",
    ),
    ("faults_address", "fault", r": unknown key 'fault' in \[simulation\]; .* 'faults_address'$"),
    ("limit_deg = -70.0", "limit_deg = '-70'", r":14: low_limit_deg = '-70' in .*valid number"),
    ("limit_deg = -70.0", "limit_deg = 71.0", r":12: low_limit_deg = 71.0 must be below high_lim"),
    ("limit_deg = -70.0", "limit_deg = nan", r":14: low_limit_deg = nan in .* finite"),
    ("pixel_nm = 10.5", "pixel_nm = 0", r"pixel_nm = 0 in \[ccd\]: .*greater than 0"),
    ("pixel_nm = 10.5 ", "# ", r"'pixel_nm' is missing in \[ccd\]$"),
    (
        "ca://SIM:GON:X",
        "tango://gon/x",
        r":21: axes.sample_x.address = 'tango://gon/x' names a control system without a section "
        r"\[control_systems.tango\]; there is \[control_systems.ca\]$",
    ),
    (
        "control_systems.ca",
        "control_systems.tango",
        r":13: axes.theta.address .* without a section",
    ),
    ("ca://SIM:RING:Current", "SIM:RING:Current", r"expected scheme://name, such as ca://GON"),
    ("jaw_up_mm = 2.5", "jaw_up_mm = 1.0", r"jaw_down_mm = 1.5 must be below jaw_up_mm = 1.0$"),
    (
        "jaw_up_mm = 2.5",
        "jaw_up_mm = 25.0",
        r":7\d: polarization.positive.jaw_up_mm = 25.0 lies out",
    ),
    ("[axes.theta]", "[axes.theta", r"beamline.toml: not TOML: .*line 12"),
]


@pytest.mark.parametrize(("old", "new", "expected"), WRONG)
def test_a_wrong_file_is_refused_with_one_line(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected) as refusal:
        load_configuration(edited(tmp_path, old, new))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_a_measurement_is_no_configuration(preset: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load_configuration(PRESETS / f"{preset}.toml")
    assert str(refusal.value).endswith(
        f"{preset}.toml: is a measurement, expected a beamline configuration"
    )


def test_a_key_that_is_like_no_valid_one_is_refused_with_all_of_them(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"unknown key 'xyzzy' in .top_up.; valid keys are address$"
    ):
        load_configuration(edited(tmp_path, "[top_up]", "[top_up]\nxyzzy = 3"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere.toml: No such file"):
        load_configuration(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("helicity", [0, 2, True + 1])
def test_a_helicity_is_plus_or_minus_one(helicity: int) -> None:
    with pytest.raises(ValueError, match=r"expected \+1 or -1"):
        load_configuration().polarization.of(helicity)


def test_a_configuration_does_not_change() -> None:
    configuration = load_configuration()
    with pytest.raises(ValueError, match="frozen"):
        configuration.ccd.pixel_nm = 1.0  # type: ignore[misc]  # that it is refused is the test
