"""What fails in the live reconstruction is told and left out; it ends nothing, whatever it is."""

import logging
from collections.abc import Hashable

from mistral_txm.services.frame_files import FrameError

logger = logging.getLogger(__name__)

_EXPECTED = ValueError, FrameError, OSError
"""What bad data and disks lead to; all else is a fault of this program."""


class Failures:
    """Logs what fails, each thing once, until it is well or fails otherwise: it is tried again every few seconds."""

    def __init__(self) -> None:
        self._told: dict[Hashable, str] = {}

    def tell(self, of: Hashable, failure: Exception, what: str = "") -> str:
        """Log a failure of something, unless it was logged, and return it as one line, after `what`."""
        line = what + one_line(failure)
        if self._told.get(of) != line:
            logger.error("%s", line, exc_info=None if _is_expected(failure) else failure)
        self._told[of] = line
        return line

    def over(self, of: Hashable) -> None:
        """Take note that something is well."""
        self._told.pop(of, None)


def one_line(failure: Exception) -> str:
    """Return what failed as one line.

    >>> one_line(ValueError("theta -44 deg: no light"))
    'theta -44 deg: no light'
    >>> one_line(IndexError("out of\\nrange"))
    'a fault of the program, its log tells where: IndexError: out of range'
    """
    text = " ".join(str(failure).split())
    if _is_expected(failure):
        return text
    return f"a fault of the program, its log tells where: {type(failure).__name__}: {text}"


def _is_expected(failure: Exception) -> bool:
    return isinstance(failure, _EXPECTED)
