"""What fails in the live reconstruction is told and left out; it ends nothing, whatever it is."""

import logging

from mistral_txm.services.frame_files import FrameError

logger = logging.getLogger(__name__)

EXPECTED = ValueError, FrameError
"""What bad data lead to; all else is a fault of this program."""


def one_line(failure: Exception) -> str:
    """Return what failed as one line.

    >>> one_line(ValueError("theta -44 deg: no light"))
    'theta -44 deg: no light'
    >>> one_line(IndexError("out of\\nrange"))
    'a fault of the program, its log tells where: IndexError: out of range'
    """
    text = " ".join(str(failure).split())
    if isinstance(failure, EXPECTED):
        return text
    return f"a fault of the program, its log tells where: {type(failure).__name__}: {text}"


def log(line: str, failure: Exception) -> None:
    """Log a line, and where a fault of the program happened."""
    logger.error("%s", line, exc_info=None if isinstance(failure, EXPECTED) else failure)
