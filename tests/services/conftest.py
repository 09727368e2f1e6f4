"""A small soft detector that writes HDF5 as an areaDetector does, and one catalog service for all
tests."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd.status import Status

from mistral_txm.services.frame_files import TEMPORARY_SUFFIX, frame_crc32
from mistral_txm.services.journal import JournalWriter
from mistral_txm.services.lifeline import ServiceProcess

FRAME_SHAPE = (6, 5)
DATASET = "/entry/data/data"


def frame_of(count: int) -> np.ndarray:
    """A frame that tells which exposure it is of."""
    y, x = np.indices(FRAME_SHAPE)
    return (1000 * count + 10 * y + x).astype(np.uint16)


class SoftCamera:
    """Frames appended to SWMR files with a temporary name, documents as the beamline's camera emits
    them."""

    name = "ccd"
    parent = None

    def __init__(self, frames: Path) -> None:
        self.folder = frames
        self.count = 0
        self.key = {"key_phi_deg": 0.0, "key_theta_deg": 0.0, "key_helicity": 0, "key_repeat": 0}
        self._file: h5py.File | None = None
        self._path: Path | None = None
        self._documents: list[tuple[str, dict[str, Any]]] = []
        self._number = -1
        self._crc32 = 0

    def open_file(self, name: str) -> None:
        self.close_file()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / name
        temporary = self._path.with_name(name + TEMPORARY_SUFFIX)
        self._file = h5py.File(temporary, "w", libver="latest")
        self._file.create_dataset(
            DATASET,
            (0, *FRAME_SHAPE),
            "u2",
            maxshape=(None, *FRAME_SHAPE),
            chunks=(1, *FRAME_SHAPE),
        )
        self._file.swmr_mode = True

    def close_file(self) -> None:
        if self._file is not None and self._path is not None:
            self._file.close()
            self._path.with_name(self._path.name + TEMPORARY_SUFFIX).rename(self._path)
        self._file = None

    def acquire(self) -> None:
        """Append one frame, as the detector's server does."""
        assert self._file is not None
        assert self._path is not None
        frames = self._file[DATASET]
        self._number = frames.shape[0]
        frames.resize(self._number + 1, axis=0)
        frames[self._number] = frame_of(self.count)
        frames.flush()
        self._crc32 = frame_crc32(frame_of(self.count))
        self.count += 1

    def trigger(self) -> Status:
        self.acquire()
        uid = str(uuid.uuid4())
        self._documents = [
            (
                "stream_resource",
                {
                    "uid": uid,
                    "data_key": "ccd",
                    "mimetype": "application/x-hdf5",
                    "uri": f"file://localhost{self._path}",
                    "parameters": {"dataset": DATASET, "chunk_shape": [1, 1, *FRAME_SHAPE]},
                },
            ),
            (
                "stream_datum",
                {
                    "uid": f"{uid}/0",
                    "stream_resource": uid,
                    "descriptor": "",
                    "indices": {"start": self._number, "stop": self._number + 1},
                    "seq_nums": {"start": 0, "stop": 0},
                },
            ),
        ]
        status = Status()
        status.set_finished()
        return status

    def collect_asset_docs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        documents, self._documents = self._documents, []
        yield from documents

    def _values(self) -> dict[str, Any]:
        return {
            "ccd_frame_number": self._number,
            "ccd_frame_crc32": self._crc32,
            "ccd_exposure_s": 0.1,
            "ccd_saturated_fraction": np.float64(0.0),
            "ccd_mean_counts": np.float32(frame_of(self.count).mean()),
            "ring_current": 250.0,
            "theta": self.key["key_theta_deg"] + 0.001,
            "polarization": self.key["key_helicity"],
            **self.key,
        }

    def read(self) -> dict[str, Any]:
        return {key: {"value": value, "timestamp": 1.0} for key, value in self._values().items()}

    def describe(self) -> dict[str, Any]:
        described: dict[str, Any] = {
            key: {
                "source": "SOFT",
                "dtype": "integer" if isinstance(value, int) else "number",
                "shape": [],
            }
            for key, value in self._values().items()
        }
        described["ccd"] = {
            "source": "SOFT",
            "dtype": "array",
            "dtype_numpy": "<u2",
            "shape": [1, *FRAME_SHAPE],
            "dims": ["repeat", "y", "x"],
            "external": "STREAM:",
        }
        return described

    def read_configuration(self) -> dict[str, Any]:
        return {"ccd_gain": {"value": np.float32(1.5), "timestamp": np.float64(2.0)}}

    def describe_configuration(self) -> dict[str, Any]:
        return {"ccd_gain": {"source": "SOFT", "dtype": "number", "shape": []}}


def measure(
    camera: SoftCamera,
    groups: list[tuple[float, float, int, int]],
    series: str = "a-series",
    hook: Callable[[int], Any] | None = None,
) -> Any:
    """Plan of one run: a dark, then each group ``(phi, theta, helicity, repeats)`` in a file of its
    own."""

    def expose(stream: str, key: tuple[float, float, int, int]) -> Any:
        yield from bps.checkpoint()
        camera.key = dict(
            zip(("key_phi_deg", "key_theta_deg", "key_helicity", "key_repeat"), key, strict=True)
        )
        yield from bps.trigger_and_read([camera], name=stream)
        if hook is not None:
            yield from hook(camera.count) or bps.null()

    phi_deg = groups[0][0]

    @bpp.run_decorator(
        md={
            "plan_name": "vector_tomography",
            "series": series,
            "phi_deg": phi_deg,
            "sample": {"name": "soft"},
            "planned_keys": [list(group) for group in groups],
            "n_planned": sum(group[3] for group in groups),
            "measurement": {"azimuths": np.array([phi_deg])},
        }
    )
    def inner() -> Any:
        camera.open_file(f"dark-{uuid.uuid4()}.h5")
        yield from expose("dark", (phi_deg, 0.0, 0, 0))
        for group in groups:
            camera.open_file(f"{'_'.join(map(str, group[:3]))}-{uuid.uuid4()}.h5")
            for repeat in range(group[3]):
                yield from expose("primary", (*group[:3], repeat))
        camera.close_file()

    return (yield from inner())


class Beamline:
    """A RunEngine with a journal and a camera, on one data folder."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.camera = SoftCamera(data / "frames")
        self.engine = RunEngine(context_managers=[])
        self.journal = JournalWriter(data / "journal")
        self.engine.subscribe(self.journal)

    def measure(self, *args: Any, **kwargs: Any) -> str:
        """Run one measurement and return the uid of the run."""
        (uid,) = self.engine(measure(self.camera, *args, **kwargs))
        return str(uid)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder that the catalog of the whole session serves."""
    return tmp_path_factory.mktemp("beamline")


@pytest.fixture(scope="session")
def service(data: Path) -> Iterator[ServiceProcess]:
    """The running catalog; tests that stop its server leave it running again."""
    process = ServiceProcess(
        "mistral_txm.services.catalog",
        ["--data", str(data), "--lifeline"],
        log=data / "logs" / "catalog.log",
        environment=dict(os.environ),
    )
    with process:
        process.wait_ready(120.0)
        yield process


@pytest.fixture(scope="session")
def catalog(data: Path, service: ServiceProcess) -> Any:
    """A client of it."""
    from mistral_txm.services.catalog import open_catalog

    return open_catalog(data)


@pytest.fixture
def beamline(data: Path) -> Beamline:
    """A beamline whose data go into the catalog of the session."""
    return Beamline(data)
