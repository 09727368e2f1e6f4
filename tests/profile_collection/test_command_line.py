"""Wrong input of every command: one clear line on stderr, nothing on stdout, exit code 2."""

import json
import re
import socket
from functools import partial

import h5py
import numpy as np
import pytest

from mistral_txm.profile_collection.command_line import main
from mistral_txm.reconstruction import (
    AlignedSeries,
    Grid,
    TiltSeries,
    read_aligned,
    read_volume,
    reconstruct,
    write_aligned,
)
from mistral_txm.reconstruction.uncertainty import with_bootstrap_std


@pytest.fixture
def refuse(capsys):
    """Run a command that must be refused and return its one line."""

    def run(*arguments, code=2):
        try:
            found = main([str(one) for one in arguments])
        except SystemExit as end:
            found = end.code
        output = capsys.readouterr()
        assert found == code
        assert output.out == ""
        assert output.err.count("\n") == 1
        assert output.err.startswith("mistral-txm")
        return output.err

    return run


@pytest.fixture
def aligned(tmp_path):
    path = tmp_path / "aligned.h5"
    with h5py.File(path, "w") as file:
        file["Angles"] = np.linspace(-50, 50, 5)
        for name in ("MagneticSignal2DAligned", "Absorption2DAligned"):
            file[name] = np.random.default_rng(0).normal(0, 0.1, (5, 16, 16)).astype(np.float32)
    return path


COMMANDS = (
    "demo", "ioc", "plan", "status", "resume", "verify", "runs", "live", "monitor", "notify", "process",
    "reconstruct", "topology", "export", "report",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "usage: mistral-txm " + command in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_refused(refuse, command):
    assert "see mistral-txm" in refuse(command, "--no-such-option")


@pytest.mark.parametrize("command", ["status", "verify", "resume", "runs"])
def test_a_data_folder_that_is_not_there(refuse, command, tmp_path):
    assert "no such data folder" in refuse(command, "--data", tmp_path / "nowhere")


@pytest.mark.parametrize("command", ["status", "verify", "resume"])
def test_a_series_that_is_not_there(refuse, command, tmp_path):
    assert "no such series" in refuse(command, "--data", tmp_path, "--series", "abc")


def test_a_run_that_is_not_there(refuse, tmp_path):
    assert "no such run" in refuse("runs", "show", "abc", "--data", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("demo", "--size", "huge"), "invalid choice"),
        (("demo", "--seed", "-1"), "at least 0"),
        (("demo", "--texture", "nonsense"), "nonsense"),
        (("demo", "--texture", "/nowhere.ovf"), "no such file"),
        (("demo", "--conditions", "perfect"), "expected ideal or real"),
        (("demo", "--fault", "bem_dump"), "the nearest are beam_dump"),
        (("ioc", "--fault", "beam_dump=2"), "expected 0 or 1"),
        (("ioc", "--conditions", "/nowhere.toml"), "No such file"),
        (("ioc", "--time-scale", "fast"), "expected a finite number"),
        (("ioc", "--texture", "nonsense"), "nonsense"),
        (("ioc", "--port", "65536"), "65535"),
        (("monitor", "--port", "x"), "whole number"),
        (("monitor", "--port", "65536"), "65535"),
        (("plan",), "required"),
        (("plan", "--summary", "--config", "/nowhere.toml"), "/nowhere.toml"),
        (("topology", "/nowhere.h5"), "/nowhere.h5: no such file"),
        (("report", "/nowhere.h5", "--output", "/tmp"), "/nowhere.h5: no such file"),
        (("export", "/nowhere.h5", "--format", "vti", "--output", "x.vti"), "/nowhere.h5"),
        (("export", "/nowhere.h5", "--format", "doc", "--output", "x"), "invalid choice"),
        (("process", "/nowhere.h5", "--output", "x.h5"), "/nowhere.h5: no such file"),
        (("reconstruct", "/nowhere.h5", "--phi", "0", "--output", "x.h5"), "/nowhere.h5"),
        (("reconstruct", "a.h5", "--phi", "east", "--output", "x.h5"), "'east'"),
        (("reconstruct", "a.h5", "--output", "x.h5"), "--phi"),
    ],
)
def test_bad_input_is_one_line(refuse, arguments, words):
    assert words in refuse(*arguments)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--phi", "0", "102"), "1 files but 2 azimuths"),
        (("--phi", "0", "--prior", "layers"), "layers"),
        (("--phi", "0", "--prior", "norm"), "layers"),
        (("--phi", "0", "--layers", "40:-40"), "Z0 below Z1"),
        (("--phi", "0", "--method", "magic"), "invalid choice"),
        (("--phi", "0", "--depth-voxels", "0"), "at least 1"),
        (("--phi", "0", "--voxel-nm", "-3"), "above 0"),
        (("--phi", "0", "--delta-per-nm", "nan"), "finite"),
        (("--phi", "4000"), "azimuth"),
        (("--phi", "0", "--roll", "0", "30"), "1 files but 2 rolls"),
        (("--phi", "0", "--isolated"), "method 'direct': it is made for a film"),
        (("--phi", "0", "--workers", "0"), "workers: 0, expected at least 1"),
        (("--phi", "0", "--workers", "both"), "'both' is neither a number of processes nor"),
        (("--phi", "0", "--bootstrap", "1"), "at least 2"),
        (("--phi", "0", "--bootstrap", "3", "--method", "art"), "'art' weights all views alike"),
        (
            ("--phi", "0", "--isolated", "--method", "cgls", "--residual-maps", "m.h5"),
            "--residual-maps: made for a film",
        ),
        (("--phi", "0", "--residual-maps", "/nowhere/m.h5"), "/nowhere does not exist"),
    ],
)
def test_reconstruct_refuses(refuse, aligned, tmp_path, options, words):
    output = tmp_path / "out.h5"
    assert words in refuse("reconstruct", aligned, "--output", output, *options)
    assert not output.exists()


