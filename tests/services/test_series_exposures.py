"""Which angles of a series are finished, and which darks and flats count for them."""

import h5py
import pytest

from mistral_txm.services.exposures import RunExposures, UnreadableExposure
from mistral_txm.services.series_exposures import SeriesExposures, taken


@pytest.fixture
def series(tmp_path, written_series):
    return written_series(tmp_path, azimuths_deg=(0.0, 90.0), tilts_deg=(-20.0, 20.0))


def collect(*runs):
    collected = SeriesExposures(runs[0][0][1])
    for documents in runs:
        for name, doc in documents:
            collected.add(documents[0][1]["uid"], name, doc)
    return collected


def test_the_plan_is_counted_over_all_azimuths(series):
    collected = collect(series.run(0.0))
    assert (collected.planned, collected.angles_planned) == (16, 4)
    assert len(collected.accepted()) == 8


@pytest.mark.parametrize("missing", range(4))
def test_an_angle_that_lacks_any_exposure_is_not_finished(series, missing):
    keys = [(0.0, -20.0, helicity, repeat) for helicity in (1, -1) for repeat in (0, 1)]
    del keys[missing]
    assert collect(series.run(0.0, keys=keys)).finished() == {}


def test_a_repeat_that_nobody_planned_does_not_replace_one_that_was(series):
    keys = [(0.0, -20.0, 1, 0), (0.0, -20.0, 1, 7), (0.0, -20.0, -1, 0), (0.0, -20.0, -1, 1)]
    assert collect(series.run(0.0, keys=keys)).finished() == {}


def test_an_angle_has_its_repeats_in_order_and_what_was_read_and_stated(series):
    documents = series.run(90.0, stated_phi_deg=89.5)
    angle = collect(documents).finished()[90.0, 20.0]
    assert (angle.phi_deg, angle.theta_deg, angle.stated_phi_deg) == (90.0, 20.0, 89.5)
    repeats = {helicity: [e.key.repeat for e in each] for helicity, each in angle.exposures.items()}
    assert repeats == {1: [0, 1], -1: [0, 1]}
    assert {helicity: len(each) for helicity, each in angle.flats.items()} == {1: 4, -1: 4}
    assert len(angle.darks) == 4


def test_the_angle_finished_last_comes_last(series):
    order = [(0.0, theta, h, r) for theta in (20.0, -20.0) for h in (-1, 1) for r in (1, 0)]
    collected = collect(series.run(90.0), series.run(0.0, keys=order))
    assert list(collected.finished()) == [(90.0, -20.0), (90.0, 20.0), (0.0, 20.0), (0.0, -20.0)]


def test_an_exposure_taken_again_counts_instead_of_the_first_and_moves_its_angle_to_the_end(series):
    first = series.run(0.0)
    again = series.run(0.0, keys=[(0.0, -20.0, 1, 1)])
    finished = collect(first, again).finished()
    assert list(finished) == [(0.0, 20.0), (0.0, -20.0)]
    runs = [one.run_uid for one in finished[0.0, -20.0].exposures[1]]
    assert runs == ["written-run1", "written-run2"]


def test_an_angle_of_two_runs_takes_darks_and_flats_of_the_later_run_whatever_the_clock_says(
    series,
):
    first = series.run(0.0, keys=[(0.0, -20.0, 1, 0), (0.0, -20.0, 1, 1)], stop=False)
    second = series.run(0.0, keys=[(0.0, -20.0, -1, 0), (0.0, -20.0, -1, 1)])
    for name, doc in second:
        if name == "event":
            doc["time"] -= 3600.0 * 1000
    (angle,) = collect(first, second).finished().values()
    used = [*angle.darks, *angle.flats[1], *angle.flats[-1]]
    assert {one.run_uid for one in used} == {"written-run2"}


