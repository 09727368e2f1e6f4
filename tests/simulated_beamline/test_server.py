"""The simulated beamline over real Channel Access, driven by ophyd's own classes."""

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest


@pytest.fixture(scope="module")
def clients(simulated_beamline) -> Iterator[SimpleNamespace]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ophyd import EpicsMotor, EpicsSignal, EpicsSignalRO
        from ophyd.areadetector import ADComponent, AreaDetector
        from ophyd.areadetector.cam import CamBase
        from ophyd.areadetector.plugins import HDF5Plugin_V34

    class Ccd(AreaDetector):
        cam = ADComponent(CamBase, "cam1:")
        hdf = ADComponent(HDF5Plugin_V34, "HDF1:")

    class Shutter(EpicsSignal):
        pass

    names = SimpleNamespace(
        theta=EpicsMotor("SIM:GON:THETA", name="theta"),
        jaw_up=EpicsMotor("SIM:SLIT:UP", name="jaw_up"),
        ccd=Ccd("SIM:CCD:", name="ccd"),
        shutter=EpicsSignal("SIM:SHUTTER:Status", write_pv="SIM:SHUTTER:Cmd", name="shutter"),
        current=EpicsSignalRO("SIM:RING:Current", name="current"),
    )
    for device in vars(names).values():
        device.wait_for_connection(timeout=120)
    yield names
    names.shutter.set(0).wait(timeout=120)
    names.theta.set(0.0).wait(timeout=120)


def test_a_motor_moves_and_reports(clients):
    status = clients.theta.set(12.5)
    status.wait(timeout=120)
    assert status.success
    assert clients.theta.position == 12.5
    assert clients.theta.egu == "deg"
    assert clients.theta.limits == (-70.0, 70.0)


def test_a_motor_refuses_a_target_outside_its_limits(clients):
    from ophyd.utils import LimitError

    with pytest.raises(LimitError):
        clients.theta.set(71.0)


def test_frames_are_written_by_the_server_and_readable_while_it_writes(
    clients, simulated_beamline, tmp_path: Path
):
    hdf, cam = clients.ccd.hdf, clients.ccd.cam
    clients.shutter.set(1).wait(timeout=120)
    cam.image_mode.set(0).wait(timeout=120)
    cam.acquire_time.set(2.0).wait(timeout=120)
    hdf.file_path.set(str(tmp_path)).wait(timeout=120)
    hdf.file_name.set("frames").wait(timeout=120)
    hdf.file_template.set("%s%s.h5").wait(timeout=120)
    hdf.temp_suffix.set(".tmp").wait(timeout=120)
    hdf.file_write_mode.set("Stream").wait(timeout=120)
    hdf.lazy_open.set("No").wait(timeout=120)
    hdf.num_capture.set(0).wait(timeout=120)
    cam.acquire.put(1, use_complete=True, wait=True, timeout=120)  # tells the plug-in the size
    hdf.capture.set(1).wait(timeout=120)
    assert hdf.full_file_name.get() == f"{tmp_path}/frames.h5"
    for number in range(1, 4):
        cam.acquire.put(1, use_complete=True, wait=True, timeout=120)
        assert hdf.num_captured.get() == number
        with h5py.File(tmp_path / "frames.h5.tmp", swmr=True) as file:
            assert file["/entry/data/data"].shape == (number, 256, 256)
    hdf.capture.set(0).wait(timeout=120)
    assert not (tmp_path / "frames.h5.tmp").exists()
    with h5py.File(tmp_path / "frames.h5") as file:
        frames = file["/entry/data/data"]
        assert frames.chunks == (1, 256, 256)
        assert frames.dtype == np.dtype("<u2")
        assert not np.array_equal(frames[0], frames[1])


@pytest.mark.slow
def test_every_signal_of_ophyd_connects(clients):
    clients.ccd.wait_for_connection(all_signals=True, timeout=120)


def test_ophyds_own_file_store_classes_work_unchanged(clients, tmp_path: Path):
    """Stage, trigger, collect and unstage, with nothing of ours on the client's side."""
    from ophyd import Component
    from ophyd.areadetector import ADComponent, AreaDetector
    from ophyd.areadetector.cam import CamBase
    from ophyd.areadetector.filestore_mixins import FileStoreHDF5IterativeWrite
    from ophyd.areadetector.plugins import HDF5Plugin_V34

    class Writer(HDF5Plugin_V34, FileStoreHDF5IterativeWrite):
        pass

    class Detector(AreaDetector):
        cam = ADComponent(CamBase, "cam1:")
        hdf = Component(Writer, "HDF1:", write_path_template=str(tmp_path))

    clients.ccd.hdf.temp_suffix.set("").wait(timeout=120)
    detector = Detector("SIM:CCD:", name="detector")
    detector.wait_for_connection(timeout=120)
    clients.ccd.cam.acquire.put(1, use_complete=True, wait=True, timeout=120)
    detector.stage()
    detector.cam.acquire.put(1, use_complete=True, wait=True, timeout=120)
    detector.hdf.generate_datum("image", 0.0, {})
    documents = dict(detector.hdf.collect_asset_docs())
    detector.unstage()
    assert documents["resource"]["spec"] == "AD_HDF5"
    path = Path(documents["resource"]["root"]) / documents["resource"]["resource_path"]
    assert path.parent == tmp_path
    with h5py.File(path) as file:
        assert file["/entry/data/data"].shape == (1, 256, 256)


@pytest.fixture
def expose(clients):
    """Take one exposure that no file captures; returns its median counts, from the frame's ring."""
    cam = clients.ccd.cam

    def take():
        cam.image_mode.set(0).wait(timeout=120)
        cam.acquire_time.set(2.0).wait(timeout=120)
        cam.acquire.put(1, use_complete=True, wait=True, timeout=120)

    return take


@pytest.fixture
def fault(clients) -> Iterator[Callable[[str, float], Any]]:
    from ophyd import EpicsSignal

    turned = []

    def turn(name, value):
        signal = EpicsSignal(f"SIM:FAULT:{name}", name=name.replace(":", "_"))
        signal.wait_for_connection(timeout=120)
        signal.put(value, use_complete=True, wait=True, timeout=120)
        turned.append(signal)
        return signal

    yield turn
    for signal in turned:
        signal.put(0, use_complete=True, wait=True, timeout=120)


def test_a_beam_that_is_dumped_is_seen_in_the_ring_and_comes_back(clients, fault):
    dumped = fault("beam_dump", 1)
    assert clients.current.get() == 0
    dumped.put(0, use_complete=True, wait=True, timeout=120)
    assert clients.current.get() > 200


def test_a_beam_lost_in_an_exposure_stays_away_until_it_is_restored(clients, fault, expose):
    lost, dumped = fault("beam_lost", 1), fault("beam_dump", 0)
    expose()
    assert lost.get() == 0
    assert dumped.get() == 1
    assert clients.current.get() == 0


def test_a_shutter_that_sticks_says_so_unless_its_status_lies(clients, fault):
    fault("shutter_stuck_closed", 1)
    clients.shutter.put(1, use_complete=True, wait=True, timeout=120)
    assert clients.shutter.get(use_monitor=False) == 0
    fault("shutter_status_lies", 1)
    assert clients.shutter.get(use_monitor=False) == 1


def test_a_server_that_falls_silent_answers_again(clients, fault):
    fault("silence", 0.5)
    began_s = time.monotonic()
    while time.monotonic() < began_s + 0.25:
        clients.current.get(use_monitor=False, timeout=120)
    clients.current.get(use_monitor=False, timeout=120)
    assert time.monotonic() - began_s > 0.5