def test_an_isolated_structure_is_reconstructed(aligned, tmp_path, capsys):
    output = tmp_path / "out.h5"
    arguments = [
        "reconstruct", aligned, "--phi", 0, "--roll", 20, "--isolated", "--method", "sirt", "--depth-voxels", 6,
        "--output", output,
    ]  # fmt: skip
    main([str(one) for one in arguments])
    assert "(6, 16, 16) voxels [z, y, x], sirt, prior none" in capsys.readouterr().out
    with h5py.File(output) as file:
        assert json.loads(file["provenance"].attrs["options"])["roll_deg"] == [20.0]


def reconstructed(*arguments):
    assert main(["reconstruct", *[str(one) for one in arguments]]) == 0


def test_the_maps_of_residuals_do_not_replace_the_volume(refuse, aligned, tmp_path):
    both = tmp_path / "out.h5"
    options = ("--phi", 0, "--output", both, "--residual-maps", both)
    assert "name one file" in refuse("reconstruct", aligned, *options)


def test_what_is_said_of_a_volume(aligned, tmp_path, capsys):
    """The same numbers for a person and for a program, against the file's own."""
    options = (aligned, "--phi", 0, "--depth-voxels", 4, "--output", tmp_path / "out.h5")
    reconstructed(*options, "--json")
    told = json.loads(capsys.readouterr().out)
    with h5py.File(tmp_path / "out.h5") as file:
        rms = file["provenance/residual_rms"][()]
    assert told["residual"]["rms"] == pytest.approx(np.sqrt(np.mean(rms**2)))
    # white noise of standard deviation 0.1, of which little is fitted and some resampled away
    assert 0.5 < told["residual"]["over_noise"] < 1.2
    assert told["residual"]["largest"]["theta_deg"] in np.linspace(-50, 50, 5)
    assert told["residual"]["largest"]["over_noise"] >= told["residual"]["over_noise"]
    assert "resolution_nm" not in told
    assert "bootstrap" not in told
    reconstructed(*options)
    of_residual = capsys.readouterr().out.splitlines()[1]
    assert of_residual.startswith(f"left of the signal: {told['residual']['rms']:.2g} rms")


def test_the_standard_deviation_of_the_views_is_taken_from_the_file(aligned, tmp_path, capsys):
    """What is left of the signal is the same; in units of twice the noise it is half."""
    found = []
    for std in (0.1, 0.2):
        with h5py.File(aligned, "a") as file:
            file.require_dataset("MagneticSignalStd", (5,), "f8")[:] = std
        options = ("--phi", 0, "--depth-voxels", 4, "--method", "sirt", "--json")
        reconstructed(aligned, *options, "--output", tmp_path / "out.h5")
        found.append(json.loads(capsys.readouterr().out)["residual"])
    assert found[1]["rms"] == pytest.approx(found[0]["rms"])
    assert found[1]["over_noise"] == pytest.approx(found[0]["over_noise"] / 2)