def test_an_angle_is_finished_without_what_is_waived(series):
    keys = [(0.0, -20.0, 1, 0), (0.0, -20.0, -1, 0), (0.0, -20.0, -1, 1)]
    unwaived = collect(series.run(0.0, keys=keys))
    assert (unwaived.planned, list(unwaived.finished())) == (16, [])
    collected = collect(series.run(0.0, keys=keys, waived=[(0.0, -20.0, 1, 1)]))
    assert (collected.planned, collected.angles_planned) == (15, 4)
    (angle,) = collected.finished().values()
    assert {helicity: len(each) for helicity, each in angle.exposures.items()} == {1: 1, -1: 2}


def test_an_angle_of_which_all_is_waived_is_not_planned(series):
    waived = [(0.0, -20.0, 1, 0), (0.0, -20.0, -1, 0)]
    collected = collect(series.run(0.0, keys=[], waived=waived))
    assert (collected.planned, collected.angles_planned, collected.finished()) == (12, 3, {})


def test_a_rejected_angle_is_gone_until_it_is_taken_again(series):
    again = [(0.0, -20.0, 1, 1)]
    first, rejection, second = series.run(0.0), series.reject(again), series.run(0.0, keys=again)
    assert list(collect(first, rejection).finished()) == [(0.0, 20.0)]
    assert [run.start["uid"] for run in collect(first, rejection).runs] == ["written-run1"]
    assert collect(first, rejection).rejections == 1
    assert list(collect(first, rejection, second).finished()) == [(0.0, 20.0), (0.0, -20.0)]


@pytest.mark.parametrize("recorded", [0, -1])
def test_an_exposure_whose_jaws_stood_elsewhere_does_not_count(series, recorded):
    def jaws(stream, data):
        if stream == "primary" and data["key_helicity"] == 1 and data["key_theta_deg"] == -20.0:
            data["polarization"] = recorded

    collected = collect(series.run(0.0, alter=jaws))
    assert list(collected.finished()) == [(0.0, 20.0)]
    assert collected.standing().unassigned == ((0.0, -20.0, 1, 0), (0.0, -20.0, 1, 1))


def test_a_frame_that_cannot_be_read_gives_way_to_the_one_before(series):
    first = series.run(0.0)
    again = series.run(0.0, keys=[(0.0, 20.0, -1, 1)])
    collected = collect(first, again)
    series.damage(again)
    angle = collected.finished()[0.0, 20.0]

    def runs(angle):
        for exposures in (*angle.exposures.values(), angle.darks):
            for one in exposures:
                one.read()
        return [one.run_uid for one in angle.exposures[-1]]

    used, made = collected.read(angle, runs)
    assert made == ["written-run1", "written-run1"]
    assert used == collected.finished()[0.0, 20.0] != angle
    collected.look_again()
    assert collected.finished()[0.0, 20.0] == used
    path = angle.exposures[-1][1].path
    with h5py.File(path, "r+") as file:  # the storage is back
        file["/entry/data/data"][0] -= 1
    collected.look_again()
    assert collected.finished()[0.0, 20.0] == angle


def test_where_nothing_of_a_key_can_be_read_its_reader_says_why(series):
    documents = series.run(0.0)
    series.damage(documents)
    collected = collect(documents)
    angle = collected.finished()[0.0, 20.0]
    with pytest.raises(UnreadableExposure, match="checksum"):
        collected.read(angle, lambda angle: [one.read() for one in angle.exposures[-1]])
    assert collected.finished()[0.0, 20.0] == angle


def damaged(documents, name, numbers):
    """Change frames of a file of a run; return the exposures, as ``(stream, helicity, repeat)``."""
    (path,) = (
        doc["uri"].removeprefix("file://localhost")
        for kind, doc in documents
        if kind == "stream_resource" and doc["uid"].endswith(f"-{name}")
    )
    with h5py.File(path, "r+") as file:
        for number in numbers:
            file["/entry/data/data"][number] += 1


def readable(angle):
    """Read all that an angle is made from; return the repeats of its flats by helicity, and of its darks."""
    for of_it in (*angle.exposures.values(), *angle.flats.values(), angle.darks):
        for one in of_it:
            one.read()
    flats = {helicity: [one.key.repeat for one in each] for helicity, each in angle.flats.items()}
    return flats, [one.key.repeat for one in angle.darks]


