"""How far a measurement is: where it is, what it waits for, and when it ends."""

from datetime import datetime

import pytest

from mistral_txm.devices.key import Key
from mistral_txm.profile_collection.series_progress import Progress
from mistral_txm.services.standing import Contribution, standing

PLAN = [
    [phi, theta, helicity, 2]
    for phi in (0.0, 102.0)
    for theta in (-5.0, 5.0)
    for helicity in (1, -1)
]
SATURDAY = datetime(2026, 11, 21, 3)


def seconds(start, needless):
    """Each of the 16 exposures takes 1000 s, before each azimuth that is left a reference of 100 s."""
    planned = [
        (*group, repeat) for *group, count in start["planned_keys"] for repeat in range(count)
    ]
    left = [key for key in planned if key not in needless]
    return 1000.0 * len(left) + 100.0 * len({key[0] for key in left})


def start(series="s", **more):
    return {"series": series, "planned_keys": PLAN, "energy_ev": 707.4, "phi_deg": 0.0, **more}


def documents(run, *events, **more):
    """Return those of a run; an event is what follows its name and stream."""
    yield "start", start(**more)
    for stream in ("primary", "zero", "flat", "log", "waived"):
        yield "descriptor", {"uid": f"{run} {stream}", "name": stream}
    for stream, data in events:
        yield "event", {"descriptor": f"{run} {stream}", "data": data}


def exposed(phi, theta, helicity, repeat, polarization=None):
    names = ("phi_deg", "theta_deg", "helicity", "repeat")
    key = {
        f"key_{name}": value
        for name, value in zip(names, (phi, theta, helicity, repeat), strict=True)
    }
    return {
        **key,
        "ccd_exposure_s": 99.0,
        "polarization": helicity if polarization is None else polarization,
    }


class Told:
    """A progress, told of the begin of a run of each of some series."""

    def __init__(self, *starts, earlier=(), estimate=seconds):
        self.progress = Progress("s", estimate, readout_s=1.0, earlier=earlier)
        for doc in starts or [start()]:
            run = f"run of {doc['series']}"
            for name, each in documents(run, **doc):
                self.progress.add(run, name, each)
        self.progress.pass_time(0.0)

    def event(self, stream, series="s", **data):
        run = f"run of {series}"
        self.progress.add(run, "event", {"descriptor": f"{run} {stream}", "data": data})

    def expose(self, *key, stream="primary", series="s", **options):
        self.event(stream, series, **exposed(*key, **options))

    def angle(self, **options):
        for helicity in (1, -1):
            for repeat in (0, 1):
                self.expose(0.0, -5.0, helicity, repeat, **options)

    def line(self, **options):
        return self.progress.line(SATURDAY, **options)


@pytest.fixture
def told():
    return Told()


def test_before_the_first_exposure_the_end_comes_from_the_references(told):
    assert told.line() == "flats and darks, 0 %"
    told.expose(0.0, 0.0, 1, 0, stream="flat")
    told.progress.pass_time(50.0)
    # 100 of 16200 s in 50 s: the other 16100 s at that pace
    assert told.line() == "flats and darks, 0 %, ends Sat 05:14"


def test_where_it_is_and_when_it_ends(told):
    told.expose(0.0, 0.0, 1, 0, stream="flat")
    told.angle()
    told.progress.pass_time(2050.0)
    # 4100 of 16200 s in 2050 s: the other 12100 s take 6050 s
    assert told.line() == (
        "phi 1/2, theta -5 deg (1/2), helicity -1, repeat 2/2, 25 %, ends Sat 04:40"
    )


def test_an_exposure_that_was_taken_again_counts_once(told):
    for _ in range(2):
        told.expose(102.0, 5.0, -1, 1)
    assert told.line().startswith(
        "phi 2/2, theta 5 deg (2/2), helicity -1, repeat 2/2, 6 %, 1 repeated"
    )


def test_what_was_taken_with_the_jaws_elsewhere_does_not_count(told):
    told.expose(0.0, -5.0, 1, 0, polarization=0)
    assert ", 0 %" in told.line()


AZIMUTH = [
    ("primary", exposed(0.0, theta, helicity, repeat))
    for theta in (-5.0, 5.0)
    for helicity in (1, -1)
    for repeat in (0, 1)
]


def test_what_was_done_before_counts_but_not_for_the_pace():
    told = Told(start(phi_deg=102.0), earlier=[("before", documents("before", *AZIMUTH))])
    told.expose(102.0, -5.0, 1, 0)
    told.progress.pass_time(500.0)
    # 1000 of 8100 s in 500 s
    assert told.line().endswith("56 %, ends Sat 03:59")


def test_repeated_means_what_it_means_in_the_standing_of_the_series():
    again = [*AZIMUTH[:3], AZIMUTH[0]]
    told = Told(earlier=[("before", documents("before", *again))])
    told.event("log", log_kind="repeat", log_text="light was lost; taken again")
    told.expose(0.0, -5.0, 1, 0)
    told.expose(0.0, 5.0, 1, 0)
    keys = [(0.0, -5.0, 1, 0), (0.0, -5.0, 1, 1), (0.0, -5.0, -1, 0), (0.0, -5.0, 1, 0)]

    class Taken(tuple):
        key = property(lambda self: Key(*self))
        polarization = property(lambda self: self[2])

    runs = [keys, [(0.0, -5.0, 1, 0), (0.0, 5.0, 1, 0)]]
    manifest = [Key(*group, repeat) for *group, count in PLAN for repeat in range(count)]
    stands = standing(manifest, [Contribution([Taken(key) for key in run]) for run in runs])
    assert len(stands.repeated) == 2
    assert "25 %, 2 repeated" in told.line()


