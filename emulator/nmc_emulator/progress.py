"""A bar on standard error with the time that is left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(total: int, unit: str, shown: bool) -> Iterator[Callable[[int], object]]:
    """Gives a function that takes how many more units are done; ``shown`` False: it does nothing."""
    if not shown:
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, leave=False, dynamic_ncols=True) as bar:
        yield bar.update