def test_flats_and_darks_that_cannot_be_read_are_passed_over_and_named(series):
    documents = series.run(0.0, flats_at_end=True)
    collected = collect(documents)
    damaged(documents, "flat+1-0", [2])
    damaged(documents, "flat-1-4", range(4))
    damaged(documents, "dark", [0, 3])
    for angle in collected.finished().values():
        used, made = collected.read(angle, readable)
        assert made == ({1: [0, 1, 3, 4, 5, 6, 7], -1: [0, 1, 2, 3]}, [1, 2])
        named = [line.partition(": ")[0] for line in used.references_left_out]
        assert named == [
            "phi 0 deg, dark 1", "phi 0 deg, dark 4", "phi 0 deg, flat 3 of helicity +1",
            *(f"phi 0 deg, flat {number} of helicity -1" for number in (13, 14, 15)),
        ]  # fmt: skip
        assert all("the file is damaged" in line for line in used.references_left_out)
        assert collected.finished()[used.phi_deg, used.theta_deg] == used


def test_followed_as_it_grows_a_series_uses_the_same_flats_and_darks_as_read_at_once(series):
    documents = series.run(0.0, flats_at_end=True)
    for name, numbers in (("flat-1-0", [1]), ("flat+1-4", [0]), ("dark", [2])):
        damaged(documents, name, numbers)
    grows, seen = SeriesExposures(documents[0][1]), {}
    for name, doc in documents:
        grows.add("written-run1", name, doc)
        for place, angle in grows.finished().items():
            if seen.get(place) != angle:
                seen[place], _ = grows.read(angle, readable)
    whole = collect(documents)
    at_once = {place: whole.read(angle, readable)[0] for place, angle in whole.finished().items()}
    assert seen == at_once


@pytest.mark.parametrize("count", [3, 4])
def test_the_nearest_flats_are_used_of_which_two_can_be_read(series, count):
    """From a single one, its noise is not known."""
    documents = series.run(0.0, flats_at_end=True)
    damaged(documents, "flat-1-0", range(count))
    collected = collect(documents)
    used, (flats, _) = collected.read(collected.finished()[0.0, -20.0], readable)
    assert flats == {1: list(range(8)), -1: [4, 5, 6, 7]}
    assert len(used.references_left_out) == 3


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("name", ["flat-1-0", "dark"])
def test_where_no_two_flats_of_a_helicity_or_darks_can_be_read_their_reader_says_why(
    series, name, count
):
    documents = series.run(0.0)
    damaged(documents, name, range(count))
    collected = collect(documents)
    angle = collected.finished()[0.0, -20.0]
    with pytest.raises(UnreadableExposure, match="checksum"):
        collected.read(angle, readable)
    assert collected.finished()[0.0, -20.0] == angle


def test_flats_at_the_end_count_once_the_run_has_ended(series):
    documents = series.run(0.0, flats_at_end=True)
    open_run = collect(documents[:-1]).finished()[0.0, -20.0]
    assert [one.key.repeat for one in open_run.flats[1]] == [0, 1, 2, 3]
    ended = collect(documents).finished()[0.0, -20.0]
    assert [one.key.repeat for one in ended.flats[1]] == list(range(8))


def test_an_angle_has_the_flats_next_to_it_and_those_in_the_making_do_not_count(series):
    """A run of flats, an angle, flats, an angle, flats: put together from the documents of three runs."""

    def events(documents, streams):
        uids = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
        return [
            entry
            for entry in documents
            if entry[0] == "event" and uids[entry[1]["descriptor"]] in streams
        ]

    documents = series.run(0.0, flats_at_end=True)
    head = [entry for entry in documents if entry[0] not in ("event", "stop")]
    flats, sample = events(documents, ("flat",)), events(documents, ("primary",))
    dark = events(documents, ("dark",))
    half = len(sample) // 2
    first, second = sample[:half], sample[half:]
    late = [
        (
            "event",
            {
                **doc,
                "uid": f"{doc['uid']}-late",
                "seq_num": 100 + number,
                "data": {**doc["data"], "key_repeat": 8 + number % 4},
            },
        )
        for number, (_, doc) in enumerate(flats[:8])
    ]
    datum = [
        ("stream_datum", {**doc, "seq_nums": {"start": 100 + number, "stop": 101 + number}})
        for number, (_, doc) in enumerate(
            [
                entry
                for entry in documents
                if entry[0] == "stream_datum" and entry[1]["descriptor"].endswith("flat")
            ][:8]
        )
    ]
    before, between, after = flats[:8], flats[8:], late
    recorded = [*head, *datum, *dark, *before, *first, *between, *second, *after]

    def repeats(entries, theta_deg):
        angle = collect(entries).finished()[0.0, theta_deg]
        return [one.key.repeat for one in angle.flats[1]]

    assert repeats(recorded, -20.0) == list(range(8))
    assert repeats(recorded, 20.0) == [4, 5, 6, 7]
    assert repeats([*recorded, documents[-1]], 20.0) == [4, 5, 6, 7, 8, 9, 10, 11]
    assert repeats([*head, *dark, *before, *first, *between], -20.0) == [0, 1, 2, 3]


