"""A plan never reads advice that does not know the exposures up to which it says that it judged them."""

import pytest

from mistral_txm.devices.advice_file import ADVICE
from mistral_txm.services import live_series
from mistral_txm.services.live import LiveReconstruction
from mistral_txm.services.live_flags import Flag, QualityWatch


@pytest.fixture
def told(monkeypatch):
    """What was written for plans: up to when it was judged, and the flags."""
    found = []
    write = live_series.write_status

    def recorded(path, status):
        write(path, status)
        if path.name == ADVICE:
            texts = [flag["text"] for flag in status["flags"]]
            found.append((status["judged_until"], texts))

    def flags(watch):
        return [Flag("sample", phi, theta, f"{phi} {theta}") for phi, theta in watch._judged]

    monkeypatch.setattr(live_series, "write_status", recorded)
    monkeypatch.setattr(QualityWatch, "flags", flags)
    return found


def events(documents, stream):
    return [
        doc for name, doc in documents if name == "event" and doc["descriptor"].endswith(stream)
    ]


def feed(follower, documents):
    uid = documents[0][1]["uid"]
    for name, doc in documents:
        follower.add(uid, name, doc)
        follower.update()


def test_flags_are_there_for_all_views_up_to_the_time_that_is_told(tmp_path, written_series, told):
    series = written_series(tmp_path, azimuths_deg=(0.0,), tilts_deg=(-30.0, 20.0))
    documents = series.run(0.0, stop=False)
    feed(LiveReconstruction(series.data), documents)
    first, second = (events(documents, "primary")[number]["time"] for number in (3, 7))
    assert dict.fromkeys((until, *texts) for until, texts in told) == dict.fromkeys(
        [(None,), (first, "0.0 -30.0"), (second, "0.0 -30.0", "0.0 20.0")]
    )


def test_a_process_that_starts_again_advises_nothing_before_it_has_read_all(
    tmp_path, written_series, told, monkeypatch
):
    series = written_series(tmp_path, tilts_deg=(-30.0, 20.0))
    documents = series.run(0.0)
    monkeypatch.setattr(live_series, "TOLD_S", 0.0)
    follower = LiveReconstruction(series.data)
    for name, doc in documents:
        follower.add(documents[0][1]["uid"], name, doc)
    follower.update()
    last = events(documents, "primary")[-1]["time"]
    assert told == [(last, ["0.0 -30.0", "0.0 20.0"])]


def test_the_return_to_zero_tilt_counts_once_it_was_compared(tmp_path, written_series, told):
    series = written_series(tmp_path, azimuths_deg=(0.0,), tilts_deg=(-30.0, 0.0, 20.0))
    returned = [(0.0, 0.0, helicity, repeat) for helicity in (1, -1) for repeat in (2, 3)]
    documents = series.run(0.0, returned=returned, stop=False)
    feed(LiveReconstruction(series.data), documents)
    view, back = (events(documents, stream)[-1]["time"] for stream in ("primary", "zero"))
    assert list(dict.fromkeys(until for until, _ in told))[-2:] == [view, back]
    assert told[-1][0] == back


def test_views_that_are_not_in_a_volume_are_not_judged(
    tmp_path, written_series, told, monkeypatch, caplog
):
    """It is tried again with every document, and said once why there is no volume."""
    series = written_series(tmp_path, azimuths_deg=(0.0,), tilts_deg=(-30.0, 20.0))

    def refused(*_, **__):
        raise ValueError("no")

    monkeypatch.setattr(live_series.VolumeMaker, "make", refused)
    monkeypatch.setattr(live_series, "RETRY_S", 0.0)
    feed(LiveReconstruction(series.data), series.run(0.0, stop=False))
    assert {until for until, _ in told} == {None}
    assert caplog.messages == ["no new volume: no"]
