"""Runs of the event engine in parts: equal to runs in one go, wherever they were cut off, ended or taken up."""

import os
from pathlib import Path

import numpy as np
import pytest
from general_nets import random_codes, random_general
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import column, light

from nmc.drive import Lists
from nmc_compiler.errors import ArtefactError, UsageError
from nmc_compiler.program.model import Program
from nmc_emulator import Emulator, EventResult, Stream
from nmc_emulator.counters import OVERFLOW
from nmc_emulator.event_log import EventCheckpoint, remove, state_path
from nmc_emulator.event_run import EventRun
from nmc_emulator.probe import Probe
from nmc_emulator.recount import Chunk, Recount
from nmc_emulator.state_file import read_about, read_state, write_state
from nmc_emulator.trace import coded, events_of, joined

WINDOWS, STEPS = 3, 24


class Case:
    """A random network, its input, and the run in one go that parts must add up to."""

    def __init__(self, seed: int, timesteps: int) -> None:
        self.program = random_general(seed, timesteps)
        self.units = WINDOWS if timesteps else STEPS
        self.steps = self.units * (timesteps or 1)
        self.codes = random_codes(self.program, seed, self.steps)
        flat = {i: c.reshape(self.steps, -1) for i, c in self.codes.items()}
        populations = self.program.populations
        self.source = Lists({i: events_of(c, coded(populations[i])) for i, c in flat.items()})
        lif = [i for i, p in enumerate(populations) if p.model == "lif"][:1]
        self.probes = tuple(Probe(i, np.array([0])) for i in lif)

    def run(self) -> EventRun:
        emulator = Emulator(self.program, record="all", engine="events")
        return EventRun(emulator, self.source, self.units, self.probes)

    def whole(self, steps: int) -> EventResult:
        names = [p.name for p in self.program.populations]
        given = {names[i]: c[:steps] for i, c in self.codes.items()}
        probe = {names[p.population]: p.somas for p in self.probes}
        return Emulator(self.program, record="all", engine="events").run_events(given, steps, probe=probe)


def same(case: Case, run: EventRun, chunks: list[Chunk], recount: Recount) -> None:
    """Fail unless a run in parts is, in all it gives, the run in one go of as many timesteps."""
    steps = run.units * (case.program.timesteps or 1)
    want = case.whole(steps)
    assert run.counters().differences(want.counters) == []
    overflow = np.stack([want.counters.overflow[n] for n in OVERFLOW], axis=1)
    assert recount.finish(overflow).differences(want.counters) == []
    size = case.program.timesteps or 1
    for i, p in enumerate(case.program.populations):
        parts = [c.trace.events[i] for c in chunks]
        got = joined(
            [type(e)(e.step + c.first * size, e.soma, e.code) for c, e in zip(chunks, parts, strict=True)], True
        )
        events = want.events[p.name]
        assert np.array_equal(got.step, events.step) and np.array_equal(got.soma, events.soma)
        assert events.code is None or np.array_equal(got.code, events.code)
    for probe in case.probes:
        u, v = want.potentials[case.program.populations[probe.population].name]
        seen = np.concatenate([c.potentials[probe.population].reshape(-1, 1, 2) for c in chunks])
        assert np.array_equal(seen[:, :, 0], u) and np.array_equal(seen[:, :, 1], v)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([0, 7]), st.data())
def test_parts_cut_off_taken_up_or_ended_early(tmp_path_factory, seed, timesteps, data):
    """Each process computes a little and is killed in the middle of a write; the last one may be stopped."""
    case, path = Case(seed, timesteps), tmp_path_factory.mktemp("runs") / "log"
    stop = data.draw(st.booleans())
    for _ in range(30):
        run, chunks = case.run(), []
        recount = Recount(case.program, steps=0 if timesteps else case.units)
        checkpoint = EventCheckpoint(path, {"program": "x"}, run)
        parts = list(checkpoint.parts())
        ticks = data.draw(st.integers(4, 20))
        for part in parts:
            chunks += [c for c in [run.chunk(part)] if c is not None]
        if run.engine.tick >= run.length - 12 or (stop and run.engine.tick > 0):
            break
        before = run.engine.tick
        mine = [run.step(ticks), run.step(ticks)]
        assert mine[0].first == before
        checkpoint.add(mine)
        size = path.stat().st_size
        checkpoint.close()
        if data.draw(st.booleans()):
            with path.open("ab") as file:  # killed while it wrote the next record
                file.write(os.urandom(data.draw(st.integers(1, 90))))
            assert path.stat().st_size > size
    for c in chunks:
        recount.add(c)
    if stop:
        run.shorten()
        if not timesteps:
            recount.shorten(run.units)
    while run.engine.tick < run.length:
        chunk = run.chunk(run.step(ticks))
        if chunk is not None:
            chunks.append(chunk)
            recount.add(chunk)
    same(case, run, chunks, recount)


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, Program]:
    """A checkpoint of two records of a stream of 90 timesteps."""
    program, run = column(), started(column())
    checkpoint = EventCheckpoint(tmp_path / "log", {"program": "x"}, run)
    assert list(checkpoint.parts()) == []
    for _ in range(2):
        checkpoint.add([run.step(30)])
    checkpoint.close()
    return tmp_path / "log", program


