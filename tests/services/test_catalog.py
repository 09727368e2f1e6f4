"""The catalog: right frames and tables, during and after a run, whatever befalls its server."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import httpx
import numpy as np
import pytest
from bluesky.utils import RunEngineInterrupted
from numpy.typing import NDArray
from tiled.client.utils import ClientError

from mistral_txm.services.catalog import (
    CatalogError,
    catalog_environment,
    open_catalog,
    reading,
    wait_until_written,
)
from mistral_txm.services.catalog_writer import CatalogWriter
from mistral_txm.services.frame_files import frame_crc32
from mistral_txm.services.journal import journal_files, read_journal
from mistral_txm.services.lifeline import ServiceProcess

GROUPS = [(0.0, -10.0, 1, 3), (0.0, -10.0, -1, 3), (0.0, 0.0, -1, 2)]

pytestmark = [pytest.mark.usefixtures("service"), pytest.mark.slow]


def children(pid: int | None) -> list[int]:
    """Child processes, as Linux tells them."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def newest_run(data: Path) -> str:
    return journal_files(data / "journal")[-1].stem


def check(run: Any, data: Path, exposures: int) -> NDArray[np.uint16]:
    """Every row of the table stands beside its own frame, and none is there twice."""
    events = [
        doc
        for name, doc in read_journal(data / "journal" / f"{run.metadata['start']['uid']}.jsonl")
        if name == "event"
    ]
    primary = [doc for doc in events if "key_phi_deg" in doc["data"]][1:]
    read = run["primary"].read(variables=["ccd", "ccd_frame_crc32", "seq_num", "key_theta_deg"])
    frames = read["ccd"].values
    assert frames.shape == (exposures, 1, 6, 5)
    assert frames.dtype == np.uint16
    crcs = [frame_crc32(frame[0]) for frame in frames]
    assert read["ccd_frame_crc32"].values.tolist() == crcs
    assert crcs == [doc["data"]["ccd_frame_crc32"] for doc in primary[:exposures]]
    assert read["seq_num"].values.tolist() == [doc["seq_num"] for doc in primary[:exposures]]
    return frames


def test_frames_and_tables_after_a_run(beamline: Any, catalog: Any, data: Path) -> None:
    uid = beamline.measure(GROUPS)
    assert wait_until_written(data, 120.0)
    run = catalog[uid]
    frames = check(run, data, 8)
    first = int(frames[0, 0, 0, 0])
    assert frames[:, 0, 0, 0].tolist() == [first + 1000 * i for i in range(8)]
    client = run["primary/ccd"]
    np.testing.assert_array_equal(client[5], frames[5])
    np.testing.assert_array_equal(client[-1:0:-3, 0, 1:3, ::2], frames[-1:0:-3, 0, 1:3, ::2])
    np.testing.assert_array_equal(client.read_block((0, 0, 0, 0)), frames)
    assert client.dims == ("time", "repeat", "y", "x")
    assert run["dark/ccd"].read()[0, 0, 0, 0] == first - 1000
    assert run.metadata["start"]["planned_keys"] == [list(group) for group in GROUPS]
    assert run.metadata["stop"]["exit_status"] == "success"
    assert run.primary.metadata["configuration"]["ccd"]["data"] == {"ccd_gain": 1.5}


def test_documents_come_back_as_recorded(beamline: Any, catalog: Any, data: Path) -> None:
    uid = beamline.measure(GROUPS)
    assert wait_until_written(data, 120.0)
    assert [(name, dict(doc)) for name, doc in catalog[uid].documents()] == list(
        read_journal(data / "journal" / f"{uid}.jsonl")
    )


def test_finished_exposures_are_read_during_the_run(
    beamline: Any, catalog: Any, data: Path
) -> None:
    seen = []

    def look(count: int) -> Any:
        assert wait_until_written(data, 120.0)
        run = catalog[newest_run(data)]
        if "primary" in run:
            temporary = list((data / "frames").glob("*.tmp"))
            seen.append((len(check(run, data, len(seen) + 1)), len(temporary)))
        yield from bps.null()

    beamline.measure(GROUPS, hook=look)
    assert seen == [(n + 1, 1) for n in range(8)]


def test_more_frames_than_events_and_an_exposure_under_way(
    beamline: Any, catalog: Any, data: Path
) -> None:
    def interrupt(count: int) -> Any:
        beamline.camera.acquire()
        if count % 3 == 0:
            beamline.camera.acquire()
        assert wait_until_written(data, 120.0)
        run = catalog[newest_run(data)]
        if "primary" in run:
            check(run, data, run["primary/ccd"].shape[0])
        yield from bps.null()

    uid = beamline.measure(GROUPS, hook=interrupt)
    assert wait_until_written(data, 120.0)
    check(catalog[uid], data, 8)


