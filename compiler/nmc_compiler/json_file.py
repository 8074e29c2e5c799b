"""JSON files of bounded size; what is wrong with one ends in one error of the caller's kind and words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nmc_compiler.errors import NmcError


def read_json(path: Path, most: int, error: type[NmcError], large: str, absent: str, damaged: str) -> Any:
    """What the file holds. Raises ``error``: the path, what is wrong, and the words of the case.

    large: of a file of more than ``most`` bytes; ``{size}`` in it is its size.  absent: behind the reason why it
    cannot be read.  damaged: of a file that is no JSON.
    """
    try:
        if (size := path.stat().st_size) > most:
            raise error(f"{path}: {large.format(size=size)}")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as wrong:
        raise error(f"{path}: {wrong.strerror}; {absent}") from None
    except (ValueError, RecursionError):
        raise error(f"{path}: {damaged}") from None
