"""What Dask runs in a worker of ours when it starts."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Ctrl-C goes to all processes of a terminal; whoever started the worker says what becomes of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