def started(program: Program) -> EventRun:
    codes = light(90)
    source = Lists({0: events_of(codes.reshape(90, -1), with_codes=False)})
    return EventRun(Emulator(program, record="all", engine="events"), source, 90)


def changed(path: Path, log: str | None = None, **arrays: np.ndarray) -> None:
    """Alter what the state says of the log, or its arrays."""
    state = state_path(path)
    about = read_about(state, "")
    write_state(state, read_state(state, "") | arrays, about | ({} if log is None else {"log": log}))


def test_a_finished_run_takes_away_what_is_its_own(kept) -> None:
    path, _ = kept
    other = state_path(path.with_name("other"))
    other.write_bytes(b"of somebody else")
    remove(path.with_name("other"))
    remove(path)
    assert [p.name for p in path.parent.iterdir()] == [other.name]


def test_a_log_without_its_state_starts_anew(kept) -> None:
    path, program = kept
    state_path(path).unlink()
    run = started(program)
    assert list(EventCheckpoint(path, {"program": "x"}, run).parts()) == [] and run.engine.tick == 0


@pytest.mark.parametrize(
    "damage, text",
    [
        (lambda path: state_path(path).write_bytes(b"nothing"), "remove it and log, and run again"),
        (lambda path: os.truncate(path, path.stat().st_size - 3), "its records end where its state does not"),
        (lambda path: changed(path, log="9" * 5000), "is not the state of log; remove both and run again"),
        (lambda path: changed(path, log="3"), "its records end where its state does not"),
        (lambda path: changed(path, samples=np.array([np.nan])), "does not hold what was written; remove it and log"),
        (lambda path: changed(path, v=np.arange(43, dtype=np.int32)), "does not hold what was written"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9] + b"x" * 9), "its records end where its state does not"),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_error(kept, damage, text) -> None:
    path, program = kept
    damage(path)
    with pytest.raises(ArtefactError, match=text):
        list(EventCheckpoint(path, {"program": "x"}, started(program)).parts())


def test_checkpoints_of_other_runs_are_refused(kept) -> None:
    path, program = kept
    with pytest.raises(UsageError, match='belongs to another run: program "x" instead of "y"'):
        EventCheckpoint(path, {"program": "y"}, started(program))


def test_only_the_event_engine_runs_in_parts() -> None:
    with pytest.raises(UsageError, match="engine 'ticks' does not run in parts; choose engine='events'"):
        EventRun(Emulator(column(), engine="ticks"), Lists({}), 9)


# --- inputs that are missing, and progress ------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["events", "ticks"])
def test_an_input_without_events_is_an_error_in_every_engine(engine) -> None:
    with pytest.raises(UsageError) as error:
        Emulator(column(), engine=engine).run_events({}, 5)
    assert str(error.value) == (
        "no events for input 'light' of Program 'column', whose inputs are light; give all of them, a silent one as"
        " codes that are 0 or as empty Events"
    )


@pytest.mark.parametrize("engine", ["events", "ticks"])
def test_progress_tells_every_timestep_once(engine, monkeypatch) -> None:
    import contextlib

    told: list[int] = []

    @contextlib.contextmanager
    def bar(total, unit, shown):
        assert (unit, shown) == ("timestep", True)
        yield told.append

    monkeypatch.setattr("nmc_emulator.emulate.progress_bar", bar)
    monkeypatch.setattr("nmc_emulator.streaming.progress_bar", bar)
    Emulator(column(), engine=engine).run_events({"light": light(50)}, 50, progress=True)
    assert sum(told) == 50 and min(told) >= 0
    told.clear()
    Stream(column()).feed({}, 33, progress=True)
    assert sum(told) == 33
