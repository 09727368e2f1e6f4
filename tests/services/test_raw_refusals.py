"""Files of the facility that are not as they should be: refused with one line, or used but for what is bad."""

import os
import resource
import shutil
import sys

import h5py
import numpy as np
import pytest

from mistral_txm.profile_collection.command_line import main
from mistral_txm.reconstruction import read_aligned
from mistral_txm.reconstruction.martapp import (
    ImageHeader,
    NormalizedStack,
    write_image,
)
from tests.martapp_stacks import write_normalized

TILTS_DEG = (-20.0, 0.0, 20.0)
SHAPE = (40, 44)
PHOTONS, DARK = 4000.0, 300.0


def write_one(path, mean, *, theta_deg, helicity, flat=False, **other):
    """An image of the first stage, its counts scattered about a mean as light does."""
    noise = np.random.default_rng(abs(hash(path.name)) % 2**32)
    counts = (noise.poisson(mean, SHAPE) + noise.normal(DARK, 3, SHAPE)).astype(np.uint16)
    header = ImageHeader(
        SHAPE, counts.dtype, theta_deg, 2.0, 250.0, 707.4, float(helicity), 10.5, flat
    )
    write_image(path, header, counts)


@pytest.fixture
def folder(tmp_path):
    """A small series: three tilts, two repeats of each helicity, flats and darks; S = 0.1 throughout."""
    made = tmp_path / "raw"
    made.mkdir()
    for repeat in range(2):
        write_one(made / f"d_s_1_0.0_BG_{repeat}.hdf5", 0, theta_deg=0.0, helicity=1)
        for helicity in (1, -1):
            name = f"d_s_{helicity}_0.0_FF_{repeat}.hdf5"
            write_one(made / name, PHOTONS, theta_deg=0.0, helicity=helicity, flat=True)
            for theta_deg in TILTS_DEG:
                name = f"d_s_{helicity}_{theta_deg:.1f}_{repeat}.hdf5"
                mean = PHOTONS * np.exp(-0.5 - 0.1 * helicity)
                write_one(made / name, mean, theta_deg=theta_deg + 0.02, helicity=helicity)
    return made


@pytest.fixture
def run(tmp_path, capsys):
    """Run `process` and return its exit code and its lines."""

    def command(*arguments):
        argv = ["process", *map(str, arguments), "--output", str(tmp_path / "out.h5")]
        code = main([*argv, "--data", str(tmp_path)])
        output = capsys.readouterr()
        return code, output.err.splitlines()

    return command


def change(name, **metadata):
    """Return what writes other metadata into the files whose names have a part."""

    def altered(folder):
        for path in folder.glob(f"*{name}*"):
            with h5py.File(path, "r+") as file:
                for key, value in metadata.items():
                    del file["metadata"][key]
                    if value is not None:
                        file["metadata"][key] = value

    return altered


def remove(*names):
    def removed(folder):
        for name in names:
            for path in folder.glob(f"*{name}*"):
                path.unlink()

    return removed


def image(name, counts):
    """Return what replaces images by others."""

    def replaced(folder):
        for path in folder.glob(f"*{name}*"):
            with h5py.File(path, "r+") as file:
                old = file["data_1"][()]
                del file["data_1"]
                file["data_1"] = counts(old)

    return replaced


def in_radians(folder):
    """Names that say no tilt, and five tilts in radians."""
    for number, path in enumerate(sorted(folder.glob("d_s_*"))):
        mark = next((mark for mark in ("_FF", "_BG") if mark in path.name), "")
        with h5py.File(path, "r+") as file:
            del file["metadata/angle"]
            file["metadata/angle"] = np.deg2rad(-40 + 10 * (number % 9))
        path.rename(folder / f"{number}{mark}.hdf5")


def cut_short(folder):
    path = folder / "d_s_1_0.0_1.hdf5"
    path.write_bytes(path.read_bytes()[:3000])


def a_copy(folder):
    shutil.copy(folder / "d_s_1_0.0_1.hdf5", folder / "d_s_1_0.0_2.hdf5")


def helicity_copied(folder):
    shutil.copy(folder / "d_s_1_0.0_1.hdf5", folder / "d_s_-1_0.0_1.hdf5")
    change("-1_0.0_1", polarisation=-1.0)(folder)


def another_sample(folder):
    for path in list(folder.glob("d_s_*_20.0_*")):
        path.rename(folder / path.name.replace("d_s_", "d_s102_"))


def another_azimuth(folder):
    """The same repetition again, in a file whose name differs in how the tilt is written."""
    write_one(folder / "d_s_1_20_1.hdf5", 2000, theta_deg=20.0, helicity=1)


def a_stack(folder):
    write_normalized(folder / "stack.hdf5", normalized(1.0))


def a_text(folder):
    (folder / "notes.h5").write_text("tilt by hand")


def other_hdf5(folder):
    with h5py.File(folder / "z.h5", "w") as file:
        file["counts"] = np.zeros(3)


