"""The volume file, OVF, NXtomo and the exports, read back by other readers where there are any."""

import json
import struct
import xml.etree.ElementTree as ET

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile

from mistral_txm.reconstruction import nxtomo, ovf, volume_file
from mistral_txm.reconstruction.exports import (
    SERIES_FORMATS,
    VOLUME_FORMATS,
    export_series,
    export_volume,
)
from mistral_txm.reconstruction.files import FileError, sha256_of
from mistral_txm.reconstruction.martapp import AlignedSeries, read_aligned
from mistral_txm.reconstruction.volume_file import (
    InputFile,
    SeriesResidual,
    Volume,
    read_volume,
    write_volume,
)

NZ, NY, NX = 3, 4, 5


@pytest.fixture
def volume():
    rng = np.random.default_rng(2)
    mx, my, mz, fraction, std = rng.random((5, NZ, NY, NX), dtype=np.float32)
    return Volume(
        mx,
        my,
        mz,
        10.5,
        method="direct",
        prior="layers",
        delta_per_nm=2.2e-3,
        data_fraction=fraction,
        layers_nm=((-120.0, -40.0), (40.0, 120.0)),
        residuals=(
            SeriesResidual(0.0, np.array([-1.0, 1.0]), np.array([0.1, 0.2])),
            SeriesResidual(102.0, np.array([-1.0, 0.0, 1.0]), np.array([0.3, 0.4, 0.5])),
        ),
        inputs=(InputFile("a.h5", "ab" * 32),),
        options={"depth_voxels": 80},
        versions={"numpy": "2"},
        std=std,
    )


