"""Aligned stacks from the facility's files and from our own runs."""

import h5py
import numpy as np
import pytest

from mistral_txm.reconstruction import AlignedSeries, FileError, read_aligned, write_aligned
from mistral_txm.reconstruction.martapp import NormalizedStack
from mistral_txm.services.aligned_files import process
from mistral_txm.services.frame_files import FrameError
from mistral_txm.services.processing import ProcessingError
from tests.martapp_stacks import write_normalized


@pytest.fixture
def series(tmp_path, written_series):
    return written_series(tmp_path, azimuths_deg=(0.0, 102.0), tilts_deg=(-30.0, 20.0))


def stack(theta_deg, transmittance, polarization):
    n = len(theta_deg)
    return NormalizedStack(
        np.asarray(transmittance, np.float32)[:, None, None] * np.ones((n, 3, 4), np.float32),
        np.asarray(theta_deg, np.float64),
        np.ones(n),
        np.full(n, 250.0),
        np.full(n, 707.4),
        polarization,
        10.5,
    )


def test_two_helicities_are_averaged_and_paired_with_the_right_sign(tmp_path):
    positive, negative = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    tilts = [20.0, -20.0, 20.0]
    write_normalized(positive, stack(tilts, np.exp([-0.9, -1.0, -0.9]), 1.0))
    write_normalized(negative, stack(tilts, np.exp([-0.7, -0.6, -0.7]), -1.0))
    for order in ((positive, negative), (negative, positive)):
        process([str(path) for path in order], tmp_path / "out.h5", tmp_path)
        found = read_aligned(tmp_path / "out.h5")
        assert found.theta_deg.tolist() == [-20.0, 20.0]
        np.testing.assert_allclose(found.dichroic_tvu[:, 0, 0], [0.2, 0.1], atol=1e-6)
        np.testing.assert_allclose(found.absorption_tvu[:, 0, 0], [0.8, 0.8], atol=1e-6)


@pytest.mark.parametrize("polarizations", [(1.0, 1.0), (-1.0, -1.0), (0.0, 1.0)])
def test_two_files_of_one_helicity_are_refused(tmp_path, polarizations):
    paths = []
    for number, polarization in enumerate(polarizations):
        paths.append(tmp_path / f"{number}.hdf5")
        write_normalized(paths[-1], stack([0.0], [0.5], polarization))
    with pytest.raises(FileError, match="expected one negative and one positive"):
        process([str(path) for path in paths], tmp_path / "out.h5", tmp_path)
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize(
    ("other", "left_out"), [([-20.0, 20.5], 2), ([-20.0], 1), ([-20.0, 20.0, 30.0], 1)]
)
def test_tilts_of_one_helicity_alone_are_left_out_and_told(tmp_path, other, left_out):
    paths = [tmp_path / "a.hdf5", tmp_path / "b.hdf5"]
    write_normalized(paths[0], stack([-20.0, 20.0], [0.5, 0.5], 1.0))
    write_normalized(paths[1], stack(other, [0.5] * len(other), -1.0))
    written = process([str(path) for path in paths], tmp_path / "out.h5", tmp_path)
    assert len(written.notes) == left_out
    assert all("of helicity " in note and "left out" in note for note in written.notes)
    both = sorted({-20.0, 20.0} & set(other))
    assert read_aligned(tmp_path / "out.h5").theta_deg.tolist() == both


def test_no_tilt_in_both_helicities_is_refused(tmp_path):
    paths = [tmp_path / "a.hdf5", tmp_path / "b.hdf5"]
    for path, theta_deg, polarization in zip(paths, (-20.0, 20.0), (1.0, -1.0), strict=True):
        write_normalized(path, stack([theta_deg], [0.5], polarization))
    with pytest.raises(ProcessingError, match=r"no tilt can be used; .* of helicity"):
        process([str(path) for path in paths], tmp_path / "out.h5", tmp_path)


def test_an_aligned_file_is_passed_on(tmp_path):
    images = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    write_aligned(tmp_path / "in.h5", AlignedSeries(np.array([-1.0, 1.0]), images, images + 1))
    written = process([str(tmp_path / "in.h5")], tmp_path / "out.h5", tmp_path)
    assert (written.paths, written.alignment) == ((tmp_path / "out.h5",), None)
    np.testing.assert_array_equal(read_aligned(tmp_path / "out.h5").dichroic_tvu, images)


def test_three_files_and_files_that_are_not_there_are_refused(tmp_path):
    for name in "abc":
        write_normalized(tmp_path / name, stack([0.0], [0.5], 1.0))
    with pytest.raises(FileError, match=r"3 TomoNormalized files of an azimuth; expected two"):
        process([str(tmp_path / name) for name in "abc"], tmp_path / "out.h5", tmp_path)
    with pytest.raises(FileError, match=r"gone\.hdf5: no such file"):
        process([str(tmp_path / "gone.hdf5")], tmp_path / "out.h5", tmp_path)


