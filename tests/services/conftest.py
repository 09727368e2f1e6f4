"""A small soft detector that writes HDF5 as an areaDetector does, and one catalog service for all
tests."""

import os
import uuid
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
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
    *,
    keys: Container[tuple[float, float, int, int]] | None = None,
    flats: int = 0,
    md: dict[str, Any] | None = None,
) -> Any:
    """Plan of one run: a dark, flats of each helicity, then each group ``(phi, theta, helicity, repeats)`` in a file
    of its own; only those ``keys`` if they are given."""

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
            **(md or {}),
        }
    )
    def inner() -> Any:
        camera.open_file(f"dark-{uuid.uuid4()}.h5")
        yield from expose("dark", (phi_deg, 0.0, 0, 0))
        for helicity in (1, -1):
            for repeat in range(flats):
                yield from expose("flat", (phi_deg, 0.0, helicity, repeat))
        for group in groups:
            camera.open_file(f"{'_'.join(map(str, group[:3]))}-{uuid.uuid4()}.h5")
            for repeat in range(group[3]):
                if keys is None or (*group[:3], repeat) in keys:
                    yield from expose("primary", (*group[:3], repeat))
        camera.close_file()

    return (yield from inner())


class Said:
    """Something that is read into an Event of its own: a line of the log, or a waived key."""

    parent = None

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self.name = name
        self._values = {f"{name}_{key}": value for key, value in values.items()}

    def read(self) -> dict[str, Any]:
        return {key: {"value": value, "timestamp": 1.0} for key, value in self._values.items()}

    def describe(self) -> dict[str, Any]:
        kinds = {str: "string", int: "integer", float: "number"}
        return {
            key: {"source": "SOFT", "dtype": kinds[type(value)], "shape": []}
            for key, value in self._values.items()
        }

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}


def say(kind: str, text: str) -> Any:
    """Record a line in the log of the run."""
    yield from bps.create("log")
    yield from bps.read(Said("log", {"kind": kind, "text": text}))
    yield from bps.save()


def waive(phi_deg: float, theta_deg: float, helicity: int, repeat: int) -> Any:
    """Record that this repeat and all higher ones are not needed."""
    values = {"phi_deg": phi_deg, "theta_deg": theta_deg, "helicity": helicity, "repeat": repeat}
    yield from bps.create("waived")
    yield from bps.read(Said("waived", values))
    yield from bps.save()


class Beamline:
    """A RunEngine with a journal and a camera, on one data folder."""

    say = staticmethod(say)
    waive = staticmethod(waive)

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

    def reject(
        self,
        keys: Iterable[tuple[float, float, int, int]],
        series: str = "a-series",
        reason: str = "the film slipped",
    ) -> str:
        """Reject exposures of a series and return the uid of the run."""
        rejected = [list(key) for key in keys]
        md = {"plan_name": "reject", "series": series, "rejected_keys": rejected, "reason": reason}

        def plan() -> Any:
            yield from bps.open_run(md)
            yield from bps.close_run()

        (uid,) = self.engine(plan())
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


