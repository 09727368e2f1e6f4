"""The progress line: where a measurement is, what it waits for, and when it ends."""

from datetime import datetime

import pytest

from mistral_txm.profile_collection.progress import Progress

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
    return {"series": series, "planned_keys": PLAN, "energy_ev": 707.4, **more}


class Told:
    """A progress, told of one run."""

    def __init__(self, *starts, done=()):
        self.progress = Progress(seconds, readout_s=1.0)
        for doc in starts or [start()]:
            run = f"run of {doc['series']}"
            self.progress.add(run, "start", doc, done)
            for stream in ("primary", "flat", "log", "waived"):
                descriptor = {"uid": f"{run} {stream}", "name": stream}
                self.progress.add(run, "descriptor", descriptor)
        self.progress.pass_time(0.0)

    def event(self, stream, series="s", **data):
        run = f"run of {series}"
        self.progress.add(run, "event", {"descriptor": f"{run} {stream}", "data": data})

    def expose(self, phi, theta, helicity, repeat, stream="primary", series="s"):
        names = ("key_phi_deg", "key_theta_deg", "key_helicity", "key_repeat", "ccd_exposure_s")
        self.event(
            stream, series, **dict(zip(names, (phi, theta, helicity, repeat, 99.0), strict=True))
        )

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
    assert told.line() == ("phi 1/2, theta 1/2, helicity -, repeat 2/2, 25 %, ends Sat 04:40")


def test_an_exposure_that_was_taken_again_counts_once(told):
    for _ in range(2):
        told.expose(102.0, 5.0, -1, 1)
    assert told.line().startswith("phi 2/2, theta 2/2, helicity -, repeat 2/2, 6 %")


def test_what_was_done_before_counts_but_not_for_the_pace():
    done = {
        (0.0, theta, helicity, repeat)
        for theta in (-5.0, 5.0)
        for helicity in (1, -1)
        for repeat in (0, 1)
    }
    told = Told(done=done)
    told.expose(102.0, -5.0, 1, 0)
    told.progress.pass_time(500.0)
    # 1000 of 8100 s in 500 s
    assert told.line().endswith("56 %, ends Sat 03:59")


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


def test_repeated_exposures_and_those_that_nobody_needs(told):
    told.event("log", log_kind="repeat", log_text="the light was lost")
    told.expose(0.0, -5.0, 1, 0)
    names = ("waived_phi_deg", "waived_theta_deg", "waived_helicity", "waived_repeat")
    told.event("waived", **dict(zip(names, (0.0, -5.0, 1, 1), strict=True)))
    assert "7 %, 1 repeated, 1 not needed" in told.line()  # 1 of 15


def test_two_edges_measured_by_turns_and_a_third_to_come():
    energies = {"edges": {"series": "s", "energies_ev": [707.4, 778.0, 853.0]}}
    told = Told(
        start("s-707.4eV", **energies), start("s-778eV", **(energies | {"energy_ev": 778.0}))
    )
    for series in ("s-707.4eV", "s-778eV"):
        told.angle(series=series)
    told.progress.add("run of s-778eV", "start", start("s-778eV", energy_ev=778.0))
    told.progress.pass_time(4000.0)
    # 8000 of 32400 s in 4000 s; 24400 s and the third edge, 16200 s, are left
    assert told.line() == (
        "778 eV, phi 1/2, theta 1/2, helicity -, repeat 2/2, 17 %, ends Sat 08:38"
    )
