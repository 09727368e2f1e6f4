"""The application that the catalog's server runs: Tiled, set up for Bluesky runs and their
frames."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bluesky_tiled_plugins.exporters import json_seq_exporter
from tiled.catalog import from_uri as catalog_from_uri
from tiled.config import Authentication, StreamingCacheConfig
from tiled.media_type_registration import default_serialization_registry
from tiled.server.app import build_app

from mistral_txm.services.frame_adapter import FrameAdapter
from mistral_txm.services.journal import read_journal
from mistral_txm.services.volume_copies import VOLUMES


def application(data: Path, database: str, api_key: str) -> Any:
    """Make the application: an SQLite catalog, DuckDB tables, frames and volumes as readable storage.

    Parameters
    ----------
    data
        The data folder; ``catalog/``, ``frames/`` and ``volumes/`` are made in it if missing.
    database
        Address of the catalog's database, which is prepared already.
    api_key
        The key that every client must present.
    """
    folder = (data / "catalog").resolve()
    readable = [data / "frames", data / VOLUMES]
    for path in (folder / "arrays", *readable):
        path.mkdir(parents=True, exist_ok=True)
    tree = catalog_from_uri(
        database,
        specs=[{"name": "CatalogOfBlueskyRuns", "version": "3.0"}],
        writable_storage=[folder / "arrays", f"duckdb:///{folder / 'tables.duckdb'}"],
        # As in the addresses of the files: Tiled compares the two as they are written.
        readable_storage=list(
            {quote(str(same)) for path in readable for same in (path.absolute(), path.resolve())}
        ),
        adapters_by_mimetype={"application/x-hdf5": FrameAdapter},
        cache_config=StreamingCacheConfig(uri="memory").model_dump(),
    )
    default_serialization_registry.register(
        "BlueskyRun", "application/json-seq", _exporter(data / "journal")
    )
    return build_app(tree, authentication=Authentication(single_user_api_key=api_key))


def _exporter(journal: Path) -> Any:
    """Export the documents of a run as recorded; as Tiled rebuilds them if there is no journal."""

    async def export(
        media_type: str, adapter: Any, metadata: dict[str, Any], filter_for_access: Any
    ) -> AsyncIterator[str]:
        recorded = journal / f"{metadata.get('start', {}).get('uid')}.jsonl"
        if recorded.exists():
            for name, doc in read_journal(recorded):
                yield "\x1e" + json.dumps({"name": name, "doc": doc}) + "\n"
        else:
            async for line in json_seq_exporter(media_type, adapter, metadata, filter_for_access):
                yield line

    return export
