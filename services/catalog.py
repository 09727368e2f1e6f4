"""The catalog of a data folder: its service, and how a program opens it.

``python -m mistral_txm.services.catalog --data DIR`` runs the Tiled server as a child process,
follows the journal and writes it into the catalog, and beside each run the volumes that the live
reconstruction makes of it (`volume_publisher`). When the server dies it is started again, on the
same port, and what it had lost is written again from the journal; the acquisition never notices. It
prints one line of JSON when the server answers.

In ``DIR/catalog``: ``api_key`` (mode 0600, made once), ``address.json`` (where the server is, while
it runs), ``progress.json`` (what has been written), ``profiles/`` (for
``databroker.catalog["mistral_txm"]``), and the databases.
"""

import argparse
import atexit
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from mistral_txm.services.catalog_folder import (
    CatalogError,
    api_key_of,
    catalog_folder,
    is_served,
    only_one,
)
from mistral_txm.services.journal import JournalError, JournalTail, journal_files
from mistral_txm.services.json_files import read_json, write_json
from mistral_txm.services.lifeline import ServiceError, ServiceProcess, watch_parent
from mistral_txm.services.volume_copies import newest_volumes

__all__ = [
    "PROFILE",
    "CatalogError",
    "catalog_environment",
    "main",
    "open_catalog",
    "reading",
    "wait_until_written",
]

PROFILE = "mistral_txm"
"""Name under which databroker finds the catalog."""
START_S = 90.0
"""Longest time that a server may take to start, s; 3 to 6 are usual, 27 on a very busy machine."""
POLL_S = 0.05
"""Time between two looks at the folder, s."""
VOLUMES_S = 1.0
"""Time between two looks for new volumes, s."""
RETRY_S = 1.0
"""Time before another try when the server did not answer, s."""

logger = logging.getLogger(__name__)


def catalog_environment(data: Path) -> dict[str, str]:
    """Return the environment variables with which databroker finds the catalog of a data folder.

    They must be set before databroker is imported::

        os.environ.update(catalog_environment(data))
        from databroker import catalog

        catalog["mistral_txm"]

    The key is among them: hand them to child processes, never to a log.
    """
    folder = catalog_folder(data)
    return {"TILED_PROFILES": str(folder / "profiles"), "TILED_API_KEY": api_key_of(folder)}


def open_catalog(data: Path, timeout_s: float = START_S) -> Any:
    """Open the catalog of a data folder, as ``databroker.catalog[..]`` does.

    If its service is running, it is asked; otherwise one is started that ends with this process,
    and what the catalog lacks of the journal is written first. ``catalog[uid].primary.read()``
    gives tables and frames, ``catalog.v1``, ``.v2`` and ``.v3`` the three flavours of databroker's
    interface; they do not disturb each other.

    Parameters
    ----------
    data
        The data folder.
    timeout_s
        Longest time to wait for the server, and for it to catch up, s.

    Raises
    ------
    CatalogError
        If there is neither a catalog nor a journal, or the server does not answer.
    """
    folder = data / "catalog"
    if not folder.exists() and not (data / "journal").exists():
        raise CatalogError(
            f"{data}: no measurement here, neither journal nor catalog; check --data"
        )
    address = _running(folder, timeout_s)
    if address is None:
        _start_for_this_process(data, timeout_s)
        if not wait_until_written(data, timeout_s):
            logger.warning("%s: the catalog is still behind the journal", data)
        address = _running(folder, timeout_s)
    if address is None:
        raise CatalogError(
            f"{data}: the catalog's server ended at once; see {data / 'logs' / 'catalog.log'}"
        )
    return _connect(address, api_key_of(folder))


@contextlib.contextmanager
def reading(data: Path, uid: str) -> Iterator[None]:
    """Read from an open catalog; what its server refuses is told in one line.

    Raises
    ------
    CatalogError
        If the server cannot hand out what was asked for, of the run ``uid``.
    """
    try:
        yield
    except httpx.HTTPError as refusal:
        raise CatalogError(
            f"run {uid}: the catalog cannot read it, was the data folder moved or copied? See "
            f"{data / 'logs' / 'catalog_server.log'} ({str(refusal).splitlines()[0][:100]})"
        ) from refusal