def assert_same_field(one, other):
    for name in ("mx", "my", "mz"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(other, name).dtype == np.float32
    assert other.voxel_nm == pytest.approx(one.voxel_nm, rel=1e-7)


class TestVolumeFile:
    def test_round_trip(self, tmp_path, volume):
        path = tmp_path / "out.h5"
        write_volume(path, volume)
        again = read_volume(path)
        assert_same_field(volume, again)
        np.testing.assert_array_equal(again.data_fraction, volume.data_fraction)
        np.testing.assert_array_equal(again.std, volume.std)
        for name in (
            "method",
            "prior",
            "delta_per_nm",
            "layers_nm",
            "inputs",
            "options",
            "versions",
        ):
            assert getattr(again, name) == getattr(volume, name), name
        for one, other in zip(volume.residuals, again.residuals, strict=True):
            assert one.phi_deg == other.phi_deg
            np.testing.assert_array_equal(one.theta_deg, other.theta_deg)
            np.testing.assert_array_equal(one.residual_rms, other.residual_rms)
        assert ("input a.h5", "sha256 " + "ab" * 32) in again.provenance
        assert again.unit == "1"

    def test_as_others_read_it(self, tmp_path, volume):
        path = tmp_path / "out.h5"
        write_volume(path, volume)
        with h5py.File(path) as file:
            for name in ("mx", "my", "mz"):
                assert file[name].dtype == np.float32
                assert file[name].shape == (NZ, NY, NX)
            assert file.attrs["voxel_nm"] == 10.5
            assert file.attrs["method"] == "direct"
            assert file.attrs["prior"] == "layers"
            assert file.attrs["delta_per_nm"] == 2.2e-3
            assert file["provenance/input_sha256"].asstr()[0] == "ab" * 32
            assert json.loads(file["provenance"].attrs["options"]) == {"depth_voxels": 80}
            assert file["data_fraction"].shape == (NZ, NY, NX)

    def test_the_same_contents_give_the_same_bytes(self, tmp_path, volume):
        for name in ("a.h5", "b.h5"):
            write_volume(tmp_path / name, volume)
        assert sha256_of(tmp_path / "a.h5") == sha256_of(tmp_path / "b.h5")

    def test_only_the_layers_are_magnetic(self, volume):
        np.testing.assert_array_equal(volume.magnetic_czyx, np.zeros_like(volume.m_czyx))
        thin = Volume(volume.mx, volume.my, volume.mz, 10.5, layers_nm=((5.0, 20.0),))
        np.testing.assert_array_equal(thin.magnetic_czyx[:, 2], volume.m_czyx[:, 2])
        assert not thin.magnetic_czyx[:, :2].any()
        everywhere = Volume(volume.mx, volume.my, volume.mz, 10.5)
        np.testing.assert_array_equal(everywhere.magnetic_czyx, volume.m_czyx)

    def test_unknown_is_not_zero(self, tmp_path, volume):
        path = tmp_path / "out.h5"
        write_volume(path, Volume(volume.mx, volume.my, volume.mz, 10.5, "art", "none"))
        again = read_volume(path)
        assert again.delta_per_nm is None
        assert again.data_fraction is None
        assert again.std is None
        assert again.unit == "1/nm"
        with h5py.File(path) as file:
            assert np.isnan(file.attrs["delta_per_nm"])
            assert file["mx"].attrs["units"] == "1/nm"

    def test_any_hdf5_with_three_components(self, tmp_path, volume):
        path = tmp_path / "result.h5"
        with h5py.File(path, "w") as file:
            for name in ("mx", "my", "mz"):
                file[name] = getattr(volume, name).astype(np.float64)
        with pytest.raises(FileError, match="no attribute voxel_nm"):
            read_volume(path)
        assert_same_field(volume, read_volume(path, default_voxel_nm=10.5))
        assert read_volume(path, default_voxel_nm=10.5).method == "unknown"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda f: f.pop("my"), "my is missing"),
            (
                lambda f: (f.pop("my"), f.create_dataset("my", (3, 4, 4), "f4")),
                r"expected \(3, 4, 5\)",
            ),
            (lambda f: f.attrs.__setitem__("voxel_nm", -1.0), "positive"),
            (lambda f: f["provenance"].attrs.__setitem__("options", "{"), "no JSON"),
        ],
    )
    def test_bad(self, tmp_path, volume, change, message):
        path = tmp_path / "out.h5"
        write_volume(path, volume)
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(FileError, match=message) as error:
            read_volume(path)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("signature", [b"HEAP", b"TREE", b"SNOD", b"GCOL"])
    def test_damage_is_one_line(self, tmp_path, volume, signature):
        path = tmp_path / "out.h5"
        write_volume(path, volume)
        whole = path.read_bytes()
        assert signature in whole
        path.write_bytes(whole.replace(signature, b"XXXX"))
        with pytest.raises(FileError) as error:
            read_volume(path)
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)

    def test_bad_to_write(self, tmp_path, volume):
        for change in ({"my": volume.my[:2]}, {"voxel_nm": 0.0}, {"options": {"a": object()}}):
            with pytest.raises(FileError):
                write_volume(tmp_path / "x.h5", Volume(**{**vars(volume), **change}))
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(FileError, match="no such file"):
            read_volume(tmp_path / "x.h5")

    def test_checksum_and_versions(self, tmp_path):
        path = tmp_path / "a"
        path.write_bytes(b"abc")  # the example of FIPS 180-2
        digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        assert volume_file.input_file(path) == ("a", digest)
        assert {"python", "mistral-txm", "numpy"} <= set(volume_file.software_versions())