REFUSED = {
    "no flats": (
        remove("_FF_"),
        "phi 0 deg: 0 flats of helicity +1; expected at least 2, files with _FF",
    ),
    "one flat": (remove("-1_0.0_FF_1"), "1 flats of helicity -1"),
    "no darks": (remove("_BG_"), "0 dark frames; expected at least 2"),
    "one helicity": (
        remove("_s_-1_0.0_0", "_s_-1_0.0_1", "_s_-1_-20", "_s_-1_20"),
        "no image of helicity -1",
    ),
    "no sample": (remove("20.0_", "_0.0_[01]"), "none of 6 frames is of the sample"),
    "linear light": (change("1_20.0_1", polarisation=0.0), "polarisation 0; expected +1 or -1"),
    "name and file": (
        change("_s_1_20.0_1", polarisation=-1.0),
        "polarisation -1 in the file, +1 in its name",
    ),
    "another tilt": (
        change("_s_1_20.0_1", angle=-20.0),
        "tilt -20 deg in the file, 20 deg in its name",
    ),
    "radians": (in_radians, "these are radians; expected degrees"),
    "pixel in nm": (
        change("_s_", pixel_size=10.5),
        "pixel size is 10500 nm; expected 0.5 to 1000 nm",
    ),
    "energy in keV": (
        change("_s_", energy=0.7074),
        "energy is 0.7074 eV; expected 50 to 100000 eV",
    ),
    "another energy": (change("1_20.0_1", energy=709.0), "energy 709 eV, the others have 707.4 eV"),
    "another pixel": (
        change("1_20.0_1", pixel_size=0.0210),
        "pixel 21 nm, the others have 10.5 nm",
    ),
    "no pixel": (change("_s_", pixel_size=None), "no pixel size; expected"),
    "no time": (change("1_20.0_1", exposure_time=0.0), "exposure time 0 s"),
    "no current": (
        change("_s_1_20.0_1", machine_current=None),
        "no ring current, which images are normalised by",
    ),
    "beam lost": (change("_s_1_20.0_1", machine_current=0.0), "0 mA as ring current"),
    "no tilt": (change("1_20.0_1", angle=None), "metadata/angle is missing"),
    "transposed": (image("_s_1_20.0_1", np.transpose), "is it transposed"),
    "cropped": (
        lambda f: (
            image("_20.0_1", lambda old: old[:20])(f),
            change("_20.0_1", image_height=20)(f),
        ),
        "image of (20, 44) pixels",
    ),
    "a stack": (image("_s_1_20.0_1", lambda old: old[None]), "data_1 is of shape (1, 40, 44)"),
    "cut short": (cut_short, "cannot be read as HDF5"),
    "copied": (a_copy, "holds the same image as"),
    "copied as the other helicity": (helicity_copied, "holds the same image as"),
    "two samples": (another_sample, "; give --phi for the folder of each"),
    "two azimuths": (another_azimuth, "both are repetition 1 of helicity +1 at theta 20 deg"),
    "two stages": (
        a_stack,
        "stack.hdf5: holds a TomoNormalized stack, other files an image of MARTApp",
    ),
    "text": (a_text, "notes.h5: not an HDF5 file"),
    "other HDF5": (other_hdf5, "z.h5: holds counts; expected Angles or TomoNormalized or data_1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_series_of_images_is_refused_with_one_line(folder, run, tmp_path, case):
    spoil, message = REFUSED[case]
    spoil(folder)
    before = sorted(path.name for path in folder.iterdir())
    code, lines = run(folder)
    assert code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("mistral-txm process: ")
    assert message in lines[0]
    assert not (tmp_path / "out.h5").exists()
    assert sorted(path.name for path in folder.iterdir()) == before


def test_the_series_itself_is_fine(folder, run, tmp_path):
    code, lines = run(folder)
    assert (code, lines) == (
        0,
        [
            "not aligned: fewer than 3 views with fiducials; phi 0 deg: images under 128 pixels are too small to "
            "compare"
        ],
    )
    found = read_aligned(tmp_path / "out.h5")
    np.testing.assert_allclose(found.theta_deg, np.array(TILTS_DEG) + 0.02)
    np.testing.assert_allclose(np.nanmean(found.dichroic_tvu, axis=(1, 2)), 0.1, atol=2e-3)
    np.testing.assert_allclose(np.nanmean(found.absorption_tvu, axis=(1, 2)), 0.5, atol=2e-3)


USED = {
    "one helicity at a tilt": (
        remove("_s_-1_20.0"),
        "theta 20 deg: images of helicity +1 alone",
        (-20, 0),
    ),
    "saturated": (
        image("_s_1_0.0_[01]", lambda old: np.full_like(old, 65535)),
        "theta 0 deg: half of the pixels have no light",
        (-20, 20),
    ),
    "no light": (
        image("_s_1_0.0_[01]", lambda old: old % 7 + 297),
        "theta 0 deg",
        (-20, 20),
    ),
}


@pytest.mark.parametrize("case", USED)
def test_a_tilt_that_says_nothing_is_left_out_and_told(folder, run, tmp_path, case):
    spoil, message, tilts_deg = USED[case]
    spoil(folder)
    code, lines = run(folder)
    assert code == 0, lines
    told = [line for line in lines if "left out" in line]
    assert len(told) == 1
    assert message in told[0]
    found = read_aligned(tmp_path / "out.h5")
    np.testing.assert_allclose(found.theta_deg, np.array(tilts_deg) + 0.02)


def test_a_constant_ring_current_can_be_given(folder, run):
    change("_s_", machine_current=None)(folder)
    code, lines = run(folder)
    assert code == 2
    assert "give --ring-current-ma" in lines[0]
    assert run(folder, "--ring-current-ma", "250")[0] == 0


def test_azimuths_are_stated_one_for_each_folder(folder, run, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    for path in other.iterdir():  # noise never repeats itself
        with h5py.File(path, "r+") as file:
            file["data_1"][0, 0] += 1
    code, lines = run(folder, other)
    assert (code, len(lines)) == (2, 1)
    assert "2 folders of files that do not say their azimuth; give --phi for each" in lines[0]
    assert "3 azimuths for 2 files or folders" in run(folder, other, "--phi", "0", "1", "2")[1][0]
    assert run(folder, other, "--phi", "0", "-102")[0] == 0
    assert (tmp_path / "out_phi-102.h5").exists()
    assert "given twice" in run(folder, folder, "--phi", "0", "102")[1][0]


def test_an_empty_folder_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    code, lines = run(tmp_path / "empty")
    assert (code, len(lines)) == (2, 1)
    assert "expected images" in lines[0]


def normalized(
    polarization, *, theta_deg=TILTS_DEG, energy_ev=707.4, pixel_nm=10.5, current_ma=250.0
):
    n = len(theta_deg)
    noise = np.random.default_rng(round(polarization) + 1)
    stack = np.exp(-0.5 - 0.1 * polarization) * noise.normal(1, 0.01, (n, *SHAPE))
    return NormalizedStack(
        stack.astype(np.float32),
        np.array(theta_deg),
        np.full(n, 2.0),
        np.full(n, current_ma),
        np.full(n, energy_ev),
        polarization,
        pixel_nm,
    )


RADIANS = tuple(np.deg2rad(np.linspace(-50, 50, 7)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"polarization": 1.0}, "expected one negative and one positive"),
        ({"polarization": -1.0, "energy_ev": 709.0}, "energies of 707.4 to 709 eV"),
        ({"polarization": -1.0, "energy_ev": 0.7074}, "is the unit wrong?"),
        ({"polarization": -1.0, "pixel_nm": 21.0}, "pixels of 10.5 and 21 nm"),
        ({"polarization": -1.0, "pixel_nm": 10500.0}, "is 10500 nm"),
        ({"polarization": -1.0, "current_ma": 0.0}, "ring current times exposure is 0 to 0 mA s"),
        ({"polarization": -1.0, "theta_deg": RADIANS}, "these are radians"),
        ({"polarization": -1.0, "theta_deg": (5.0, 7.0)}, "no tilt can be used; phi 0 deg, theta"),
    ],
)
def test_bad_stacks_of_transmittances_are_refused(run, tmp_path, other, message):
    paths = [tmp_path / "a.hdf5", tmp_path / "b.hdf5"]
    write_normalized(paths[0], normalized(1.0))
    write_normalized(paths[1], normalized(**other))
    code, lines = run(*paths)
    assert (code, len(lines)) == (2, 1), lines
    assert message in lines[0]
    assert not (tmp_path / "out.h5").exists()


def test_a_tilt_without_a_value_is_left_out_of_transmittances(run, tmp_path):
    paths = [tmp_path / "a.hdf5", tmp_path / "b.hdf5"]
    spoiled = normalized(1.0)
    spoiled.transmittance_tvu[1] = np.nan
    spoiled.transmittance_tvu[2, 3, 4] = np.nan
    write_normalized(paths[0], spoiled)
    write_normalized(paths[1], normalized(-1.0))
    code, lines = run(*paths)
    assert code == 0, lines
    assert [line for line in lines if "left out" in line] == [
        "phi 0 deg, theta 0 deg: every pixel is without a value in one helicity: left out"
    ]
    found = read_aligned(tmp_path / "out.h5")
    assert found.theta_deg.tolist() == [-20.0, 20.0]
    assert np.isnan(found.dichroic_tvu[1, 3, 4])
    assert np.isfinite(found.dichroic_tvu).sum() == 2 * np.prod(SHAPE) - 1


class TestOutput:
    def test_a_folder_that_may_not_be_written_to(self, folder, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        assert main(["process", str(folder), "--output", str(tmp_path / "out.h5")]) == 2
        assert "may not be written to; choose another" in capsys.readouterr().err

    @pytest.mark.skipif(sys.platform != "linux", reason="limits of files are set otherwise there")
    def test_a_full_disk_leaves_what_was_there(self, folder, run, tmp_path):
        """A limit on the size of files stands for it: writing beyond it fails in the same way."""
        assert run(folder)[0] == 0
        whole = (tmp_path / "out.h5").read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            code, lines = run(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (code, len(lines)) == (2, 1), lines
        assert f"{tmp_path / 'out.h5'}: cannot be written" in lines[0]
        assert (tmp_path / "out.h5").read_bytes() == whole
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5", "raw"]