def wait_until_written(data: Path, timeout_s: float) -> bool:
    """Wait until the catalog holds all that the journal holds now, and the newest volume of each series.

    If no service is running, one is started that ends with this process.

    Returns
    -------
    bool
        False if the time was over before; what the catalog refuses does not count.

    Raises
    ------
    CatalogError
        If there is no service and none can be started.
    """
    wanted = {path.stem: _documents(path) for path in journal_files(data / "journal")}
    volumes = {
        one.series: (one.modified_ns, one.final)
        for one in newest_volumes(data)
        if wanted.keys() & set(one.runs)
    }
    deadline_s = time.monotonic() + timeout_s
    while True:
        progress = read_json(data / "catalog" / "progress.json")
        written, published = progress.get("runs", {}), progress.get("volumes", {})
        if all(
            uid in written and (written[uid]["failed"] or written[uid]["documents"] >= count)
            for uid, count in wanted.items()
        ) and all(
            series in published
            and (published[series]["modified_ns"], published[series]["final"]) >= volume
            for series, volume in volumes.items()
        ):
            return True
        if time.monotonic() > deadline_s:
            return False
        if not is_served(data / "catalog"):
            _start_for_this_process(data, START_S)
        time.sleep(POLL_S)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service until SIGTERM, Ctrl-C, or the end of the parent."""
    parser = argparse.ArgumentParser(
        prog="python -m mistral_txm.services.catalog", description="the catalog of a data folder"
    )
    parser.add_argument("--data", type=Path, required=True, help="data folder")
    parser.add_argument("--port", type=int, default=0, help="port on loopback; 0 takes a free one")
    parser.add_argument("--lifeline", action="store_true", help="stop when standard input ends")
    options = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s catalog %(levelname)s: %(message)s"
    )
    end = _End()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if options.lifeline:
        watch_parent()
    try:
        with only_one(catalog_folder(options.data)):
            _serve(options.data, options.port, end)
    except (CatalogError, ServiceError) as error:
        print(error, file=sys.stderr)
        return 3
    return 0


class _End:
    """Signal handler: ends the program at once, or sets an event where the program asks for
    that."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._gently = False

    def __call__(self, *_: object) -> None:
        self.event.set()
        if not self._gently:
            raise SystemExit(0)

    @contextlib.contextmanager
    def gently(self, yes: bool) -> Iterator[None]:
        """Only set the event within the block, or end at once within it."""
        before, self._gently = self._gently, yes
        try:
            yield
        finally:
            self._gently = before


def _serve(data: Path, port: int, end: _End) -> None:
    """Run server and writer; the parts that take seconds to start do so side by side."""
    folder = catalog_folder(data)
    key = api_key_of(folder)
    (folder / "progress.json").unlink(missing_ok=True)
    server = _server(data, port)
    try:
        server.start()
        # A dead server must not hold the writer for long; Tiled reads these once, when imported.
        os.environ.update(TILED_RETRY_ATTEMPTS="2", TILED_RETRY_TIMEOUT="3")
        writing = import_module("mistral_txm.services.catalog_writer")
        uri = str(server.wait_ready(START_S)["uri"])
        writer = writing.CatalogWriter(data / "journal", uri, key)
        publishing = import_module("mistral_txm.services.volume_publisher")
        publisher = publishing.VolumePublisher(data, writer)
        profile = folder / "profiles" / f"{PROFILE}.yml"
        profile.parent.mkdir(exist_ok=True)
        write_json(profile, {PROFILE: {"uri": uri}})
        write_json(folder / "address.json", {"uri": uri, "pid": os.getpid()})
        print(json.dumps({"ready": True, "uri": uri}), flush=True)
        shown: Any = None
        look_s = 0.0
        with end.gently(True):
            while not end.event.is_set():
                if not server.running:
                    server = _restart(data, uri, end)
                pause_s = POLL_S
                try:
                    if writer.step(end.event.is_set):
                        pause_s = 0.0
                    if time.monotonic() >= look_s:
                        publisher.step()
                        look_s = time.monotonic() + VOLUMES_S
                except writing.Unreachable as error:
                    logger.warning("%s", error)
                    pause_s = RETRY_S
                now = {"runs": writer.progress(), "volumes": publisher.progress()}
                if now != shown:
                    write_json(folder / "progress.json", {"pid": os.getpid(), **now})
                    shown = now
                end.event.wait(pause_s)
            writer.finish()
    finally:
        with end.gently(True):
            (folder / "address.json").unlink(missing_ok=True)
            server.stop()


