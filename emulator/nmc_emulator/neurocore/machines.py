"""Which machine the engine ``neurocore`` runs on: the emulated one, unless somebody brings another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from nmc_compiler.neurocore import Image

from .machine import Machine

_made: ContextVar[Callable[[Image], Any]] = ContextVar("machine", default=Machine)


def new_machine(image: Image) -> Any:
    """A machine that holds ``image``."""
    return _made.get()(image)


@contextlib.contextmanager
def machine_of(make: Callable[[Image], Any]) -> Iterator[None]:
    """Engines made in this block run on what ``make`` gives: a board, say, with the methods of `Machine`."""
    token = _made.set(make)
    try:
        yield
    finally:
        _made.reset(token)