class TestOvf:
    @pytest.mark.parametrize("form", ["text", "binary 4", "binary 8"])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_round_trip(self, tmp_path, form, dtype):
        m = np.random.default_rng(0).normal(size=(3, NZ, NY, NX)).astype(dtype)
        path = tmp_path / "m.ovf"
        ovf.write_ovf(path, m, 10.5, form=form, unit="1/nm")
        again = ovf.read_ovf(path)
        assert again.voxel_nm_xyz == (10.5, 10.5, 10.5)
        assert again.unit == "1/nm"
        exact = form != "binary 4" or dtype == np.float32
        np.testing.assert_allclose(
            again.m_czyx.astype(dtype), m, rtol=1e-15 if exact else 1e-6, atol=0
        )
        assert_same_field(Volume(*m.astype(np.float32), voxel_nm=10.5), read_volume(path))

    def test_order_by_hand(self, tmp_path):
        """A file written by hand: two nodes along x, then y, then z; lengths in nm."""
        lines = ["# OOMMF OVF 2.0", "# Segment count: 1", "# Begin: Segment", "# Begin: Header"]
        lines += ["# Title: by hand", "# meshtype: rectangular", "# meshunit: nm"]
        for axis, n in zip("xyz", (2, 1, 2), strict=True):
            lines += [f"# {axis}nodes: {n}", f"# {axis}stepsize: 5 ## nm", f"# {axis}base: 0"]
        lines += [
            "# valuedim: 3",
            "# valueunits: A/m A/m A/m",
            "# End: Header",
            "# Begin: Data Text",
        ]
        lines += ["1 2 3", "4 5 6", "7 8 9", "10 11 12", "# End: Data Text", "# End: Segment"]
        path = tmp_path / "hand.ovf"
        path.write_text("\n".join(lines))
        field = ovf.read_ovf(path)
        assert field.m_czyx.shape == (3, 2, 1, 2)
        np.testing.assert_array_equal(field.m_czyx[:, 0, 0, 1], [4, 5, 6])
        np.testing.assert_array_equal(field.m_czyx[:, 1, 0, 0], [7, 8, 9])
        assert field.voxel_nm_xyz == (5, 5, 5)
        assert (field.title, field.unit) == ("by hand", "A/m")

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            (b"OVF 2.0", b"OVF 1.0", "expected an OVF 2.0"),
            (b"# valuedim: 3", b"# valuedim: 1", "expected a field of 3"),
            (b"# xnodes: 5", b"# xnodes: 6", "header says 216"),
            (b"# xnodes: 5", b"# xnodes: five", "no numbers"),
            (b"# ynodes: 4\n", b"", "no ynodes"),
            (b"rectangular", b"irregular", "only rectangular"),
            (b"meshunit: m", b"meshunit: inch", "'inch'"),
            (b"Data Binary 4\n", b"Data Binary 2\n", "known are text"),
            (struct.pack("<f", 1234567.0), struct.pack(">f", 1234567.0), "wrong check value"),
            (b"# Begin: Data", b"# Start: Data", "no data after it"),
        ],
    )
    def test_bad(self, tmp_path, old, new, message):
        path = tmp_path / "m.ovf"
        ovf.write_ovf(path, np.ones((3, NZ, NY, NX), np.float32), 10.5)
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new, 1))
        with pytest.raises(FileError, match=message) as error:
            ovf.read_ovf(path)
        assert "\n" not in str(error.value)

    def test_voxels_that_are_no_cubes(self, tmp_path):
        path = tmp_path / "m.ovf"
        ovf.write_ovf(path, np.ones((3, NZ, NY, NX), np.float32), 10.5)
        path.write_bytes(path.read_bytes().replace(b"zstepsize: 1.05e-08", b"zstepsize: 2.05e-08"))
        with pytest.raises(FileError, match="expected cubes"):
            read_volume(path)


