"""What the RunEngine prints of a pause or an end, in the words of an operator: each is told once, by this package."""

import builtins
import logging
from typing import Any

import bluesky.run_engine
import bluesky.utils

logger = logging.getLogger("mistral_txm.measurement")

INSTEAD = {
    "A 'deferred pause' has been requested": "Ctrl-C: pausing after this exposure; press it again to pause at once",
    "A 'hard pause' has been requested": "Ctrl-C: pausing at once",
    "Deferred pause acknowledged": "",
    "Pausing...": "",
    "Suspending": "",
    "Suspension occurred": "",
    "Justification for this suspension": "",
    "No checkpoint; cannot suspend": "the light was lost where the plan cannot wait: it is ended",
    "Aborting: ": "ending the plan, and putting everything back",
    "Stopping: ": "ending the plan, and putting everything back",
    "Halting: ": "the plan is cut off, and nothing is put back",
}
"""How a line of the engine begins, and what is said instead; nothing, where another line of ours tells it."""


def use_our_words() -> None:
    """Replace what the engine prints; its own lines go to the log, and one that is not known is printed as it is."""
    for module in (bluesky.run_engine, bluesky.utils):
        module.print = _print


def _print(*words: Any, **options: Any) -> None:
    line = str(words[0]) if words else ""
    for begin, instead in INSTEAD.items():
        if line.startswith(begin):
            logging.getLogger("bluesky").info(" ".join(map(str, words)))
            if instead:
                logger.info(instead)
            return
    builtins.print(*words, **options)
