"""Where independent pieces of work are done: here, on processes of this machine, or on a Dask scheduler's workers.

What is spread: the lateral frequencies of the direct method, the replicas of a bootstrap, the settings of a sweep. Each
piece is computed alone and by the same code wherever it runs, so the results do not depend on how many workers there
are. An iterative reconstruction holds the whole field in each step and stays on one of them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mistral_txm.reconstruction.geometry import InputError

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Shared = TypeVar("Shared")
Result = TypeVar("Result")

PARTS_PER_WORKER = 4
"""Pieces that one piece of work is cut into, per worker, so that all end at about the same time."""
CONNECT_S = 20.0
"""How long a scheduler may take to answer."""


class Spread(Protocol):
    """Calls a function for every item, with what the items share, and returns the results in order.

    parts: into how many pieces work that can be cut should be cut. workers: how many items are worked on at once.
    """

    parts: int
    workers: int

    def __call__(  # noqa: D102
        self, function: Callable[[Item, Shared], Result], items: Sequence[Item], shared: Shared, /
    ) -> list[Result]: ...


class _InProcess:
    parts = 1
    workers = 1

    def __call__(
        self, function: Callable[[Item, Shared], Result], items: Sequence[Item], shared: Shared, /
    ) -> list[Result]:
        return [function(item, shared) for item in items]


in_process: Spread = _InProcess()
"""One after the other, here."""


class _OnCluster:
    def __init__(self, client: Client, workers: int) -> None:
        self._client: Any = client  # its methods have no types
        self.parts = PARTS_PER_WORKER * workers
        self.workers = workers

    def __call__(
        self, function: Callable[[Item, Shared], Result], items: Sequence[Item], shared: Shared, /
    ) -> list[Result]:
        # In lists: what is a list or a dict itself would be taken apart, and a dict's keys for names on the cluster.
        [held] = self._client.scatter([shared], broadcast=True, hash=False)
        sent = self._client.scatter(list(items), hash=False)
        futures = [self._client.submit(function, item, held, pure=False) for item in sent]
        results: list[Result] = self._client.gather(futures)
        return results


@contextmanager
def spread_over(workers: int | str) -> Iterator[Spread]:
    """Spread work over so many processes of this machine, or over the workers of a Dask scheduler.

    Args:
        workers: a number of processes, at least 1 (1: this one alone), or the address of a scheduler,
            ``tcp://host:port``. Its workers need this package, in the same version.

    Raises:
        InputError: for anything else, or a scheduler that does not answer or has no workers.

    >>> with spread_over(1) as spread:
    ...     spread(lambda item, shared: item * shared, [1, 2, 3], 10)
    [10, 20, 30]
    """
    if isinstance(workers, str) and workers.isdecimal():
        workers = int(workers)
    if isinstance(workers, int):
        if workers < 1:
            raise InputError(f"workers: {workers}, expected at least 1 or tcp://host:port")
        if workers == 1:
            yield in_process
            return
        with _local_cluster(workers) as cluster, _client(cluster) as client:
            yield _OnCluster(client, workers)
        return
    if "://" not in workers:
        raise InputError(
            f"workers: {workers!r} is neither a number of processes nor a scheduler, tcp://host:port"
        )
    with _client(workers) as client:
        there = len(client.scheduler_info(n_workers=-1)["workers"])
        if not there:
            raise InputError(f"workers: the scheduler at {workers} has none; start some first")
        yield _OnCluster(client, there)


@contextmanager
def _local_cluster(workers: int) -> Iterator[Any]:
    """Processes on loopback, with the cores shared between them and nothing served to anybody."""
    from distributed import LocalCluster

    threads = str(max((os.cpu_count() or 1) // workers, 1))
    make: Any = LocalCluster
    with make(
        n_workers=workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        worker_dashboard_address=None,
        memory_limit=0,
        env={"NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
        silence_logs=logging.CRITICAL,  # what fails is raised here; workers that end complain of it
    ) as cluster:
        yield cluster


@contextmanager
def _client(address: Any) -> Iterator[Client]:
    from distributed import Client

    make: Any = Client
    try:
        client = make(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"workers: no scheduler answers at {address}; is it running, and is this its address?"
        ) from error
    with client:
        yield client
