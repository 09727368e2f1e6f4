"""Scans of the simulated beamline over Channel Access: edge, XMCD, both foci, and the light of the slit.

What is expected comes from the truth that the simulation writes and from formulas evaluated here.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from bluesky import Msg, RunEngine
from bluesky.utils import RunEngineInterrupted
from scipy.integrate import quad
from scipy.special import kv

from mistral_txm.plans import energy_scan, focus_series, polarization_scan
from mistral_txm.services.journal import JournalWriter
from mistral_txm.services.runs import list_runs
from mistral_txm.services.scan_results import (
    evaluate_energy_scan,
    evaluate_focus_series,
    evaluate_polarization_scan,
)
from mistral_txm.services.scans import Scan, read_scan
from mistral_txm.services.verification import series_status

pytestmark = pytest.mark.slow

EXPOSING: dict[str, Any] = {
    "exposure_s": 8.0,
    "repeats": 2,
    "flat_exposure_s": 3.0,
    "flat_repeats": 3,
    "dark_repeats": 3,
}


class _Pauses:
    """A hook that pauses a RunEngine at each message between the first checkpoint and the end of the run."""

    def __init__(self, RE: RunEngine) -> None:
        self._RE = RE
        self._pausable = False
        self.seen: dict[int, Msg] = {}

    def __call__(self, message: Msg) -> None:
        self._pausable |= message.command == "checkpoint"
        self._pausable &= message.command not in ("close_run", "unstage")
        if self._pausable and id(message) not in self.seen:
            self.seen[id(message)] = message  # kept, so that its id stays its own
            self._RE.loop.create_task(self._RE._request_pause_coro(False))


class Engine:
    """A RunEngine with a journal of its own."""

    def __init__(self, data: Path, journal: JournalWriter, shutter: Any) -> None:
        self.data = data
        self._shutter = shutter
        self._RE = RunEngine({}, context_managers=[])
        self._RE.subscribe(journal)

    def run(self, plan: Any, pause_at_each_message: bool = False) -> Scan:
        """Run a scan, and read it from the journal."""
        pauses = _Pauses(self._RE)
        self._RE.msg_hook = pauses if pause_at_each_message else None
        go: Callable[[], Any] = lambda: self._RE(plan)  # noqa: E731  # replaced after a pause
        while True:
            try:
                go()
                break
            except RunEngineInterrupted:
                deadline = time.monotonic() + 60
                while self._shutter.status.get(use_monitor=False) != "Closed":
                    assert time.monotonic() < deadline, "the shutter is open in a pause"
                go = self._RE.resume
        assert len(pauses.seen) > 100 or not pause_at_each_message
        newest = list_runs(self.data)[-1]
        assert newest.exit_status == "success", newest.reason
        scan = read_scan(self.data, newest.uid[:8])
        assert newest.exposures == scan.start["n_planned"]
        assert series_status(self.data) == {"series": []}  # no series, so nothing to resume
        return scan


@pytest.fixture
def engine(instrument: Any, tmp_path: Path) -> Iterator[Engine]:
    instrument.azimuth.set(0.0).wait(120)
    for device, position in ((instrument.theta, 0.0), (instrument.energy, 707.4)):
        device.set(position).wait(120)
    with JournalWriter(tmp_path / "journal") as journal:
        yield Engine(tmp_path, journal, instrument.shutter)


def test_an_energy_scan_finds_the_edge_and_the_xmcd_with_its_sign(
    instrument: Any, engine: Engine, simulated_beamline: Any
) -> None:
    energies_ev = [702.0, 705.0, 706.0, 706.5, 707.0, 707.5, 708.0, 709.0, 711.0, 719.5, 721.5]
    scan = engine.run(energy_scan(instrument, energies_ev, **EXPOSING))
    results = evaluate_energy_scan(scan)
    with h5py.File(simulated_beamline.data / "truth.h5") as truth:
        along_vu = truth["mz"][...].sum(axis=0)
    assert set(results) == {1, -1}
    for kind, result in results.items():
        assert (np.sign(along_vu[result.region_vu]) == kind).mean() > 0.95
        assert result.edge is not None
        assert result.edge.energy_ev == pytest.approx(707.4, abs=0.3)
        significance = kind * result.xmcd.value_e / result.xmcd.std_e
        at = dict(zip(energies_ev, significance, strict=True))
        assert at[707.5] > 50  # L3: with magnetization along the beam, helicity +1 is absorbed more
        assert at[719.5] < -20  # L2: less
        assert at[721.5] < -20
        assert abs(result.xmcd.value_e[0]) < 0.05 * abs(result.xmcd.value_e).max()
    assert not instrument.shutter.is_open
    assert instrument.energy.position == pytest.approx(707.4, abs=0.05)


SHORTEST: dict[str, Any] = EXPOSING | {"repeats": 1, "flat_repeats": 2, "dark_repeats": 2}


@pytest.mark.parametrize("scan", ["energy", "jaws"])
def test_a_pause_at_each_message_repeats_nothing_and_loses_nothing(
    instrument: Any, engine: Engine, scan: str
) -> None:
    foci_um = instrument.polarization.focus_positive_um, instrument.polarization.focus_negative_um
    before = [focus_um.get() for focus_um in foci_um]
    plan = {
        "energy": lambda: energy_scan(instrument, [700.0], **SHORTEST),
        "jaws": lambda: polarization_scan(instrument, [0.0], 0.5, **SHORTEST),
    }[scan]
    found = engine.run(plan(), pause_at_each_message=True)
    taken = [one for exposures in found.sample.values() for one in exposures]
    assert len(taken) == len({one.key for one in taken}) == found.start["n_planned"]
    flats = [one for exposures in found.flats.values() for one in exposures]
    assert len(flats) == 2 * len(found.flats) == 2 * len(found.sample)
    for exposure in (*taken, *flats):
        assert exposure.read().mean() > 1000  # the frame is there, and saw light
    assert [focus_um.get() for focus_um in foci_um] == before
    instrument.shutter.set("closed").wait(120)


def test_a_focus_series_finds_the_focus_of_each_helicity(instrument: Any, engine: Engine) -> None:
    z_um = np.arange(-3.0, 5.1, 1.0)
    for helicity, expected_um in ((1, 0.0), (-1, 1.5)):
        scan = engine.run(focus_series(instrument, helicity, z_um, **EXPOSING))
        focus = evaluate_focus_series(scan).focus
        assert focus.best_um == pytest.approx(expected_um, abs=0.3)
        assert focus.std_um < 0.2


def bending_magnet(low_mrad: float, high_mrad: float) -> tuple[float, float]:
    """Intensity and circular degree between two angles at 707.4 eV: K.-J. Kim, X-Ray Data Booklet, 2.1.

    ALBA: 2.979 GeV, 1.42 T.
    """
    gamma = 2.979e3 / 0.51099895
    y = 707.4 / (665.0 * 2.979**2 * 1.42)

    def amplitudes(angle_mrad: float) -> tuple[float, float]:
        x = gamma * angle_mrad * 1e-3
        xi = y * (1 + x**2) ** 1.5 / 2
        return (1 + x**2) * kv(2 / 3, xi), x * np.sqrt(1 + x**2) * kv(1 / 3, xi)

    flux = quad(lambda angle: np.sum(np.square(amplitudes(angle))), low_mrad, high_mrad)[0]
    circular = quad(lambda angle: 2 * np.prod(amplitudes(angle)), low_mrad, high_mrad)[0]
    return flux, circular / flux


def test_a_polarization_scan_shows_the_light_of_the_bending_magnet(
    instrument: Any, engine: Engine
) -> None:
    heights_mm = [-4.0, -2.5, -1.0, 0.0, 1.0, 2.5, 4.0]
    scan = engine.run(polarization_scan(instrument, heights_mm, 0.5, **EXPOSING))
    result = evaluate_polarization_scan(scan)
    assert result.angle_mrad_h == pytest.approx(np.array(heights_mm) / 10, abs=0.002)
    flux, degree = np.transpose(
        [bending_magnet(angle - 0.025, angle + 0.025) for angle in np.array(heights_mm) / 10]
    )
    nominal_flux, nominal_degree = bending_magnet(0.15, 0.25)
    assert result.intensity_h == pytest.approx(flux / nominal_flux, rel=0.005)
    pulls = (result.degree_h - degree / nominal_degree) / result.std_degree_h
    assert np.abs(pulls).max() < 4
    assert result.std_degree_h.max() < 0.02
    assert (np.sign(result.degree_h) == np.sign(heights_mm))[[0, 1, 2, 4, 5, 6]].all()
    odd = (result.degree_h + result.degree_h[::-1]) / np.hypot(
        result.std_degree_h, result.std_degree_h[::-1]
    )
    assert np.abs(odd).max() < 4
