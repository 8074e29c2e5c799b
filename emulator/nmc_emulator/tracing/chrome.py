"""Timeline in the Trace Event Format ("JSON object format"), which Perfetto and chrome://tracing open.

A process per chip and one for the mesh; a track per core with a slice for its synapses and one for its somas in
every tick in which they work; a counter per core for the axon entries it takes in, and one per link for packets.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nmc_compiler.program.model import Program

from ..layout import Layout
from .rows import DIRECTIONS

STEPS = {"east": (1, 0), "west": (-1, 0), "north": (0, 1), "south": (0, -1)}
PHASES = ("synapse", "soma")


class Timeline:
    """Writes finished ticks as they come.

    Time: one tick is one microsecond, and a slice lasts as long as its operations' share of those of the tick's
    busiest core. With ``durations``, float [ticks] in ns, ticks last that long; with ``busy``, a phase of PHASES ->
    float [ticks, cores] in ns, so do slices.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        program: Program,
        layout: Layout,
        durations: np.ndarray | None = None,
        busy: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.layout, self.busy = layout, busy
        self.starts = None if durations is None else np.concatenate([[0.0], np.cumsum(durations)]) / 1000
        self.chips = _chips(program, layout)
        self.counted: dict[str, np.ndarray] = {}
        self.file = Path(path).open("w", encoding="ascii", newline="\n")  # noqa: SIM115  until close()
        unit = "ticks (1 us stands for one tick)" if durations is None else "emulated seconds"
        about = {"program": program.name, "time": unit}
        self.file.write('{"displayTimeUnit":"ns","otherData":' + _json(about) + ',"traceEvents":[')
        self.first = True
        self._names(program)

    def _put(self, lines: list[str]) -> None:
        if lines:
            self.file.write(("\n" if self.first else ",\n") + ",\n".join(lines))
            self.first = False

    def _names(self, program: Program) -> None:
        """Names of processes and tracks, in the order of chips and cores."""
        target = program.target.get("name", "target")
        mesh = self.layout.mesh.chips
        lines = [_meta("process_name", chip, 0, name=f"chip {chip} ({target})") for chip in range(mesh)]
        lines.append(_meta("process_name", mesh, 0, name="links"))
        lines += [_meta("process_sort_index", chip, 0, sort_index=chip) for chip in range(mesh + 1)]
        for core, chip in enumerate(self.chips):
            x, y = self.layout.mesh.at[core].tolist()
            lines.append(_meta("thread_name", chip, core + 1, name=f"core {core} at ({x}, {y})"))
            lines.append(_meta("thread_sort_index", chip, core + 1, sort_index=core))
        self._put(lines)

    def add(self, first: int, synops: np.ndarray, updates: np.ndarray, axons: np.ndarray, links: np.ndarray) -> None:
        """Loads of consecutive ticks from tick ``first`` on: [ticks, cores], links [ticks, links]."""
        for i in range(len(synops)):
            tick = first + i
            start, end = self._span(tick)
            lines = self._slices(tick, start, end, synops[i], updates[i])
            lines += self._counters("in", start, axons[i], self._queue)
            self._put(lines + self._counters("link", start, links[i], self._link))

    def _span(self, tick: int) -> tuple[float, float]:
        if self.starts is None:
            return float(tick), float(tick + 1)
        return float(self.starts[tick]), float(self.starts[tick + 1])

    def _slices(self, tick: int, start: float, end: float, synops: np.ndarray, updates: np.ndarray) -> list[str]:
        peak = max(int((synops + updates).max(initial=0)), 1)
        lines = []
        for core in np.flatnonzero(synops | updates).tolist():
            at = start
            for phase, count in zip(PHASES, (int(synops[core]), int(updates[core])), strict=True):
                length = (end - start) * count / peak if self.busy is None else self.busy[phase][tick, core] / 1000
                if count:
                    what = "synops" if phase == "synapse" else "neuron_updates"
                    lines.append(
                        f'{{"ph":"X","name":"{phase}","pid":{self.chips[core]},"tid":{core + 1},"ts":{_us(at)},'
                        f'"dur":{_us(at + length, at)},"args":{{"tick":{tick},"{what}":{count}}}}}'
                    )
                at += length
        return lines

    def _counters(self, kind: str, start: float, values: np.ndarray, track) -> list[str]:  # type: ignore[no-untyped-def]
        """Counters that changed since the tick before."""
        before = self.counted.get(kind, np.zeros_like(values))
        self.counted[kind] = values.copy()
        return [
            f'{{"ph":"C",{track(n)},"ts":{_us(start)},"args":{{"count":{int(values[n])}}}}}'
            for n in np.flatnonzero(values != before).tolist()
        ]

    def _queue(self, core: int) -> str:
        return f'"name":"core {core} events in","pid":{self.chips[core]}'

    def _link(self, link: int) -> str:
        router, direction = divmod(link, 4)
        x, y = divmod(router, self.layout.mesh.routers[1])
        dx, dy = STEPS[DIRECTIONS[direction]]
        return f'"name":"({x}, {y}) to ({x + dx}, {y + dy})","pid":{self.layout.mesh.chips}'

    def close(self) -> None:
        """End the file."""
        self.file.write("\n]}\n")
        self.file.close()


def _chips(program: Program, layout: Layout) -> list[int]:
    return [0] * layout.cores if program.mapping is None else program.mapping.cores[:, 0].tolist()


def _us(value: float, since: float | None = None) -> str:
    """Microseconds to the nanosecond; with ``since``, the length between the two as they are written."""
    if since is None:
        return f"{value:.3f}"
    return f"{round(value, 3) - round(since, 3):.3f}"


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _meta(kind: str, pid: int, tid: int, **args: object) -> str:
    return _json({"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": args})