class TestVolumeExports:
    def test_vti_by_its_specification(self, tmp_path, volume):
        (path,) = export_volume(volume, "vti", tmp_path / "m.vti")
        content = path.read_bytes()
        start = content.index(b'<AppendedData encoding="raw">')
        first = content.index(b"_", start) + 1
        root = ET.fromstring(content[:start].decode() + "</VTKFile>")
        assert root.attrib["header_type"] == "UInt64"
        image = root.find("ImageData")
        assert image.attrib["WholeExtent"] == f"0 {NX - 1} 0 {NY - 1} 0 {NZ - 1}"
        assert [float(v) for v in image.attrib["Spacing"].split()] == [10.5] * 3
        assert [float(v) for v in image.attrib["Origin"].split()] == [-21.0, -15.75, -10.5]
        arrays = {}
        for entry in root.iter("DataArray"):
            at = first + int(entry.attrib["offset"])
            (size,) = struct.unpack("<Q", content[at : at + 8])
            arrays[entry.attrib["Name"]] = np.frombuffer(content[at + 8 : at + 8 + size], "<f4")
        m = arrays["m"].reshape(NZ, NY, NX, 3)
        np.testing.assert_array_equal(np.moveaxis(m, 3, 0), volume.m_czyx)
        np.testing.assert_array_equal(
            arrays["data_fraction"].reshape(NZ, NY, NX), volume.data_fraction
        )
        assert content.endswith(b"</AppendedData>\n</VTKFile>\n")

    def test_ovf(self, tmp_path, volume):
        (path,) = export_volume(volume, "ovf", tmp_path / "m.ovf")
        assert_same_field(volume, read_volume(path))
        assert b"method direct, prior layers" in path.read_bytes()

    def test_tiff(self, tmp_path, volume):
        (path,) = export_volume(volume, "tiff", tmp_path / "m.tif")
        with tifffile.TiffFile(path) as file:
            assert file.is_imagej
            assert file.series[0].axes == "ZCYX"
            data = file.asarray()
            assert file.imagej_metadata["unit"] == "nm"
            assert file.imagej_metadata["spacing"] == 10.5
            assert file.imagej_metadata["Labels"][:3] == ["mx", "my", "mz"]
            pixels, length = file.pages[0].tags["XResolution"].value
            assert length / pixels == pytest.approx(10.5)
        np.testing.assert_array_equal(np.moveaxis(data, 1, 0), volume.m_czyx)

    def test_mrc(self, tmp_path, volume):
        paths = export_volume(volume, "mrc", tmp_path / "m.mrc")
        assert [p.name for p in paths] == ["m_mx.mrc", "m_my.mrc", "m_mz.mrc"]
        for path, component in zip(paths, volume.m_czyx, strict=True):
            assert mrcfile.validate(path)
            with mrcfile.open(path) as file:
                np.testing.assert_array_equal(file.data, component)
                assert file.is_volume()
                assert float(file.voxel_size.x) == pytest.approx(105)  # Angstrom
                assert float(file.header.origin.x) == pytest.approx(-210)

    def test_martapp(self, tmp_path, volume):
        (path,) = export_volume(volume, "martapp", tmp_path / "m.h5")
        assert_same_field(volume, read_volume(path))
        with h5py.File(path) as file:
            assert set(file) == {"mx", "my", "mz"}

    @pytest.mark.parametrize("format", [*VOLUME_FORMATS, "nxtomo", "xyz"])
    def test_bad(self, tmp_path, volume, format):
        with pytest.raises(FileError) as error:
            export_volume(volume, format, tmp_path / "none" / "m.x")
        assert "\n" not in str(error.value)
        assert "m" in str(error.value)


class TestSeriesExports:
    @pytest.fixture
    def series(self):
        rng = np.random.default_rng(1)
        dichroic, absorption = rng.normal(size=(2, 4, 6, 7)).astype(np.float32)
        return AlignedSeries(np.array([-55.0, -0.5, 0.5, 55.0]), dichroic, absorption)

    def test_mrc_with_tilts(self, tmp_path, series):
        dichroic, absorption, tilts = export_series(
            series, "mrc", tmp_path / "s.mrc", pixel_nm=10.5
        )
        for path, stack in ((dichroic, series.dichroic_tvu), (absorption, series.absorption_tvu)):
            assert mrcfile.validate(path)
            with mrcfile.open(path) as file:
                assert file.is_image_stack()
                np.testing.assert_array_equal(file.data, stack)
        assert tilts.name == "s.rawtlt"
        np.testing.assert_allclose(np.loadtxt(tilts), series.theta_deg)

    def test_tiff(self, tmp_path, series):
        (path,) = export_series(series, "tiff", tmp_path / "s.tif", pixel_nm=10.5)
        with tifffile.TiffFile(path) as file:
            data = file.asarray()
            assert "-55, -0.5, 0.5, 55" in file.imagej_metadata["Info"]
        np.testing.assert_array_equal(data[:, 0], series.dichroic_tvu)
        np.testing.assert_array_equal(data[:, 1], series.absorption_tvu)

    def test_martapp(self, tmp_path, series):
        (path,) = export_series(series, "martapp", tmp_path / "s.h5", pixel_nm=10.5)
        np.testing.assert_array_equal(read_aligned(path).dichroic_tvu, series.dichroic_tvu)

    def test_nxtomo(self, tmp_path, series):
        (path,) = export_series(series, "nxtomo", tmp_path / "s.nx", pixel_nm=10.5)
        entries = nxtomo.read_nxtomo(path)
        assert set(entries) == {"dichroic", "absorption"}
        np.testing.assert_array_equal(list(entries["dichroic"].frames_tvu), series.dichroic_tvu)
        assert entries["absorption"].pixel_nm == pytest.approx(10.5)

    @pytest.mark.parametrize("format", [*SERIES_FORMATS, "vti"])
    def test_bad(self, tmp_path, series, format):
        with pytest.raises(FileError) as error:
            export_series(series, format, tmp_path / "none" / "s.x", pixel_nm=10.5)
        assert "\n" not in str(error.value)


