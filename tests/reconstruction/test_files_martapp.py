"""MARTApp's and Xradia's files: round trips, real samples, one line for each kind of bad file."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import olefile
import pytest

from mistral_txm.reconstruction.files import FileError, replaced_when_complete, sha256_of
from mistral_txm.reconstruction.martapp import (
    AlignedSeries,
    ImageHeader,
    NormalizedStack,
    read_aligned,
    read_image_header,
    read_normalized,
    write_aligned,
    write_image,
)
from mistral_txm.reconstruction.xradia import is_xradia, read_xradia_header, read_xradia_image
from tests.martapp_stacks import write_normalized

SHARED = Path(__file__).parents[2] / "../shared/data"
CASE = SHARED / "cases/vortex_series1.hdf5"
XRM = SHARED / "xradia/test_chip00.xrm"
TXRM = SHARED / "xradia/txrm_test_chip_tomo.txrm"


def needs(path):
    return pytest.mark.skipif(not path.is_file(), reason=f"no public test data ({path.name})")


def assert_one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text


@pytest.fixture
def series():
    rng = np.random.default_rng(1)
    plus, minus = rng.normal(size=(2, 5, 6, 7)).astype(np.float32)
    return AlignedSeries(
        np.array([-55.0, -20.5, 0.0, 20.0, 55.25]),
        (plus - minus) / 2,
        (plus + minus) / 2,
        plus,
        minus,
    )


def assert_same(one, other):
    for name, value in vars(one).items():
        if value is None:
            assert getattr(other, name) is None, name
        else:
            np.testing.assert_array_equal(getattr(other, name), value, err_msg=name)


class TestAligned:
    def test_round_trip(self, tmp_path, series):
        path = tmp_path / "series.hdf5"
        write_aligned(path, series)
        assert_same(series, read_aligned(path))
        assert [p.name for p in tmp_path.iterdir()] == ["series.hdf5"]
        with h5py.File(path) as file:
            assert set(file) == {
                "Angles",
                "MagneticSignal2DAligned",
                "Absorption2DAligned",
                "2DAlignedPositiveStack",
                "2DAlignedNegativeStack",
            }
            assert file["MagneticSignal2DAligned"].compression is None

    def test_the_standard_deviation_of_each_view_is_kept_and_checked(self, tmp_path, series):
        path = tmp_path / "series.hdf5"
        noisy = dataclasses.replace(series, std_t=np.array([0.02, 0.011, 0.01, 0.012, 0.03]))
        write_aligned(path, noisy)
        assert_same(noisy, read_aligned(path))
        with h5py.File(path, "r+") as file:
            assert file["MagneticSignalStd"].shape == (5,)
            file["MagneticSignalStd"][2] = 0.0
        with pytest.raises(FileError, match="MagneticSignalStd holds 0; expected standard dev"):
            read_aligned(path)
        with pytest.raises(FileError, match=r"shape \(2,\); expected one per view, \(5,\)"):
            write_aligned(path, dataclasses.replace(series, std_t=np.ones(2)))

    def test_written_whole_or_not_at_all(self, tmp_path, series, monkeypatch):
        path = tmp_path / "series.hdf5"
        write_aligned(path, series)
        before = sha256_of(path)
        broken = AlignedSeries(
            series.theta_deg, series.dichroic_tvu, series.absorption_tvu, object()
        )
        with pytest.raises((TypeError, AttributeError)):
            write_aligned(path, broken)
        assert sha256_of(path) == before
        assert len(list(tmp_path.iterdir())) == 1

    def test_martapps_alignment_of_the_tilts_is_taken_where_there_is_one(self, tmp_path, series):
        path = tmp_path / "series.hdf5"
        write_aligned(path, series)
        with h5py.File(path, "r+") as file:
            file["MagneticSignalTiltAligned"] = series.dichroic_tvu[:, 1:] + 1
        np.testing.assert_array_equal(read_aligned(path).dichroic_tvu, series.dichroic_tvu)
        with h5py.File(path, "r+") as file:
            file["AbsorptionTiltAligned"] = series.absorption_tvu[:, 1:] + 2
        again = read_aligned(path)
        np.testing.assert_array_equal(again.dichroic_tvu, series.dichroic_tvu[:, 1:] + 1)
        np.testing.assert_array_equal(again.absorption_tvu, series.absorption_tvu[:, 1:] + 2)

    def test_signals_are_not_made_from_stacks_that_may_be_transmittances(self, tmp_path, series):
        path = tmp_path / "series.hdf5"
        write_aligned(path, series)
        with h5py.File(path, "r+") as file:
            del file["MagneticSignal2DAligned"]
        with pytest.raises(FileError, match="MagneticSignal2DAligned is missing"):
            read_aligned(path)

    def test_units(self, tmp_path, series):
        path = tmp_path / "series.hdf5"
        write_aligned(path, series)
        with h5py.File(path, "r+") as file:
            file["Angles"][()] = np.deg2rad(series.theta_deg)
        with pytest.raises(FileError, match="these are radians; expected degrees"):
            read_aligned(path)
        with h5py.File(path, "r+") as file:
            file["Angles"].attrs["units"] = "rad"
        np.testing.assert_allclose(read_aligned(path).theta_deg, series.theta_deg)

    @needs(CASE)
    def test_the_public_case(self):
        case = read_aligned(CASE)
        assert case.dichroic_tvu.shape == (87, 80, 80)
        assert case.dichroic_tvu.dtype == np.float32
        assert case.theta_deg[[0, -1]].tolist() == [-55.0, 55.0]
        np.testing.assert_allclose(
            case.dichroic_tvu, (case.positive_tvu - case.negative_tvu) / 2, atol=1e-5
        )

    def test_missing_file_and_folder(self, tmp_path):
        with pytest.raises(FileError) as error:
            read_aligned(tmp_path / "none.h5")
        assert_one_line(error, "none.h5", "no such file")
        with pytest.raises(FileError, match="is a folder"):
            read_aligned(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"not hdf5 at all", b"\x89HDF\r\n\x1a\n" + bytes(50)])
    def test_not_hdf5(self, tmp_path, content):
        path = tmp_path / "bad.h5"
        path.write_bytes(content)
        with pytest.raises(FileError) as error:
            read_aligned(path)
        assert_one_line(error, path, "HDF5")

    def test_cut_short(self, tmp_path, series):
        path = tmp_path / "cut.h5"
        write_aligned(path, series)
        path.write_bytes(path.read_bytes()[:4000])
        with pytest.raises(FileError) as error:
            read_aligned(path)
        assert_one_line(error, path)

    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            (lambda f: f.pop("Angles"), ("Angles is missing", "MagneticSignal2DAligned")),
            (lambda f: replace(f, "Angles", np.zeros(4)), ("(5, 6, 7)", "expected (4, any, any)")),
            (lambda f: replace(f, "Angles", np.full(5, 120.0)), ("120 deg",)),
            (lambda f: replace(f, "Angles", np.zeros((5, 1))), ("shape (5, 1)",)),
            (
                lambda f: replace(f, "Absorption2DAligned", np.zeros((5, 6, 8))),
                ("Absorption2DAligned", "(5, 6, 8)", "expected (5, 6, 7)"),
            ),
            (lambda f: spoil(f, "MagneticSignal2DAligned"), ("1 values", "index (2, 3, 4)")),
            (lambda f: replace(f, "Absorption2DAligned", b"text"), ("expected numbers",)),
        ],
    )
    def test_bad_contents(self, tmp_path, series, change, parts):
        path = tmp_path / "bad.h5"
        write_aligned(path, series)
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(FileError) as error:
            read_aligned(path)
        assert_one_line(error, path, *parts)

    def test_what_does_not_belong_together_is_not_written(self, tmp_path, series):
        wrong = AlignedSeries(series.theta_deg[:4], series.dichroic_tvu, series.absorption_tvu)
        with pytest.raises(FileError, match="do not belong together"):
            write_aligned(tmp_path / "x.h5", wrong)
        wrong = AlignedSeries(series.theta_deg, series.dichroic_tvu, series.absorption_tvu[:, 1:])
        with pytest.raises(FileError, match="absorption"):
            write_aligned(tmp_path / "x.h5", wrong)
        with pytest.raises(FileError) as error:
            write_aligned(tmp_path / "none" / "x.h5", series)
        assert_one_line(error, "cannot be written", "No such file")


def replace(file, name, value):
    del file[name]
    file[name] = value


def spoil(file, name):
    file[name][2, 3, 4] = np.inf


class TestNormalized:
    @pytest.fixture
    def stack(self):
        n = 4
        return NormalizedStack(
            np.random.default_rng(0).random((n, 5, 6), dtype=np.float32),
            np.array([-10.0, -10.0, 0.0, 0.0]),
            np.full(n, 8.0),
            np.linspace(250, 249, n),
            np.full(n, 707.4),
            -1.0,
            10.5,
        )

    def test_read(self, tmp_path, stack):
        path = tmp_path / "positive.hdf5"
        write_normalized(path, stack)
        again = read_normalized(path)
        assert again.pixel_nm == pytest.approx(10.5)
        assert_same(
            NormalizedStack(**{**vars(stack), "pixel_nm": again.pixel_nm}),
            again,
        )

    def test_bad(self, tmp_path, stack):
        path = tmp_path / "positive.hdf5"
        write_normalized(path, stack)
        with h5py.File(path, "r+") as file:
            replace(file["TomoNormalized"], "y_pixel_size", [0.02])
        with pytest.raises(FileError, match="expected squares"):
            read_normalized(path)
        with h5py.File(path, "r+") as file:
            replace(file["TomoNormalized"], "y_pixel_size", [0.0105])
            replace(file["TomoNormalized"], "polarisation", [1.0, -1.0])
        with pytest.raises(FileError, match="2 different values"):
            read_normalized(path)
        with h5py.File(path, "r+") as file:
            file.move("TomoNormalized", "Other")
        with pytest.raises(FileError, match=r"TomoNormalized is missing \(found: Other\)"):
            read_normalized(path)


class TestImage:
    def test_round_trip(self, tmp_path):
        path = tmp_path / "image.hdf5"
        counts = np.arange(30, dtype=np.uint16).reshape(5, 6)
        metadata = {"sample_name": "film", "x_position": 3.0}
        header = ImageHeader(
            (5, 6), counts.dtype, -55.0, 8.0, 250.1, 707.4, 1.0, 10.5, True, metadata
        )
        write_image(path, header, counts)
        again = read_image_header(path)
        for name, value in vars(header).items():
            if name not in ("metadata", "pixel_nm"):
                assert getattr(again, name) == value, name
        assert again.pixel_nm == pytest.approx(10.5)
        assert again.metadata["sample_name"] == "film"
        assert again.metadata["image_height"] == 5
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["data_1"], counts)
            np.testing.assert_array_equal(file["data"], counts)
            assert file["metadata/pixel_size"].attrs["units"] == "um"

    def test_bad(self, tmp_path):
        path = tmp_path / "image.hdf5"
        nothing = ImageHeader((2, 3), np.dtype("f8"), 0.0, 1.0, None, None, None, None, False)
        write_image(path, nothing, np.zeros((2, 3)))
        assert read_image_header(path).ring_current_ma is None
        with h5py.File(path, "r+") as file:
            replace(file, "data_1", np.zeros((3, 2)))
        with pytest.raises(FileError, match="is it transposed") as error:
            read_image_header(path)
        assert_one_line(error, path, "(3, 2)", "(2, 3)")
        with h5py.File(path, "r+") as file:
            replace(file, "data_1", np.zeros((2, 3, 1)))
        with pytest.raises(FileError, match=r"data_1 is of shape \(2, 3, 1\); expected numbers"):
            read_image_header(path)
        with h5py.File(path, "r+") as file:
            replace(file, "data_1", np.zeros((2, 3)))
            del file["metadata/angle"]
        with pytest.raises(FileError, match="metadata/angle is missing"):
            read_image_header(path)
        with h5py.File(path, "r+") as file:
            del file["metadata"]
        with pytest.raises(FileError, match="group metadata is missing"):
            read_image_header(path)


class TestXradia:
    @needs(TXRM)
    def test_a_tilt_series(self):
        tilts = read_xradia_header(TXRM)
        assert is_xradia(TXRM)
        assert tilts.shape_tvu == (7, 256, 256)
        np.testing.assert_allclose(tilts.theta_deg, np.linspace(-45, 45, 7), atol=0.02)
        np.testing.assert_allclose(tilts.energy_ev, 9200, atol=0.1)
        np.testing.assert_array_equal(tilts.exposure_s, 5.0)
        assert tilts.pixel_nm == pytest.approx(155.79, abs=0.01)
        # axes by name: these two stand elsewhere in the file as well
        np.testing.assert_array_equal(
            tilts.position["Sample Theta"].astype(np.float32), tilts.theta_deg.astype(np.float32)
        )
        with olefile.OleFileIO(TXRM) as container:
            x = np.frombuffer(container.openstream("ImageInfo/XPosition").read(), "<f4")
            first = np.frombuffer(container.openstream("ImageData1/Image3").read(), "<u2")
        np.testing.assert_array_equal(tilts.position["Sample X"], x)
        assert tilts.position_units["Sample X"] == "µm"
        # upright: the first stored row is the last one
        third = read_xradia_image(TXRM, 2)
        np.testing.assert_array_equal(third[-1], first[:256])
        np.testing.assert_array_equal(third[0], first[-256:])
        assert tilts.taken[0] == "11/09/15 18:19:21"
        with pytest.raises(FileError, match="ImageData1/Image8 is missing; expected 256 x 256"):
            read_xradia_image(TXRM, 7)

    @needs(XRM)
    def test_one_image(self):
        header, image = read_xradia_header(XRM), read_xradia_image(XRM)
        assert header.shape_tvu == (1, 512, 512)
        assert (image.shape, image.dtype) == ((512, 512), header.dtype)
        assert image.dtype == np.uint16
        assert header.energy_ev[0] == pytest.approx(7191, abs=0.1)

    @needs(XRM)
    def test_cut_short(self, tmp_path):
        path = tmp_path / "cut.xrm"
        path.write_bytes(XRM.read_bytes()[:100_000])
        with pytest.raises(FileError) as error:
            read_xradia_image(path)
        assert_one_line(error, path)

    def test_bad(self, tmp_path):
        with pytest.raises(FileError, match="no such file"):
            read_xradia_header(tmp_path / "none.xrm")
        path = tmp_path / "text.xrm"
        path.write_text("not a container" * 200)
        with pytest.raises(FileError, match="not an Xradia file"):
            read_xradia_header(path)


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    class Stop(BaseException):
        pass

    def interrupted():
        with replaced_when_complete(path) as temporary:
            temporary.write_text("new")
            raise Stop

    with pytest.raises(Stop):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