def _server(data: Path, port: int) -> ServiceProcess:
    return ServiceProcess(
        "mistral_txm.services.catalog_server",
        ["--data", str(data), "--port", str(port), "--lifeline"],
        log=data / "logs" / "catalog_server.log",
        environment={k: v for k, v in os.environ.items() if not k.startswith("TILED_")},
    )


def _restart(data: Path, uri: str, end: _End) -> ServiceProcess:
    """Start a new server where the dead one was, so that clients need not know."""
    logger.error("the server has ended; it is started again")
    server = _server(data, urlsplit(uri).port or 0)
    try:
        server.start()
        with end.gently(False):
            server.wait_ready(START_S)
    except ServiceError as error:
        logger.error("%s", error)
        end.event.wait(RETRY_S)
    except SystemExit:
        server.stop()
        raise
    return server


def _running(folder: Path, timeout_s: float) -> str | None:
    """Return the address of the running service, ``None`` if none runs; wait for one that is
    starting."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if not is_served(folder):
            return None
        uri = read_json(folder / "address.json").get("uri")
        if uri is not None and _answers(uri):
            return str(uri)
        time.sleep(POLL_S)
    raise CatalogError(
        f"{folder}: its service has not been ready for {timeout_s:g} s; see the logs"
    )


def _documents(path: Path) -> int:
    """Count the documents of a journal file; of one that cannot be read, none are waited for."""
    try:
        return sum(1 for _ in JournalTail(path).read())
    except JournalError:
        return 0


def _answers(uri: str) -> bool:
    """Return whether there is a server; one that is starting again or ending does not count."""
    try:
        return httpx.get(uri, timeout=5.0).is_success
    except httpx.HTTPError:
        return False


def _start_for_this_process(data: Path, timeout_s: float) -> None:
    """Start a service that ends with this process."""
    service = ServiceProcess(
        "mistral_txm.services.catalog",
        ["--data", str(data), "--lifeline"],
        log=data / "logs" / "catalog.log",
    )
    service.start()
    atexit.register(service.stop)
    import_module("tiled.client")  # takes seconds, as the service does
    try:
        service.wait_ready(timeout_s)
    except ServiceError as error:
        if not is_served(data / "catalog"):
            raise CatalogError(str(error)) from error
        # else another process has just started one


def _connect(uri: str, api_key: str) -> Any:
    """Make a client whose choice of flavour is its own."""
    client = import_module("tiled.client")
    container = import_module("tiled.client.container")
    maps = import_module("tiled.utils")
    container.Container.discover_clients_from_entrypoints()
    common = container.DEFAULT_STRUCTURE_CLIENT_DISPATCH["numpy"]

    class OwnMap(maps.OneShotCachedMap):  # type: ignore[misc, name-defined]  # found at run time
        """Which class reads what; a copy shares nothing with its original, so nothing mixes."""

        def __copy__(self) -> "OwnMap":
            return OwnMap({key: partial(self.__getitem__, key) for key in self})

    clients = OwnMap({key: partial(common.__getitem__, key) for key in common})
    opened = client.from_uri(uri, structure_clients=clients, api_key=api_key, cache=None)
    weakref.finalize(opened.context, opened.context.http_client.close)
    return opened


if __name__ == "__main__":
    sys.exit(main())
