"""Scans: from the documents of a run and its frames to rates by helicity and position (results: `scan_results`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.frames import Dark, Rate, dark_level, mean_rate, measure_noise
from mistral_txm.reconstruction.signal import Signals, absorbance, helicity_signals
from mistral_txm.services.exposures import Exposure, RunExposures
from mistral_txm.services.journal import read_journal
from mistral_txm.services.run_export import find_run

Place = tuple[int, float | None]
"""Helicity of the jaws (0: at neither), and the planned position; None where nothing was scanned.

The position of a field of view of a mosaic is its number.
"""

FIXED_FLATS = ("zone_plate_z", "theta", "stage")
"""Scans whose open beam is exposed once."""


LEAST_LIGHT_COUNTS = 20.0
"""Mean above the dark level below which flats show no light."""


class ScanError(ValueError):
    """A run is not the scan that is asked for, or has too little of it; the message says what lacks."""


@dataclass(frozen=True)
class Scan:
    """One scan: its start document, and its exposures by stream, helicity and planned position."""

    start: Mapping[str, Any]
    darks: Mapping[float, tuple[Exposure, ...]]
    """By exposure time."""
    flats: Mapping[Place, tuple[Exposure, ...]]
    sample: Mapping[Place, tuple[Exposure, ...]]
    readbacks: Mapping[Place, float]
    """Where what was scanned stood on average, in its own unit, during the exposures of the sample."""
    stages_um: Mapping[Place, tuple[float, float]]
    """Where the sample's stages stood on average, x and y; empty in runs that did not read them."""

    @property
    def name(self) -> str:
        """Plan and run in words, for messages."""
        return f"{self.start['plan_name']} {self.start['uid'][:8]}"

    @property
    def pixel_nm(self) -> float:
        """Size of a pixel in the sample."""
        return float(self.start["pixel_nm"])


def read_scan(data: Path, uid: str) -> Scan:
    """Read a scan from the journal of a data folder.

    Parameters
    ----------
    data
        Data folder.
    uid
        Of the run, or its first characters.

    Raises
    ------
    ValueError
        If there is no such run, or it is not a scan.
    JournalError
        If its journal cannot be read.
    """
    return scan_of(read_journal(find_run(data, uid)))


def scan_of(documents: Iterable[tuple[str, Mapping[str, Any]]]) -> Scan:
    """Take the documents of one run, from the journal or from the catalog (``cat[uid].documents()``).

    Raises
    ------
    ScanError
        If it is not a scan.
    """
    run = RunExposures()
    taken: dict[tuple[str, int], tuple[Exposure, Mapping[str, Any]]] = {}
    for name, doc in documents:
        exposure = run.add(name, doc)
        if exposure is not None:  # of one that was taken again after a pause, the last counts
            taken[exposure.stream, exposure.seq_num] = (exposure, doc["data"])
    scan = run.start.get("scan")
    if scan is None:
        raise ScanError(
            f"run {run.start.get('uid', '')[:8]} of plan {run.start.get('plan_name', '')!r} is not a "
            "scan of energy, focus or slit"
        )
    positions = np.asarray(scan["positions"], dtype=np.float64)
    darks: dict[float, list[Exposure]] = {}
    lit: dict[str, dict[Place, list[Exposure]]] = {"flat": {}, "primary": {}}
    found: dict[Place, list[float]] = {}
    stages: dict[Place, list[tuple[float, float]]] = {}
    for exposure, row in taken.values():
        if exposure.stream == "dark":
            darks.setdefault(exposure.exposure_s, []).append(exposure)
            continue
        stood = _stood(scan, row)
        helicity = exposure.key.helicity
        fixed = scan["motor"] == "jaws" and helicity != 0
        if fixed or (exposure.stream == "flat" and scan["motor"] in FIXED_FLATS):
            place: Place = (helicity, None)
        elif scan["motor"] == "stage":
            place = (helicity, stood)
        else:
            place = (helicity, float(positions[np.argmin(np.abs(positions - stood))]))
        lit[exposure.stream].setdefault(place, []).append(exposure)
        if exposure.stream == "primary":
            found.setdefault(place, []).append(stood)
            if "sample_x" in row:
                stages.setdefault(place, []).append((row["sample_x"], row["sample_y"]))
    return Scan(
        start=run.start,
        darks={time_s: tuple(of_it) for time_s, of_it in darks.items()},
        flats={place: tuple(of_it) for place, of_it in lit["flat"].items()},
        sample={place: tuple(of_it) for place, of_it in lit["primary"].items()},
        readbacks={place: float(np.mean(values)) for place, values in found.items()},
        stages_um={
            place: (float(np.mean([x for x, _ in at])), float(np.mean([y for _, y in at])))
            for place, at in stages.items()
        },
    )


