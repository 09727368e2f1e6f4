"""Wrong input of every command: one clear line on stderr, nothing on stdout, exit code 2."""

import json
import socket

import h5py
import numpy as np
import pytest

from mistral_txm.profile_collection.command_line import main


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
    "demo", "ioc", "plan", "status", "resume", "verify", "runs", "live", "monitor", "process",
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
