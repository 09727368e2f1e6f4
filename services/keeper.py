"""Starts helper processes again that have ended by themselves: what they missed they read from the journal."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mistral_txm.services.lifeline import ServiceError, ServiceProcess

logger = logging.getLogger("mistral_txm.measurement")

POLL_S = 1.0
"""Time between two looks whether all run, s."""
AGAIN_S = 60.0
"""Least time between two starts of the same process, s: one that ends at once must not keep the machine busy."""
READY_S = 120.0
"""How long a process may take to be ready, s."""


@contextmanager
def kept_running(services: Mapping[str, ServiceProcess]) -> Iterator[None]:
    """Start processes again that end within the block, each at most every `AGAIN_S`; a line of the log tells of it.

    Parameters
    ----------
    services
        By the names under which they are told of; all were started.
    """
    over = threading.Event()
    keeper = threading.Thread(target=_keep, args=(services, over), name="keeper", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join(2 * POLL_S)


def _keep(services: Mapping[str, ServiceProcess], over: threading.Event) -> None:
    started_s: dict[str, float] = {}
    while not over.wait(POLL_S):
        for name, service in services.items():
            lately = time.monotonic() < started_s.get(name, -AGAIN_S) + AGAIN_S
            if service.running or lately or over.is_set():
                continue
            started_s[name] = time.monotonic()
            try:
                service.start()
                ready = service.wait_ready(READY_S)
            except (ServiceError, OSError) as failure:
                if over.is_set():
                    return
                logger.error("%s: had ended, and did not start again: %s", name, failure)
            else:
                place = f" at {ready['uri']}" if "uri" in ready else ""
                logger.warning("%s: had ended, runs again%s; see %s", name, place, service.log)
