"""The measurement as a value: complete, ordered, and nothing exposed twice."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_txm.devices.configuration import ConfigurationError, load_configuration, read_toml
from mistral_txm.devices.key import Key
from mistral_txm.plans.measurement import (
    Darks,
    Exposures,
    Flats,
    Measurement,
    Sample,
    estimate,
    medium,
    paper,
    remaining,
    small,
    steps,
)

measurements = st.builds(
    lambda tilts, azimuths, first, low, high, at_end: Measurement(
        sample=Sample(name="film"),
        angles_deg=tuple(sorted(tilts)),
        azimuths_deg=tuple(azimuths),
        exposures=(
            Exposures(up_to_deg=20.0, exposure_s=1.0, repeats=low),
            Exposures(up_to_deg=60.0, exposure_s=2.0, repeats=high),
        ),
        flats=Flats(exposure_s=0.5, repeats=2, at_end=at_end),
        darks=Darks(repeats=1),
        first_helicity=first,
        energy_ev=707.4,
    ),
    st.sets(st.integers(-60, 60).map(float), min_size=1, max_size=8),
    st.lists(st.sampled_from([0.0, 90.0, 102.0, -45.0]), min_size=1, max_size=3, unique=True),
    st.sampled_from([1, -1]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
)


def test_the_paper_has_87_tilts_and_15_to_20_exposures() -> None:
    measurement = paper()
    assert len(measurement.angles_deg) == 87
    assert measurement.angles_deg[0] == -55
    assert measurement.angles_deg[-1] == 55
    gaps = Counter(
        b - a for a, b in zip(measurement.angles_deg, measurement.angles_deg[1:], strict=False)
    )
    assert gaps == {1.0: 62, 2.0: 24}
    assert measurement.azimuths_deg == (0.0, 102.0)
    assert {measurement.exposures_at(t).repeats for t in measurement.angles_deg} == {15, 20}
    assert {measurement.exposures_at(t).exposure_s for t in measurement.angles_deg} == {8, 12, 20}
    assert [measurement.exposures_at(t).exposure_s for t in (-24, 25, -44, 45)] == [8, 12, 12, 20]


def test_the_small_one_spans_the_same_range_with_three_exposures() -> None:
    measurement = small()
    assert (measurement.angles_deg[0], measurement.angles_deg[-1]) == (-55, 55)
    assert len(measurement.planned_keys()) == 23 * 2 * 2 * 3
    assert len(medium().planned_keys()) == 87 * 2 * 2 * 3


@given(measurements)
@settings(max_examples=50, deadline=None)
def test_every_key_is_planned_once_and_in_order(measurement: Measurement) -> None:
    keys = measurement.planned_keys()
    assert len(set(keys)) == len(keys)
    expected = sum(2 * measurement.exposures_at(t).repeats for t in measurement.angles_deg)
    assert len(keys) == expected * len(measurement.azimuths_deg)
    for phi_deg in measurement.azimuths_deg:
        mine = [key for key in keys if key.phi_deg == phi_deg]
        assert [key.theta_deg for key in mine] == sorted(key.theta_deg for key in mine)
        groups = list(dict.fromkeys((key.theta_deg, key.helicity) for key in mine))
        helicities = [helicity for _, helicity in groups]
        first = measurement.first_helicity
        pattern = [first, -first, -first, first] * len(measurement.angles_deg)
        assert helicities == pattern[: len(helicities)]


@given(measurements, st.data())
@settings(max_examples=50, deadline=None)
def test_what_is_left_and_what_is_done_is_what_was_planned(
    measurement: Measurement, data: st.DataObject
) -> None:
    planned = measurement.planned_keys()
    done = frozenset(data.draw(st.sets(st.sampled_from(planned))))
    left = remaining(planned, done)
    assert set(left) | done == set(planned)
    assert not set(left) & done
    taken = [
        key
        for phi_deg in measurement.azimuths_deg
        for step in steps(measurement, phi_deg, done)
        if step.stream == "primary"
        for key in step.keys
    ]
    assert tuple(taken) == left


@given(measurements)
@settings(max_examples=50, deadline=None)
def test_frames_that_correct_others_come_first_and_match_them(measurement: Measurement) -> None:
    phi_deg = measurement.azimuths_deg[0]
    taken = steps(measurement, phi_deg)
    order = [step.stream for step in taken]
    views = [step for step in taken if step.stream == "primary"]
    begin = order.index("primary")
    assert set(order[:begin]) == {"dark", "flat"}
    assert order[:begin] == sorted(order[:begin])
    dark_s = {step.exposure_s for step in taken if step.stream == "dark"}
    assert dark_s == {step.exposure_s for step in taken if step.stream != "dark"}
    assert {step.helicity for step in taken[:begin] if step.stream == "flat"} == {1, -1}
    assert taken[begin - 1].helicity == views[0].helicity
    keys = [(step.stream, key) for step in taken for key in step.keys]
    assert len(set(keys)) == len(keys)
    assert (order[-1] == "flat") == measurement.flats.at_end


def test_an_azimuth_that_is_done_takes_nothing_at_all(tiny: Measurement) -> None:
    done = frozenset(key for key in tiny.planned_keys() if key.phi_deg == 0)
    assert steps(tiny, 0.0, done) == ()
    assert steps(tiny, 102.0, done) == steps(tiny, 102.0)


def test_an_azimuth_that_is_not_planned_is_refused(tiny: Measurement) -> None:
    with pytest.raises(ValueError, match=r"phi = 90 deg is not an azimuth .*\(0, 102 deg\)"):
        steps(tiny, 90.0)


@given(measurements)
@settings(max_examples=20, deadline=None)
def test_a_measurement_survives_a_dictionary(measurement: Measurement) -> None:
    assert Measurement.from_dict(measurement.to_dict()) == measurement


def test_a_measurement_survives_a_file(tmp_path: Path) -> None:
    path = tmp_path / "measurement.toml"
    path.write_text(tomli_w.dumps(paper().to_dict()))
    assert read_toml(path, Measurement) == paper()
    path.write_text(path.read_text().replace("repeats = 50", "repeat = 50"))
    with pytest.raises(ConfigurationError, match=r"measurement.toml:\d+: unknown key 'repeat' in"):
        read_toml(path, Measurement)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"angles_deg": [1.0, 0.0]}, "ascending"),
    ({"angles_deg": [1.0, 1.0]}, "ascending"),
    ({"angles_deg": []}, "at least one"),
    ({"angles_deg": [0.0, 56.0]}, "does not reach the largest tilt, 56.0 deg"),
    ({"angles_deg": [float("nan")]}, "finite"),
    ({"azimuths_deg": [0.0, 0.0]}, "each azimuth once"),
    ({"first_helicity": 0}, "1 or -1"),
    ({"energy_ev": -1.0}, "greater than 0"),
    ({"exposures": []}, "ascending up_to_deg"),
    ({"darks": {"repeats": 0}}, "greater than or equal to 1"),
    ({"sample": {"name": "x", "layers_nm": [[40.0, -40.0]]}}, "lower end first"),
    ({"sample": {"name": "x", "surfaces_nm": [120.0, -170.0]}}, "lower one first"),
    ({"speed": 1}, "Extra inputs"),
]


@pytest.mark.parametrize(("change", "expected"), WRONG)
def test_a_measurement_that_makes_no_sense_is_refused(
    change: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        Measurement.from_dict({**small().to_dict(), **change})


def test_the_estimate_of_the_2018_script_agrees_with_its_hours() -> None:
    """13.3 h of exposures and 1.7 h of slit waits per azimuth were computed for its own angles."""
    script = paper().to_dict()
    script["exposures"][2]["repeats"] = 25
    script["azimuths_deg"] = [0.0]
    measurement = Measurement.from_dict(script)
    estimated = estimate(measurement, load_configuration(), (1024, 1024))
    calibration_s = 2 * 2 * 50 * 3 + 10 * (3 + 8 + 12 + 20)
    assert (estimated.exposure_s - calibration_s) / 3600 == pytest.approx(13.3, rel=0.02)
    flats = 3
    assert (estimated.helicity_changes - flats) * 72 / 3600 == pytest.approx(1.7, abs=0.05)
    assert estimated.bytes == estimated.frames * 2 * 1024 * 1024


def test_an_estimate_counts_what_the_steps_take(tiny: Measurement) -> None:
    estimated = estimate(tiny, load_configuration(), (4, 5))
    taken = [step for phi in tiny.azimuths_deg for step in steps(tiny, phi)]
    assert estimated.frames == sum(len(step.repeats) for step in taken)
    assert estimated.bytes == estimated.frames * 40
    assert estimated.duration_s > estimated.exposure_s
    nothing = estimate(tiny, load_configuration(), (4, 5), frozenset(tiny.planned_keys()))
    assert (nothing.frames, nothing.duration_s) == (0, 0.0)


def test_a_key_is_a_plain_tuple() -> None:
    assert Key(0.0, 1.0, -1, 2) == (0.0, 1.0, -1, 2)
