"""A network that goes on: events in, events out, part by part, in memory that does not grow with time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from nmc_compiler.errors import ArtefactError, UsageError
from nmc_compiler.program.digest import program_digest
from nmc_compiler.program.model import Program

from .counters import Counters
from .emulate import Emulator
from .engine_events import EventEngine
from .progress import progress_bar
from .state_file import read_about, read_state, write_state
from .trace import Events, check_events, joined

KIND = "nmc.stream/1"


class Stream:
    """A stream (a Program with ``timesteps`` 0) made ready to run; ``step`` timesteps have been computed.

    record, strict: as for ``Emulator``.  UsageError for a Program with windows.
    """

    def __init__(self, program: Program, *, record: str | Iterable[str] | None = "all", strict: bool = False) -> None:
        if program.timesteps:
            raise UsageError(
                f"Program '{program.name}' has windows of {program.timesteps} timesteps; run it with Emulator,"
                " or build it with timesteps=0"
            )
        for p in program.populations:
            if p.model == "input" and p.level >= program.ticks_per_step:
                raise UsageError(
                    f"input '{p.name}' lives at level {p.level}, beyond the {program.ticks_per_step} ticks of its"
                    " timestep; a stream takes inputs of lower levels"
                )
        emulator = Emulator(program, record=record, engine="events", strict=strict)
        assert isinstance(emulator.engine, EventEngine)
        self.program, self._emulator, self._engine = program, emulator, emulator.engine
        self._digest = ""

    @property
    def step(self) -> int:
        """Timesteps computed so far."""
        return self._engine.tick // self.program.ticks_per_step

    def feed(self, inputs: Mapping[str, Events], steps: int, *, progress: bool = False) -> dict[str, Events]:
        """Compute ``steps`` more timesteps; the events of recorded populations in them.

        inputs: events of input populations in these timesteps, inputs that are not named being silent; timesteps
        count from the start of the stream, in and out. progress: a bar on stderr. UsageError for events that do not
        fit.
        """
        if steps < 0:
            raise UsageError(f"{steps} timesteps: a stream only goes on; give at least 0")
        given, first = {}, self.step
        for name, events in inputs.items():
            i = self._emulator._input(name)
            given[i] = check_events(self.program.populations[i], events, steps, first)
        parts = []
        with progress_bar(steps, "timestep", progress) as done:
            for found, *_ in self._engine.advance(steps * self.program.ticks_per_step, given):
                parts.append(found)
                done(self.step - first)
                first = self.step
        names, codes = [p.name for p in self.program.populations], self._engine.plan.coded
        return {names[i]: joined([p[i] for p in parts], codes[i]) for i in self._engine.recorded}

    def counters(self) -> Counters:
        """Counters of everything so far; events on their way have not been received yet."""
        return self._engine.counters()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state beside ``path`` and rename: a checkpoint that is whole or absent."""
        self._digest = self._digest or program_digest(self.program)
        write_state(path, self._engine.snapshot(), {"kind": KIND, "program": self._digest})

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        program: Program,
        *,
        record: str | Iterable[str] | None = "all",
        strict: bool = False,
    ) -> Stream:
        """Go on where ``save`` was called.

        UsageError for another Program, ArtefactError for a file that cannot be read.
        """
        stream = cls(program, record=record, strict=strict)
        step = "give a file that Stream.save wrote"
        about = read_about(path, step)
        if about.get("kind") != KIND:
            raise ArtefactError(f"{path}: is no checkpoint of a stream ('{KIND}')")
        if about.get("program") != program_digest(program):
            raise UsageError(
                f"{path}: belongs to Program {about.get('program', '')[:12]}, not to '{program.name}'"
                f" {program_digest(program)[:12]}; start anew, or load the Program it was saved with"
            )
        stream._engine.restore(read_state(path, step))
        return stream
