"""ophyd's own areaDetector classes on the simulated camera, with nothing of ours on the client's side."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

DATA = "/entry/data/data"


@pytest.fixture(scope="module")
def classes() -> Any:
    """Detectors as a beamline's profile declares them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ophyd import Component
        from ophyd.areadetector import ADComponent, AreaDetector, SimDetector, SingleTrigger
        from ophyd.areadetector.cam import CamBase
        from ophyd.areadetector.filestore_mixins import (
            FileStoreHDF5IterativeWrite,
            FileStoreHDF5SingleIterativeWrite,
        )
        from ophyd.areadetector.plugins import HDF5Plugin_V34

    class Stream(HDF5Plugin_V34, FileStoreHDF5IterativeWrite):
        def get_frames_per_point(self) -> int:
            return int(self.parent.cam.num_images.get())

    class Single(HDF5Plugin_V34, FileStoreHDF5SingleIterativeWrite):
        pass

    def make(writer: type, base: type = AreaDetector) -> Any:
        class Detector(SingleTrigger, base):  # type: ignore[misc]
            cam = ADComponent(CamBase, "cam1:")
            hdf1 = Component(writer, "HDF1:", write_path_template="/tmp")

        return Detector

    return {
        "plain": type(
            "Plain",
            (AreaDetector,),
            {
                "cam": ADComponent(CamBase, "cam1:"),
                "hdf1": Component(HDF5Plugin_V34, "HDF1:"),
            },
        ),
        "stream": make(Stream),
        "single": make(Single),
        "simulated": make(Stream, SimDetector),
    }


@pytest.fixture
def detector(classes: Any, simulated_beamline: Any, tmp_path: Path) -> Iterator[Any]:
    """Make a detector of a kind, primed, that writes into the test's folder.

    Writing takes a while, since ophyd has to see `Acquire` rise and fall: at a time scale of 0 an
    exposure can be over before `SingleTrigger.trigger` returns.
    """
    from ophyd import EpicsSignal

    storage_delay_s = EpicsSignal("SIM:FAULT:storage_delay", name="storage_delay")
    storage_delay_s.set(0.1).wait(timeout=120)
    made = []

    def make(kind: str) -> Any:
        device = classes[kind]("SIM:CCD:", name="detector", read_attrs=["hdf1"])
        device.hdf1.write_path_template = str(tmp_path)
        device.cam.wait_for_connection(timeout=120)
        device.hdf1.wait_for_connection(timeout=120)
        device.hdf1.temp_suffix.set("").wait(timeout=120)
        device.cam.acquire_time.set(1.0).wait(timeout=120)
        device.cam.acquire.put(1, use_complete=True, wait=True, timeout=120)
        made.append(device)
        return device

    yield make
    for device in made:
        device.unstage()
        device.cam.num_images.set(1).wait(timeout=120)
    storage_delay_s.set(0.0).wait(timeout=120)


def count(detector: Any, num: int) -> list[tuple[str, dict[str, Any]]]:
    """Run bluesky's count; returns the documents."""
    from bluesky import RunEngine
    from bluesky.plans import count as plan

    documents: list[tuple[str, dict[str, Any]]] = []
    run_engine = RunEngine({}, context_managers=[])
    run_engine(plan([detector], num=num), lambda name, doc: documents.append((name, doc)))
    return documents


def filled(documents: list[tuple[str, dict[str, Any]]]) -> list[np.ndarray]:
    """Read what the Events refer to, as databroker's handlers of these specs do."""
    resources = {doc["uid"]: doc for name, doc in documents if name == "resource"}
    data = {doc["datum_id"]: doc for name, doc in documents if name == "datum"}
    images = []
    for name, doc in documents:
        if name != "event":
            continue
        datum = data[doc["data"]["detector_image"]]
        resource = resources[datum["resource"]]
        path = Path(resource["root"]) / resource["resource_path"]
        options = resource["resource_kwargs"]
        frames, point = options["frame_per_point"], datum["datum_kwargs"]["point_number"]
        if resource["spec"] == "AD_HDF5":
            with h5py.File(path, "r") as file:
                images.append(file[DATA][point * frames : (point + 1) * frames])
        else:
            files = [
                options["template"] % (f"{path}/", options["filename"], point * frames + number)
                for number in range(frames)
            ]
            images.append(np.concatenate([read(each) for each in files]))
    return images


def read(path: str) -> np.ndarray:
    with h5py.File(path, "r") as file:
        return file[DATA][()]


@pytest.mark.slow
def test_every_component_of_ophyds_classes_connects(classes: Any, simulated_beamline: Any) -> None:
    detector = classes["plain"]("SIM:CCD:", name="detector")
    detector.wait_for_connection(all_signals=True, timeout=120)
    assert len(list(detector.walk_signals(include_lazy=True))) == 250


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stream", "simulated"])
def test_a_count_streams_every_image_into_one_file(
    detector: Any, tmp_path: Path, kind: str
) -> None:
    device = detector(kind)
    device.cam.num_images.set(2).wait(timeout=120)
    images = filled(count(device, 3))
    assert [image.shape for image in images] == [(2, 256, 256)] * 3
    frames_tvu = np.concatenate(images)
    assert len({frame_vu.tobytes() for frame_vu in frames_tvu}) == 6
    (path,) = tmp_path.iterdir()
    with h5py.File(path) as file:
        assert file[DATA].shape == (6, 256, 256)


@pytest.mark.slow
def test_a_count_writes_every_image_into_its_own_file(detector: Any, tmp_path: Path) -> None:
    images = filled(count(detector("single"), 3))
    assert [image.shape for image in images] == [(1, 256, 256)] * 3
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
def test_region_and_binning_reach_the_file_and_the_documents(detector: Any) -> None:
    device = detector("stream")
    cam = device.cam
    try:
        cam.min_y.set(10).wait(timeout=120)
        cam.size.size_y.set(64).wait(timeout=120)
        cam.bin_x.set(4).wait(timeout=120)
        cam.acquire.put(1, use_complete=True, wait=True, timeout=120)
        documents = count(device, 1)
        (image,) = filled(documents)
        assert image.shape == (1, 64, 64)
        described = next(doc for name, doc in documents if name == "descriptor")
        assert list(described["data_keys"]["detector_image"]["shape"])[-2:] == [64, 64]
        cam.size.size_y.put(4000, use_complete=True, wait=True, timeout=120)
        assert cam.size.size_y.get() == 246
    finally:
        cam.min_y.set(0).wait(timeout=120)
        cam.size.size_y.set(256).wait(timeout=120)
        cam.bin_x.set(1).wait(timeout=120)


@pytest.mark.slow
def test_warmup_primes_the_plugin(detector: Any, tmp_path: Path) -> None:
    device = detector("single")
    device.hdf1.file_write_mode.set("Single").wait(timeout=120)
    device.hdf1.file_path.set(f"{tmp_path}/").wait(timeout=120)
    device.cam.num_images.set(1).wait(timeout=120)
    before = device.hdf1.unique_id.get()
    device.hdf1.warmup()
    assert device.hdf1.unique_id.get() > before
    assert device.hdf1.array_size.get() == (0, 256, 256)
