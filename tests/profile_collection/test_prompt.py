"""What the commands of the prompt print."""

from types import SimpleNamespace

import pytest

from mistral_txm.profile_collection.prompt import OperatorCommands


@pytest.mark.parametrize(
    ("on", "line"),
    [
        ({}, "none"),
        ({"beam_dump": 1, "theta.encoder_jump": 0.25}, "beam_dump = 1, theta.encoder_jump = 0.25"),
    ],
)
def test_where_all_is_tells_which_faults_are_on(capsys, on, line):
    commands = OperatorCommands(None, SimpleNamespace(devices={}), SimpleNamespace(on=on))
    commands.wa("")
    assert capsys.readouterr().out.split(maxsplit=1) == ["faults", f"{line}\n"]


def test_a_real_beamline_has_no_faults_to_tell(capsys):
    OperatorCommands(None, SimpleNamespace(devices={}), None).wa("")
    assert capsys.readouterr().out == ""