class TestNXtomo:
    @pytest.fixture
    def entry(self):
        frames = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)
        return nxtomo.TomoEntry(
            frames,
            np.array([2, 1, 0, 0]),
            np.array([0.0, 0.0, -55.0, 55.0]),
            exposure_s=np.array([8.0, 3.0, 20.0, 20.0]),
            ring_current_ma=np.array([250.0, 249.9, 249.8, 249.7]),
            pixel_nm=10.5,
            energy_ev=707.4,
            phi_deg=102.0,
            helicity=-1,
            time_s=1.7e9 + np.array([0.0, 10.0, 20.0, 40.0]),
            saturation_counts=65000.0,
            sample_name="film",
            title="azimuth 102, helicity -1",
        )

    def test_round_trip(self, tmp_path, entry):
        path = tmp_path / "raw.nx"
        nxtomo.write_nxtomo(path, {"phi102_minus": entry, "second": entry})
        again = nxtomo.read_nxtomo(path)
        assert list(again) == ["phi102_minus", "second"]
        np.testing.assert_array_equal(list(again["second"].frames_tvu), entry.frames_tvu)
        for name, value in vars(entry).items():
            read = getattr(again["second"], name)
            if name == "frames_tvu":
                continue
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(read, value, rtol=1e-12, err_msg=name)
            else:
                assert read == pytest.approx(value) if isinstance(value, float) else read == value
        assert again["second"].frames_tvu.dtype == np.uint16

    def test_as_the_definition_says(self, tmp_path, entry):
        path = tmp_path / "raw.nx"
        nxtomo.write_nxtomo(path, {"entry": entry})
        with h5py.File(path) as file:
            group = file["entry"]
            assert group.attrs["NX_class"] == "NXentry"
            assert group["definition"].asstr()[()] == "NXtomo"
            assert group["instrument/SOURCE"].attrs["NX_class"] == "NXsource"
            assert group["instrument/detector"].attrs["NX_class"] == "NXdetector"
            assert group["sample/rotation_angle"].attrs["units"] == "degree"
            np.testing.assert_array_equal(group["data/data"], entry.frames_tvu)
            np.testing.assert_array_equal(group["data/rotation_angle"], entry.theta_deg)
            np.testing.assert_array_equal(group["data/image_key"], [2, 1, 0, 0])
            np.testing.assert_allclose(group["control/data"], [0.25, 0.2499, 0.2498, 0.2497])

    def test_frames_from_an_open_file(self, tmp_path, entry):
        with h5py.File(tmp_path / "frames.h5", "w") as file:
            frames = file.create_dataset("frames", data=entry.frames_tvu)
            lazy = nxtomo.TomoEntry(frames, entry.image_key, entry.theta_deg)
            nxtomo.write_nxtomo(tmp_path / "raw.nx", {"entry": lazy})
        read = nxtomo.read_nxtomo(tmp_path / "raw.nx")["entry"]
        np.testing.assert_array_equal(list(read.frames_tvu), entry.frames_tvu)
        assert (read.exposure_s, read.phi_deg, read.helicity) == (None, None, None)

    def test_bad(self, tmp_path, entry):
        path = tmp_path / "raw.nx"
        with pytest.raises(FileError, match="no entry"):
            nxtomo.write_nxtomo(path, {})
        wrong = nxtomo.TomoEntry(entry.frames_tvu, entry.image_key[:2], entry.theta_deg)
        with pytest.raises(FileError, match="4 frames and image_key"):
            nxtomo.write_nxtomo(path, {"entry": wrong})
        nxtomo.write_nxtomo(path, {"entry": entry})
        with h5py.File(path, "r+") as file:
            file["entry/instrument/detector/x_pixel_size"].attrs["units"] = "inch"
        with pytest.raises(FileError, match="'inch'"):
            nxtomo.read_nxtomo(path)
        with h5py.File(path, "r+") as file:
            del file["entry/instrument/detector/image_key"]
        with pytest.raises(FileError, match="image_key is missing"):
            nxtomo.read_nxtomo(path)
        with h5py.File(path, "r+") as file:
            del file["entry/definition"]
        with pytest.raises(FileError, match="no NXtomo entry"):
            nxtomo.read_nxtomo(path)
