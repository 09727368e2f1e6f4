"""What is written, read by the programs that it is written for; VTK and discretisedfield where they are installed."""

import numpy as np
import pytest

from mistral_txm.reconstruction import nxtomo
from mistral_txm.reconstruction.exports import export_volume
from mistral_txm.reconstruction.volume_file import Volume

SHAPE_ZYX = (3, 4, 5)


@pytest.fixture
def volume():
    mx, my, mz, fraction = np.random.default_rng(2).random((4, *SHAPE_ZYX), dtype=np.float32)
    return Volume(mx, my, mz, 10.5, "direct", "layers", 2.2e-3, data_fraction=fraction)


def test_vtk_reads_image_data(tmp_path, volume):
    xml = pytest.importorskip("vtkmodules.vtkIOXML")
    to_numpy = pytest.importorskip("vtkmodules.util.numpy_support").vtk_to_numpy
    (path,) = export_volume(volume, "vti", tmp_path / "m.vti")
    reader = xml.vtkXMLImageDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    image = reader.GetOutput()
    assert image.GetDimensions() == SHAPE_ZYX[::-1]
    assert image.GetSpacing() == (10.5, 10.5, 10.5)
    assert image.GetOrigin() == (-21.0, -15.75, -10.5)
    points = image.GetPointData()
    m = to_numpy(points.GetVectors()).reshape(*SHAPE_ZYX, 3)
    np.testing.assert_array_equal(np.moveaxis(m, 3, 0), volume.m_czyx)
    fraction = to_numpy(points.GetArray("data_fraction")).reshape(SHAPE_ZYX)
    np.testing.assert_array_equal(fraction, volume.data_fraction)


@pytest.mark.slow
def test_discretisedfield_reads_ovf(tmp_path, volume):
    discretisedfield = pytest.importorskip("discretisedfield")
    (path,) = export_volume(volume, "ovf", tmp_path / "m.ovf")
    field = discretisedfield.Field.from_file(str(path))
    np.testing.assert_allclose(field.mesh.cell, 10.5e-9, rtol=1e-12)
    # cells about the middle: half a cell beyond the outermost centres
    np.testing.assert_allclose(field.mesh.region.pmin, np.array([-2.5, -2.0, -1.5]) * 10.5e-9)
    assert field.mesh.n.tolist() == list(SHAPE_ZYX[::-1])
    m_czyx = np.transpose(field.array, (3, 2, 1, 0))
    np.testing.assert_array_equal(m_czyx.astype(np.float32), volume.m_czyx)


@pytest.mark.slow
def test_nxtomo_reads_nxtomo(tmp_path):
    from nxtomo.application.nxtomo import NXtomo  # takes seconds to import

    frames = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)
    entry = nxtomo.TomoEntry(
        frames,
        np.array([2, 1, 0, 0]),
        np.array([0.0, 0.0, -55.0, 55.0]),
        exposure_s=np.array([8.0, 3.0, 20.0, 20.0]),
        ring_current_ma=np.array([250.0, 249.9, 249.8, 249.7]),
        pixel_nm=10.5,
        energy_ev=707.4,
        phi_deg=102.0,
        helicity=-1,
        time_s=1.7e9 + np.arange(4.0),
        sample_name="film",
    )
    path = tmp_path / "raw.nx"
    nxtomo.write_nxtomo(path, {"positive": entry, "negative": entry})
    assert NXtomo.get_valid_entries(str(path)) == ("/negative", "/positive")
    read = NXtomo().load(str(path), "negative", detector_data_as="as_numpy_array")
    detector = read.instrument.detector
    np.testing.assert_array_equal(detector.data, frames)
    assert [key.value for key in detector.image_key_control] == [2, 1, 0, 0]
    assert detector.x_pixel_size.to("nm").magnitude == pytest.approx(10.5)
    np.testing.assert_allclose(detector.count_time.to("s").magnitude, [8, 3, 20, 20])
    np.testing.assert_allclose(read.sample.rotation_angle.to("degree").magnitude, entry.theta_deg)
    assert read.instrument.beam.incident_energy.to("eV").magnitude == pytest.approx(707.4)
    assert read.sample.name == "film"
