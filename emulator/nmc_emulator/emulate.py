"""Run a Program on images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.learning import only_neurocore
from nmc_compiler.program.model import Program
from nmc_compiler.program.validate import validate_program

from .host import check_images
from .layout import resolve
from .progress import progress_bar
from .result import EventResult, RunResult
from .sites import logits_of
from .suits import engine_for
from .timing import analyse
from .trace import Events, check_events, coded, codes_of, events_of

if TYPE_CHECKING:
    from .counters import Counters
    from .engine_events import EventEngine
    from .engine_layers import LayerEngine
    from .engine_ticks import TickEngine
    from .neurocore.engine import NeurocoreEngine

ARITHMETIC = ("exact", "float")
ENGINES = ("auto", "layers", "events", "ticks", "neurocore")


def _recorded(program: Program, record: str | Iterable[str] | None) -> list[int]:
    """Populations to record: "all" (every one but the readout), names, or nothing."""
    names = {p.name: i for i, p in enumerate(program.populations) if p.model != "readout"}
    if record is None:
        return []
    wanted = [record] if isinstance(record, str) else list(record)
    if wanted == ["all"]:
        return list(names.values())
    unknown = [n for n in wanted if n not in names]
    if unknown:
        raise UsageError(
            f"cannot record '{unknown[0]}': Program '{program.name}' has no such population;"
            f" it has {', '.join(list(names)[:8])}{', ...' if len(names) > 8 else ''}"
        )
    return sorted({names[n] for n in wanted})


class Emulator:
    """A Program made ready to run: checked, planned, its buffers allocated.

    engine: "layers" (fast, layer by layer), "events" (fast, tick by tick, for general networks), "ticks"
    (slow, tick by tick from the mapping's tables), "neurocore" (from the image of a Program mapped for that
    target), or "auto", one of the fast ones; all that run a Program give the same result.  record: "all",
    or names of populations whose codes to return.
    strict: the first value out of range is a VerifyError naming population and timestep (or tick);
    otherwise such values are counted.  batch: samples computed together by "layers"; memory grows with
    it, results do not change.  arithmetic: "exact", the integers of the target, or "float", where u and
    v of lif somas are real numbers that neither round nor wrap nor saturate: it shows what the integers
    cost ("layers" and "events").

    UsageError for names or options that do not fit the Program; VerifyError for a Program that
    breaks its own rules.
    """

    def __init__(
        self,
        program: Program,
        *,
        record: str | Iterable[str] | None = None,
        engine: str = "auto",
        strict: bool = False,
        batch: int = 1,
        arithmetic: str = "exact",
    ) -> None:
        if engine not in ENGINES:
            raise UsageError(f"no engine '{engine}'; choose {', '.join(ENGINES[:-1])} or {ENGINES[-1]}")
        if batch < 1:
            raise UsageError(f"batch is {batch}; choose at least 1")
        if arithmetic not in ARITHMETIC:
            raise UsageError(f"no arithmetic '{arithmetic}'; choose {' or '.join(ARITHMETIC)}")
        validate_program(program)
        self.program, self.name = program, engine_for(program) if engine == "auto" else engine
        self.layout = resolve(program)
        self.engine = self._engine(_recorded(program, record), batch, strict, arithmetic == "float")

    def _engine(
        self, recorded: list[int], batch: int, strict: bool, real: bool
    ) -> LayerEngine | EventEngine | TickEngine | NeurocoreEngine:
        special = only_neurocore(self.program)
        if special is not None and self.name != "neurocore":
            raise UsageError(
                f"engine '{self.name}' cannot run Program '{self.program.name}': it has {special}, which only a"
                " neurocore computes; map it for the target neurocore and run it with engine='neurocore'"
            )
        given = self.program, self.layout, analyse(self.program), recorded, batch, strict
        if self.name == "layers":
            from .engine_layers import LayerEngine

            return LayerEngine(*given, real)
        if self.name == "events":
            from .engine_events import EventEngine

            return EventEngine(*given, real)
        if real:
            raise UsageError(f"the engine '{self.name}' has no arithmetic 'float'; choose layers or events")
        if self.name == "neurocore":
            from .neurocore.engine import NeurocoreEngine

            return NeurocoreEngine(self.program, recorded, strict)
        from .engine_ticks import TickEngine

        return TickEngine(*given)

    def run(self, images: np.ndarray, progress: bool = False) -> RunResult:
        """Emulate images [N, C, H, W] ([N, T, C, H, W] if the Program's input has a time axis).

        The samples follow each other on the chip in this order, from rest.  progress: a bar on
        stderr.  UsageError for images that do not fit the Program.
        """
        images = check_images(self.program, images)
        logits, counters, codes = self._show(images) if progress else self.engine.run(images, lambda done: None)
        populations = self.program.populations
        return RunResult(
            logits=logits_of(self.program, logits, images),
            logits_int=logits,
            counters=counters,
            samples=len(images),
            engine=self.name,
            mapped=self.layout.mapped,
            codes={populations[i].name: c for i, c in codes.items()},
            weights=getattr(self.engine, "weights", {}),
        )

    def run_events(
        self,
        inputs: Mapping[str, Events | np.ndarray],
        steps: int,
        *,
        probe: Mapping[str, np.ndarray | None] | None = None,
        progress: bool = False,
    ) -> EventResult:
        """Emulate ``steps`` timesteps from rest, driven by events; engines "events" and "ticks".

        inputs: of every input population its Events, or codes [steps, C, H, W].  A stream becomes one window
        of ``steps`` timesteps; other Programs take whole windows.  probe: lif populations whose u and v to
        keep, with the somas (counted in C order over (C, H, W)), None for all.  progress: a bar on stderr.
        UsageError for what does not fit the Program.
        """
        from .engine_events import EventEngine
        from .engine_layers import LayerEngine
        from .neurocore.engine import NeurocoreEngine

        if steps < 0:
            raise UsageError(f"{steps} timesteps: give at least 0")
        given = {i: self._events(name, codes, steps) for name, codes in inputs.items() for i in [self._input(name)]}
        check_all_given(self.program, inputs)
        probes = self._probes(probe or {})
        with progress_bar(steps, "timestep", progress) as done:
            if isinstance(self.engine, (EventEngine, LayerEngine, NeurocoreEngine)):
                counters, events, potentials = self.engine.run_events(given, steps, probes, done)
            else:
                counters, events, potentials = run_ticks(self.engine, given, steps, probes, done)
        names = [p.name for p in self.program.populations]
        return EventResult(
            events={names[i]: e for i, e in events.items()},
            counters=counters,
            steps=steps,
            engine=self.name,
            mapped=self.layout.mapped,
            potentials={names[i]: both for i, both in potentials.items()},
            weights=getattr(self.engine, "weights", {}),
        )

    def _input(self, name: str) -> int:
        inputs = {p.name: i for i, p in enumerate(self.program.populations) if p.model == "input"}
        if name not in inputs:
            known = ", ".join(inputs) or "none"
            raise UsageError(f"Program '{self.program.name}' has no input population '{name}'; its inputs: {known}")
        return inputs[name]

    def _events(self, name: str, given: Events | np.ndarray, steps: int) -> Events:
        i = self._input(name)
        p, encoded = self.program.populations[i], [h for h in self.program.host_codes if h.population == i]
        ends = (encoded[0].lo, encoded[0].hi) if encoded else None
        if isinstance(given, Events):
            return check_events(p, given, steps, 0, ends)
        codes = np.asarray(given)
        if codes.shape != (steps, *p.shape) or codes.dtype.kind not in "iub":
            raise UsageError(
                f"codes of input '{name}' are {codes.dtype} {list(codes.shape)}; give integers"
                f" [{steps}, {', '.join(map(str, p.shape))}]"
            )
        flat = codes.reshape(steps, int(np.prod(p.shape)))
        step, soma = np.nonzero(flat)
        return check_events(p, Events(step, soma, None if flat.dtype == bool else flat[step, soma]), steps, 0, ends)

    def _probes(self, probe: Mapping[str, np.ndarray | None]) -> dict[int, np.ndarray]:
        found, names = {}, {p.name: i for i, p in enumerate(self.program.populations) if p.model in ("lif", "cell")}
        for name, somas in probe.items():
            if name not in names:
                raise UsageError(
                    f"cannot probe '{name}': Program '{self.program.name}' has no lif or cell population of it"
                )
            size = int(np.prod(self.program.populations[names[name]].shape))
            chosen = np.arange(size) if somas is None else np.asarray(somas, np.int64)
            if len(chosen) and (chosen.min() < 0 or chosen.max() >= size):
                raise UsageError(f"cannot probe somas {chosen.min()}..{chosen.max()} of '{name}': it has 0..{size - 1}")
            found[names[name]] = chosen
        return found

    def _show(self, images: np.ndarray) -> tuple[np.ndarray, Counters, dict[int, np.ndarray]]:
        with progress_bar(len(images), "sample", True) as done:
            return self.engine.run(images, done)


def check_all_given(program: Program, names: Iterable[str]) -> None:
    """UsageError if an input population is not among those whose events are given."""
    wanted = [p.name for p in program.populations if p.model == "input"]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UsageError(
            f"no events for input '{missing[0]}' of Program '{program.name}', whose inputs are {', '.join(wanted)};"
            " give all of them, a silent one as codes that are 0 or as empty Events"
        )


def run_ticks(
    engine: TickEngine,
    inputs: dict[int, Events],
    steps: int,
    probes: dict[int, np.ndarray],
    done: Callable[[int], object] = lambda steps: None,
) -> tuple[Counters, dict[int, Events], dict[int, tuple[np.ndarray, np.ndarray]]]:
    """``EventEngine.run_events`` on the tick engine, which takes and gives dense codes."""
    populations = engine.program.populations
    dense = {i: codes_of(e, steps, populations[i].shape) for i, e in inputs.items()}
    wanted = [(i, part) for i in probes for part in ("u", "v")]
    counters, codes = engine.run_events(dense, steps, wanted, done)
    events = {
        i: events_of(c[0].reshape(steps, int(np.prod(populations[i].shape))), coded(populations[i]))
        for i, c in codes.items()
    }
    kept = {
        i: tuple(
            engine.probed[i, part].reshape(steps, int(np.prod(populations[i].shape)))[:, somas] for part in ("u", "v")
        )
        for i, somas in probes.items()
    }
    return counters, events, kept  # type: ignore[return-value]


def run(
    program: Program,
    images: np.ndarray,
    *,
    record: str | Iterable[str] | None = None,
    engine: str = "auto",
    strict: bool = False,
    progress: bool = False,
    batch: int = 1,
    arithmetic: str = "exact",
) -> RunResult:
    """Emulate ``program`` on ``images`` once: see ``Emulator`` for the options, and for running again."""
    batch = min(batch, max(len(images), 1)) if batch >= 1 else batch
    emulator = Emulator(program, record=record, engine=engine, strict=strict, batch=batch, arithmetic=arithmetic)
    return emulator.run(images, progress)
