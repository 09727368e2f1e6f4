"""A series as files of the facility, of every kind: the same aligned stacks as from the run that was measured."""

import doctest
import importlib
import struct
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest

from mistral_txm.reconstruction import read_aligned
from mistral_txm.reconstruction.martapp import (
    NormalizedStack,
)
from mistral_txm.services.aligned_files import process
from mistral_txm.services.exposures import RunExposures
from mistral_txm.services.journal import read_journal
from mistral_txm.services.raw_files import RawInput
from mistral_txm.services.raw_frames import Purpose, frames_in, kind_of
from mistral_txm.services.run_export import export_run
from tests.martapp_stacks import write_normalized

AZIMUTHS_DEG = (0.0, 102.0)
TILTS_DEG = (-45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0)
SPHERES_NM = np.array(
    [[-300, -250, 60], [250, 300, 60], [50, -80, -80], [-200, 220, -80], [300, -260, 60.0]]
)
RADIUS_NM, GOLD_PER_NM = 50.0, 0.012


def measured(data, written_series, **plan):
    """A series of both azimuths in the journal, with gold by which its views can be aligned."""

    class Film(written_series):
        SHAPE = (96, 96)

        def frame(self, stream, key, current_ma):
            phi_deg, theta_deg, helicity, _ = key
            noise = np.random.default_rng(zlib.crc32(repr((stream, key)).encode()))
            mean = np.zeros(self.SHAPE)
            if stream != "dark":
                structure = 1 + 0.2 * np.sin(np.arange(self.SHAPE[1]) / 5)
                mean = self.PHOTONS * structure * current_ma / 250 * np.ones(self.SHAPE)
            if stream == "primary":
                absorbance = self.absorption(theta_deg) + helicity * self.dichroic(
                    phi_deg, theta_deg
                )
                mean = mean * np.exp(-absorbance - self.gold(phi_deg, theta_deg))
            counts = (
                self.DARK_COUNTS + self.GAIN * noise.poisson(mean) + noise.normal(0, 3, self.SHAPE)
            )
            return np.rint(counts).astype("<u2")

        def gold(self, phi_deg, theta_deg):
            """Absorbance of the spheres, by the definition of the stage frame and the detector."""
            phi, theta = np.deg2rad([phi_deg, theta_deg])
            x, y, z = SPHERES_NM.T
            stage_x, stage_y = x * np.cos(phi) - y * np.sin(phi), x * np.sin(phi) + y * np.cos(phi)
            run_out = np.random.default_rng(round(phi_deg + 7 * theta_deg) % 997).normal(0, 15, 2)
            u_nm = stage_x * np.cos(theta) - z * np.sin(theta) + run_out[0]
            v_nm = stage_y + run_out[1]
            place = (np.arange(self.SHAPE[0]) - (self.SHAPE[0] - 1) / 2) * self.PIXEL_NM
            image = np.zeros(self.SHAPE)
            for u, v in zip(u_nm, v_nm, strict=True):
                off2 = (place[None, :] - u) ** 2 + (place[:, None] - v) ** 2
                image += 2 * GOLD_PER_NM * np.sqrt(np.maximum(RADIUS_NM**2 - off2, 0))
            return image

    made = Film(data, azimuths_deg=AZIMUTHS_DEG, uid="film", **plan)
    for phi_deg in AZIMUTHS_DEG:
        made.record(made.run(phi_deg, flats_at_end=phi_deg == 102.0))
    return made


@pytest.fixture(scope="module")
def film(tmp_path_factory, written_series):
    data = tmp_path_factory.mktemp("film")
    return measured(data, written_series, tilts_deg=TILTS_DEG, repeats=2)


@pytest.fixture(scope="module")
def from_uid(film, tmp_path_factory):
    """What the run gives: the stacks by azimuth."""
    folder = tmp_path_factory.mktemp("uid")
    written = process([film.uid], folder / "out.h5", film.data)
    assert written.alignment.aligned, written.alignment.message
    return [read_aligned(path) for path in written.paths]


def exposures_of(series, number):
    journal = series.data / "journal" / f"{series.uid}-run{number}.jsonl"
    return RunExposures.of(read_journal(journal)).in_order()


def stem_of(one):
    mark = {"dark": "BG_", "flat": "FF_", "primary": ""}[one.stream]
    helicity = one.key.helicity or 1
    return f"20260101_film_{helicity}_{one.key.theta_deg:.1f}_{mark}{one.key.repeat}"


def as_images(series, folder):
    """MARTApp's first stage: a file for each image, a folder for each azimuth."""
    folder.mkdir()
    folders = [folder / "phi0", folder / "phi102"]
    for number, path in enumerate(folders, 1):
        export_run(series.data, f"{series.uid}-run{number}", "martapp", path)
    return folders


