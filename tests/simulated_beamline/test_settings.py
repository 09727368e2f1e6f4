"""Conditions are read strictly, and say what is wrong in one line."""

import tomllib

import pytest

from mistral_txm.devices.strict_toml import ConfigurationError
from mistral_txm.simulated_beamline.settings import COMPLETE, FOLDER, load_settings, names


def test_the_packaged_conditions_are_these():
    assert names() == ["ideal", "real"]


def test_ideal_differs_from_real_in_what_its_file_names_alone():
    ideal, real = load_settings("ideal").model_dump(), load_settings("real").model_dump()
    named = tomllib.loads((FOLDER / "ideal.toml").read_text(encoding="utf-8"))
    for section, values in real.items():
        for key, value in values.items():
            if key not in named.get(section, {}):
                assert ideal[section][key] == value


def test_every_number_of_real_has_an_origin():
    lines = COMPLETE.read_text(encoding="utf-8").splitlines()
    assert all("#" in line for line in lines if "=" in line and not line.startswith("#"))


def test_a_file_of_the_users_changes_what_it_names(tmp_path):
    path = tmp_path / "noisy.toml"
    path.write_text("[camera]\nread_noise_electrons = 20.0\n[faults]\nbeam_lost = 2\n")
    settings = load_settings(path)
    assert settings.camera.read_noise_electrons == 20
    assert settings.camera.offset_counts == load_settings("real").camera.offset_counts
    assert settings.faults == {"beam_lost": 2}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[goniometer]\nrun_out_n = 3.0\n", ":2: unknown key 'run_out_n' in [goniometer]; the"),
        ("[camera]\n\nread_noise_electrons = -1.0\n", ":3: read_noise_electrons = -1.0"),
        ("[faults]\nbeam_dum = 1\n", "'beam_dum' is unknown; the nearest are beam_dump"),
        ("[faults]\nbeam_dump = 2\n", "beam_dump = 2: expected 0 or 1"),
        ("[clock\n", "not TOML"),
        ("[beam]\nnominal_jaw_up_mm = 1.0\n", "must be below nominal_jaw_up_mm = 1.0"),
        ("[image]\njitter_pixels = 3.0\n", ":2: jitter_pixels = 3.0"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, text, complaint):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as refusal:
        load_settings(path)
    assert str(path) in str(refusal.value)
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_unknown_name_or_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="ideal or real"):
        load_settings("perfect")
    with pytest.raises(ConfigurationError, match="No such file"):
        load_settings(tmp_path / "none.toml")
