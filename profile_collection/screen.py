"""Where the lines of a measurement go: to the screen, and with those of the engine to a file."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path


class _LogFile(logging.FileHandler):
    """A log that gives up in silence where its disk is full: that is told by what matters more."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Print no stack trace."""

    def close(self) -> None:
        """Close the file, with or without its last lines."""
        with suppress(OSError):
            super().close()


class _Screen(logging.Handler):
    """Shows the operator a line with its time, above the line of the progress, which renews itself."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show a line; one that cannot be shown is in the file."""
        with suppress(OSError, ValueError):
            clear = "\r\x1b[K" if sys.stderr.isatty() else ""
            time_of_day = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
            print(f"{clear}{time_of_day} {record.getMessage()}", file=sys.stderr, flush=True)


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Keep what is logged in a file; the operator reads the lines of a measurement, not stack traces."""
    file = _LogFile(path, delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
    screen = _Screen()
    measurement = logging.getLogger("mistral_txm.measurement")
    level = measurement.level
    measurement.setLevel(logging.INFO)
    handlers = [
        *((logging.getLogger(name), file) for name in ("bluesky", "ophyd")),
        (measurement, file),
        (measurement, screen),
    ]
    for logger, handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, handler in handlers:
            logger.removeHandler(handler)
        measurement.setLevel(level)
        file.close()
