"""Value change dump of chosen somas (IEEE 1364-2005, clause 18): spikes, input, current and potential over ticks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nmc_compiler.program.model import Program

from ..probe import Probe
from ..recount import Chunk
from .rows import when

BITS = {"input": 64, "u": 64, "v": 32, "code": 32}
FIRST, LAST = 33, 126  # printable characters, of which identifier codes are made


def _code(number: int) -> str:
    """A short identifier code."""
    base, text = LAST - FIRST + 1, ""
    while True:
        number, rest = divmod(number, base)
        text += chr(FIRST + rest)
        if number == 0:
            return text
        number -= 1


def _word(name: str) -> str:
    """A name without white space and characters that viewers take for something else."""
    return re.sub(r"[^A-Za-z0-9_$-]", "_", name) or "_"


def _vector(name: str, value: int) -> str:
    """A number in two's complement: readers extend a vector by zeros, so a negative one has all its digits."""
    return f"b{value:b}" if value >= 0 else f"b{value & (1 << BITS[name]) - 1:b}"


class Vcd:
    """Writes chunks of samples as they come; one unit of time is one tick.

    Per soma: wire ``spike``, 1 in a tick in which it fires; where events carry codes, integer ``code``; the ``states``
    that chunks hold of its population, as of the soma's last update (``probe.STATES``).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        program: Program,
        probes: tuple[Probe, ...],
        states: Mapping[int, tuple[str, ...]],
    ) -> None:
        self.program, self.probes, self.states = program, probes, states
        self.file = Path(path).open("w", encoding="ascii", newline="\n")  # noqa: SIM115  until close()
        self.codes: dict[tuple[int, int, str], str] = {}
        self.held: list[tuple[int, int, str, str]] = []  # (tick, order, identifier, value), not yet written
        self.order = {p.population: n for n, p in enumerate(probes)}
        self.last: dict[str, str] = {}
        self.now = -1
        self._header()

    # --- header ---

    def _header(self) -> None:
        lines = [f"$comment nmc: {_word(self.program.name)}; one unit of time is one tick $end", "$timescale 1 ns $end"]
        for probe in self.probes:
            p = self.program.populations[probe.population]
            scopes = [_word(part) for part in p.name.split(".")]
            lines += [f"$scope module {s} $end" for s in scopes]
            for soma in probe.somas.tolist():
                c, y, x = (int(n) for n in np.unravel_index(soma, p.shape))
                lines += [f"$scope module n_{c}_{y}_{x} $end", *self._variables(probe.population, soma)]
                lines += ["$upscope $end"]
            lines += ["$upscope $end"] * len(scopes)
        lines += ["$enddefinitions $end", "$dumpvars"]
        lines += [self._change(code, "0" if name == "spike" else "b0") for (*_, name), code in self.codes.items()]
        self.file.write("\n".join([*lines, "$end"]) + "\n")

    def _names(self, population: int) -> list[str]:
        p = self.program.populations[population]
        coded = p.payload_bits > 0 or p.signed or p.model == "sigma_delta"
        spikes = [] if p.model == "readout" else ["spike"]
        return [*spikes, *(["code"] if coded else []), *self.states.get(population, ())]

    def _variables(self, population: int, soma: int) -> list[str]:
        lines = []
        for name in self._names(population):
            code = self.codes[population, soma, name] = _code(len(self.codes))
            kind = "wire 1" if name == "spike" else f"integer {BITS[name]}"
            lines.append(f"$var {kind} {code} {name} $end")
        return lines

    def _change(self, code: str, value: str) -> str:
        self.last[code] = value
        return f"{value}{code}" if value in ("0", "1") else f"{value} {code}"

    # --- changes ---

    def add(self, chunk: Chunk) -> None:
        """Write what is known to be complete: later samples may still change ticks after their start."""
        for probe in self.probes:
            self._add_spikes(probe, chunk)
            self._add_states(probe, chunk)
        if self.program.timesteps:
            self._flush((chunk.first + chunk.trace.samples) * self.program.interval)
        else:
            self._flush((chunk.first + chunk.trace.steps) * self.program.ticks_per_step)

    def _add_spikes(self, probe: Probe, chunk: Chunk) -> None:
        events = chunk.trace.events.get(probe.population)
        if events is None:
            return
        hit = np.isin(events.soma, probe.somas)
        level, coded = self.program.populations[probe.population].level, "code" in self._names(probe.population)
        ticks = when(self.program, chunk, events.step[hit])[2] + level
        code = np.ones(len(ticks), np.int64) if events.code is None else events.code[hit]
        for tick, soma, value in zip(ticks.tolist(), events.soma[hit].tolist(), code.tolist(), strict=True):
            self._pulse(probe.population, tick, soma, "spike", "1", "0")
            if coded:
                self._pulse(probe.population, tick, soma, "code", _vector("code", value), "b0")

    def _pulse(self, population: int, tick: int, soma: int, name: str, on: str, off: str) -> None:
        code = self.codes[population, soma, name]
        self.held += [(tick, 1, code, on), (tick + 1, 0, code, off)]

    def _add_states(self, probe: Probe, chunk: Chunk) -> None:
        seen = chunk.potentials.get(probe.population)
        if seen is None:
            return
        samples, steps, _, _ = seen.shape
        level = self.program.populations[probe.population].level
        ticks = when(self.program, chunk, np.arange(samples * steps))[2] + level
        for k, soma in enumerate(probe.somas.tolist()):
            for at, name in enumerate(self.states[probe.population]):
                code = self.codes[probe.population, soma, name]
                values = seen[:, :, k, at].reshape(-1).tolist()
                self.held += [(t, 1, code, _vector(name, v)) for t, v in zip(ticks.tolist(), values, strict=True)]

    def _flush(self, before: int | None) -> None:
        """Write the changes of ticks before ``before`` (None: all); a value that stays is not written again."""
        self.held.sort()
        end = (
            len(self.held)
            if before is None
            else next((i for i, h in enumerate(self.held) if h[0] >= before), len(self.held))
        )
        changes: dict[str, str] = {}
        for tick, _, code, value in self.held[:end]:
            if tick != self.now:
                self._write(changes)
                self.now, changes = tick, {}
            changes[code] = value
        self._write(changes)
        del self.held[:end]

    def _write(self, changes: dict[str, str]) -> None:
        lines = [self._change(c, v) for c, v in changes.items() if self.last[c] != v]
        if lines:
            self.file.write("\n".join([f"#{self.now}", *lines]) + "\n")

    def close(self) -> None:
        """Write what is left, and the end of time."""
        self._flush(None)
        self.file.write(f"#{self.now + 1}\n")
        self.file.close()
