"""Helper processes that never outlive the process which started them.

The parent holds the write end of a pipe that is the helper's standard input. However the parent
ends, also by ``kill -9``, the operating system closes that end, the helper reads the end of file
and stops itself. Helpers run in a session of their own, so that Ctrl-C in a terminal reaches the
parent alone, which then stops them in its own order.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

GRACE_S = 10.0
"""Time that a helper has to end by itself before it is killed, s."""


class ServiceError(RuntimeError):
    """A helper process did not start; the message says which one, why, and where its log is."""


def watch_parent(grace_s: float = GRACE_S) -> threading.Thread:
    """Stop this process when its standard input ends, which is when its parent is gone.

    A daemon thread waits for the end of file; it then sends SIGTERM to this process, and SIGKILL if
    that has not ended it after ``grace_s`` seconds. Call it in a helper that was started with
    ``--lifeline``.

    Returns
    -------
    threading.Thread
        The waiting thread; nothing needs to be done with it.
    """

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(descriptor, 4096):
                pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
        os.kill(os.getpid(), signal.SIGKILL)

    descriptor = sys.stdin.fileno()
    thread = threading.Thread(target=wait, name="lifeline", daemon=True)
    thread.start()
    return thread


class ServiceProcess:
    """One helper, ``python -m module arguments``, with a lifeline, a ready line and a log file.

    The helper must print one line of JSON on its standard output when it is ready; its standard
    error, and whatever it prints later, go to ``log``. Several helpers start side by side when each
    is started before the first is waited for:

    .. code-block:: python

        with ServiceProcess("mistral_txm.services.catalog", arguments, log=log) as catalog:
            ...  # start others meanwhile
            address = catalog.wait_ready(60.0)["uri"]

    Parameters
    ----------
    module
        Module that is run; it is given ``--lifeline`` by the caller, as part of ``arguments``.
    arguments
        Its command line.
    log
        File that receives its messages; the folder is made, an older log is appended to.
    environment
        Environment variables of the helper; ``None`` hands over those of this process.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.module = module
        self.log = log
        self._command = [sys.executable, "-m", module, *arguments]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._ready: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def process_id(self) -> int | None:
        """Number of the process, ``None`` before the start."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the helper and return at once.

        Raises
        ------
        ServiceError
            If it is running already.
        """
        if self.running:
            raise ServiceError(f"{self.module}: already running as process {self.process_id}")
        self.stop()
        self._ready = None
        self._lines = queue.SimpleQueue()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=None if self._environment is None else dict(self._environment),
                start_new_session=True,
            )
        assert self._process.stdout is not None
        threading.Thread(
            target=_drain, args=(self._process.stdout, self._lines, self.log), daemon=True
        ).start()

    def wait_ready(self, timeout_s: float) -> dict[str, Any]:
        """Wait for the helper's ready line and return what it says.

        Raises
        ------
        ServiceError
            If the helper ends, prints something else, or is not ready in time; it is stopped then.
        """
        if self._ready is not None:
            return self._ready
        if self._process is None:
            raise ServiceError(f"{self.module}: not started")
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            self._fail(f"not ready after {timeout_s:g} s")
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
            self._fail(f"ended with exit code {self._process.poll()} before it was ready")
        try:
            ready = json.loads(line)
        except ValueError:
            ready = None
        if not isinstance(ready, dict):
            self._fail(f"printed {line[:80]!r} where one line of JSON was expected")
        self._ready = {str(key): value for key, value in ready.items()}
        return self._ready

    def terminate(self) -> None:
        """Ask the helper to end, without waiting; several that are asked first end side by side."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self, timeout_s: float = GRACE_S) -> None:
        """End the helper: SIGTERM, and SIGKILL if it is still there after ``timeout_s`` seconds.
        Harmless when it has ended or was never started. A Ctrl-C while waiting kills the helper and
        is then raised.
        """
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if process.poll() is None:
                process.terminate()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _kill(process)
        except BaseException:
            _kill(process)
            raise

    def _fail(self, cause: str) -> None:
        self.stop()
        tail = _tail(self.log)
        raise ServiceError(f"{self.module}: {cause}; {self.log} ends with: {tail}")


def _drain(output: IO[bytes], lines: "queue.SimpleQueue[bytes]", log: Path) -> None:
    """Hand over the first line and append later ones to the log; an empty line is the end."""
    with output:
        lines.put(output.readline())
        for line in output:
            with log.open("ab") as file:
                file.write(line)
    lines.put(b"")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a helper and its group; it was made the leader of both."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: Path) -> str:
    """Return the last line with content of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return "(no log)"
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "(nothing)")
