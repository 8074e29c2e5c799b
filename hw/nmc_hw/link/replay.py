"""What passed over a link, written down and played again: a file of JSON lines.

The first line tells what it is; each other line is one of ``{"sent": hex}``, ``{"got": hex}`` (empty: nothing came in
time), ``{"baud": n}`` and ``{"discard": true}``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nmc_compiler.errors import ArtefactError, LinkError
from nmc_hw.link.stream import Link

SCHEMA = "nmc.link/1"
MOST_BYTES = 1 << 28  # of a file


class Recorder:
    """A link that writes down what passes over another."""

    def __init__(self, link: Link, path: str | os.PathLike[str]) -> None:
        self._link, self.name, self.nonce = link, link.name, link.nonce
        try:
            self._file = Path(path).open("w", encoding="ascii")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise ArtefactError(f"{path}: cannot be written: {error.strerror}; choose another file") from None
        self._note(schema=SCHEMA, port=link.name, nonce=link.nonce)

    def _note(self, **what: Any) -> None:
        self._file.write(json.dumps(what) + "\n")

    def write(self, data: bytes) -> None:
        self._note(sent=data.hex())
        self._link.write(data)

    def read(self, seconds: float) -> bytes:
        got = self._link.read(seconds)
        self._note(got=got.hex())
        return got

    def set_baud(self, baud: int) -> None:
        self._note(baud=baud)
        self._link.set_baud(baud)

    def discard(self) -> None:
        self._note(discard=True)
        self._link.discard()

    def close(self) -> None:
        self._file.close()
        self._link.close()


class Replay:
    """A recorded link: gives what was got, and refuses to be sent anything but what was sent.

    Raises ArtefactError for a file that is no recording, LinkError where the host does something else than it did.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = str(path)
        lines = _lines(Path(path))
        head = lines[0] if lines else {}
        if head.get("schema") != SCHEMA or type(head.get("nonce")) is not int:
            raise ArtefactError(f"{path}: is no recording of a link ({SCHEMA})")
        self.nonce = head["nonce"] % 2**32
        self._lines, self._at = lines[1:], 0

    def _next(self, kind: str, wanted: object = None) -> Any:
        line = self._lines[self._at] if self._at < len(self._lines) else {}
        self._at += 1
        if kind not in line or (wanted is not None and line[kind] != wanted):
            was = json.dumps(line)[:80] if line else "nothing"
            here = f"{kind} {str(wanted)[:60]}" if wanted is not None else kind
            raise LinkError(
                f"{self.name}: line {self._at + 1} recorded {was}, but here comes {here}; "
                "the recording is of another command, image or version of nmc"
            )
        return line[kind]

    def write(self, data: bytes) -> None:
        self._next("sent", data.hex())

    def read(self, seconds: float) -> bytes:
        return bytes.fromhex(self._next("got"))

    def set_baud(self, baud: int) -> None:
        self._next("baud", baud)

    def discard(self) -> None:
        self._next("discard", True)

    def close(self) -> None:
        self._at = len(self._lines)


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ArtefactError(f"{path}: has more than {MOST_BYTES} bytes; record a shorter run")
        lines = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ArtefactError(f"{path}: is no recording of a link ({SCHEMA}): not JSON lines") from None
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, dict) or not all(_is_hex(line.get(k, "")) for k in ("sent", "got")):
            raise ArtefactError(f"{path}: line {number} is damaged; record again")
    return lines


def _is_hex(text: object) -> bool:
    try:
        return isinstance(text, str) and bytes.fromhex(text) is not None
    except ValueError:
        return False
