"""Serial ports, and whatever else pyserial opens by a URL (`socket://host:port`)."""

from __future__ import annotations

import contextlib
from typing import Any

from nmc_compiler.errors import LinkError, ToolNotFound
from nmc_hw.link.stream import fresh_nonce

WRITE_SECONDS = 10.0  # a port that takes no bytes for so long is stuck


class PortLink:
    """A port of the operating system. Raises LinkError where it cannot be opened, ToolNotFound without pyserial."""

    def __init__(self, port: str, baud: int) -> None:
        try:
            import serial
        except ImportError:
            raise ToolNotFound("boards need pyserial: pip install 'nmc[hw]', or pip install pyserial") from None
        self.name, self.nonce = port, fresh_nonce()
        self._errors = (serial.SerialException, OSError, _termios_error())
        try:
            self._port: Any = serial.serial_for_url(port, baudrate=baud, timeout=0.1, write_timeout=WRITE_SECONDS)
        except ValueError as error:
            raise LinkError(f"{port}: cannot be opened at {baud} baud: {error}; choose another with --baud") from None
        except self._errors as error:
            raise LinkError(
                f"{port}: cannot be opened: {_said(error)}; is the board plugged in (or `nmc board` running), "
                "and may you use the port?"
            ) from None

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except self._errors as error:
            raise self._gone(error) from None

    def read(self, seconds: float) -> bytes:
        try:
            if self._port.timeout != seconds:  # setting it talks to the driver
                self._port.timeout = seconds
            first = self._port.read(1)
            return first + self._port.read(self._port.in_waiting) if first else b""
        except self._errors as error:
            raise self._gone(error) from None

    def set_baud(self, baud: int) -> None:
        try:
            self._port.flush()
            self._port.baudrate = baud
        except ValueError as error:
            raise LinkError(f"{self.name}: the port does not do {baud} baud: {error}; choose another") from None
        except self._errors as error:
            raise self._gone(error) from None

    def discard(self) -> None:
        try:
            self._port.reset_input_buffer()
        except self._errors as error:
            raise self._gone(error) from None

    def close(self) -> None:
        with contextlib.suppress(*self._errors):  # it was gone already
            self._port.close()

    def _gone(self, error: Exception) -> LinkError:
        return LinkError(f"{self.name}: the port is gone: {_said(error)}; check the board and start the command again")


def _termios_error() -> type[Exception]:
    try:
        import termios
    except ImportError:  # no POSIX
        return OSError
    return termios.error


def _said(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.strip().rstrip(".")
