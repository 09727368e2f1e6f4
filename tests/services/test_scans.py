"""From the documents of a scan to its result: frames made by hand, of a film with two domains."""

import copy
import doctest
import uuid
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from matplotlib.figure import Figure

from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.services import scan_figures
from mistral_txm.services.frame_files import frame_crc32
from mistral_txm.services.scan_results import (
    evaluate_energy_scan,
    evaluate_focus_series,
    evaluate_polarization_scan,
)
from mistral_txm.services.scans import ScanError, scan_of

SIZE = 40
GAIN, PHOTONS_PER_S = 100.0, 60.0
Documents = list[tuple[str, dict[str, Any]]]


def mu(energy_ev: float) -> float:
    return 0.4 + 0.8 / (1 + ((energy_ev - 707.4) / 0.8) ** 2)


def delta(energy_ev: float) -> float:
    return 0.3 / (1 + ((energy_ev - 707.4) / 0.8) ** 2)


class Beamline:
    """A film whose left half points along the beam, its right half against it, and documents of exposures."""

    def __init__(self, folder: Path, scan: dict[str, Any]) -> None:
        self.folder = folder
        self.random = np.random.default_rng(1)
        self.state: dict[str, float] = {
            "energy": 707.4,
            "zone_plate_z": 0.0,
            "jaw_down": 0.0,
            "jaw_up": 0.0,
        }
        self.degree, self.intensity, self.blur = 0.8, 1.0, 0.0
        self.count = 0
        start = {"uid": str(uuid.uuid4()), "plan_name": "a_scan", "time": 0.0, "scan": scan}
        start |= {"pixel_nm": 10.5, "saturation_counts": 65535, "phi_deg": 0.0}
        self.documents: Documents = [("start", start)]
        self.descriptors: dict[str, str] = {}

    def transmittance(self) -> Any:
        u = np.arange(SIZE) - (SIZE - 1) / 2
        # A wall that is as wide as the image is blurred.
        magnetization = -np.tanh(u / (0.5 + self.blur))
        a = mu(self.state["energy"]) + self.degree * delta(self.state["energy"]) * magnetization
        return np.exp(-a) * np.ones((SIZE, 1))

    def expose(self, stream: str, helicity: int, exposure_s: float, repeats: int) -> None:
        mean = {
            "dark": 0.0,
            "flat": self.intensity,
            "primary": self.intensity * self.transmittance(),
        }[stream] * np.ones((SIZE, SIZE))
        photons = self.random.poisson(mean * PHOTONS_PER_S * exposure_s, (repeats, SIZE, SIZE))
        noise = self.random.normal(0, 5, photons.shape)
        frames = (300 + GAIN * photons + noise).clip(0, 65535).astype(np.uint16)
        path = self.folder / f"{uuid.uuid4()}.h5"
        with h5py.File(path, "w") as file:
            file["/entry/data/data"] = frames
        resource = str(uuid.uuid4())
        parameters = {"dataset": "/entry/data/data"}
        document = {"uid": resource, "uri": f"file://localhost{path}", "parameters": parameters}
        self.documents.append(("stream_resource", document))
        if stream not in self.descriptors:
            self.descriptors[stream] = str(uuid.uuid4())
            descriptor = {"uid": self.descriptors[stream], "name": stream}
            self.documents.append(("descriptor", descriptor | {"data_keys": {"key_phi_deg": {}}}))
        for number, frame in enumerate(frames):
            self.count += 1
            of_it = {"descriptor": self.descriptors[stream]}
            datum = of_it | {"stream_resource": resource, "seq_nums": {"start": self.count}}
            self.documents.append(("stream_datum", datum))
            data = {
                "key_phi_deg": 0.0,
                "key_theta_deg": 0.0,
                "key_helicity": helicity,
                "key_repeat": self.count,
                "theta": 0.0,
                "polarization": helicity,
                "ring_current": 200.0,
                "ccd_frame_number": number,
                "ccd_frame_crc32": frame_crc32(frame),
                "ccd_exposure_s": exposure_s,
                "ccd_saturated_fraction": 0.0,
                **self.state,
            }
            event = of_it | {"seq_num": self.count, "time": 0.0, "data": data}
            self.documents.append(("event", event))

    def darks(self) -> None:
        self.expose("dark", 0, 3.0, 4)
        self.expose("dark", 0, 8.0, 4)

    def flat_and_sample(self, helicity: int, repeats: int = 3) -> None:
        self.expose("flat", helicity, 3.0, 4)
        self.expose("primary", helicity, 8.0, repeats)


