"""Volumes of the live reconstruction in the catalog: found from each run, equal to their files, bounded, caught up."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiled.client.utils import ClientError

from mistral_txm.services.catalog import wait_until_written
from mistral_txm.services.catalog_writer import REFUSALS, Unreachable
from mistral_txm.services.live_files import LIVE, STATUS, VOLUME
from mistral_txm.services.volume_copies import NewestVolume, keep
from mistral_txm.services.volume_publisher import VolumePublisher
from tests.services.live_folder import live

GROUPS = [(0.0, -10.0, 1, 1), (0.0, 10.0, 1, 1)]
TURNED = [(102.0, -10.0, 1, 1)]


def names(run: Any) -> list[str]:
    return sorted(name for name in run if name.startswith("volume"))


def made(volume: Any) -> dict[str, Any]:
    return dict(volume.metadata["configuration"]["reconstruction"]["data"])


class Run(dict[str, Any]):
    """A run in a catalog that is only remembered."""

    @property
    def base(self) -> "Run":
        return self

    def new(self, family: str, sources: Any, *, key: str, metadata: Any, specs: Any) -> None:
        assert key not in self
        (source,) = sources
        self[key] = SimpleNamespace(metadata=metadata, uri=source.assets[0].data_uri)

    def delete_contents(self, keys: Any, recursive: bool) -> None:
        for key in [keys] if isinstance(keys, str) else keys:
            del self[key]


class Writer:
    """What the publisher needs of a writer of runs."""

    def __init__(self, *uids: str) -> None:
        self.runs = {uid: Run() for uid in uids}
        self.counts: dict[str, int | None] = dict.fromkeys(uids, 1)
        self.away = False

    def client(self) -> Any:
        if self.away:
            raise Unreachable("no answer")
        return self.runs

    def begun(self) -> dict[str, int | None]:
        return self.counts


def test_volumes_on_the_way_are_bounded_and_the_final_one_stays_alone(tmp_path: Path) -> None:
    writer = Writer("one", "two")
    publisher = VolumePublisher(tmp_path, writer)
    live(tmp_path, "film", ["one"], 8)
    publisher.step()
    assert [names(run) for run in writer.runs.values()] == [["volume_after_008_angles"], []]
    for angles in (9, 10):
        live(tmp_path, "film", ["one", "two"], angles)
        publisher.step()
    kept = ["volume_after_009_angles", "volume_after_010_angles"]
    assert [names(run) for run in writer.runs.values()] == [kept, kept]
    assert sorted(path.stem for path in (tmp_path / "volumes/film").iterdir()) == kept
    live(tmp_path, "film", ["one", "two"], 11, complete=True)
    publisher.step()
    assert [names(run) for run in writer.runs.values()] == [["volume"]] * 2
    assert [path.name for path in (tmp_path / "volumes/film").iterdir()] == ["volume.h5"]
    final = dict(writer.runs["one"])["volume"].metadata
    live(tmp_path, "film", ["one", "two"], 12)  # taken again: the final one stays until the next
    publisher.step()
    assert names(writer.runs["one"]) == ["volume", "volume_after_012_angles"]
    assert (tmp_path / "volumes/film/volume.h5").exists()
    live(tmp_path, "film", ["one", "two"], 12, complete=True)
    publisher.step()
    assert names(writer.runs["two"]) == ["volume"]
    assert writer.runs["two"]["volume"].metadata["uid"] != final["uid"]


def test_a_server_that_is_away_is_caught_up_and_nothing_is_done_twice(tmp_path: Path) -> None:
    writer = Writer("one", "two")
    publisher = VolumePublisher(tmp_path, writer)
    live(tmp_path, "film", ["one", "two"], 9)
    writer.away = True
    with pytest.raises(Unreachable):
        publisher.step()
    assert publisher.progress() == {}
    live(tmp_path, "film", ["one", "two"], 11, complete=True)
    writer.away = False
    publisher.step()
    assert names(writer.runs["one"]) == ["volume"]
    (told,) = publisher.progress().values()
    assert told["final"]
    before = {uid: run["volume"] for uid, run in writer.runs.items()}
    publisher.step()
    VolumePublisher(tmp_path, writer).step()  # after a restart
    assert {uid: run["volume"] for uid, run in writer.runs.items()} == before


def test_a_run_that_comes_late_or_is_written_anew_gets_its_volume(tmp_path: Path) -> None:
    writer = Writer("one", "two")
    late = writer.runs.pop("two")
    publisher = VolumePublisher(tmp_path, writer)
    live(tmp_path, "film", ["one", "two"], 9, complete=True)
    publisher.step()
    assert publisher.progress() == {}
    writer.runs["two"] = late
    publisher.step()
    assert names(late) == ["volume"]
    assert publisher.progress()
    writer.runs["one"] = Run()
    writer.counts["one"] = 2
    publisher.step()
    assert names(writer.runs["one"]) == ["volume"]


def test_what_cannot_be_published_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer("one", "failed")
    writer.counts["failed"] = None
    publisher = VolumePublisher(tmp_path, writer)
    live(tmp_path, "film", ["one", "failed"], 9)
    volume = tmp_path / LIVE / "film" / VOLUME
    volume.write_bytes(b"damaged")
    for _ in range(REFUSALS):
        assert publisher.progress() == {}
        publisher.step()
    assert publisher.progress()
    assert "given up" in caplog.text
    live(tmp_path, "film", ["one", "failed"], 10)
    publisher.step()
    assert names(writer.runs["one"]) == ["volume_after_010_angles"]
    assert names(writer.runs["failed"]) == []


def test_what_is_kept_is_the_volume_of_then(tmp_path: Path) -> None:
    folder = tmp_path / LIVE / "film"
    assert NewestVolume.of(folder) is None
    live(tmp_path, "film", ["one"], 8)
    first = NewestVolume.of(folder)
    assert first is not None
    path = keep(first, tmp_path, "kept")
    assert path is not None
    content = path.read_bytes()
    assert os.stat(path).st_ino == os.stat(folder / VOLUME).st_ino  # no second copy on the disk
    live(tmp_path, "film", ["one"], 9)
    assert path.read_bytes() == content != (folder / VOLUME).read_bytes()
    assert keep(first, tmp_path, "other") is None
    (folder / STATUS).write_text("{")
    assert NewestVolume.of(folder) is None


@pytest.mark.slow
def test_each_run_leads_to_the_volume_in_every_flavour(
    beamline: Any, catalog: Any, data: Path
) -> None:
    series = "with-volumes"
    uids = [beamline.measure(GROUPS, series=series), beamline.measure(TURNED, series=series)]
    on_the_way = live(data, series, uids, 2)
    assert wait_until_written(data, 120.0)
    client = catalog[uids[0]]["volume_after_002_angles"]
    complete = live(data, series, uids, 3, complete=True)
    np.testing.assert_array_equal(client["mx"].read(), on_the_way.mx)  # not the new one
    assert wait_until_written(data, 120.0)
    for uid in uids:
        run = catalog[uid]
        assert names(run) == ["volume"]
        found = run["volume"].read()
        assert found["mx"].dims == ("z", "y", "x")
        for name in ("mx", "my", "mz", "data_fraction"):
            np.testing.assert_array_equal(found[name], getattr(complete, name))
    np.testing.assert_array_equal(run["volume"]["my"][1, :, 2:], complete.my[1, :, 2:])
    told = made(run["volume"])
    assert (told["series"], told["runs"], told["angles"]) == (series, uids, 3)
    assert (told["method"], told["prior"], told["voxel_nm"]) == ("direct", "layers", 10.5)
    assert told["axes"] == ["z", "y", "x"]
    assert told["residual_rms"] == pytest.approx(0.03)
    assert run["volume"].metadata["data_keys"]["mx"]["units"] == "1/nm"
    with pytest.raises((ClientError, KeyError)):
        catalog[uids[0]]["volume_after_002_angles"]

    assert len(run["primary"].read(["theta"])["theta"]) == 1
    documents = [(name, dict(doc)) for name, doc in run.documents()]
    assert "volume" not in [doc.get("name") for name, doc in documents]
    second = catalog.v2[uids[1]]
    np.testing.assert_array_equal(second["volume"].read(["mz"])["mz"], complete.mz)
    header = catalog.v1[uids[1]]
    assert len(header.table()) == 1
    assert header.fields("volume") == {"mx", "my", "mz", "data_fraction"}