def test_events_that_were_taken_again_after_a_pause_are_both_kept(
    beamline: Any, catalog: Any, data: Path
) -> None:
    paused = []

    def pause(count: int) -> Any:
        if len(paused) < 2 and len(beamline.camera.key) and beamline.camera.key["key_repeat"] == 1:
            paused.append(count)
            yield from bps.pause()
        else:
            yield from bps.null()

    with pytest.raises(RunEngineInterrupted):
        beamline.measure(GROUPS, hook=pause)
    with pytest.raises(RunEngineInterrupted):
        beamline.engine.resume()
    beamline.engine.resume()
    assert wait_until_written(data, 120.0)
    run = catalog[newest_run(data)]
    check(run, data, 10)
    numbers = run["primary"].read(variables=["seq_num"])["seq_num"].values.tolist()
    assert len(numbers) - len(set(numbers)) == 2


def test_flavours_do_not_mix(beamline: Any, catalog: Any, data: Path) -> None:
    uid = beamline.measure(GROUPS)
    assert wait_until_written(data, 120.0)
    for _ in range(2):
        assert type(catalog[uid]).__name__ == "BlueskyRunV3"
        assert type(catalog.v2[uid]).__name__ == "BlueskyRunV2SQL"
        assert type(catalog[uid].v2).__name__ == "BlueskyRunV2SQL"
        assert type(catalog.v3[uid]).__name__ == "BlueskyRunV3"
        assert type(catalog.v2.v3[uid]).__name__ == "BlueskyRunV3"
        assert len(catalog.v1[uid].table()) == 8
    run = catalog.v2[uid]
    assert run.primary.read()["ccd"].shape == (8, 1, 6, 5)
    assert run["primary"]["data"]["ccd"].read().shape == (8, 1, 6, 5)
    assert run.primary["config"]["ccd"].read()["ccd_gain"].values.tolist() == [1.5]
    assert catalog.v1[uid].start["series"] == "a-series"


def test_a_lost_file_is_named_and_the_others_are_read(
    beamline: Any, catalog: Any, data: Path
) -> None:
    uid = beamline.measure(GROUPS)
    assert wait_until_written(data, 120.0)
    client = catalog[uid]["primary/ccd"]
    (source,) = client.data_sources()
    lost = Path(source.assets[1].data_uri.removeprefix("file://localhost"))
    lost.unlink()
    assert client[:3].shape == (3, 1, 6, 5)
    with pytest.raises(ClientError, match=f"422.*{lost.name}"):
        client[3]


def test_only_loopback_and_only_with_the_key(service: ServiceProcess, data: Path) -> None:
    folder = data / "catalog"
    key = (folder / "api_key").read_text()
    assert len(key) == 64
    assert stat.S_IMODE((folder / "api_key").stat().st_mode) == 0o600
    address = json.loads((folder / "address.json").read_text())
    assert address["pid"] == service.process_id
    assert address["uri"].startswith("http://127.0.0.1:")
    assert httpx.get(f"{address['uri']}search/").status_code == 401
    assert httpx.get(f"{address['uri']}search/?api_key=wrong").status_code == 401
    assert httpx.get(
        f"{address['uri']}search/", headers={"Authorization": f"Apikey {key}"}
    ).is_success
    told = [*(data / "logs").iterdir(), folder / "address.json", *(folder / "profiles").iterdir()]
    assert not any(key in path.read_text() for path in told)
    for pid in [service.process_id, *children(service.process_id)]:
        assert key not in Path(f"/proc/{pid}/cmdline").read_text()


