"""What an operator types of a series that was begun: which keys it takes, and how it refuses."""

import math
from types import SimpleNamespace

import pytest
from bluesky import RunEngine

from mistral_txm.devices.key import Key
from mistral_txm.devices.sample import Azimuth
from mistral_txm.plans import Measurement, PlanError
from mistral_txm.profile_collection import measured, operator_plans
from mistral_txm.profile_collection.measured import Measured
from mistral_txm.profile_collection.operator_plans import OperatorPlans

MEASUREMENT = Measurement.from_dict(
    {
        "sample": {"name": "film"},
        "tilts": [
            {"first_deg": -5.5, "last_deg": -5.5, "exposure_s": 8.0, "repeats": 2},
            {"first_deg": 0.0, "last_deg": 1.0, "exposure_s": 8.0, "repeats": 1},
        ],
        "azimuths_deg": [0.0, 102.0],
        "energies_ev": [707.4, 778.1],
        "flats": {"exposure_s": 3.0, "repeats": 1},
        "darks": {"repeats": 1},
    }
)
KEYS = MEASUREMENT.planned_keys()


class Series:
    """A series of which some keys were taken."""

    def __init__(self, uid, accepted):
        self.uid = uid
        self.exposures = []
        self.manifest = list(KEYS)
        self._accepted = accepted

    def accepted(self):
        return dict.fromkeys(self._accepted)

    def standing(self, _lost=()):
        return SimpleNamespace(missing=[key for key in KEYS if key not in self._accepted])


@pytest.fixture
def begin(monkeypatch):
    """Make the operator's plans of a data folder where so much was taken, by energy; and what they call."""

    def make(mounted_deg=math.nan, **accepted):
        series = {
            energy_ev: Series(f"s-{energy_ev:g}eV", accepted[name])
            for energy_ev, name in ((707.4, "iron"), (778.1, "cobalt"))
            if name in accepted
        }
        found = [Measured("s", MEASUREMENT, series)] if series else []
        monkeypatch.setattr(operator_plans, "begun", lambda data: found)
        by_uid = {one.uid: one for one in series.values()}
        monkeypatch.setattr(
            measured,
            "verify",
            lambda data, uid: [
                SimpleNamespace(done=frozenset(by_uid[uid].accepted()), missing=[], damaged=[])
            ],
        )
        asked = {}
        monkeypatch.setattr(
            operator_plans.plans,
            "vector_tomography",
            lambda instrument, what, series, skip, looked: asked.update(
                what=what,
                series=series,
                looked=looked,
                taken={each: set(KEYS) - set(skip.get(each, ())) for each in what.energies_ev},
            ),
        )
        monkeypatch.setattr(
            operator_plans.plans,
            "retake",
            lambda instrument, what, keys, series: asked.update(
                what=what, series=series, taken={each: set(keys) for each in what.energies_ev}
            ),
        )
        monkeypatch.setattr(
            operator_plans,
            "looked_before",
            lambda data, chosen, ccd, skip: (chosen.uid, ccd, sorted(skip)),
        )
        azimuth = Azimuth(name="azimuth")
        if not math.isnan(mounted_deg):
            azimuth.set(mounted_deg)
        return OperatorPlans(
            SimpleNamespace(azimuth=azimuth, configuration=SimpleNamespace(ccd="ccd")), None
        ), asked

    return make


@pytest.mark.parametrize("name", [None, "s", "s-707.4eV"])
def test_resume_takes_what_is_missing_of_all_edges_also_of_one_that_was_not_begun(begin, name):
    operator, asked = begin(iron=KEYS[:3])
    operator.resume(name)
    assert asked == {
        "what": MEASUREMENT,
        "series": "s",
        "looked": ("s", "ccd", [707.4]),
        "taken": {707.4: set(KEYS[3:]), 778.1: set(KEYS)},
    }


def test_resume_of_a_whole_measurement_is_refused(begin):
    operator, _ = begin(iron=KEYS, cobalt=KEYS)
    with pytest.raises(PlanError, match=r"^series s: nothing is missing$"):
        operator.resume()


def test_where_nothing_was_measured(begin):
    operator, _ = begin()
    with pytest.raises(PlanError, match=r"^no series was begun here yet: RE\(vector_tomo"):
        operator.resume()


