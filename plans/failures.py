"""Why something failed, in one line: for the screen, the log and the documents."""

from collections.abc import Sequence

from bluesky.utils import FailedStatus


def cause_of(failure: BaseException) -> BaseException:
    """Return what a device said: the engine hides it one level down, in a failed status."""
    hidden = failure.__cause__ if isinstance(failure, FailedStatus) else None
    return hidden or failure


def reason_of(failure: BaseException) -> str:
    """Say in one line why something failed.

    >>> reason_of(TimeoutError("ccd: no frame\\nwithin 31 s")), reason_of(TimeoutError())
    ('ccd: no frame within 31 s', 'TimeoutError')
    """
    cause = cause_of(failure)
    return " ".join(str(cause).split()) or type(cause).__name__


def not_put_back(complaints: Sequence[str]) -> str:
    """Say what else is wrong after a failure; empty where nothing is.

    >>> not_put_back(["shutter: not closed within 2 s"])
    '; not put back: shutter: not closed within 2 s'
    """
    return f"; not put back: {'; '.join(complaints)}" if complaints else ""
