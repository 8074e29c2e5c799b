"""Numbers of a module's settings, and a description that refuses a class."""

from __future__ import annotations

from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.trace.registry import Describe

Values = dict[str, Any]


def number(value: Any) -> float | np.ndarray:
    """A Python number, or an array of one number per element, from a number or tensor."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value, np.float64)
    return float(array.reshape(())) if array.size == 1 else array


def scalar(value: Any, what: str) -> float:
    found = number(value)
    if not isinstance(found, float):
        raise FrontendError(f"{what} differs between elements ({found.shape}); one number is needed")
    return found


def refuse(why: str) -> Describe:
    """A description of neurons that nothing of the graph computes."""

    def refused(module: Any) -> Values:
        raise FrontendError(why)

    return refused