def test_a_series_gives_one_file_per_azimuth_with_the_signals_of_the_film(series, tmp_path):
    series.record(series.run(0.0))
    series.record(series.run(102.0, stated_phi_deg=101.5))
    written = process([series.uid], tmp_path / "out.h5", series.data)
    assert [path.name for path in written.paths] == ["out_phi000.h5", "out_phi101.5.h5"]
    assert written.alignment is not None
    assert not written.alignment.aligned
    for phi_deg, path in zip((0.0, 102.0), written.paths, strict=True):
        found = read_aligned(path)
        assert found.theta_deg.tolist() == [-30.0, 20.0]
        for image, theta_deg in zip(found.dichroic_tvu, found.theta_deg, strict=True):
            # The standard deviation of a pixel is 0.008 or less, of the mean a 48th of that.
            assert image.mean() == pytest.approx(series.dichroic(phi_deg, theta_deg), abs=8e-4)
        # The signal of these frames is even: all that varies in a view is noise.
        scatter = found.dichroic_tvu.std(axis=(1, 2))
        assert found.std_t is not None
        np.testing.assert_allclose(found.std_t, scatter, rtol=0.1)
        np.testing.assert_allclose(
            found.positive_tvu - found.negative_tvu, 2 * found.dichroic_tvu, atol=1e-6
        )


def test_one_run_by_the_first_characters_of_its_uid(series, tmp_path):
    series.record(series.run(0.0))
    series.record(series.run(102.0))
    written = process(["written-run2"], tmp_path / "out.h5", series.data)
    assert written.paths == (tmp_path / "out.h5",)
    found = read_aligned(tmp_path / "out.h5").dichroic_tvu[1].mean()
    assert found == pytest.approx(series.dichroic(102.0, 20.0), abs=8e-4)


def test_runs_that_are_no_series_do_not_stand_in_the_way(series, tmp_path):
    count = [("start", {"uid": "count", "time": 1.0}), ("stop", {"uid": "s", "run_start": "count"})]
    series.record(count)
    series.record(series.run(0.0))
    assert process(["written"], tmp_path / "out.h5", series.data)
    with pytest.raises(FileError, match="no run or series of that uid"):
        process(["count"], tmp_path / "out.h5", series.data)


def test_a_uid_that_fits_two_series_or_none_is_refused(series, written_series, tmp_path):
    series.record(series.run(0.0))
    other = written_series(series.data, azimuths_deg=(0.0,), tilts_deg=(0.0,), uid="written-too")
    other.record(other.run(0.0))
    with pytest.raises(FileError, match="more than one run or series"):
        process(["written"], tmp_path / "out.h5", series.data)
    with pytest.raises(FileError, match="no run or series of that uid"):
        process(["nothing"], tmp_path / "out.h5", series.data)


def test_a_series_without_a_finished_angle_is_refused(series, tmp_path):
    series.record(series.run(0.0, keys=[(0.0, 20.0, 1, 0)]))
    with pytest.raises(ProcessingError, match="no angle of it is finished"):
        process(["written"], tmp_path / "out.h5", series.data)


def test_a_damaged_frame_is_refused(series, tmp_path):
    documents = series.run(0.0)
    series.record(documents)
    series.damage(documents)
    with pytest.raises(FrameError, match="checksum"):
        process(["written"], tmp_path / "out.h5", series.data)
    assert not (tmp_path / "out.h5").exists()


def test_a_damaged_flat_is_left_out_and_told(series, tmp_path):
    series.record(series.run(0.0))
    with h5py.File(series.data / "frames" / "written-run1-flat+1-0.h5", "r+") as file:
        file["/entry/data/data"][1] //= 2
    written = process(["written"], tmp_path / "out.h5", series.data)
    (note,) = written.notes
    assert note.startswith("phi 0 deg, flat 2 of helicity +1: ")
    assert note.endswith("the file is damaged; left out")
    found = read_aligned(tmp_path / "out.h5")
    for image, theta_deg in zip(found.dichroic_tvu, found.theta_deg, strict=True):
        assert image.mean() == pytest.approx(series.dichroic(0.0, theta_deg), abs=8e-4)


def test_a_rejected_angle_is_left_out_also_of_its_run_alone(series, tmp_path):
    series.record(series.run(0.0))
    series.record(series.reject([(0.0, 20.0, 1, 0)]))
    for uid in ("written", "written-run1"):
        process([uid], tmp_path / "out.h5", series.data)
        assert read_aligned(tmp_path / "out.h5").theta_deg.tolist() == [-30.0]


def test_the_exposure_before_a_damaged_one_is_used(series, tmp_path):
    series.record(series.run(0.0))
    process(["written"], tmp_path / "first.h5", series.data)
    again = series.run(0.0, keys=[(0.0, 20.0, 1, 0)])
    series.record(again)
    series.damage(again)
    process(["written"], tmp_path / "out.h5", series.data)
    first, found = (read_aligned(tmp_path / name) for name in ("first.h5", "out.h5"))
    np.testing.assert_array_equal(found.dichroic_tvu, first.dichroic_tvu)