def test_documents_twice_give_equal_angles(series):
    documents = series.run(0.0)
    twice = [documents[0]] + [entry for entry in documents[1:] for _ in range(2)]
    assert collect(documents).finished() == collect(twice).finished()


def test_whole_runs_are_taken_like_their_documents(series):
    documents = series.run(0.0)
    collected = SeriesExposures(documents[0][1])
    collected.add_run(RunExposures.of(documents))
    assert collected.finished() == collect(documents).finished()
    assert taken(collected.runs) == {"written-run1": [20, 1]}
    assert taken(collect(documents[:-1]).runs) == {"written-run1": [20, 0]}


BACK = [(0.0, -20.0, helicity, repeat) for helicity in (-1, 1) for repeat in (2, 3)]


def test_a_return_to_zero_is_no_part_of_the_series_and_has_an_angle_of_its_own(series):
    without, with_it = collect(series.run(0.0)), collect(series.run(0.0, returned=BACK))
    assert (with_it.planned, with_it.angles_planned) == (16, 4)
    assert list(with_it.accepted()) == list(without.accepted())
    assert list(with_it.finished()) == list(without.finished())
    assert without.returns() == {}
    (angle,) = with_it.returns().values()
    assert angle.is_return
    assert not with_it.finished()[0.0, -20.0].is_return
    found = {
        helicity: [one.key.repeat for one in each] for helicity, each in angle.exposures.items()
    }
    assert found == {1: [2, 3], -1: [2, 3]}
    assert {one.stream for each in angle.exposures.values() for one in each} == {"zero"}
    assert {helicity: len(each) for helicity, each in angle.flats.items()} == {1: 4, -1: 4}
    assert len(with_it.exposures) == len(without.exposures) + 4  # each frame is verified
    assert taken(with_it.runs) == {"written-run2": [24, 1]}


def test_a_return_is_finished_with_its_last_exposure_or_with_its_run(series):
    assert collect(series.run(0.0, returned=BACK[:3], stop=False)).returns() == {}
    assert list(collect(series.run(0.0, returned=BACK, stop=False)).returns()) == [(0.0, -20.0)]
    assert list(collect(series.run(0.0, returned=BACK[:3])).returns()) == [(0.0, -20.0)]
    assert collect(series.run(0.0, returned=BACK[:2])).returns() == {}
    rest = collect(series.run(0.0, returned=BACK[:1]), series.run(0.0, keys=[], returned=BACK[1:]))
    (angle,) = rest.returns().values()
    assert {helicity: len(each) for helicity, each in angle.exposures.items()} == {1: 2, -1: 2}
    assert {one.run_uid for one in angle.darks} == {"written-run6"}


def test_a_frame_of_a_return_that_cannot_be_read_is_left_out(series):
    documents = series.run(0.0, returned=BACK)
    collected = collect(documents)
    series.damage(documents)  # the last file is that of helicity +1
    used, values = collected.read(
        collected.returns()[0.0, -20.0],
        lambda angle: [one.read()[0, 0] for one in angle.exposures[1]],
    )
    assert ([one.key.repeat for one in used.exposures[1]], len(values)) == ([3], 1)
