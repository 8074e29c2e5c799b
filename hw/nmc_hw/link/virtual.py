"""The virtual board: the RTL behind a pseudo terminal, which any program opens as a serial port."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from nmc_compiler.errors import LinkError, UsageError
from nmc_compiler.neurocore import Sizes
from nmc_hw.link.simulated import CLOCK, Faults, SimulatedLink

SLICE_MS = 100  # how long the simulation runs before Python may look at signals


class VirtualBoard:
    """A board from reset; ``port`` is the serial port to open. It lives while `serve` is called.

    bits: through its UART, at ``clock`` Hz; the host's rate is the one that the port is set to.  link: a name for
    the port that stays the same, a symbolic link.
    Raises ToolNotFound without Verilator, LinkError without a terminal, UsageError for a name that is taken.
    """

    def __init__(
        self,
        sizes: Sizes,
        bits: bool = True,
        faults: Faults | None = None,
        clock: int = CLOCK,
        link: str | os.PathLike[str] | None = None,
    ) -> None:
        self._board = SimulatedLink(sizes, bits, faults, clock)
        self._library, name = self._board.library, ctypes.create_string_buffer(256)
        self._server = self._library.nc_serve_open(self._board.device, name, len(name), float(clock))
        if not self._server:
            raise LinkError("no pseudo terminal is to be had; is /dev/pts mounted, and are there not too many open?")
        self.port = name.value.decode()
        self._link: Path | None = None
        if link is not None:
            self._name(Path(link))

    def _name(self, link: Path) -> None:
        if link.exists() and not link.is_symlink():
            raise UsageError(f"{link}: is there already; choose another name for the port")
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(self.port)
        except OSError as error:
            raise UsageError(f"{link}: cannot be made: {error.strerror}; choose another name for the port") from None
        self._link, self.port = link, str(link)

    def serve(self, milliseconds: int = SLICE_MS) -> None:
        """Let the board run for about so long."""
        if self._library.nc_serve(self._server, milliseconds):
            raise LinkError(f"{self.port}: the pseudo terminal has failed; start the board again")

    def numbers(self) -> dict[str, int]:
        """Clocks since reset, and bytes that faults have touched."""
        return {"clocks": self._board.clocks, "harmed": self._board.harmed}

    def close(self) -> None:
        """Take the port away."""
        if self._server:
            self._library.nc_serve_close(self._server)
            self._server = None
            self._board.close()
            if self._link is not None:
                with contextlib.suppress(OSError):
                    self._link.unlink()