class Rates:
    """Counts per mA s of the exposures of a scan, darks and noise taken from the scan itself.

    A flat that lacks, or has no light, is a `ScanError`; a frame that cannot be read a `FrameError`.
    """

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._saturation_counts = float(scan.start["saturation_counts"])
        self._darks: dict[float, Dark] = {}
        self._gains: dict[Place, float] = {}
        self._open: dict[Place, Rate] = {}

    def pair(self, place: Place) -> tuple[Rate, Rate]:
        """Return the mean rate with the sample and that of the open beam; both noises are the flats'."""
        return self._rate(self._scan.sample[place], self._gain(place)), self.flat(place)

    def transmittance(self, place: Place, flat: Place) -> NDArray[np.float32]:
        """Return the mean transmittance at a place, normalized by the open beam of another; NaN where unknown."""
        sample = self._rate(self._scan.sample[place], self._gain(flat))
        with np.errstate(divide="ignore", invalid="ignore"):
            quotient_vu = sample.rate_vu / self.flat(flat).rate_vu
        return np.where(np.isfinite(quotient_vu), quotient_vu, np.nan).astype(np.float32)

    def signals(self, position: float | None) -> Signals:
        """Return the signals of both helicities at a position."""
        positive, negative = (absorbance(*self.pair((h, position))) for h in (1, -1))
        return helicity_signals(positive, negative)

    def flat(self, place: Place) -> Rate:
        """Return the mean rate of the open beam."""
        if place not in self._open:
            self._open.clear()  # one is enough: frames are large
            self._open[place] = self._rate(self._flats(place), self._gain(place))
        return self._open[place]

    def repeats(self, place: Place) -> NDArray[np.float64]:
        """Return the rate of each exposure of the sample; NaN where a pixel is hot or saturated."""
        exposures = self._scan.sample[place]
        dark, counts = self._dark(exposures), _counts(exposures)
        rates_tvu: NDArray[np.float64] = (counts - dark.level_vu) / _doses(exposures)[:, None, None]
        rates_tvu[(counts >= self._saturation_counts) | dark.hot_vu] = np.nan
        return rates_tvu

    def _flats(self, place: Place) -> tuple[Exposure, ...]:
        flats = self._scan.flats.get(place, ())
        if len(flats) < 2:
            helicity, position = place
            where = (
                "" if position is None else f" at {position:g} {self._scan.start['scan']['unit']}"
            )
            raise ScanError(
                f"{self._scan.name}: {len(flats)} flats of helicity {helicity:+d}{where}, at least 2 are "
                "needed; nothing is normalised without them"
            )
        return flats

    def _gain(self, place: Place) -> float:
        if place not in self._gains:
            flats = self._flats(place)
            counts, dark, doses = _counts(flats), self._dark(flats), _doses(flats)
            light = float(np.mean(counts) - np.mean(dark.level_vu))
            if not (np.all(doses > 0) and light > LEAST_LIGHT_COUNTS):
                currents = sorted({round(one.ring_current_ma, 1) for one in flats})
                raise ScanError(
                    f"{self._scan.name}: flats with {light:.0f} counts above the dark level at ring currents of "
                    f"{', '.join(f'{current:g}' for current in currents)} mA; were beam, front end and shutter "
                    "there and open? scan again"
                )
            self._gains[place] = measure_noise(counts, dark, doses)
        return self._gains[place]

    def _rate(self, exposures: Sequence[Exposure], gain: float) -> Rate:
        return mean_rate(
            _counts(exposures),
            self._dark(exposures),
            _doses(exposures),
            gain,
            saturation_counts=self._saturation_counts,
        )

    def _dark(self, exposures: Sequence[Exposure]) -> Dark:
        time_s = exposures[0].exposure_s
        if time_s not in self._darks:
            if len(self._scan.darks.get(time_s, ())) < 2:
                raise ScanError(
                    f"{self._scan.name}: no dark frames of {time_s:g} s, at least 2 are needed"
                )
            self._darks[time_s] = dark_level(_counts(self._scan.darks[time_s]))
        return self._darks[time_s]


def _stood(scan: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    motor = scan["motor"]
    if motor == "stage":
        x_um, y_um = np.transpose(scan["positions"])
        return float(np.argmin(np.hypot(x_um - row["sample_x"], y_um - row["sample_y"])))
    if motor == "jaws":
        return (float(row["jaw_down"]) + float(row["jaw_up"])) / 2
    return float(row[motor])


def expect(scan: Scan, motor: str) -> None:
    """Refuse a scan of something else.

    Raises
    ------
    ScanError
        Saying what it scans.
    """
    found = scan.start["scan"]["motor"]
    if found != motor:
        raise ScanError(f"{scan.name}: it scans {found}, expected a scan of {motor}")


def _counts(exposures: Sequence[Exposure]) -> NDArray[Any]:
    return np.stack([one.read() for one in exposures])


def _doses(exposures: Sequence[Exposure]) -> NDArray[np.float64]:
    return np.array([one.ring_current_ma * one.exposure_s for one in exposures])