class WrittenSeries:
    """A tiny series as a beamline would leave it: documents, and frames of a uniformly magnetized film.

    The film is ``THICKNESS_NM`` thick; its absorbances are, from Beer and Lambert alone,
    ``A(+/-) = THICKNESS_NM * (MU_PER_NM +/- DELTA_PER_NM * m.k) / cos(theta)``.
    """

    PIXEL_NM = 10.5
    THICKNESS_NM = 84.0
    MU_PER_NM = 0.004
    DELTA_PER_NM = 0.0006
    MAGNETIZATION = (0.5, -0.4, 0.7)
    SHAPE = (48, 48)
    PHOTONS, GAIN, DARK_COUNTS = 8000, 4.0, 300.0

    def __init__(
        self,
        data: Path,
        *,
        azimuths_deg: tuple[float, ...] = (0.0, 102.0),
        tilts_deg: tuple[float, ...] = (-40.0, -10.0, 25.0),
        repeats: int = 2,
        uid: str = "written",
    ) -> None:
        self.data = data
        self.uid = uid
        self.repeats = repeats
        self.planned = [
            [phi, theta, helicity, repeats]
            for phi in azimuths_deg
            for theta in tilts_deg
            for helicity in (1, -1)
        ]
        self.runs = 0

    def dichroic(self, phi_deg: float, theta_deg: float) -> float:
        """``S = thickness * delta * (mx tan(theta) cos(phi) - my tan(theta) sin(phi) + mz)``."""
        mx, my, mz = self.MAGNETIZATION
        t, phi = np.tan(np.deg2rad(theta_deg)), np.deg2rad(phi_deg)
        along = mx * t * np.cos(phi) - my * t * np.sin(phi) + mz
        return float(self.THICKNESS_NM * self.DELTA_PER_NM * along)

    def absorption(self, theta_deg: float) -> float:
        return float(self.THICKNESS_NM * self.MU_PER_NM / np.cos(np.deg2rad(theta_deg)))

    def frame(
        self, stream: str, key: tuple[float, float, int, int], current_ma: float
    ) -> np.ndarray:
        """Return counts, the same for the same exposure."""
        phi_deg, theta_deg, helicity, _ = key
        noise = np.random.default_rng(zlib.crc32(repr((stream, key)).encode()))
        photons = np.zeros(self.SHAPE)
        if stream != "dark":
            absorbance = 0.0
            if stream in ("primary", "zero"):
                dichroic = helicity * self.dichroic(phi_deg, theta_deg)
                absorbance = self.absorption(theta_deg) + dichroic
            structure = 1 + 0.2 * np.sin(np.arange(self.SHAPE[1]) / 5)
            mean = self.PHOTONS * structure * current_ma / 250 * np.exp(-absorbance)
            photons = noise.poisson(mean, self.SHAPE)
        return np.rint(
            self.DARK_COUNTS + self.GAIN * photons + noise.normal(0, 3, self.SHAPE)
        ).astype("<u2")

    def run(
        self,
        phi_deg: float,
        *,
        keys: list[tuple[float, float, int, int]] | None = None,
        returned: Sequence[tuple[float, float, int, int]] = (),
        flats_at_end: bool = False,
        stop: bool = True,
        stated_phi_deg: float | None = None,
        waived: Iterable[tuple[float, float, int, int]] = (),
        alter: Callable[[str, dict[str, Any]], None] = lambda stream, data: None,
    ) -> list[tuple[str, dict[str, Any]]]:
        """Write the frames of one run and return its documents.

        ``keys``: what of the plan it takes, by default all of its azimuth. ``returned``: what it takes at
        the return to zero tilt. ``alter`` may change the data of an Event. ``waived``: repeats that are not
        needed from there on.
        """
        self.runs += 1
        run_uid = f"{self.uid}-run{self.runs}"
        if keys is None:
            keys = [
                (phi, theta, helicity, repeat)
                for phi, theta, helicity, repeats in self.planned
                if phi == phi_deg
                for repeat in range(repeats)
            ]
        documents: list[tuple[str, dict[str, Any]]] = [
            (
                "start",
                {
                    "uid": run_uid,
                    "time": 1000.0 * self.runs,
                    "series": self.uid,
                    "phi_deg": phi_deg if stated_phi_deg is None else stated_phi_deg,
                    "planned_keys": self.planned,
                    "pixel_nm": self.PIXEL_NM,
                    "saturation_counts": 65000,
                    "sample": {
                        "name": "uniform film",
                        "layers_nm": [[-self.THICKNESS_NM / 2, self.THICKNESS_NM / 2]],
                    },
                    "measurement": {
                        "energy_ev": 707.4,
                        **({"return_to_zero": {"repeats": 2}} if returned else {}),
                    },
                },
            )
        ]
        streams = ("dark", "flat", "primary", "zero") if returned else ("dark", "flat", "primary")
        for stream in streams:
            documents.append(
                (
                    "descriptor",
                    {
                        "uid": f"{run_uid}-{stream}",
                        "run_start": run_uid,
                        "name": stream,
                        "data_keys": {"key_phi_deg": {}},
                    },
                )
            )
        seq_nums = dict.fromkeys(streams, 0)

        def take(stream: str, taken: list[tuple[float, float, int, int]], name: str) -> None:
            path = self.data / "frames" / f"{run_uid}-{name}.h5"
            path.parent.mkdir(parents=True, exist_ok=True)
            frames = [self.frame(stream, key, 250.0 - key[3]) for key in taken]
            with h5py.File(path, "w") as file:
                file.create_dataset(DATASET, data=np.stack(frames), chunks=(1, *self.SHAPE))
            resource = f"{run_uid}-{name}"
            documents.append(
                (
                    "stream_resource",
                    {
                        "uid": resource,
                        "run_start": run_uid,
                        "uri": f"file://localhost{path}",
                        "parameters": {"dataset": DATASET},
                    },
                )
            )
            for number, (key, frame) in enumerate(zip(taken, frames, strict=True)):
                seq_nums[stream] += 1
                seq_num = seq_nums[stream]
                documents.append(
                    (
                        "stream_datum",
                        {
                            "uid": f"{resource}/{number}",
                            "stream_resource": resource,
                            "descriptor": f"{run_uid}-{stream}",
                            "seq_nums": {"start": seq_num, "stop": seq_num + 1},
                        },
                    )
                )
                data = {
                    "key_phi_deg": key[0],
                    "key_theta_deg": key[1],
                    "key_helicity": key[2],
                    "key_repeat": key[3],
                    "theta": key[1],
                    "polarization": key[2],
                    "ccd_frame_number": number,
                    "ccd_frame_crc32": frame_crc32(frame),
                    "ccd_exposure_s": 1.0,
                    "ccd_saturated_fraction": 0.0,
                    "ring_current": 250.0 - key[3],
                }
                alter(stream, data)
                documents.append(
                    (
                        "event",
                        {
                            "uid": f"{run_uid}-{stream}-{seq_num}",
                            "descriptor": f"{run_uid}-{stream}",
                            "seq_num": seq_num,
                            "time": 1000.0 * self.runs + len(documents),
                            "data": data,
                        },
                    )
                )

        def flats(first: int) -> None:
            for helicity in (1, -1):
                numbers = range(first, first + 4)
                taken = [(phi_deg, 0.0, helicity, number) for number in numbers]
                take("flat", taken, f"flat{helicity:+d}-{first}")

        take("dark", [(phi_deg, 0.0, 0, number) for number in range(4)], "dark")
        flats(0)
        for theta, helicity in dict.fromkeys(key[1:3] for key in keys):
            group = [key for key in keys if key[1:3] == (theta, helicity)]
            take("primary", group, f"{theta:g}_{helicity:+d}")
        for helicity in dict.fromkeys(key[2] for key in returned):
            take("zero", [key for key in returned if key[2] == helicity], f"zero_{helicity:+d}")
        if flats_at_end:
            flats(4)
        documents += self._waived(run_uid, waived)
        if stop:
            documents.append(
                ("stop", {"uid": f"{run_uid}-stop", "run_start": run_uid, "exit_status": "success"})
            )
        return documents

    @staticmethod
    def _waived(
        run_uid: str, waived: Iterable[tuple[float, float, int, int]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        stream = {"uid": f"{run_uid}-waived", "run_start": run_uid, "name": "waived"}
        yield "descriptor", stream | {"data_keys": {"waived_phi_deg": {}}}
        columns = ("waived_phi_deg", "waived_theta_deg", "waived_helicity", "waived_repeat")
        for number, key in enumerate(waived):
            event = {"uid": f"{run_uid}-waived-{number}", "descriptor": f"{run_uid}-waived"}
            data = dict(zip(columns, key, strict=True))
            yield "event", event | {"seq_num": number + 1, "time": 1.0, "data": data}

    def reject(
        self, keys: Iterable[tuple[float, float, int, int]]
    ) -> list[tuple[str, dict[str, Any]]]:
        """Return the documents of a run that rejects exposures."""
        self.runs += 1
        start = {
            "uid": f"{self.uid}-run{self.runs}",
            "time": 1000.0 * self.runs,
            "plan_name": "reject",
            "series": self.uid,
            "rejected_keys": [list(key) for key in keys],
            "reason": "the film slipped",
        }
        stop = {"uid": f"{start['uid']}-stop", "run_start": start["uid"], "exit_status": "success"}
        return [("start", start), ("stop", stop)]

    def record(self, documents: list[tuple[str, dict[str, Any]]]) -> Path:
        """Write the documents of one run into the journal; return the file."""
        with JournalWriter(self.data / "journal") as journal:
            for name, doc in documents:
                journal(name, doc)
        return self.data / "journal" / f"{documents[0][1]['uid']}.jsonl"

    @staticmethod
    def damage(documents: list[tuple[str, dict[str, Any]]], number: int = 0) -> Path:
        """Overwrite one frame of the last file of a run; return the file."""
        uri = [doc["uri"] for name, doc in documents if name == "stream_resource"][-1]
        path = Path(uri.removeprefix("file://localhost"))
        with h5py.File(path, "r+") as file:
            file[DATASET][number] += 1
        return path


@pytest.fixture(scope="session")
def written_series() -> type[WrittenSeries]:
    """The class, so that a test chooses what is planned."""
    return WrittenSeries


@pytest.fixture(scope="session")
def beamline_class() -> type[Beamline]:
    """The class, so that a test chooses where its data go."""
    return Beamline