def test_rejected_exposures_are_to_be_taken_again():
    rejection = {"plan_name": "reject", "series": "s", "rejected_keys": [[0.0, -5.0, 1, 0]]}
    of_others = documents("others", *AZIMUTH, series="other")
    told = Told(
        earlier=[
            ("others", of_others),
            ("before", documents("before", *AZIMUTH)),
            ("rejection", iter([("start", rejection)])),
        ]
    )
    assert ", 44 %" in told.line()  # 7 of 16


def test_a_run_that_is_told_from_its_begin_is_not_counted_twice():
    run = "run of s"  # its journal had begun when the earlier runs were read
    told = Told(earlier=[(run, documents(run, *AZIMUTH[:2]))])
    told.expose(0.0, -5.0, 1, 0)
    assert ", 6 %" in told.line()
    assert "repeated" not in told.line()


@pytest.mark.parametrize("before", [AZIMUTH, AZIMUTH[:6]])
def test_an_angle_that_is_taken_again_ends_with_its_run(before):
    told = Told(start(n_planned=4), earlier=[("before", documents("before", *before))])
    told.expose(0.0, 0.0, 1, 0, stream="flat")
    told.expose(0.0, -5.0, 1, 0)
    told.progress.pass_time(1100.0)
    # 1100 of 4100 s at their pace: whatever else is missing, and a second azimuth, are not taken
    assert told.line().endswith("1 repeated, ends Sat 03:50")
    told.progress.add("run of s", "stop", {})
    assert not told.progress.goes_on


def test_time_that_was_waited_does_not_slow_the_pace(told):
    told.angle()
    told.progress.pass_time(2000.0)
    told.event("log", log_kind="pause", log_text="front_end: closed")
    told.progress.pass_time(50000.0)
    assert told.line().endswith("25 %, waits: front_end: closed")
    told.event("log", log_kind="go_on", log_text="front_end: open")
    assert told.line().endswith("25 %, ends Sat 04:41")  # 12200 s at half of their time


def test_what_the_suspenders_wait_for(told):
    told.angle()
    assert told.line(suspended="ring_current: 0.0 mA").endswith("waits: ring_current: 0.0 mA")


def test_those_that_nobody_needs(told):
    told.expose(0.0, -5.0, 1, 0)
    names = ("waived_phi_deg", "waived_theta_deg", "waived_helicity", "waived_repeat")
    told.event("waived", **dict(zip(names, (0.0, -5.0, 1, 1), strict=True)))
    assert "7 %, 1 not needed" in told.line()  # 1 of 15


def test_two_edges_measured_by_turns_and_a_third_to_come():
    energies = {"edges": {"series": "s", "energies_ev": [707.4, 778.0, 853.0]}}
    told = Told(
        start("s-707.4eV", **energies), start("s-778eV", **(energies | {"energy_ev": 778.0}))
    )
    for series in ("s-707.4eV", "s-778eV"):
        told.angle(series=series)
    told.progress.pass_time(4000.0)
    # 8000 of 32400 s in 4000 s; 24400 s and the third edge, 16200 s, are left
    assert told.line() == (
        "778 eV, phi 1/2, theta -5 deg (1/2), helicity -1, repeat 2/2, 17 %, ends Sat 08:38"
    )


def test_an_edge_that_was_finished_before_is_not_to_come():
    edges = {"edges": {"series": "s", "energies_ev": [707.4, 778.0]}}
    everything = [
        *AZIMUTH,
        *(("primary", {**data, "key_phi_deg": 102.0}) for _, data in AZIMUTH),
    ]
    before = documents("before", *everything, series="s-707.4eV", **edges)
    told = Told(start("s-778eV", **(edges | {"energy_ev": 778.0})), earlier=[("before", before)])
    told.angle(series="s-778eV")
    told.progress.pass_time(4000.0)
    # 16 + 4 of 32; 4000 of 16200 s in 4000 s
    assert told.line().endswith("repeat 2/2, 62 %, ends Sat 06:23")


def returning(**more):
    """Begin a run of a measurement that goes back to -5 deg, once in each helicity."""
    described = {
        "sample": {"name": "film"},
        "tilts": [{"first_deg": -5.0, "last_deg": 5.0, "step_deg": 10.0, "exposure_s": 9.0, "repeats": 2}],
        "energies_ev": [707.4],
        "flats": {"exposure_s": 3.0, "repeats": 1},
        "darks": {"repeats": 1},
        "return_to_zero": {"repeats": 1},
    }  # fmt: skip
    return start(measurement=described, **more)


def seconds_with_returns(start, needless):
    """As `seconds`, and 1000 s for each exposure of a return."""
    returns = [(phi, -5.0, helicity, 2) for phi in (0.0, 102.0) for helicity in (1, -1)]
    return seconds(start, needless) + 1000.0 * len([key for key in returns if key not in needless])


def test_a_return_to_zero_is_named_and_its_time_counts_where_it_will_be_taken():
    before = [("before", documents("before", *AZIMUTH))]  # turned since, and no return was taken
    told = Told(returning(phi_deg=102.0), earlier=before, estimate=seconds_with_returns)
    for _, data in AZIMUTH:
        told.event("primary", **{**data, "key_phi_deg": 102.0})
    told.progress.pass_time(4050.0)
    # 8100 of 10100 s in 4050 s
    assert told.line().endswith("100 %, ends Sat 03:16")
    told.expose(102.0, -5.0, -1, 2, stream="zero")
    told.progress.pass_time(4550.0)
    assert told.line() == (
        "phi 2/2, back at theta -5 deg, helicity -1, repeat 1/1, 100 %, ends 03:08:20"
    )
