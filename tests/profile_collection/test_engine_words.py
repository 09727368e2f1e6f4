"""What the engine prints reaches the operator in our words, and what it prints of something else as it is."""

import logging
from pathlib import Path

import bluesky.run_engine
import bluesky.utils
import pytest

from mistral_txm.profile_collection import engine_words


@pytest.fixture
def engine_prints(monkeypatch):
    """Print as the engine does, with our words in place; afterwards as before."""
    for module in (bluesky.run_engine, bluesky.utils):
        monkeypatch.setattr(module, "print", print, raising=False)
    engine_words.use_our_words()
    return lambda *words: bluesky.run_engine.print(*words)


def test_a_pause_is_told_once_and_the_words_of_the_engine_are_in_the_log(
    engine_prints, capsys, caplog
):
    caplog.set_level(logging.INFO)
    engine_prints("A 'deferred pause' has been requested. The RunEngine will pause ..")
    engine_prints("Deferred pause acknowledged. Continuing to checkpoint.")
    engine_prints("Pausing...")
    assert capsys.readouterr().out == ""
    told = [r.getMessage() for r in caplog.records if r.name == "mistral_txm.measurement"]
    assert told == ["Ctrl-C: pausing after this exposure; press it again to pause at once"]
    assert len([record for record in caplog.records if record.name == "bluesky"]) == 3


def test_a_line_that_is_not_known_is_printed_as_it_is(engine_prints, capsys):
    line = "An unknown external library has improperly raised KeyboardInterrupt."
    engine_prints(line)
    engine_prints()
    assert capsys.readouterr().out == f"{line}\n\n"


def test_the_engine_still_has_every_line_that_is_replaced():
    """A release of bluesky that words one differently would print it to the operator."""
    sources = [Path(module.__file__).read_text() for module in (bluesky.run_engine, bluesky.utils)]
    for begin in engine_words.INSTEAD:
        assert any(f'"{begin}' in source for source in sources), begin
