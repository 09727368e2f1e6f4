"""A data folder as a measurement and its live reconstruction leave it, made small and by hand."""

import json
import os
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mistral_txm.reconstruction.volume_file import Volume, write_volume
from mistral_txm.services.journal import JournalWriter

SERIES = "a-series"
VOXEL_NM = 10.5
DARK_COUNTS, LIGHT_COUNTS = 100.0, {1: 900.0, -1: 700.0}
EXPOSURE_S, CURRENT_MA = 2.0, 200.0
STARTED_AT = 1.7e9


class MeasuredFolder:
    """Two angles of one azimuth are planned, two exposures of each helicity; four exposures of eight are there."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.live = data / "live" / SERIES
        self.live.mkdir(parents=True)
        self.frames = np.random.default_rng(0).integers(0, 4000, (12, 24, 32)).astype("<u2")
        self._taken = 0
        with h5py.File(data / "frames.h5", "w") as file:
            file["frames"] = self.frames
        self._begin()
        self._write("dark", -30.0, 0, 0, DARK_COUNTS)
        for helicity in (+1, -1):
            for repeat in (0, 1):
                self.expose(-30.0, helicity, repeat)
        self.put_volume(np.random.default_rng(1).normal(0, 0.3, (3, 6, 10, 14)))
        self.status: dict[str, Any] = {}
        self.put_status(
            state="following", angles_done=3, angles_planned=4, residual=0.0321, updated_at=4e9,
            singularities=[{"x_nm": 15.75, "y_nm": -5.25, "z_nm": 5.25, "charge": 1.0, "sureness": 0.9}],
            views=[
                {"phi_deg": 0.0, "theta_deg": t, "drift_vu_pixels": [0.1, t / 100], "sharpness": 1.0, "contrast": 5.0}
                for t in (-30.0, 0.0, 30.0)
            ],
            history=[{"angles": n, "residual": 0.1 / n, "change": None, "resolution_nm": None} for n in (1, 2, 3)],
        )  # fmt: skip

    @property
    def newest_frame_vu(self) -> np.ndarray:
        return self.frames[self._taken - 1]

    def flux_of(self, helicity: int) -> float:
        return (LIGHT_COUNTS[helicity] - DARK_COUNTS) / (EXPOSURE_S * CURRENT_MA)

    def index(self, position_nm: float, axis: str) -> int:
        n = self.m_czyx.shape[1 + "zyx".index(axis)]
        return int(np.argmin(np.abs((np.arange(n) - (n - 1) / 2) * VOXEL_NM - position_nm)))

    def put(self, name: str, text: str) -> None:
        """Replace a file as the live reconstruction does."""
        (self.live / "new").write_text(text)
        os.replace(self.live / "new", self.live / name)

    def put_status(self, **changes: Any) -> None:
        self.status |= changes
        self.put("status.json", json.dumps(self.status))

    def put_volume(self, m_czyx: np.ndarray) -> None:
        self.m_czyx = np.asarray(m_czyx, dtype=np.float32)
        volume = Volume(*self.m_czyx, VOXEL_NM, method="direct", prior="layers", delta_per_nm=0.002)
        write_volume(self.live / "volume.h5", volume)

    def expose(self, theta_deg: float, helicity: int, repeat: int) -> None:
        self._write("primary", theta_deg, helicity, repeat, LIGHT_COUNTS[helicity])

    def _begin(self) -> None:
        self._journal = JournalWriter(self.data / "journal")
        planned = [
            [0.0, theta_deg, helicity, 2] for theta_deg in (-30.0, 0.0) for helicity in (1, -1)
        ]
        start = {"uid": "run-1", "time": STARTED_AT, "series": SERIES, "planned_keys": planned}
        self._journal("start", start | {"sample": {"name": "a film"}})
        for stream in ("dark", "primary"):
            keys = {
                "uid": stream,
                "name": stream,
                "run_start": "run-1",
                "data_keys": {"key_phi_deg": {}},
            }
            self._journal("descriptor", keys)
        resource = {
            "uid": "r",
            "run_start": "run-1",
            "uri": f"file://localhost{self.data}/frames.h5",
        }
        self._journal("stream_resource", resource | {"parameters": {"dataset": "frames"}})

    def _write(
        self, stream: str, theta_deg: float, helicity: int, repeat: int, counts: float
    ) -> None:
        number = self._taken
        self._taken += 1
        numbers = {"start": number + 1, "stop": number + 2}
        datum = {
            "uid": f"s{number}",
            "stream_resource": "r",
            "descriptor": stream,
            "seq_nums": numbers,
        }
        self._journal("stream_datum", datum | {"indices": {"start": number, "stop": number + 1}})
        data = {
            "key_phi_deg": 0.0, "key_theta_deg": theta_deg, "key_helicity": helicity, "key_repeat": repeat,
            "theta": theta_deg, "polarization": helicity, "ccd_frame_number": number,
            "ccd_frame_crc32": zlib.crc32(self.frames[number].tobytes()), "ccd_exposure_s": EXPOSURE_S,
            "ring_current": CURRENT_MA, "ccd_saturated_fraction": 0.0, "ccd_mean_counts": counts,
        }  # fmt: skip
        event = {"uid": f"e{number}", "descriptor": stream, "seq_num": number + 1}
        self._journal("event", event | {"time": STARTED_AT + 10.0 * self._taken, "data": data})