def test_databroker_finds_it_by_name(beamline: Any, data: Path) -> None:
    uid = beamline.measure(GROUPS)
    assert wait_until_written(data, 120.0)
    program = f"""
import databroker
from databroker.v1 import Broker
print(databroker.catalog["mistral_txm"][{uid!r}].primary.read()["ccd"].shape)
print(len(Broker.named("mistral_txm")[{uid!r}].table()))
"""
    environment = {**os.environ, **catalog_environment(data)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["(8, 1, 6, 5)", "8"]


def test_a_second_service_is_refused(service: ServiceProcess, data: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mistral_txm.services.catalog", "--data", str(data)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert f"served already, by process {service.process_id}" in done.stderr


def test_a_slow_server_delays_nothing_and_loses_nothing(
    service: ServiceProcess, beamline: Any, catalog: Any, data: Path
) -> None:
    (server,) = children(service.process_id)
    os.kill(server, signal.SIGSTOP)
    try:
        begin_s = time.monotonic()
        uid = beamline.measure(GROUPS)
        assert (
            time.monotonic() - begin_s < 40.0
        )  # a writer that waits for the server gives up after 49 s
        time.sleep(0.5)
        assert not wait_until_written(data, 0.0)
    finally:
        os.kill(server, signal.SIGCONT)
    assert wait_until_written(data, 120.0)
    check(catalog[uid], data, 8)


def test_a_killed_server_comes_back_and_nothing_is_lost_or_doubled(
    service: ServiceProcess, beamline: Any, catalog: Any, data: Path
) -> None:
    address = (data / "catalog" / "address.json").read_text()
    killed = []

    def kill(count: int) -> Any:
        if beamline.camera.key["key_repeat"] == 2 and not killed:
            assert wait_until_written(data, 120.0)
            killed.extend(children(service.process_id))
            os.kill(killed[0], signal.SIGKILL)
        yield from bps.null()

    uid = beamline.measure(GROUPS, hook=kill)
    assert wait_until_written(data, 120.0)
    check(catalog[uid], data, 8)
    assert catalog[uid].metadata["stop"]["exit_status"] == "success"
    assert children(service.process_id) != killed
    assert (data / "catalog" / "address.json").read_text() == address
    assert len(list(catalog)) == len(set(catalog)) == len(journal_files(data / "journal"))


def test_a_folder_without_a_service_is_opened_and_completed(
    beamline: Any, data: Path, tmp_path: Path
) -> None:
    beamline.measure(GROUPS)
    path = journal_files(data / "journal")[-1]
    (tmp_path / "journal").mkdir()
    lines = path.read_bytes().splitlines(keepends=True)
    cut = b"".join(lines[:-2]) + lines[-2][:40]
    (tmp_path / "journal" / path.name).write_bytes(cut)
    shutil.copytree(data / "frames", tmp_path / "frames")
    program = f"""
import os, signal, sys
from pathlib import Path
from mistral_txm.services.catalog import open_catalog
run = open_catalog(Path({str(tmp_path)!r}))[{path.stem!r}]
print(sorted(run.metadata), len(run["primary"].read(variables=["seq_num"])["seq_num"]))
print(open({str(tmp_path)!r} + "/catalog/address.json").read(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    told, address = done.stdout.splitlines()
    assert told.endswith(" 7"), done.stderr
    assert "'stop'" not in told
    pid = json.loads(address)["pid"]
    deadline_s = time.monotonic() + 120
    while children(pid) or Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline_s, "a service outlived the program that started it"
        time.sleep(0.05)
    assert not (tmp_path / "catalog" / "address.json").exists()


@pytest.fixture
def make_writer(data: Path, tmp_path: Path) -> Iterator[Callable[[], CatalogWriter]]:
    """Make writers, one after the other, of another journal into the catalog of the session."""
    address = json.loads((data / "catalog" / "address.json").read_text())
    key = (data / "catalog" / "api_key").read_text()
    made: list[CatalogWriter] = []

    def make() -> CatalogWriter:
        made.append(CatalogWriter(tmp_path / "journal", address["uri"], key))
        return made[-1]

    yield make
    for writer in made:
        writer.close()


def test_a_run_that_is_refused_is_reported_and_the_others_are_written(
    make_writer: Callable[[], CatalogWriter], beamline: Any, catalog: Any, tmp_path: Path
) -> None:
    other = type(beamline)(tmp_path)
    bad, good = other.measure(GROUPS), other.measure(GROUPS[:1])
    path = tmp_path / "journal" / f"{bad}.jsonl"
    path.write_text(path.read_text().replace('"seq_num":2,', '"seq_num":"two",'))
    writer = make_writer()
    for _ in range(5):
        writer.step(lambda: False)
    progress = writer.progress()
    assert progress[good]["complete"]
    assert "two" in progress[bad]["failed"]
    assert not progress[bad]["complete"]
    catalog.delete_contents([bad, good], recursive=True, external_only=False)


def test_an_interrupted_writer_starts_over_and_an_orderly_one_rests(
    make_writer: Callable[[], CatalogWriter], beamline: Any, catalog: Any, tmp_path: Path
) -> None:
    uid = type(beamline)(tmp_path).measure(GROUPS)
    path = tmp_path / "journal" / f"{uid}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)

    def rows() -> int:
        return len(catalog[uid]["primary"].read(variables=["seq_num"])["seq_num"])

    path.write_bytes(b"".join(lines[:12]))  # the frame of the second Event, but not the Event
    make_writer().step(lambda: False)
    assert (rows(), catalog[uid]["primary/ccd"].shape) == (1, (1, 1, 6, 5))
    path.write_bytes(b"".join(lines[:-1]))
    orderly = make_writer()
    assert orderly.step(lambda: False) == len(lines) - 2
    assert rows() == 8
    orderly.finish()
    rested = make_writer()
    assert rested.step(lambda: False) == 0
    assert rested.progress() == orderly.progress()
    path.write_bytes(b"".join(lines))
    assert rested.step(lambda: False) == len(lines) - 1
    assert rested.progress()[uid]["complete"]
    assert rows() == 8
    assert make_writer().step(lambda: False) == 0
    catalog.delete_contents(uid, recursive=True, external_only=False)


def test_nothing_to_open_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no measurement here"):
        open_catalog(tmp_path / "nothing")


def test_what_the_catalog_cannot_read_is_told_in_one_line(catalog: Any, data: Path) -> None:
    with (
        pytest.raises(CatalogError, match=r"^run abc: the catalog cannot read it, .*404"),
        reading(data, "abc"),
    ):
        catalog.context.http_client.get(f"{catalog.uri}/nothing").raise_for_status()
