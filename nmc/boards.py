"""nmc.flash and nmc.run: a Program on a board, with the report that the emulator writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nmc.artefact import Compiled, load
from nmc.drive import Input
from nmc.emulating import Run, emulate
from nmc.hosted import refuse_hosted
from nmc_compiler.errors import UsageError
from nmc_compiler.neurocore import Image, load_image
from nmc_compiler.neurocore.image import JSON_FILE as IMAGE_JSON
from nmc_emulator.neurocore.machines import machine_of
from nmc_emulator.progress import progress_bar
from nmc_hw.flash import flash as flash_image
from nmc_hw.flash import holds, steps_of
from nmc_hw.link.opening import open_board
from nmc_hw.link.simulated import FIRST_BAUD


def image_of(given: Compiled | str | os.PathLike[str]) -> Image:
    """The image of an artefact, or of a folder that holds nothing but an image.

    UsageError where the Program was compiled for something else than a neurocore.
    """
    if not isinstance(given, Compiled):
        folder = Path(given)
        if (folder / IMAGE_JSON).is_file() and not (folder / "program.json").is_file():
            return load_image(folder)
        given = load(folder)
    built = given.image
    if built is None:
        name, target = given.program.name, given.program.target.get("name")
        raise UsageError(f"Program '{name}' is compiled for {target}, which is no board; compile it for neurocore")
    return built.image


def flash(
    given: Compiled | str | os.PathLike[str],
    port: str,
    *,
    baud: int | None = None,
    first_baud: int = FIRST_BAUD,
    verify: bool = True,
    record: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Write the image of an artefact to the board at a port, and read it back.

    port: a serial port, a URL of pyserial's, or ``replay:FILE``.  baud: the rate for the transfer; first_baud: the
    board's after reset.  record: a file for all that passes over the link.
    Gives port, items, seconds, and what went wrong on the line and was mended. Raises LinkError, ToolNotFound.
    """
    image = image_of(given)
    with (
        open_board(port, baud, first_baud, record) as board,
        progress_bar(steps_of(image, verify), "item", progress) as show,
    ):
        return {"schema": "nmc.flash/1", **flash_image(board, image, verify, show)}


def run(
    given: Compiled | str | os.PathLike[str],
    port: str,
    x: Input | Mapping[str, Input] | str | os.PathLike[str] | None = None,
    labels: np.ndarray | None = None,
    *,
    baud: int | None = None,
    first_baud: int = FIRST_BAUD,
    record_link: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Run:
    """Run an artefact on the board that holds its image. x, labels and ``options`` (record, limit, dt, steps, out,
    progress, trace, ...) are those of ``nmc.emulate``, and so is what comes back.

    Raises LinkError where the board fails or holds something else.
    """
    compiled = given if isinstance(given, Compiled) else load(given)
    refuse_hosted(compiled.program, "a run on a board")
    image = image_of(compiled)
    with open_board(port, baud, first_baud, record_link) as board:
        holds(board, image)
        with machine_of(lambda wanted: board):
            return emulate(compiled, x, labels, engine="neurocore", **options)
