"""What an installed package holds, and what its rooms import."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
ROOMS = (
    "devices",
    "plans",
    "reconstruction",
    "simulated_beamline",
    "services",
    "profile_collection",
)


def test_every_folder_of_the_rooms_is_packaged_and_nothing_else():
    folders = {
        file.parent.relative_to(ROOT) for room in ROOMS for file in (ROOT / room).rglob("*.py")
    }
    named = {".".join(("mistral_txm", *folder.parts)): folder for folder in folders}
    assert set(SETUPTOOLS["packages"]) == set(named)
    assert {name: Path(place) for name, place in SETUPTOOLS["package-dir"].items()} == named


def test_every_package_has_its_init_file_and_every_room_says_that_it_is_typed():
    for folder in SETUPTOOLS["package-dir"].values():
        assert (ROOT / folder / "__init__.py").is_file()
    assert [room for room in ROOMS if not (ROOT / room / "py.typed").is_file()] == []


@pytest.mark.slow
@pytest.mark.parametrize("room", ["plans", "profile_collection", "services.live", "reconstruction"])
def test_importing_a_room_does_not_set_up_channel_access(room):
    """libca reads its environment once, when ophyd or pyepics is imported: `start` has to come before."""
    code = f"import sys, mistral_txm.{room}; print([m for m in ('ophyd', 'epics') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "[]\n"
