"""The queue of a plug-in that does not block: arrays that have come and are not dealt with yet."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from mistral_txm.simulated_beamline.area_detector import Array, add_constants
from mistral_txm.simulated_beamline.channels import Database, integer, post, with_readback

QUEUE_SIZE = 20


class Numbered(NamedTuple):
    """An array and its unique id."""

    array_vu: Array
    unique_id: int


class ArrayQueue:
    """Deals with arrays one by one, in their order, by `process`."""

    def __init__(
        self, database: Database, prefix: str, process: Callable[[Numbered], Awaitable[object]]
    ) -> None:
        self._process = process
        self._waiting: deque[Numbered] = deque()
        self._in_work = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining: asyncio.Task[None] | None = None
        self._size = with_readback(database, f"{prefix}QueueSize", integer, QUEUE_SIZE)
        self._free = integer(QUEUE_SIZE)
        self._use = integer()
        add_constants(database, prefix, {"QueueFree": self._free, "QueueUse": self._use})

    @property
    def pending(self) -> int:
        """How many arrays wait or are being dealt with."""
        return len(self._waiting) + self._in_work

    async def wait_until_idle(self) -> None:
        """Wait until no array is pending."""
        await self._idle.wait()

    async def add(self, arrived: Numbered) -> bool:
        """Take an array, if there is room for it; return whether there was."""
        if len(self._waiting) >= int(self._size.value):
            return False
        self._waiting.append(arrived)
        self._idle.clear()
        await self._show()
        if self._draining is None or self._draining.done():
            self._draining = asyncio.get_running_loop().create_task(self._drain())
        return True

    async def _drain(self) -> None:
        try:
            while self._waiting:
                arrived = self._waiting.popleft()
                self._in_work = 1
                await self._show()
                await self._process(arrived)
                self._in_work = 0
        finally:
            self._in_work = 0
            self._idle.set()

    async def _show(self) -> None:
        await post(self._use, len(self._waiting))
        await post(self._free, int(self._size.value) - len(self._waiting))