def as_xradia(series, folder):
    """Files of the microscope: an image each, turned upside down, with named axes."""
    folders = []
    for number, phi_deg in enumerate(AZIMUTHS_DEG, 1):
        folders.append(folder / f"phi{phi_deg:g}")
        folders[-1].mkdir(parents=True)
        for one in exposures_of(series, number):
            write_xrm(folders[-1] / f"{stem_of(one)}.xrm", one, series.PIXEL_NM)
    return folders


def write_xrm(path, one, pixel_nm, axes=("machine_current", "polarisation", "Energy")):
    counts = one.read()
    height, width = counts.shape
    values = {
        "Sample X": 1.0,
        "machine_current": one.ring_current_ma,
        "polarisation": one.key.helicity or 1,
        "Energy": 707.4,
    }
    named = ["Sample X", *axes]
    taken = datetime.fromtimestamp(one.time, UTC).strftime("%m/%d/%y %H:%M:%S")
    write_ole(
        path,
        {
            "ImageInfo/ImageHeight": struct.pack("<I", height),
            "ImageInfo/ImageWidth": struct.pack("<I", width),
            "ImageInfo/NoOfImages": struct.pack("<I", 1),
            "ImageInfo/DataType": struct.pack("<I", 5),
            "ImageInfo/PixelSize": struct.pack("<f", pixel_nm / 1000),
            "ImageInfo/Angles": struct.pack("<f", one.theta_deg),
            "ImageInfo/ExpTimes": struct.pack("<f", one.exposure_s),
            "ImageInfo/Date": taken.encode(),
            "PositionInfo/TotalAxis": struct.pack("<I", len(named)),
            "PositionInfo/AxisNames": b"".join(name.encode().ljust(25, b"\0") for name in named),
            "PositionInfo/MotorPositions": struct.pack(
                f"<{len(named)}f", *(values[name] for name in named)
            ),
            "ImageData1/Image1": counts[::-1].astype("<u2").tobytes(),
        },
    )