@pytest.mark.parametrize(
    ("arguments", "mounted_deg", "expected"),
    [
        ({"theta": -5.46, "phi": 102}, math.nan, {(102.0, h, r) for h in (1, -1) for r in (0, 1)}),
        ({"theta": -5.5, "helicity": -1}, 101.5, {(102.0, -1, 0), (102.0, -1, 1)}),
        ({"theta": -5.5, "helicity": 1, "phi": 0.4}, 102.0, {(0.0, 1, 0), (0.0, 1, 1)}),
    ],
)
def test_retake_takes_one_angle(begin, arguments, mounted_deg, expected):
    operator, asked = begin(mounted_deg, iron=KEYS, cobalt=KEYS)
    operator.retake(**arguments)
    keys = {Key(phi, -5.5, helicity, repeat) for phi, helicity, repeat in expected}
    assert asked["taken"] == {707.4: keys, 778.1: keys}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"theta": 0.4, "phi": 0}, "theta = 0.4 deg is not planned; beside it are 0, 1 deg"),
        ({"theta": 70, "phi": 0}, "theta = 70 deg is not planned; beside it are 0, 1 deg"),
        ({"theta": 0}, "phi: expected one of 0, 102 deg"),
        ({"theta": 0, "phi": 90}, "phi = 90 deg: expected one of 0, 102 deg"),
        ({"theta": 0, "phi": 0, "helicity": 2}, "helicity: 2, expected 1 or -1"),
        ({"theta": 0, "series": "t"}, "series t: no such series here; known are: s"),
        ({"theta": 0, "series": 2}, "series = 2: expected its name as a text, such as 'film'"),
        ({"theta": "0"}, "theta = '0': expected a tilt in deg, a number without quotes"),
        (
            {"theta": 0, "phi": "x"},
            "phi = 'x': expected an azimuth in deg, a number without quotes",
        ),
    ],
)
def test_retake_refuses_in_one_line(begin, arguments, line):
    operator, _ = begin(iron=KEYS)
    with pytest.raises(PlanError) as refusal:
        operator.retake(**arguments)
    assert str(refusal.value) == line


def test_reject_names_what_was_taken_series_by_series(begin):
    operator, _ = begin(iron=KEYS, cobalt=KEYS[:1])
    RE = RunEngine({})
    starts = []
    RE.subscribe(lambda _, doc: starts.append(doc), "start")
    RE(operator.reject(-5.5, helicity=1, phi=0, reason="the sample moved"))
    assert [
        (doc["plan_name"], doc["series"], doc["rejected_keys"], doc["reason"]) for doc in starts
    ] == [
        (
            "reject",
            "s-707.4eV",
            [[0.0, -5.5, 1, 0], [0.0, -5.5, 1, 1]],
            "the sample moved",
        ),
        ("reject", "s-778.1eV", [[0.0, -5.5, 1, 0]], "the sample moved"),
    ]


def test_one_repeat_is_rejected_by_its_number_in_the_progress(begin):
    operator, _ = begin(iron=KEYS)
    messages = list(operator.reject(-5.5, helicity=1, phi=0, repeat=2, reason="a flash"))
    assert messages[0].kwargs["rejected_keys"] == [[0.0, -5.5, 1, 1]]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"theta": 1, "phi": 102, "reason": "x"}, "nothing accepted at theta = 1 deg"),
        ({"theta": -5.5, "phi": 0, "reason": " "}, "reason: expected a text"),
    ],
)
def test_reject_refuses_in_one_line(begin, arguments, line):
    operator, _ = begin(iron=KEYS[:4])
    with pytest.raises(PlanError, match=line):
        operator.reject(**arguments)


@pytest.mark.parametrize(
    ("phi_deg", "line"),
    [
        (90.0, "phi = 90 deg is not within 1 deg of a planned azimuth (0, 102 deg)"),
        (0.5, "series s: nothing is missing at phi = 0 deg"),
    ],
)
def test_next_azimuth_refuses_in_one_line(begin, phi_deg, line):
    first = [key for key in KEYS if key.phi_deg == 0.0]
    operator, _ = begin(iron=first, cobalt=first)
    with pytest.raises(PlanError) as refusal:
        operator.next_azimuth(phi_deg)
    assert str(refusal.value) == line


def test_next_azimuth_states_how_the_sample_stands_and_takes_the_planned_one(begin, monkeypatch):
    first = [key for key in KEYS if key.phi_deg == 0.0]
    operator, _ = begin(iron=first, cobalt=first)
    turned, taken = [], []
    operator._turn = turned.append

    def tilt_series(instrument, what, azimuth_deg, series, skip, looked):
        taken.append((azimuth_deg, series, skip))
        assert looked == ("s", "ccd", [707.4, 778.1])
        return ("uid",)
        yield

    monkeypatch.setattr(operator_plans.plans, "tilt_series", tilt_series)
    RunEngine({})(operator.next_azimuth(101.2))
    assert turned == [101.2]
    assert operator._instrument.azimuth.phi_deg == 101.2
    assert taken == [(102.0, "s", {707.4: frozenset(first), 778.1: frozenset(first)})]