def test_std_by_the_bootstrap(aligned, tmp_path, capsys):
    """It takes the place of the analytic one, in the file and in what is exported from it."""
    options = (aligned, "--phi", 0, "--depth-voxels", 4, "--output", tmp_path / "out.h5")
    reconstructed(*options)
    with h5py.File(tmp_path / "out.h5") as file:
        analytic, mx = file["std"][()], file["mx"][()]
    reconstructed(*options, "--bootstrap", 3)
    assert "standard deviation of a component by the noise" in capsys.readouterr().out
    volume = read_volume(tmp_path / "out.h5")
    assert volume.options["bootstrap"] == 3
    np.testing.assert_array_equal(volume.mx, mx)
    (series,) = [
        TiltSeries(0.0, one.theta_deg, one.dichroic_tvu) for one in [read_aligned(aligned)]
    ]
    solve = partial(reconstruct, grid=Grid((4, 16, 16), 10.5))
    expected = with_bootstrap_std(solve([series]), [series], solve, 3).std
    np.testing.assert_array_equal(volume.std, expected)
    assert not np.allclose(expected, analytic)
    main(
        ["export", str(tmp_path / "out.h5"), "--format", "vti", "--output", str(tmp_path / "m.vti")]
    )
    exported = (tmp_path / "m.vti").read_bytes()
    assert b'Name="std"' in exported
    assert expected.astype("<f4").tobytes() in exported


def test_resolution_of_half_sets(tmp_path, capsys):
    """A film seen from above whose m_z ends at 60 nm; the flats' noise that all views share is told from it."""
    n, voxel_nm = 64, 10.5
    rng = np.random.default_rng(3)
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(n, voxel_nm), np.fft.fftfreq(n, voxel_nm)))
    truth = np.fft.ifft2(np.fft.fft2(rng.standard_normal((n, n))) * (k < 1 / 60)).real
    noise = truth.std() * rng.standard_normal((8, n, n))
    path = tmp_path / "above.h5"
    options = (path, "--phi", 0, "--depth-voxels", 1, "--resolution", "--output", tmp_path / "o.h5")
    for shared, words in (
        (0.0, r"resolution of half sets: (5\d|6\d) nm in the plane\n"),
        (0.5, "resolution: not told: the halves"),
    ):
        images = (truth + noise + shared * rng.standard_normal((n, n))).astype(np.float32)
        write_aligned(path, AlignedSeries(np.linspace(-2, 2, 8), images, images))
        reconstructed(*options)
        assert re.search(words, capsys.readouterr().out)
    reconstructed(*options, "--json")
    assert json.loads(capsys.readouterr().out)["resolution_nm"] == {"lateral": None, "axial": None}


def test_residual_maps_are_written(aligned, tmp_path, capsys):
    maps = tmp_path / "maps.h5"
    options = ("--depth-voxels", 2, "--residual-maps", maps, "--output", tmp_path / "out.h5")
    reconstructed(aligned, "--phi", 0, *options)
    assert f"{maps}: residuals of the views" in capsys.readouterr().out
    with h5py.File(maps) as file:
        assert file["residual"].shape == (5, 16, 16)
        assert file["misfit"].shape == (2, 16, 16)


@pytest.mark.slow
def test_workers_work_without_a_word(aligned, tmp_path, capfd):
    options = ("--depth-voxels", 2, "--bootstrap", 2, "--resolution")
    volumes = []
    for workers in (1, 2):
        output = tmp_path / f"{workers}.h5"
        reconstructed(aligned, "--phi", 0, *options, "--workers", workers, "--output", output)
        told = capfd.readouterr()
        assert told.err.startswith("one azimuth alone")
        assert told.err.count("\n") == 1
        volumes.append(output.read_bytes())
    assert volumes[0] == volumes[1]


def test_an_output_whose_folder_is_missing(refuse, aligned, tmp_path):
    line = refuse("reconstruct", aligned, "--phi", 0, "--output", tmp_path / "no" / "out.h5")
    assert "does not exist" in line


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ((2, 3, 4), np.inf, "Inf"),
        ((...,), np.nan, "no pixel of any view has a value"),
        ((...,), 0.0, "zero in every view"),
    ],
)
def test_signals_that_say_nothing(refuse, aligned, tmp_path, where, value, words):
    with h5py.File(aligned, "r+") as file:
        file["MagneticSignal2DAligned"][where] = value
    assert words in refuse("reconstruct", aligned, "--phi", 0, "--output", tmp_path / "o.h5")


def test_a_file_of_another_kind(refuse, tmp_path):
    path = tmp_path / "notes.h5"
    path.write_text("not HDF5")
    assert "notes.h5" in refuse("topology", path)


@pytest.mark.parametrize("command", ["demo", "ioc"])
def test_faults_are_listed_with_their_meaning(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--list-faults"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("beam_dump ")] == [
        ["beam_dump", "switch"]
    ]
    assert sum(".stall " in line for line in lines) == 1
    assert max(map(len, lines)) <= 120


def test_a_port_that_is_taken(tmp_path, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with pytest.raises(SystemExit) as end:
            main(["ioc", "--data", str(tmp_path), "--port", port])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert port in line
