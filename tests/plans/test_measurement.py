"""The measurement as a value: complete, ordered, and nothing exposed twice."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_txm.devices.configuration import SIMULATED
from mistral_txm.devices.key import Key
from mistral_txm.devices.strict_toml import ConfigurationError, read_toml
from mistral_txm.plans.measurement import (
    PRESETS,
    Darks,
    ExposureControl,
    Flats,
    Measurement,
    ReturnToZero,
    Sample,
    Tilts,
    load_measurement,
    medium,
    paper,
    presets,
    small,
)
from mistral_txm.plans.steps import edge_series, manifest, steps

measurements = st.builds(
    lambda tilts, azimuths, first, low, high, at_end, every, energies, edges, again: Measurement(
        sample=Sample(name="film"),
        tilts=tuple(
            Tilts(
                first_deg=tilt,
                last_deg=tilt,
                exposure_s=1.0 if abs(tilt) <= 20 else 2.0,
                repeats=low if abs(tilt) <= 20 else high,
            )
            for tilt in sorted(tilts)
        ),
        azimuths_deg=tuple(azimuths),
        flats=Flats(exposure_s=0.5, repeats=2, at_end=at_end, every_tilts=every),
        darks=Darks(repeats=1),
        first_helicity=first,
        energies_ev=tuple(energies),
        edges=edges,
        return_to_zero=again and ReturnToZero(repeats=again),
    ),
    st.sets(st.integers(-60, 60).map(float), min_size=1, max_size=8),
    st.lists(st.sampled_from([0.0, 90.0, 102.0, -45.0]), min_size=1, max_size=3, unique=True),
    st.sampled_from([1, -1]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 4)),
    st.lists(st.sampled_from([707.4, 720.5, 778.1]), min_size=1, max_size=3, unique=True),
    st.sampled_from(["in_turn", "interleaved"]),
    st.one_of(st.none(), st.integers(1, 3)),
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
    done = {
        energy_ev: frozenset(data.draw(st.sets(st.sampled_from(planned))))
        for energy_ev in measurement.energies_ev
    }
    for energy_ev in measurement.energies_ev:
        left = tuple(key for key in planned if key not in done[energy_ev])
        taken = [
            key
            for phi_deg in measurement.azimuths_deg
            for step in steps(measurement, phi_deg, done)
            if step.stream == "primary" and step.energy_ev == energy_ev
            for key in step.keys
        ]
        assert sorted(taken) == sorted(left)
        if len(measurement.energies_ev) == 1:
            assert tuple(taken) == left


@given(measurements)
@settings(max_examples=50, deadline=None)
def test_frames_that_correct_others_come_first_and_match_them(measurement: Measurement) -> None:
    phi_deg = measurement.azimuths_deg[0]
    for energy_ev in measurement.energies_ev:
        taken = [step for step in steps(measurement, phi_deg) if step.energy_ev == energy_ev]
        order = [step.stream for step in taken]
        begin = order.index("primary")
        assert set(order[:begin]) == {"dark", "flat"}
        assert order[:begin] == sorted(order[:begin])
        dark_s = {step.exposure_s for step in taken if step.stream == "dark"}
        assert dark_s == {step.exposure_s for step in taken if step.stream != "dark"}
        assert {step.helicity for step in taken[:begin] if step.stream == "flat"} == {1, -1}
        assert taken[begin - 1].helicity == taken[begin].helicity
        keys = [(step.stream, key) for step in taken for key in step.keys]
        assert len(set(keys)) == len(keys)
        assert (order[-1] == "flat") == measurement.flats.at_end


@given(measurements)
@settings(max_examples=50, deadline=None)
def test_flats_come_again_after_so_many_tilts(measurement: Measurement) -> None:
    every, tilts = measurement.flats.every_tilts, len(measurement.angles_deg)
    energy_ev = measurement.energies_ev[0]
    taken = [
        step.stream
        for step in steps(measurement, measurement.azimuths_deg[0])
        if step.energy_ev == energy_ev and step.stream != "dark"
    ]
    between = 0 if every is None else (tilts - 1) // every
    expected = 2 * (1 + between + measurement.flats.at_end)
    assert taken.count("flat") == expected


@given(measurements)
@settings(max_examples=50, deadline=None)
def test_slit_and_monochromator_move_no_more_than_they_must(measurement: Measurement) -> None:
    """One slit move for each tilt, and with n interleaved energies 2 (n - 1) of the monochromator."""
    taken = [
        step for step in steps(measurement, measurement.azimuths_deg[0]) if step.stream == "primary"
    ]
    pairs = list(pairwise(taken))
    slit = sum(a.helicity != b.helicity for a, b in pairs)
    energy = sum(a.energy_ev != b.energy_ev for a, b in pairs)
    tilts, energies = len(measurement.angles_deg), len(measurement.energies_ev)
    if measurement.edges == "interleaved":
        assert (slit, energy) == (tilts, tilts * 2 * (energies - 1))
    else:
        turns = energies - 1
        assert energy == turns
        assert tilts * energies <= slit <= tilts * energies + turns


def test_an_azimuth_that_is_done_takes_nothing_at_all(tiny: Measurement) -> None:
    done = {707.4: [key for key in tiny.planned_keys() if key.phi_deg == 0]}
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


REGION = {"first_deg": 0.0, "last_deg": 10.0, "step_deg": 5.0, "exposure_s": 1.0, "repeats": 2}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tilts": []}, "tilts: expected at least one"),
    ({"tilts": [{**REGION, "last_deg": -1.0}]}, "last_deg = -1 is below first_deg = 0"),
    ({"tilts": [{**REGION, "step_deg": 3.0}]}, "steps of 3 deg from 0 do not end at 10 deg"),
    ({"tilts": [{**REGION, "step_deg": 0.0}]}, "greater than 0"),
    ({"tilts": [REGION, REGION]}, "begins at 0 deg must lie above the one that ends at 10 deg"),
    ({"tilts": [{**REGION, "first_deg": float("nan")}]}, "finite"),
    ({"tilts": [{**REGION, "exposure_s": 601.0}]}, "less than or equal to 600"),
    ({"azimuths_deg": [0.0, 0.0]}, "azimuths_deg: expected each once"),
    ({"azimuths_deg": []}, "azimuths_deg: expected at least one"),
    ({"first_helicity": 0}, "1 or -1"),
    ({"energies_ev": [-1.0]}, "greater than 0"),
    ({"energies_ev": [707.4, 707.4]}, "energies_ev: expected each once"),
    ({"edges": "both"}, "interleaved"),
    (
        {"energies_ev": [707.4, 778.1], "focus": {"positive_um": 0.0, "negative_um": 1.5}},
        "focus: holds at one photon energy",
    ),
    ({"exposure_control": {"exposures_s": [8.0, 4.0]}}, "ascending exposure times"),
    (
        {"exposure_control": {"exposures_s": [8.0], "signal_to_noise": 9.0, "least_repeats": 4}},
        "least_repeats = 4 is more than the 3 repeats",
    ),
    ({"darks": {"repeats": 0}}, "greater than or equal to 1"),
    ({"stop": {"max_duration_h": 0.0}}, "greater than 0"),
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


def test_presets_are_found_by_name_and_the_script_exposes_longer_at_high_tilt() -> None:
    assert presets() == ("medium", "paper", "script_2018", "small")
    script = load_measurement("script_2018")
    assert {script.exposures_at(t).repeats for t in script.angles_deg} == {15, 20, 25}
    assert script.exposures_at(-45.0).repeats == 25
    with pytest.raises(ConfigurationError, match=r"papers: no such measurement; .* paper"):
        load_measurement("papers")


def test_a_mistake_in_a_region_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "measurement.toml"
    lines = (PRESETS / "small.toml").read_text().splitlines()
    third = [n for n, line in enumerate(lines, start=1) if line == "[[tilts]]"][2]
    lines[third + 3] = "exposure_s = 1000.0"
    path.write_text("\n".join(lines))
    expected = rf"measurement.toml:{third + 4}: exposure_s = 1000.0"
    with pytest.raises(ConfigurationError, match=expected):
        load_measurement(path)


TOLD = [
    (
        "energies_ev = [707.4]",
        "energies_ev = 707.4",
        "expected a list, such as energies_ev = [707.4]",
    ),
    (
        "energies_ev = [707.4]",
        "energies_ev = ['Fe']",
        "number 1 of energies_ev = 'Fe': expected a ",
    ),
    ("[flats]", "[[flats]]", "expected a section"),
    ("exposure_s = 3.0", "exposure_s = '3 s'", "exposure_s = '3 s' in [flats]: expected a valid"),
    ("repeats = 3", "repeats = 3.5", "repeats = 3.5 in [[tilts]], number 1: expected a valid"),
    (
        "repeats = 3",
        "repeat = 3",
        "'repeat' in [[tilts]], number 1; the nearest valid key is 'repeats'",
    ),
    (
        "repeats = 3",
        "xyzzy = 3",
        "; valid keys are first_deg, last_deg, step_deg, exposure_s, repeats",
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), TOLD)
def test_what_is_wrong_in_a_file_is_told_in_its_terms(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    text = (PRESETS / "small.toml").read_text()
    assert old in text
    path = tmp_path / "measurement.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigurationError) as refusal:
        load_measurement(path)
    assert expected in str(refusal.value)
    assert not re.search(r"\n|tuple|dictionary|\.0\]", str(refusal.value))


def test_a_configuration_is_no_measurement() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load_measurement(SIMULATED)
    assert str(refusal.value) == f"{SIMULATED}: is a beamline configuration, expected a measurement"


def test_each_edge_is_a_series_of_its_own() -> None:
    both = small().model_copy(update={"energies_ev": (707.4, 778.1)})
    assert [edge_series("s", both, e) for e in both.energies_ev] == ["s-707.4eV", "s-778.1eV"]
    one = both.at_energy(778.1)
    assert one.energies_ev == (778.1,)
    assert edge_series("s", one, 778.1) == "s"
    assert sum(repeats for *_, repeats in manifest(one)) == len(one.planned_keys())
    with pytest.raises(ValueError, match="640 eV is not an energy"):
        both.at_energy(640.0)


def test_dark_frames_are_planned_for_every_exposure_that_may_be_chosen(tiny: Measurement) -> None:
    control = ExposureControl(exposures_s=(4.0, 8.0))
    chosen = tiny.model_copy(update={"exposure_control": control})
    darks_s = [step.exposure_s for step in steps(chosen, 0.0) if step.stream == "dark"]
    assert darks_s == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_a_key_is_a_plain_tuple() -> None:
    assert Key(0.0, 1.0, -1, 2) == (0.0, 1.0, -1, 2)
