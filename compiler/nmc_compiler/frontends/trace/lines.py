"""Where in a user's code something happened."""

from __future__ import annotations

import importlib.util
import os
import traceback

_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep
_NMC = os.path.dirname(os.path.dirname(os.path.dirname(_OWN.rstrip(os.sep)))) + os.sep


def skipped() -> tuple[str, ...]:
    """Files of PyTorch and of Python's import system: their lines tell a user nothing."""
    torch = importlib.util.find_spec("torch")
    folders = [os.path.dirname(torch.origin) + os.sep] if torch is not None and torch.origin else []
    return (_OWN, *folders, "<")


def where(error: BaseException) -> str:
    """file:line of the last line of a traceback that is the user's."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith((*skipped(), _NMC))]
    theirs = [f for f in theirs if f"{os.sep}nmc{os.sep}" not in f.filename or "traced" not in f.filename]
    return f"{os.path.basename(theirs[-1].filename)}:{theirs[-1].lineno}" if theirs else "?"