@pytest.fixture
def energy_documents(tmp_path: Path) -> Documents:
    energies_ev = [702.0, 705.0, 706.0, 706.5, 707.0, 707.5, 708.0, 708.5, 709.0, 710.0, 713.0]
    scan = {"motor": "energy", "unit": "eV", "positions": energies_ev}
    beamline = Beamline(tmp_path, scan)
    beamline.darks()
    for energy_ev in energies_ev:
        for helicity in (1, -1):
            beamline.state["energy"] = energy_ev + 0.01
            beamline.degree = 0.8 * helicity
            beamline.flat_and_sample(helicity)
    return beamline.documents


def test_an_energy_scan_gives_the_spectra_of_both_kinds_of_domain(
    energy_documents: Documents,
) -> None:
    results = evaluate_energy_scan(scan_of(energy_documents))
    assert set(results) == {1, -1}
    for kind, result in results.items():
        energies_ev = result.xmcd.energy_ev_e
        assert energies_ev[0] == pytest.approx(702.01)
        expected = kind * 2 * 0.8 * delta(energies_ev)  # type: ignore[arg-type]  # of an array
        assert np.abs((result.xmcd.value_e - expected) / result.xmcd.std_e).max() < 4
        assert result.edge is not None
        assert result.edge.energy_ev == pytest.approx(707.4, abs=0.05)
        mean = (result.positive.value_e + result.negative.value_e) / 2
        assert mean == pytest.approx(mu(energies_ev), abs=0.02)  # type: ignore[arg-type]  # of an array


def test_an_exposure_that_was_taken_again_counts_once_and_an_unfinished_energy_not_at_all(
    energy_documents: Documents,
) -> None:
    whole = evaluate_energy_scan(scan_of(energy_documents))
    again = [copy.deepcopy(entry) for entry in energy_documents for _ in range(2)]
    repeated = evaluate_energy_scan(scan_of(again))
    assert (repeated[1].xmcd.value_e == whole[1].xmcd.value_e).all()
    cut = evaluate_energy_scan(scan_of(energy_documents[:-3]))
    assert len(cut[1].xmcd.value_e) == 11
    last_resource = [n for n, (name, _) in enumerate(energy_documents) if name == "stream_resource"]
    cut = evaluate_energy_scan(scan_of(energy_documents[: last_resource[-1]]))
    assert len(cut[1].xmcd.value_e) == 10


def test_a_focus_series_gives_the_position_where_walls_are_narrowest(tmp_path: Path) -> None:
    z_um = list(np.arange(-4.0, 4.1, 1.0))
    scan = {"motor": "zone_plate_z", "unit": "um", "positions": z_um, "helicity": -1}
    beamline = Beamline(tmp_path, scan)
    beamline.darks()
    beamline.expose("flat", -1, 3.0, 4)
    for z in z_um:
        beamline.state["zone_plate_z"], beamline.blur = z, abs(z - 0.6)
        beamline.expose("primary", -1, 8.0, 4)
    result = evaluate_focus_series(scan_of(beamline.documents))
    assert result.helicity == -1
    assert result.focus.best_um == pytest.approx(0.6, abs=0.3)


@pytest.fixture
def jaw_documents(tmp_path: Path) -> Documents:
    heights_mm = [-3.0, -1.0, 0.0, 1.0, 3.0]
    scan = {"motor": "jaws", "unit": "mm", "positions": heights_mm}
    beamline = Beamline(tmp_path, scan | {"opening_mm": 0.4, "slit_distance_m": 20.0})
    beamline.darks()
    for helicity in (1, -1):
        beamline.state |= {"jaw_down": 2 * helicity - 0.5, "jaw_up": 2 * helicity + 0.5}
        beamline.degree = 0.8 * helicity
        beamline.flat_and_sample(helicity)
    for height_mm in heights_mm:
        beamline.state |= {"jaw_down": height_mm - 0.2, "jaw_up": height_mm + 0.2}
        beamline.degree, beamline.intensity = 0.3 * height_mm, 0.5 - 0.1 * abs(height_mm)
        beamline.flat_and_sample(0)
    return beamline.documents


