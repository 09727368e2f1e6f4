"""Copies the journal into the catalog, at its own pace, and again where something failed.

A run is written by ``TiledWriter`` as it grows: each Event at once, so that a reader sees each
exposure as it comes, and where several have come meanwhile, those together. The writer keeps its
state in memory; when it or the server was interrupted, the run in the catalog is deleted and
written again from the journal. Frames are never touched by that: they are external to the catalog.

An unfinished run that nothing was added to for a while carries in its metadata how many documents
it holds, ``{"journal": {"documents": n}}``. When the journal has as many, it is whole and is left
alone at the next start.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
from bluesky_tiled_plugins.writing.consolidators import CONSOLIDATOR_REGISTRY, Patch
from bluesky_tiled_plugins.writing.tiled_writer import TiledWriter, _RunWriter
from tiled.client import from_uri

from mistral_txm.services.frame_adapter import FrameConsolidator
from mistral_txm.services.journal import Document, JournalError, JournalTail, journal_files

REFUSALS = 3
"""So many times a run is tried before it is given up and reported."""
TOGETHER = 300
"""At most so many documents are written in one go, about 100 exposures."""
IDLE_S = 2.0
"""After so long without a document an unfinished run is marked with the number it holds, s."""
ANSWER_S = 30.0
"""Longest wait for an answer of the server, s."""

logger = logging.getLogger(__name__)


class Unreachable(RuntimeError):
    """The server does not answer, or not as it should; worth another try later."""


class _BatchWriter(_RunWriter):  # type: ignore[misc]  # the base class is not typed
    """Writes what has come together in one go, when it is told to.

    Frames become part of the catalog with their Event: a run that was killed between the two has as
    many frames as rows. A row of a table is never sent twice: the server may have stored it before
    its answer was lost.
    """

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._patches: dict[str, list[Patch]] = {}
        self._without_event: dict[str, list[dict[str, Any]]] = {}

    def event(self, doc: dict[str, Any]) -> None:
        """Keep an Event, and its frames, for the next flush."""
        for datum in self._without_event.pop(doc["descriptor"], ()):
            self._refer(datum)
        stream = self._desc_nodes[doc["descriptor"]].item["id"]
        timestamps = {f"ts_{key}": value for key, value in doc["timestamps"].items()}
        self._internal_data_cache[stream].append(
            {"seq_num": doc["seq_num"], "time": doc["time"], **doc["data"], **timestamps}
        )

    def stream_datum(self, doc: dict[str, Any]) -> None:
        """Keep a reference to frames until their Event comes, where the stream has Events."""
        keys = self._desc_nodes[doc["descriptor"]].metadata["data_keys"].values()
        if all("external" in key for key in keys):
            self._refer(doc)
        else:
            self._without_event.setdefault(doc["descriptor"], []).append(doc)

    def _refer(self, datum: dict[str, Any]) -> None:
        _, _, patch = self._update_consolidator(datum)
        self._patches.setdefault(datum["stream_resource"], []).append(patch)

    def flush(self) -> None:
        """Write what was kept: the frames of a stream first, then the rows that go with them."""
        pending: dict[int, tuple[Any, Any, list[Patch]]] = {}
        for resource, patches in self._patches.items():
            node, consolidator = self._sres_nodes[resource], self._consolidators[resource]
            pending.setdefault(id(node), (node, consolidator, []))[2].extend(patches)
        for node, consolidator, patches in pending.values():
            self._update_data_source_for_node(
                node, consolidator.get_data_source(), Patch.combine_patches(patches)
            )
        self._patches.clear()
        for stream, rows in self._internal_data_cache.items():
            if rows:
                self._write_internal_data(rows, desc_node=self._desc_nodes[stream])
                rows.clear()

    def stop(self, doc: dict[str, Any]) -> None:
        """Write what was kept, then the end of the run."""
        self.flush()
        super().stop(doc)

    def _append_with_retry(self, df_client: Any, table: Any, desc_name: str) -> None:
        df_client.append_partition(0, table)


class _Writer(TiledWriter):  # type: ignore[misc]  # the base class is not typed
    """``TiledWriter`` of one run, made of the above."""

    _batch: _BatchWriter | None = None

    def _factory(self, name: str, doc: dict[str, Any]) -> tuple[list[Any], list[Any]]:
        self._batch = _BatchWriter(self.client)
        normalizer = self._normalizer()
        normalizer.subscribe(self._batch)
        return [normalizer], []

    def flush(self) -> None:
        """Write what was kept."""
        if self._batch is None:
            raise ValueError("the journal does not begin with a start document")
        self._batch.flush()


@dataclass
class _Run:
    """One run on its way from the journal to the catalog."""

    tail: JournalTail
    writer: _Writer | None = None
    written: int = 0
    marked: int = 0
    resting_bytes: int | None = None
    last_s: float = field(default_factory=time.monotonic)
    refusals: int = 0
    begun: int = 0
    complete: bool = False
    failed: str | None = None


class CatalogWriter:
    """Brings the catalog up to the journal, call by call.

    Parameters
    ----------
    journal
        Folder of the journal.
    uri, api_key
        The server, and the key that it asks for.
    """

    def __init__(self, journal: Path, uri: str, api_key: str) -> None:
        CONSOLIDATOR_REGISTRY["application/x-hdf5"] = FrameConsolidator
        self._journal = journal
        self._uri = uri
        self._api_key = api_key
        self._connected: Any = None
        self._runs: dict[str, _Run] = {}

    def step(self, stopped: Callable[[], bool]) -> int:
        """Write what has come since the last call and return how many documents that were.

        Parameters
        ----------
        stopped
            Asked between two documents; when true, the rest is left for later.

        Raises
        ------
        Unreachable
            If the server fails. The run that was being written is written anew at the next call.
        """
        names = {path.stem for path in self._journal.glob("*.jsonl")}
        if not names <= self._runs.keys():
            for path in journal_files(self._journal):
                self._runs.setdefault(path.stem, _Run(JournalTail(path)))
        count = 0
        for uid, run in self._runs.items():
            if stopped():
                break
            if not run.complete and run.failed is None:
                count += self._advance(uid, run, stopped)
        return count

    def progress(self) -> dict[str, Any]:
        """Return how far each run is: ``{uid: {"documents": n, "complete": bool, "failed": reason
        or None}}``."""
        return {
            uid: {"documents": run.written, "complete": run.complete, "failed": run.failed}
            for uid, run in self._runs.items()
        }

    def finish(self) -> None:
        """Mark unfinished runs with what they hold, so that the next start can leave them alone."""
        for uid, run in self._runs.items():
            try:
                self._mark(uid, run)
            except httpx.HTTPError as error:
                logger.warning("run %s: not marked, it will be written again (%s)", uid, error)

    def close(self) -> None:
        """Close the connection."""
        if self._connected is not None:
            self._connected.context.http_client.close()
            self._connected = None

    def client(self) -> Any:
        """Return the connection to the server, made at the first need.

        Raises
        ------
        Unreachable
            If there is none to be had.
        """
        if self._connected is None:
            try:
                self._connected = from_uri(
                    self._uri,
                    api_key=self._api_key,
                    cache=None,
                    timeout=httpx.Timeout(ANSWER_S, connect=5.0),
                )
            except httpx.HTTPError as error:
                raise Unreachable(f"{self._uri}: {error}") from error
        return self._connected

    def begun(self) -> dict[str, int | None]:
        """Return for each run how often this process has begun to write it; None for one that was given up.

        What others have added to a run in the catalog is gone when it is begun anew.
        """
        return {uid: None if run.failed else run.begun for uid, run in self._runs.items()}

    def _advance(self, uid: str, run: _Run, stopped: Callable[[], bool]) -> int:
        count = 0
        try:
            if run.writer is None and not self._begin(uid, run):
                return 0
            while documents := list(islice(run.tail.read(), TOGETHER)):
                self._write(run, documents)
                count += len(documents)
                if stopped():
                    break
            if count == 0 and time.monotonic() - run.last_s > IDLE_S:
                self._mark(uid, run)
        except (JournalError, FileNotFoundError) as error:
            run.failed = str(error)
            logger.error("run %s: not in the catalog: %s", uid, error)
        except (
            Exception
        ) as error:  # the writer raises whatever a document or the server makes it raise
            self._start_over(uid, run, error)
        return count

    def _write(self, run: _Run, documents: list[tuple[str, Document]]) -> None:
        assert run.writer is not None
        for name, doc in documents:
            run.writer(name, doc)
        run.writer.flush()
        run.written += len(documents)
        run.last_s = time.monotonic()
        run.complete = run.tail.finished

    def _begin(self, uid: str, run: _Run) -> bool:
        """Get ready to write a run from its start; false if the catalog holds all of it."""
        size = run.tail.path.stat().st_size
        if run.resting_bytes == size:
            return False
        client = self.client()
        if uid in client:
            metadata = client[uid].metadata
            if "stop" in metadata:
                run.complete = True
                run.written = sum(1 for _ in JournalTail(run.tail.path).read())
                return False
            documents = sum(1 for _ in JournalTail(run.tail.path).read())
            if metadata.get("journal", {}).get("documents") == documents:
                run.written = run.marked = documents
                run.resting_bytes = size
                return False
            client.delete_contents(uid, recursive=True, external_only=False)
        run.tail = JournalTail(run.tail.path)
        run.begun += 1
        run.written = run.marked = 0
        run.resting_bytes = None
        run.writer = _Writer(client)
        return True

    def _start_over(self, uid: str, run: _Run, error: Exception) -> None:
        """Forget what was written of a run; give the run up if it is refused again and again."""
        run.writer = None
        run.resting_bytes = None
        refused = not isinstance(error, httpx.HTTPError) or (
            isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
        )
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if not refused:
            raise Unreachable(f"run {uid}, document {run.written}: {reason}") from error
        run.refusals += 1
        logger.warning("run %s, document %d refused: %s", uid, run.written, reason)
        if run.refusals >= REFUSALS:
            run.failed = f"document {run.written}: {reason}"
            logger.error(
                "run %s: given up; the catalog holds its first %d documents", uid, run.written
            )

    def _mark(self, uid: str, run: _Run) -> None:
        """Say in the catalog how many documents of an unfinished run it holds."""
        if run.writer is not None and not run.complete and run.marked != run.written:
            node = self.client()[uid]
            node.update_metadata({"journal": {"documents": run.written}}, drop_revision=True)
            run.marked = run.written
