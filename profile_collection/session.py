"""What an operator has at the prompt: RunEngine, catalog, devices and plans, wired together."""

import os
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from mistral_txm.services.lease import acquisition_lease
from mistral_txm.services.lifeline import ServiceProcess

from .channel_access import use_control_server

DATA_VARIABLE = "MISTRAL_TXM_DATA"
"""The environment variable that names the data folder."""


def data_folder(data: str | os.PathLike[str] | None = None) -> Path:
    """Return the data folder: the one given, else `MISTRAL_TXM_DATA`, else ``./mistral-txm-data``."""
    return Path(data or os.environ.get(DATA_VARIABLE) or "mistral-txm-data").resolve()