def test_a_polarization_scan_gives_intensity_and_degree(jaw_documents: Documents) -> None:
    result = evaluate_polarization_scan(scan_of(jaw_documents))
    assert result.angle_mrad_h == pytest.approx([-0.15, -0.05, 0.0, 0.05, 0.15])
    assert result.half_opening_mrad == pytest.approx(0.01)
    heights_mm = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    pulls = (result.degree_h - 0.3 * heights_mm / 0.8) / result.std_degree_h
    assert np.abs(pulls).max() < 4
    assert result.std_degree_h.max() < 0.02
    pulls = (result.intensity_h - (0.5 - 0.1 * np.abs(heights_mm))) / result.std_intensity_h
    assert np.abs(pulls).max() < 4


def test_a_sample_without_dichroism_tells_no_degree(tmp_path: Path) -> None:
    scan = {"motor": "jaws", "unit": "mm", "positions": [0.0]}
    beamline = Beamline(tmp_path, scan | {"opening_mm": 0.4, "slit_distance_m": 20.0})
    beamline.darks()
    beamline.degree = 0.0
    for helicity in (1, -1, 0):
        beamline.flat_and_sample(helicity)
    with pytest.raises(InputError, match="shows no dichroism"):
        evaluate_polarization_scan(scan_of(beamline.documents))


def without(documents: Documents, stream: str) -> Documents:
    start = copy.deepcopy(documents)
    dropped = {doc["uid"] for name, doc in start if name == "descriptor" and doc["name"] == stream}
    return [entry for entry in start if entry[1].get("descriptor") not in dropped]


def test_flats_without_light_are_told_with_the_ring_current(tmp_path: Path) -> None:
    scan = {"motor": "jaws", "unit": "mm", "positions": [0.0]}
    beamline = Beamline(tmp_path, scan | {"opening_mm": 0.4, "slit_distance_m": 20.0})
    beamline.darks()
    beamline.intensity = 0.0
    for helicity in (1, -1, 0):
        beamline.flat_and_sample(helicity)
    with pytest.raises(
        ScanError, match=r"above the dark level at ring currents of .* mA; were beam"
    ):
        evaluate_polarization_scan(scan_of(beamline.documents))


def test_what_is_missing_is_named(energy_documents: Documents, jaw_documents: Documents) -> None:
    with pytest.raises(ScanError, match="no dark frames of 3 s"):
        evaluate_energy_scan(scan_of(without(energy_documents, "dark")))
    with pytest.raises(ScanError, match="no energy has sample and flats"):
        evaluate_energy_scan(scan_of(without(energy_documents, "flat")))
    with pytest.raises(ScanError, match="it scans jaws, expected a scan of energy"):
        evaluate_energy_scan(scan_of(jaw_documents))
    with pytest.raises(ScanError, match=r"0 flats of helicity \+1, at least 2"):
        evaluate_polarization_scan(scan_of(without(jaw_documents, "flat")))
    with pytest.raises(ScanError, match="in both helicities, or those of all heights, lack"):
        evaluate_polarization_scan(scan_of(without(jaw_documents, "primary")))
    with pytest.raises(ScanError, match="'vector_tomography' is not a scan"):
        scan_of([("start", {"uid": "1", "plan_name": "vector_tomography"})])


def test_figures_are_drawn_with_units(
    energy_documents: Documents, jaw_documents: Documents, tmp_path: Path
) -> None:
    energy = scan_figures.energy_figure(evaluate_energy_scan(scan_of(energy_documents)))
    jaws = scan_figures.polarization_figure(evaluate_polarization_scan(scan_of(jaw_documents)))
    assert labels(energy)[-1] == "photon energy (eV)"
    assert labels(jaws)[-1] == "vertical angle above the orbit plane (mrad)"
    scan_figures.write_figure(scan_of(jaw_documents), tmp_path / "jaws.png")
    assert (tmp_path / "jaws.png").read_bytes().startswith(b"\x89PNG")


def labels(figure: Figure) -> list[str]:
    return [axes.get_xlabel() for axes in figure.axes]


def test_examples() -> None:
    result = doctest.testmod(scan_figures)
    assert (result.attempted > 0, result.failed) == (True, 0)
