"""What the live reconstruction leaves for others to read, made of noise."""

import time
from pathlib import Path

import numpy as np

from mistral_txm.reconstruction.volume_file import SeriesResidual, Volume, write_volume
from mistral_txm.services.live_files import LIVE, STATUS, VOLUME, write_status

SHAPE = (3, 4, 5)


def live(
    data: Path, series: str, runs: list[str], angles: int, *, complete: bool = False
) -> Volume:
    """Leave in a data folder what the live reconstruction leaves after so many angles; return the volume."""
    folder = data / LIVE / series
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(angles)
    m_czyx = random.normal(size=(3, *SHAPE)).astype(np.float32)
    views = SeriesResidual(0.0, np.arange(float(angles)), np.full(angles, 0.03))
    volume = Volume(
        *m_czyx,
        voxel_nm=10.5,
        method="direct",
        prior="layers",
        layers_nm=((-15.0, 15.0),),
        data_fraction=np.full(SHAPE, angles / 100, dtype=np.float32),
        residuals=(views,),
        options={"prior": "layers"},
        versions={"numpy": "2"},
    )
    write_volume(folder / VOLUME, volume)
    state = "complete" if complete else "following"
    known = {uid: [1, 1] for uid in runs}
    write_status(
        folder / STATUS, {"state": state, "runs": known, "updated_at": time.time(), "updates": 1}
    )
    return volume
