"""What a return to zero tilt tells, against what the simulated beamline really did meanwhile, and Monte Carlo."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage

from mistral_txm.reconstruction import read_volume
from mistral_txm.reconstruction.image_shift import ImageShift
from mistral_txm.reconstruction.signal import Signals
from mistral_txm.services import return_watch
from mistral_txm.services.angle_signals import AngleSignals, needed_for_volume
from mistral_txm.services.live import LiveReconstruction
from mistral_txm.services.live_files import LIVE, STATUS, VOLUME, read_status
from mistral_txm.services.live_flags import Flag
from mistral_txm.services.live_returns import ReturnToZero, compare, entry, told, what_is_wrong
from mistral_txm.services.live_views import SeenView
from mistral_txm.services.processing import Processor
from mistral_txm.services.return_watch import ReturnWatch
from mistral_txm.services.series_exposures import SeriesExposures
from mistral_txm.simulated_beamline.sample import PIXEL_NM
from mistral_txm.simulated_beamline.settings import load_settings
from mistral_txm.simulated_beamline.source import BendingMagnet
from tests.services.simulated_views import developed, render

PIXELS = 128


def seen(texture, seed, altered=None):
    """A view of a sample with six gold spheres at zero tilt: before the azimuth, or altered at its end."""
    rendered = render(texture, 6, [0.0], PIXELS, azimuths_deg=(0.0,), altered=altered)
    (signals,) = developed(rendered, seed)
    return rendered[0].poses, signals


def hours_later(hours, narrower_mm=0.0):
    """Let the sample drift so long, and both jaws stand nearer to the plane of the orbit: less circular light."""

    def altered(state):
        up = np.sign(state.jaw_up_mm) * narrower_mm
        return replace(
            state,
            time_s=state.time_s + 3600 * hours,
            jaw_down_mm=state.jaw_down_mm - up,
            jaw_up_mm=state.jaw_up_mm - up,
        )

    return altered


def degree(narrower_mm):
    settings = load_settings("real")
    magnet = BendingMagnet(settings.ring, settings.beam)
    _, circular = magnet.accepted(707.4, 1.5 - narrower_mm, 2.5 - narrower_mm)
    return circular


@pytest.mark.parametrize("texture", ["stripes", "vortex"])
@pytest.mark.parametrize(("hours", "narrower_mm"), [(6.0, 0.0), (6.0, 0.5)])
def test_shift_and_signal_are_those_of_the_beamline(texture, hours, narrower_mm):
    """Also of a vortex, of which zero tilt shows the core alone, and more of its edge than of its magnetization."""
    poses, before = seen(texture, 1)
    later_poses, after = seen(texture, 2, hours_later(hours, narrower_mm))
    true_vu = np.mean(
        [
            (later.shift_v_nm - pose.shift_v_nm, later.shift_u_nm - pose.shift_u_nm)
            for pose, later in zip(poses, later_poses, strict=True)
        ],
        axis=0,
    )
    assert np.hypot(*true_vu) > 4 * PIXEL_NM
    found = compare(before, after)
    assert found.shift.shift_vu == pytest.approx(true_vu / PIXEL_NM, abs=0.12)
    true = degree(narrower_mm) / degree(0.0)
    assert found.dichroic == pytest.approx(true, abs=3 * found.std_dichroic)
    assert found.std_dichroic < 0.02
    text = told(found, 0.0, 0.0, what_is_wrong(found, PIXEL_NM))
    assert ("magnetization changed" in text) == (narrower_mm > 0)
    assert text.endswith("unchanged") == (narrower_mm == 0)


def film(rng, ratio, noise, of_flats, flats_vu, shift_vu=(0.0, 0.0)):
    """A view of domains and spots with so much noise, a part of it that of flats which other views share."""
    n = len(flats_vu)
    v, u = np.mgrid[:n, :n].astype(float)
    domains = scipy.ndimage.gaussian_filter(0.05 * np.sign(np.sin(u / 6 + np.sin(v / 9) / 2)), 1.5)
    spots = sum(
        np.exp(-((v - a) ** 2 + (u - b) ** 2) / 30) for a, b in [(20, 70), (60, 25), (75, 80)]
    )
    dichroic, absorption = (
        scipy.ndimage.shift(image, shift_vu, mode="nearest")
        for image in (ratio * domains, spots + 0.5)
    )
    std = np.hypot(noise, of_flats)
    images = (
        absorption + rng.normal(0, std, (n, n)),
        dichroic + flats_vu + rng.normal(0, noise, (n, n)),
    )
    signals = Signals(*(np.float32(image) for image in (*images, np.full((n, n), std))))
    return AngleSignals(0.0, 0.0, signals, shared_part=(of_flats / std) ** 2)


@pytest.mark.parametrize(
    ("ratio", "shift_vu"), [(1.0, (0.0, 0.0)), (0.8, (1.3, -0.6)), (-1.0, (0.0, 0.0))]
)
def test_the_ratio_is_free_of_bias_and_its_error_is_told(ratio, shift_vu):
    """Noise of the earlier view, and flats that both views share, would make it too small and too large."""
    rng, ratios, stds = np.random.default_rng(5), [], []
    for _ in range(25):
        flats_vu = rng.normal(0, 0.06, (96, 96))
        before = film(rng, 1.0, 0.1, 0.06, flats_vu)
        found = compare(before, film(rng, ratio, 0.1, 0.06, flats_vu, shift_vu))
        ratios.append(found.dichroic)
        stds.append(found.std_dichroic)
    std = np.mean(stds)
    assert np.mean(ratios) == pytest.approx(ratio, abs=3 * std / 5)
    assert 0.5 * std < np.std(ratios) < 1.3 * std


def test_a_view_in_which_nothing_is_seen_again_is_said():
    rng = np.random.default_rng(3)
    nothing = np.full((48, 48), 0.5, np.float32)
    empty = [
        AngleSignals(
            0.0,
            0.0,
            Signals(*(np.float32(nothing + rng.normal(0, 0.1, (48, 48))) for _ in range(3))),
        )
        for _ in range(2)
    ]
    made = entry(*empty, 0.0, 12.0, PIXEL_NM)
    assert made["shift_vu_pixels"] is made["std_vu_pixels"] is made["dichroic"] is None
    assert made["text"].endswith("both views have in common: nothing can be told")
    assert made["changed"] is False


def test_what_cannot_be_compared_is_no_change_and_what_is_gone_is_one():
    """A film in the plane shows nothing at zero tilt; where it showed something, another sample does not."""
    rng, flats = np.random.default_rng(7), np.zeros((96, 96))
    plain, later = (film(rng, 0.0, 0.05, 0.0, flats) for _ in range(2))
    made = entry(plain, later, 0.0, 12.0, PIXEL_NM)
    assert made["changed"] is False
    assert made["dichroic"] is None
    assert max(np.abs(made["shift_vu_pixels"])) < 0.5  # by the spots
    assert made["text"].endswith("dichroic signal too weak to be compared: unchanged")
    gone = film(rng, 0.0, 0.05, 0.0, flats)
    empty = rng.normal(0.5, 0.05, (96, 96)).astype(np.float32)
    gone = replace(gone, signals=replace(gone.signals, absorption_vu=empty))
    made = entry(film(rng, 1.0, 0.05, 0.0, flats), gone, 0.0, 12.0, PIXEL_NM)
    assert made["changed"] is True
    assert "the sample is another than before" in made["text"]


def test_images_of_another_size_are_refused():
    flats = np.zeros((96, 96))
    rng = np.random.default_rng(0)
    small = film(rng, 1.0, 0.1, 0.0, flats[:64, :64])
    with pytest.raises(ValueError, match=r"\(64, 64\) pixels, expected \(96, 96\)"):
        compare(film(rng, 1.0, 0.1, 0.0, flats), small)


@pytest.mark.parametrize(
    ("ratio", "change", "off_pixels", "words"),
    [
        (0.96, 0.02, 20.0, "phi 102: back at 0 deg the sample lies 20.0 pixels off, dichroic signal 0.96 +- 0.01 of"),
        (0.90, 0.00, 0.0, "damaged or its magnetization changed"),
        (1.10, 0.00, 0.0, "damaged or its magnetization changed"),
        (-0.99, 0.00, 0.0, "its sign is turned over"),
        (1.00, 0.08, 0.0, "it absorbs +8 %"),
        (1.00, 0.00, 40.0, "check that it holds"),
    ],
)  # fmt: skip
def test_what_is_told(ratio, change, off_pixels, words):
    shift = ImageShift(np.array([0.0, off_pixels]), np.full(2, 0.1))
    found = ReturnToZero(shift, ratio, 0.01, change)
    text = told(found, 102.0, 0.0, what_is_wrong(found, PIXEL_NM))
    assert words in text
    assert text.endswith("unchanged") == (ratio == 0.96)
    assert "\n" not in text


def test_a_return_is_compared_when_it_is_there_and_again_when_it_is_another(
    written_series, tmp_path, monkeypatch
):
    series = written_series(tmp_path, azimuths_deg=(0.0,), tilts_deg=(-20.0, 20.0))
    back = [(0.0, -20.0, helicity, repeat) for helicity in (-1, 1) for repeat in (2, 3)]
    documents = series.run(0.0, returned=back, flats_at_end=True, stop=False)
    (flats_at,) = [
        n for n, (_, doc) in enumerate(documents) if str(doc.get("uid")).endswith("flat+1-4")
    ]
    exposures = SeriesExposures(documents[0][1])
    processor = Processor(65000.0, series.PIXEL_NM)
    watch = ReturnWatch(exposures, processor, series.PIXEL_NM)
    compared = []
    monkeypatch.setattr(
        return_watch,
        "entry",
        lambda own, back, theta_deg, time, pixel_nm: compared.append(own) or told_at(time),
    )

    def told_at(time):
        return {"time": time, "changed": len(compared) == 1, "text": "it moved"}

    for name, doc in documents[:flats_at]:
        exposures.add("written-run1", name, doc)
    place = (0.0, -20.0)
    watch.look({})
    assert watch.entries == []  # nothing to compare it with

    def seen():
        angle = exposures.finished()[place]
        made = needed_for_volume(processor.signals(angle), series.PIXEL_NM)
        return {place: SeenView.of(angle, made, series.PIXEL_NM)}

    for _ in range(2):
        watch.look(seen())
    last = [doc["time"] for name, doc in documents[:flats_at] if name == "event"][-1]
    assert [one["time"] for one in watch.entries] == [last]
    assert len(compared) == 1
    assert watch.flags() == [Flag("sample", *place, "it moved")]
    for name, doc in documents[flats_at:]:  # it is normalised by the flats after it, too
        exposures.add("written-run1", name, doc)
    exposures.add("written-run1", "stop", {"exit_status": "success"})
    watch.look(seen())
    assert (len(compared), len(watch.entries)) == (2, 1)
    assert watch.flags() == []  # and now it is well
    for name, doc in series.run(0.0, keys=[(0.0, -20.0, h, n) for h in (1, -1) for n in (0, 1)]):
        exposures.add("written-run2", name, doc)
    told = watch.entries
    watch.look(seen())  # taken again after the return: it cannot tell what happened before
    assert (len(compared), watch.entries) == (2, told)
    watch.look({})  # its view was rejected
    assert watch.entries == []


def test_a_return_that_cannot_be_used_is_left_out(written_series, tmp_path, caplog):
    series = written_series(tmp_path, azimuths_deg=(0.0,), tilts_deg=(-20.0, 20.0))
    documents = series.run(0.0, returned=[(0.0, -20.0, helicity, 2) for helicity in (1, -1)])
    series.damage(documents)
    exposures = SeriesExposures(documents[0][1])
    for name, doc in documents:
        exposures.add("written-run1", name, doc)
    processor = Processor(65000.0, series.PIXEL_NM)
    angle = exposures.finished()[0.0, -20.0]
    made = needed_for_volume(processor.signals(angle), series.PIXEL_NM)
    watch = ReturnWatch(exposures, processor, series.PIXEL_NM)
    watch.look({(0.0, -20.0): SeenView.of(angle, made, series.PIXEL_NM)})
    assert watch.entries == []
    assert "checksum" in caplog.text


def test_the_volume_is_the_same_with_and_without_returns(written_series, tmp_path):
    """They are told of, of a film without any structure, too, and do not change a bit of the volume."""
    volumes, told = [], []
    for name, returned in (
        ("without", []),
        ("with", [(0.0, -20.0, h, n) for h in (-1, 1) for n in (2, 3)]),
    ):
        series = written_series(tmp_path / name, azimuths_deg=(0.0,), tilts_deg=(-20.0, 20.0))
        follower = LiveReconstruction(series.data)
        for kind, doc in series.run(0.0, returned=returned):
            follower.add("written-run1", kind, doc)
        follower.update()
        folder = series.data / LIVE / series.uid
        volumes.append(read_volume(folder / VOLUME))
        status = read_status(folder / STATUS)
        assert (status["state"], status["frames_planned"], status["lag_frames"]) == (
            "complete",
            8,
            0,
        )
        told.append(status["returns"])
    without, with_returns = volumes
    np.testing.assert_array_equal(without.mz, with_returns.mz)
    assert (
        without.residuals[0].residual_rms.tolist()
        == with_returns.residuals[0].residual_rms.tolist()
    )
    assert told[0] == []
    (one,) = told[1]
    assert (one["phi_deg"], one["theta_deg"]) == (0.0, -20.0)
    assert abs(one["absorption_change"]) < 0.01
