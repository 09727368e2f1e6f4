"""What a simulated beamline is started with: refused before anything starts, found again when a series is resumed."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mistral_txm.plans import Measurement
from mistral_txm.plans.steps import manifest
from mistral_txm.profile_collection import start
from mistral_txm.profile_collection.command_line import main
from mistral_txm.profile_collection.commands import measurement
from mistral_txm.profile_collection.simulation import (
    Simulation,
    usable_conditions,
    usable_faults,
    usable_texture,
)
from mistral_txm.services.journal import JournalWriter

OVF = """# OOMMF OVF 2.0
# Segment count: 1
# Begin: Segment
# Begin: Header
# Title: m
# meshtype: rectangular
# meshunit: nm
# xbase: 5
# ybase: 5
# zbase: 5
# xstepsize: 10
# ystepsize: {step}
# zstepsize: 10
# xmin: 0
# ymin: 0
# zmin: 0
# xmax: 20
# ymax: 30
# zmax: 20
# xnodes: 2
# ynodes: 3
# znodes: 2
# valuedim: 3
# valuelabels: x y z
# valueunits: {unit} {unit} {unit}
# End: Header
# Begin: Data Text
{values}
# End: Data Text
# End: Segment
"""


@pytest.fixture
def ovf(tmp_path):
    """A file in which mx, my, mz of node x, y, z are cos, sin, 0 of its number, x fastest."""

    def write(name="swirl.ovf", step=10, unit="1", norm=1.0):
        lines = [f"{norm * np.cos(n)} {norm * np.sin(n)} 0" for n in range(12)]
        path = tmp_path / name
        path.write_text(OVF.format(step=step, unit=unit, values="\n".join(lines)))
        return path

    return write


def test_an_ovf_file_is_converted_for_the_simulated_beamline(ovf, tmp_path):
    data = tmp_path / "data"
    found = Path(usable_texture(ovf(), data))
    assert found.parent == data / "textures"
    assert found.name.startswith("swirl-")
    number = np.arange(12).reshape(2, 3, 2)
    with h5py.File(found) as file:
        np.testing.assert_allclose(file["mx"][...], np.cos(number), atol=1e-6)
        np.testing.assert_allclose(file["my"][...], np.sin(number), atol=1e-6)
        assert not file["mz"][...].any()
        assert file.attrs["voxel_nm"] == 10


def test_a_magnetization_in_amperes_per_metre_becomes_a_direction(ovf, tmp_path):
    with h5py.File(usable_texture(ovf(unit="A/m", norm=8.6e5), tmp_path)) as file:
        np.testing.assert_allclose(file["mx"][0, 0], [1, np.cos(1)], atol=1e-6)


def test_two_textures_in_one_data_folder_are_kept_apart(ovf, tmp_path):
    one = usable_texture(ovf(), tmp_path / "data")
    path = ovf("other.ovf")
    path.write_text(path.read_text().replace("xstepsize: 10", "xstepsize: 10.0"))
    assert usable_texture(path, tmp_path / "data") != one
    assert usable_texture(ovf(), tmp_path / "data") == one


def test_files_are_kept_as_absolute_paths(ovf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = usable_texture(ovf(), tmp_path)
    assert usable_texture(Path(found).relative_to(tmp_path), tmp_path) == found
    (tmp_path / "calm.toml").write_text("[goniometer]\nrun_out_nm = 1.0\n")
    assert usable_conditions("calm.toml") == str(tmp_path / "calm.toml")
    assert usable_conditions("real") == "real"
    assert usable_texture("stripes", tmp_path) == "stripes"


def test_the_options_of_the_process_are_those_of_the_run():
    simulation = Simulation("small", "stripes", 3, "real", 0.5)
    words = simulation.options()
    assert dict(zip(words[::2], words[1::2], strict=True)) == {
        "--size": "small",
        "--texture": "stripes",
        "--seed": "3",
        "--conditions": "real",
        "--time-scale": "0.5",
    }
    assert simulation == Simulation(**simulation.metadata())


def test_voxels_that_are_no_cubes_are_refused(ovf, tmp_path):
    with pytest.raises(ValueError, match=r"swirl.ovf: voxels of 10 x 20 x 10 nm; expected cubes"):
        usable_texture(ovf(step=20), tmp_path)


def test_faults_are_checked_by_name_and_kind():
    assert usable_faults(["beam_dump", "theta.stall=-1"]) == ("beam_dump", "theta.stall=-1")
    with pytest.raises(ValueError, match="'beam_dmp' is unknown; the nearest are beam_dump"):
        usable_faults(["beam_dmp"])


def test_a_series_is_resumed_in_its_own_simulation_without_its_faults(tmp_path, monkeypatch):
    """The frames that are missing have to be like those that are there."""
    simulation = Simulation("medium", "vortex", 5, str(tmp_path / "calm.toml"), 0.01)
    film = Measurement.from_dict(
        {
            "sample": {"name": "film"},
            "tilts": [{"first_deg": 0.0, "last_deg": 0.0, "exposure_s": 8.0, "repeats": 1}],
            "azimuths_deg": [0.0],
            "energies_ev": [707.4],
            "flats": {"exposure_s": 3.0, "repeats": 1},
            "darks": {"repeats": 1},
        }
    )
    with JournalWriter(tmp_path / "journal") as journal:
        begun = {"uid": "run", "time": 1.0, "series": "it", "energy_ev": 707.4}
        plan = {"measurement": film.to_dict(), "planned_keys": manifest(film)}
        journal("start", begun | plan | {"simulation": simulation.metadata()})
    calls = []
    monkeypatch.setattr(
        measurement, "_measure", lambda *args, **options: calls.append((args, options))
    )
    assert main(["resume", "--data", str(tmp_path)]) == 0
    (((data, started, uid, _), options),) = calls
    assert (data, uid) == (tmp_path, "it")
    assert started == {
        "size": "medium",
        "texture": "vortex",
        "seed": 5,
        "conditions": str(tmp_path / "calm.toml"),
    }
    assert "faults" not in options
    assert options["measurement"] == film.to_dict()
    assert not any(options["done"].values())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"texture": "nonsense"}, "'nonsense' is unknown"),
        ({"texture": "/nowhere/m.ovf"}, "'/nowhere/m.ovf': no such file"),
        ({"conditions": "perfect"}, "'perfect' are unknown: expected ideal or real"),
        ({"conditions": "/nowhere.toml"}, "/nowhere.toml: No such file"),
        ({"faults": ["beam_dump=2"]}, "beam_dump = 2: expected 0 or 1"),
        ({"config": "/nowhere.toml"}, "/nowhere.toml: No such file"),
    ],
)
def test_a_session_is_refused_before_anything_starts(tmp_path, monkeypatch, wrong, words):
    monkeypatch.setattr("mistral_txm.profile_collection.session.ServiceProcess", None)
    with pytest.raises(ValueError, match=words):
        start(simulated=True, data=tmp_path, **wrong)
    assert not (tmp_path / "logs").exists()
