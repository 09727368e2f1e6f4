"""Runs that are opened, and closed whatever happens in between."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky import Msg
from bluesky.utils import MsgGenerator, RunEngineControlException

from mistral_txm.plans.failures import reason_of


def opened_runs(
    metadata: Mapping[Hashable, Mapping[str, Any]],
    body: Callable[[dict[Hashable, str]], MsgGenerator[None]],
) -> MsgGenerator[dict[Hashable, str]]:
    """Open runs side by side, do what `body` makes of their uids, close the runs; after a failure with its reason.

    Parameters
    ----------
    metadata
        By the key of each run: what `in_run` takes.

    Returns
    -------
    dict
        The uids of the runs, by their keys.
    """
    uids: dict[Hashable, str] = {}

    def run() -> MsgGenerator[None]:
        for key, md in metadata.items():
            uids[key] = yield from in_run(key, bps.open_run(dict(md)))
            yield from bps.checkpoint()  # what is repeated from here on finds the run open
        yield from body(uids)

    def close(failure: Exception | None = None) -> MsgGenerator[None]:
        end: dict[str, Any] = {}
        if isinstance(failure, RunEngineControlException):
            end = {"exit_status": failure.exit_status}
        elif failure is not None:
            end = {"exit_status": "fail", "reason": reason_of(failure)}
        yield Msg("rewindable", None, False)  # a pause from here on repeats nothing
        for key in uids:
            yield from in_run(key, bps.close_run(**end))
        yield Msg("rewindable", None, True)

    yield from bpp.contingency_wrapper(run(), except_plan=close, else_plan=close)
    return uids


def in_run(key: Hashable, plan: MsgGenerator[Any]) -> MsgGenerator[Any]:
    """Let the messages of a plan belong to the open run of that key; None: to the only one."""
    return plan if key is None else bpp.set_run_key_wrapper(plan, run=key)


def repeatable() -> MsgGenerator[None]:
    """Let a pause repeat the messages from here on, and none from before.

    A plan that ended inside an exposure may have left repetition off, or an Event open, where a
    checkpoint is not allowed.
    """
    yield Msg("rewindable", None, False)
    yield Msg("rewindable", None, True)