def write_ole(path, streams):
    """Write a compound file ([MS-CFB] version 3) of streams in folders, each in sectors of its own."""
    sector, end, free, fat_mark = 512, 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD
    folders = sorted({name.split("/")[0] for name in streams})
    entries = [["Root Entry", 5, free, free, free, end, 0]]  # name, type, left, right, child, ..
    table, sectors = [], []

    def store(data):
        parts = [data[i : i + sector].ljust(sector, b"\0") for i in range(0, len(data), sector)]
        first = len(sectors)
        sectors.extend(parts)
        table.extend([*range(first + 1, first + len(parts)), end])
        return first

    previous = None
    for folder in folders:
        number = len(entries)
        entries.append([folder, 1, free, free, free, 0, 0])
        if previous is None:
            entries[0][4] = number
        else:
            entries[previous][3] = number
        previous, last = number, None
        for name, data in streams.items():
            if name.startswith(folder + "/"):
                data = data.ljust(4096, b"\0")  # smaller ones would be in the mini stream
                entries.append([name.split("/")[1], 2, free, free, free, store(data), len(data)])
                if last is None:
                    entries[number][4] = len(entries) - 1
                else:
                    entries[last][3] = len(entries) - 1
                last = len(entries) - 1
    packed = b""
    for name, kind, left, right, child, start, size in entries:
        text = name.encode("utf-16le")
        packed += text.ljust(64, b"\0") + struct.pack(
            "<HBBIII", len(text) + 2, kind, 1, left, right, child
        )
        packed += bytes(36) + struct.pack("<IQ", start, size)
    directory = store(packed.ljust(-(-len(packed) // sector) * sector, b"\0"))
    needed = 1
    while (len(table) + needed) * 4 > needed * sector:
        needed += 1
    places = [len(table) + i for i in range(needed)]
    table += [fat_mark] * needed
    table += [free] * (needed * sector // 4 - len(table))
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    header += struct.pack(
        "<HHHHH6xIIIIIIIII", 0x3E, 3, 0xFFFE, 9, 6, 0, needed, directory, 0, 4096, end, 0, end, 0
    )
    header += struct.pack("<109I", *places, *[free] * (109 - needed))
    path.write_bytes(header + b"".join(sectors) + struct.pack(f"<{len(table)}I", *table))


def as_nxtomo(series, folder):
    folder.mkdir()
    paths = []
    for number in (1, 2):
        paths.append(folder / f"{number}.nx")
        export_run(series.data, f"{series.uid}-run{number}", "nxtomo", paths[-1])
    return paths


def as_normalized(series, folder):
    """MARTApp's second stage: transmittances of each exposure, by nothing but their definition."""
    folder.mkdir()
    paths = []
    for number, phi_deg in enumerate(AZIMUTHS_DEG, 1):
        taken = exposures_of(series, number)
        dark = np.mean([one.read() for one in taken if one.stream == "dark"], axis=0)
        for helicity in (1, -1):
            flats, samples = (
                [one for one in taken if (one.stream, one.key.helicity) == (stream, helicity)]
                for stream in ("flat", "primary")
            )
            flat = np.sum([one.read() - dark for one in flats], axis=0) / dose(flats).sum()
            stack = np.array([one.read() - dark for one in samples]) / dose(samples)[:, None, None]
            n = len(samples)
            paths.append(folder / f"phi{phi_deg:g}_{helicity}.hdf5")
            write_normalized(
                paths[-1],
                NormalizedStack(
                    (stack / flat).astype(np.float32),
                    np.array([one.theta_deg for one in samples]),
                    np.array([one.exposure_s for one in samples]),
                    np.array([one.ring_current_ma for one in samples]),
                    np.full(n, 707.4),
                    float(helicity),
                    series.PIXEL_NM,
                ),
            )
    return paths


def dose(exposures):
    return np.array([one.ring_current_ma * one.exposure_s for one in exposures])


@pytest.mark.parametrize("module", ["services.raw_frames", "reconstruction.plausible"])
def test_examples(module):
    result = doctest.testmod(importlib.import_module(f"mistral_txm.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


class TestRoundTrips:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("written", "phi_deg", "rounding"),
        [
            (as_images, (), 0.0),
            # machine_current is of single precision there
            (as_xradia, AZIMUTHS_DEG, 2e-6),
            # the dose is kept in A; these files and the first ones say the azimuth themselves
            (as_nxtomo, (), 2e-6),
        ],
    )
    def test_images_give_what_the_run_gives(
        self, film, from_uid, tmp_path, written, phi_deg, rounding
    ):
        raw = [str(path) for path in written(film, tmp_path / "raw")]
        done = process(raw, tmp_path / "out.h5", tmp_path, RawInput(phi_deg))
        assert done.notes == ()
        assert [path.name for path in done.paths] == ["out_phi000.h5", "out_phi102.h5"]
        for path, expected in zip(done.paths, from_uid, strict=True):
            found = read_aligned(path)
            np.testing.assert_allclose(found.theta_deg, expected.theta_deg, atol=1e-5)
            assert found.pixel_nm == pytest.approx(expected.pixel_nm, rel=1e-6)
            assert found.phi_deg == pytest.approx(expected.phi_deg, abs=1e-4)
            for name in ("dichroic_tvu", "absorption_tvu", "positive_tvu", "negative_tvu"):
                one, other = getattr(found, name), getattr(expected, name)
                np.testing.assert_allclose(one, other, rtol=0, atol=rounding, err_msg=name)

    def test_a_microscope_that_does_not_log_the_polarisation_tells_it_by_the_name(
        self, film, tmp_path
    ):
        one = next(one for one in exposures_of(film, 1) if one.stream == "primary")
        named, bare = tmp_path / f"{stem_of(one)}.xrm", tmp_path / "image.xrm"
        for path in (named, bare):
            write_xrm(path, one, film.PIXEL_NM, axes=("machine_current", "Energy"))
        (found,) = frames_in(named, kind_of(named))
        assert (found.helicity, found.repeat, found.sample) == (1, one.key.repeat, "20260101_film")
        assert found.time_s == one.time
        assert found.ring_current_ma == one.ring_current_ma
        np.testing.assert_array_equal(found.read(), one.read())
        (found,) = frames_in(bare, kind_of(bare))
        assert (found.helicity, found.purpose) == (None, Purpose.SAMPLE)

    @pytest.mark.slow
    def test_transmittances_give_what_the_run_gives(self, film, from_uid, tmp_path):
        """But for the noise of the flats, which is in them once for all."""
        raw = [str(path) for path in as_normalized(film, tmp_path / "raw")]
        given = RawInput((0.0, 0.0, 102.0, 102.0))
        done = process(raw, tmp_path / "out.h5", tmp_path, given)
        of_flats = 1 / np.sqrt(4 * film.PHOTONS)
        for path, expected in zip(done.paths, from_uid, strict=True):
            found = read_aligned(path)
            np.testing.assert_allclose(found.theta_deg, expected.theta_deg, atol=5e-3)
            assert found.phi_deg == pytest.approx(expected.phi_deg, abs=0.05)
            for name in ("dichroic_tvu", "absorption_tvu"):
                off = getattr(found, name) - getattr(expected, name)
                # of both helicities' flats, halved; up to 1.25 where the open beam is darkest
                assert np.sqrt(np.nanmean(off**2)) < 1.2 * of_flats / np.sqrt(2), name
                assert abs(np.nanmean(off)) < 1e-4, name
