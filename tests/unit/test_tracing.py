"""Trace files: tables, VCD, timelines and pictures, read back and compared with the run they tell of."""

import builtins
import csv
import io
import json
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from general_nets import random_codes, random_general
from programs import map_program, random_images, random_program

from nmc_compiler.errors import ToolNotFound, UsageError
from nmc_compiler.program.model import Program
from nmc_emulator import Emulator, RunResult, run
from nmc_emulator.chunked import ChunkedRun
from nmc_emulator.counters import Counters
from nmc_emulator.host import check_images
from nmc_emulator.layout import resolve
from nmc_emulator.probe import Probe, parse_probes
from nmc_emulator.recost import trace_of_events
from nmc_emulator.recount import Chunk, host_activity
from nmc_emulator.trace import Trace, coded, events_of
from nmc_emulator.tracing.chrome import Timeline
from nmc_emulator.tracing.sinks import Loads, open_sinks, write_trace
from nmc_emulator.tracing.table import CsvTable, ParquetTable

SAMPLES = 5


def a_program(seed: int = 21, **options) -> Program:
    return map_program(random_program(seed, layers=6, **options), seed, cores=6, parts=3, chips=2)


def some_probes(program: Program) -> tuple[Probe, ...]:
    """Every population, up to six of its somas."""
    sizes = [int(np.prod(p.shape)) for p in program.populations]
    return tuple(Probe(i, np.arange(0, n, max(n // 6, 1))) for i, n in enumerate(sizes))


def chunks_of(program: Program, images: np.ndarray, batch: int, probes: tuple[Probe, ...] = ()) -> list[Chunk]:
    """A run in chunks of ``batch`` samples."""
    going = ChunkedRun(Emulator(program, record="all", engine="layers", batch=batch), images, probes)
    active, found = host_activity(program, check_images(program, images)), []
    while going.done < len(images):
        piece = going.step()
        steps = len(piece) * program.timesteps
        events = {i: events_of(c.reshape(steps, -1), coded(program.populations[i])) for i, c in piece.codes.items()}
        here = {k: a[piece.first : going.done] for k, a in active.items()}
        found.append(Chunk(piece.first, Trace(events, len(piece), steps), here, piece.potentials))
    return found


def write(program: Program, folder: Path, chunks: list[Chunk], *formats: str, probes=(), picture: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    sinks, _ = open_sinks(program, folder, formats, probes, picture)
    for chunk in chunks:
        for sink in sinks:
            sink.add(chunk)
    for sink in sinks:
        sink.close()


@pytest.fixture(scope="module", params=["apart", "pipelined"])
def traced(request, tmp_path_factory) -> tuple[Program, RunResult, Path, tuple[Probe, ...]]:
    """A run with tables, timeline and VCD of its own."""
    program = a_program(graded=request.param == "pipelined", pipelined=request.param == "pipelined", ticks=2)
    images, probes = random_images(program, 21, SAMPLES), some_probes(program)
    folder = tmp_path_factory.mktemp("trace")
    write(program, folder, chunks_of(program, images, 2, probes), "csv", "chrome", probes=probes)
    return program, run(program, images, record="all"), folder, probes


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def tick(program: Program, population: int, sample: int, t: int) -> int:
    return sample * program.interval + t * program.ticks_per_step + program.populations[population].level


# --- tables -----------------------------------------------------------------------------------------------


def test_spikes_are_the_recorded_codes(traced) -> None:
    program, result, folder, _ = traced
    found = {name: np.zeros_like(codes) for name, codes in result.codes.items()}
    order = []
    number = {p.name: i for i, p in enumerate(program.populations)}
    for row in rows(folder / "spikes.csv"):
        sample, t, c, y, x, code = (int(row[key]) for key in ("sample", "timestep", "c", "y", "x", "code"))
        assert found[row["population"]][sample, t, c, y, x] == 0 != code
        found[row["population"]][sample, t, c, y, x] = code
        assert int(row["tick"]) == tick(program, number[row["population"]], sample, t)
        order.append((sample, t, number[row["population"]], c, y, x))
    assert all(np.array_equal(found[name], codes) for name, codes in result.codes.items())
    assert order == sorted(order) and len(order) > 100


def test_loads_per_tick_give_the_counters(traced) -> None:
    program, result, folder, _ = traced
    cores, links, mesh = rows(folder / "core_load.csv"), rows(folder / "link_load.csv"), resolve(program).mesh
    tables = result.counters.tables
    for name, columns in {"neuron_updates": ["neuron_updates"], "axon_reads": ["axon_reads"]}.items():
        got = np.zeros(result.counters.cores, np.int64)
        for row in cores:
            got[int(row["core"])] += int(row[name])
        assert got.tolist() == sum(tables[c][:, :-1].sum(axis=0) for c in columns).tolist()
    most = {}
    for row in cores:
        synops, axons = int(row["synops"]), int(row["axon_reads"])
        was = most.get(row["tick"], (0, 0, 0))
        most[row["tick"]] = max(was[0], synops), max(was[1], int(row["neuron_updates"])), max(was[2], synops + axons)
    names = ("synops", "neuron_updates", "memory_reads")
    assert [sum(m[n] for m in most.values()) for n in range(3)] == [result.counters.bound[n] for n in names]
    busiest: dict[str, int] = {}
    for row in links:
        busiest[row["tick"]] = max(busiest.get(row["tick"], 0), int(row["packets"]))
        assert 0 <= int(row["x"]) < mesh.routers[0] * mesh.chips and 0 <= int(row["y"]) < mesh.routers[1]
        assert row["direction"] in ("east", "west", "north", "south")
    assert sum(busiest.values()) == result.counters.bound["link_packets"]
    hops = {"east": "hops_ew", "west": "hops_ew", "north": "hops_ns", "south": "hops_ns"}
    north = sum(int(row["packets"]) for row in links if hops[row["direction"]] == "hops_ns")
    assert north == result.counters.total("hops_ns") > 0


def test_chunks_change_no_byte(tmp_path: Path) -> None:
    program = a_program(pipelined=True, graded=True)
    images, probes = random_images(program, 4, SAMPLES), some_probes(program)
    for batch in (1, 2, 5):
        write(program, tmp_path / str(batch), chunks_of(program, images, batch, probes), "csv", "chrome", probes=probes)
    names = sorted(p.name for p in (tmp_path / "1").iterdir())
    assert names == [
        "core_load.csv", "link_load.csv", "potentials.csv", "probes.vcd", "spikes.csv", "timeline.json",
    ]  # fmt: skip
    for name in names:
        assert len({(tmp_path / str(batch) / name).read_bytes() for batch in (1, 2, 5)}) == 1, name


def test_csv_takes_any_number_and_name(tmp_path: Path) -> None:
    names = ("plain", 'say "x", y', "two\nlines", "")
    values = np.array([0, 9, 10, -1, -10, 2**62, -(2**62), 2**63 - 1, 12345678901234567])
    table = CsvTable(tmp_path / "t.csv", ("a", "name", "b"), {"name": names})
    table.add({"a": values, "name": np.arange(len(values)) % 4, "b": -values})
    table.add({"a": np.zeros(0), "name": np.zeros(0), "b": np.zeros(0)})
    table.close()
    got = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text(), newline="")))
    assert [int(row["a"]) for row in got] == values.tolist() and [int(row["b"]) for row in got] == (-values).tolist()
    assert [row["name"] for row in got] == [names[i % 4] for i in range(len(values))]


def test_parquet_holds_what_csv_does(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow, an extra")
    program = a_program()
    images, probes = random_images(program, 4, 3), some_probes(program)
    for name, batch in (("a", 1), ("b", 3)):
        write(program, tmp_path / name, chunks_of(program, images, batch, probes), "csv", "parquet", probes=probes)
    for stem in ("spikes", "core_load", "link_load", "potentials"):
        assert len({(tmp_path / name / f"{stem}.parquet").read_bytes() for name in "ab"}) == 1
        table = parquet.read_table(tmp_path / "a" / f"{stem}.parquet").to_pylist()
        assert [{k: str(v) for k, v in row.items()} for row in table] == rows(tmp_path / "a" / f"{stem}.csv")


def test_parquet_row_groups_are_of_one_size(tmp_path: Path, monkeypatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow, an extra")
    monkeypatch.setattr("nmc_emulator.tracing.table.GROUP", 100)
    table = ParquetTable(tmp_path / "t.parquet", ("a",), {})
    for first in range(0, 250, 25):
        table.add({"a": np.arange(first, first + 25)})
    table.close()
    file = parquet.ParquetFile(tmp_path / "t.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [100, 100, 50]
    assert file.read()["a"].to_pylist() == list(range(250))


@pytest.fixture
def without(monkeypatch):
    """Make a package look as if it were not installed."""

    def hide(name: str) -> None:
        real = builtins.__import__

        def refuse(module, *rest, **more):
            if module.partition(".")[0] == name:
                raise ImportError(module)
            return real(module, *rest, **more)

        monkeypatch.setattr(builtins, "__import__", refuse)

    return hide


def test_what_is_missing_is_said_before_anything_runs(tmp_path: Path, without) -> None:
    without("pyarrow")
    with pytest.raises(ToolNotFound) as error:
        open_sinks(a_program(), tmp_path, ("parquet",))
    assert str(error.value) == "Parquet needs pyarrow: pip install 'nmc[parquet]'; CSV needs nothing more"


# --- potentials and VCD -----------------------------------------------------------------------------------


def test_probes_see_what_the_tick_engine_holds(traced) -> None:
    program, _, folder, probes = traced
    images = random_images(program, 21, SAMPLES)
    slow = Emulator(program, engine="ticks")
    somas = [i for i, p in enumerate(program.populations) if p.model in ("lif", "readout")]
    steps, restart = SAMPLES * program.timesteps, slow.engine._restart
    held = {(i, "v"): np.zeros((steps, *program.populations[i].shape), np.int64) for i in somas}

    def again(*rest) -> None:
        restart(*rest)
        slow.engine.probed = held

    slow.engine._restart = again
    slow.run(images)
    number, seen = {p.name: i for i, p in enumerate(program.populations)}, 0
    for row in rows(folder / "potentials.csv"):
        i, place = number[row["population"]], tuple(int(row[key]) for key in "cyx")
        step = int(row["sample"]) * program.timesteps + int(row["timestep"])
        if i in somas:
            assert int(row["v"]) == held[i, "v"][(step, *place)], row
            assert int(row["u"]) == 64 * int(row["input"]) or abs(int(row["input"])) >= 2**17
            seen += 1
    wanted = [p for p in probes if p.population in somas]
    assert seen == SAMPLES * program.timesteps * sum(len(p.somas) for p in wanted) > 0


class Vcd:
    """A reader of value change dumps, strict about what IEEE 1364 asks for."""

    def __init__(self, text: str) -> None:
        self.kind: dict[str, tuple[str, int]] = {}
        self.name: dict[str, str] = {}
        self.changes: dict[str, list[tuple[int, int]]] = {}
        words, scope = iter(text.split()), []
        self.timescale = ""
        for word in words:
            if word == "$enddefinitions":
                assert next(words) == "$end"
                break
            body = []
            while (part := next(words)) != "$end":
                body.append(part)
            if word == "$scope":
                assert body[0] == "module" and len(body) == 2
                scope.append(body[1])
            elif word == "$upscope":
                scope.pop()
            elif word == "$timescale":
                self.timescale = " ".join(body)
            elif word == "$var":
                kind, size, code, name = body
                assert code not in self.kind and all(33 <= ord(c) <= 126 for c in code)
                self.kind[code], self.name[code] = (kind, int(size)), ".".join([*scope, name])
            else:
                assert word == "$comment"
        assert scope == []
        self.values(words)

    def values(self, words) -> None:
        now, dumping, self.initial = -1, False, {}
        for word in words:
            if word.startswith("#"):
                assert int(word[1:]) > now
                now = int(word[1:])
            elif word in ("$dumpvars", "$end"):
                assert dumping == (word == "$end") and now == -1
                dumping = not dumping
            else:
                code, value = (word[1:], word[0]) if word[0] in "01" else (next(words), word[1:])
                kind, size = self.kind[code]
                assert (word[0] in "01") == (kind == "wire" and size == 1) and 1 <= len(value) <= size
                number = int(value, 2) - (1 << size if len(value) == size > 1 and value[0] == "1" else 0)
                if dumping:
                    self.initial[code] = number
                else:
                    self.changes.setdefault(code, []).append((now, number))
        self.end = now
        assert self.initial.keys() == self.kind.keys()

    def at(self, name: str, ticks: np.ndarray) -> list[int]:
        """Values of one variable at some times."""
        code = next(c for c, n in self.name.items() if n == name)
        times = np.array([t for t, _ in self.changes.get(code, [])])
        values = [self.initial[code], *(v for _, v in self.changes.get(code, []))]
        return [values[n] for n in np.searchsorted(times, ticks, "right")]


def test_vcd_read_back_is_the_run(traced) -> None:
    program, result, folder, probes = traced
    vcd = Vcd((folder / "probes.vcd").read_text())
    assert vcd.timescale == "1 ns"
    potentials = rows(folder / "potentials.csv")
    for probe in probes:
        p = program.populations[probe.population]
        ticks = np.array(
            [[tick(program, probe.population, s, t) for t in range(program.timesteps)] for s in range(SAMPLES)]
        )
        for soma in probe.somas.tolist():
            c, y, x = np.unravel_index(soma, p.shape)
            scope = f"{p.name}.n_{c}_{y}_{x}"
            if p.model != "readout":
                codes = result.codes[p.name][:, :, c, y, x].astype(int)
                assert vcd.at(f"{scope}.spike", ticks.ravel()) == (codes != 0).astype(int).ravel().tolist()
                after = ticks.ravel() + (1 if program.ticks_per_step > 1 else 0)
                assert not any(vcd.at(f"{scope}.spike", after)) or program.ticks_per_step == 1
                if coded(p):
                    assert vcd.at(f"{scope}.code", ticks.ravel()) == codes.ravel().tolist()
            mine = [
                r for r in potentials if (r["population"], r["c"], r["y"], r["x"]) == (p.name, str(c), str(y), str(x))
            ]
            for key in ("input", "u", "v") if p.dendrite >= 0 else ():
                assert vcd.at(f"{scope}.{key}", ticks.ravel()) == [int(row[key]) for row in mine], (scope, key)
    assert vcd.end > max(t for changes in vcd.changes.values() for t, _ in changes[:-1] or [(0, 0)])


@pytest.fixture
def vcdvcd() -> Iterator[Any]:
    """The package; its import makes a write to a closed pipe deadly for the whole process, which is taken back."""
    before = signal.getsignal(signal.SIGPIPE)
    yield pytest.importorskip("vcdvcd", reason="a second opinion where it is installed")
    signal.signal(signal.SIGPIPE, before)


def test_vcd_is_read_by_another_reader_too(traced, vcdvcd) -> None:
    _, _, folder, _ = traced
    theirs, ours = vcdvcd.VCDVCD(str(folder / "probes.vcd")), Vcd((folder / "probes.vcd").read_text())
    assert len(theirs.signals) == len(ours.kind)
    for code, changes in ours.changes.items():
        size = ours.kind[code][1]
        got = [(t, int(v, 2)) for t, v in theirs.data[code].tv]
        assert got[-len(changes) :] == [(t, v % (1 << size)) for t, v in changes]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nobody", "--probe nobody: no such population; Program 'random-21' has "),
        ("nobody:0,0,0", "--probe nobody:0,0,0: no such population; Program 'random-21' has "),
        ("p1:0,0", "--probe p1:0,0: '0,0' is no soma of p1, whose shape (C, H, W) is "),
        ("p1:0,0,99", "--probe p1:0,0,99: '0,0,99' is no soma of p1, whose shape (C, H, W) is "),
        ("p1:-1,0,0", "--probe p1:-1,0,0: '-1,0,0' is no soma of p1, whose shape (C, H, W) is "),
    ],
)
def test_probes_that_fit_nothing_are_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_probes(a_program(), [text])
    assert str(error.value).startswith(told)


def test_probes_are_somas_of_a_population(monkeypatch) -> None:
    program = a_program()
    c, h, w = program.populations[1].shape
    [whole] = parse_probes(program, [f"p1:{c - 1},0,0", "p1", "p1:0,0,0"])
    assert whole.population == 1 and whole.somas.tolist() == list(range(c * h * w))
    [one] = parse_probes(program, [f"p1:{c - 1},{h - 1},{w - 1}"])
    assert one.somas.tolist() == [c * h * w - 1]
    monkeypatch.setattr("nmc_emulator.probe.MOST", 1)
    with pytest.raises(UsageError, match=f"{c * h * w} somas are probed, at most 1 can be; choose some with --probe"):
        parse_probes(program, ["p1"])


# --- timeline ---------------------------------------------------------------------------------------------


def timeline(folder: Path) -> list[dict]:
    return json.loads((folder / "timeline.json").read_text())["traceEvents"]


def test_timeline_has_a_track_per_core_and_honest_slices(traced) -> None:
    program, result, folder, _ = traced
    events = timeline(folder)
    tracks = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert len(tracks) == result.counters.cores and all(name.startswith("core ") for name in tracks.values())
    slices = [e for e in events if e["ph"] == "X"]
    work, ends = {"synapse": 0, "soma": 0}, {}
    for e in slices:
        track = e["pid"], e["tid"]
        assert track in tracks and e["dur"] > 0
        assert e["ts"] >= ends.get(track, 0) - 1e-9 and e["ts"] + e["dur"] <= e["args"]["tick"] + 1.002
        ends[track] = round(e["ts"] + e["dur"], 3)
        work[e["name"]] += e["args"]["synops" if e["name"] == "synapse" else "neuron_updates"]
    names = ("synops_ac", "synops_mac", "dyn_writes", "dyn_reads")
    assert work["soma"] == result.counters.total("neuron_updates")
    assert work["synapse"] == sum(result.counters.total(name) for name in names) > 0


def test_timeline_counters_follow_the_tables(traced) -> None:
    _, result, folder, _ = traced
    events = timeline(folder)
    links = {e["pid"] for e in events if e["ph"] == "M" and e["args"].get("name") == "links"}
    now: dict[tuple, int] = {}
    totals = {"links": 0, "queues": 0}
    changes: dict[int, list] = {}
    for e in events:
        if e["ph"] == "C":
            changes.setdefault(round(e["ts"]), []).append(e)
    for at in range(max(changes) + 1):
        for e in changes.get(at, []):
            now[e["pid"], e["name"]] = e["args"]["count"]
        for (pid, _), count in now.items():
            totals["links" if pid in links else "queues"] += count
    assert totals["queues"] == result.counters.total("axon_reads")
    assert totals["links"] == sum(result.counters.total(n) for n in ("hops_ew", "hops_ns", "chip_crossings"))


def test_timeline_in_seconds(tmp_path: Path) -> None:
    program = a_program()
    chunks = chunks_of(program, random_images(program, 4, 2), 1)
    loads = Loads(program)
    ticks = loads.recount.timing.span + program.interval
    layout = loads.recount.layout
    random = np.random.default_rng(0)
    durations, busy = random.uniform(100, 900, ticks), random.uniform(1, 50, (2, ticks, layout.cores))
    form = dict(zip(("synapse", "soma"), busy, strict=True))
    loads.watchers.append(Timeline(tmp_path / "timeline.json", program, layout, durations, form))
    for chunk in chunks:
        loads.add(chunk)
    loads.close()
    starts = np.concatenate([[0], np.cumsum(durations)]) / 1000
    slices = [e for e in timeline(tmp_path) if e["ph"] == "X"]
    for e in slices:
        t, core = e["args"]["tick"], e["tid"] - 1
        assert e["dur"] == pytest.approx(form[e["name"]][t, core] / 1000, abs=0.0011)
        assert starts[t] - 0.001 <= e["ts"] < starts[t + 1]
    told = json.loads((tmp_path / "timeline.json").read_text())["otherData"]
    assert slices and told == {"program": program.name, "time": "emulated seconds"}


def kind(program: Program, probe: Probe) -> str:
    return program.populations[probe.population].model


def test_streams_are_traced_too(tmp_path: Path) -> None:
    program, steps = random_general(3), 40
    codes = {program.populations[i].name: c for i, c in random_codes(program, 3, steps, rate=0.3).items()}
    probes = some_probes(program)
    lifs = {program.populations[p.population].name: p.somas for p in probes if kind(program, p) == "lif"}
    result = Emulator(program, record="all", engine="events").run_events(codes, steps, probe=lifs)
    trace = trace_of_events(program, result)
    write_trace(program, trace, tmp_path / "t", ("csv", "chrome"), probes, potentials=result.potentials)
    spikes = rows(tmp_path / "t" / "spikes.csv")
    assert {row["sample"] for row in spikes} == {"0"} and len(spikes) == result.counters.total("events") > 50
    number = {p.name: i for i, p in enumerate(program.populations)}
    for row in spikes:
        assert int(row["tick"]) == tick(program, number[row["population"]], 0, int(row["timestep"]))
    got = sum(int(row["axon_reads"]) for row in rows(tmp_path / "t" / "core_load.csv"))
    assert got == result.counters.total("axon_reads")
    vcd = Vcd((tmp_path / "t" / "probes.vcd").read_text())
    for probe in probes:
        p = program.populations[probe.population]
        events, soma = result.events[p.name], int(probe.somas[-1])
        c, y, x = np.unravel_index(soma, p.shape)
        fired = np.zeros(steps, int)
        fired[events.step[events.soma == soma]] = 1
        ticks = np.arange(steps) * program.ticks_per_step + p.level
        assert vcd.at(f"{p.name}.n_{c}_{y}_{x}.spike", ticks) == fired.tolist()
        for part, values in zip("uv", result.potentials.get(p.name, ()), strict=False):
            assert vcd.at(f"{p.name}.n_{c}_{y}_{x}.{part}", ticks) == values[:, -1].tolist()
    table = rows(tmp_path / "t" / "potentials.csv")
    assert len(table) == steps * sum(map(len, lifs.values())) > 0
    assert sum(int(row["v"]) for row in table) == sum(int(v.sum()) for _, v in result.potentials.values())
    with pytest.raises(UsageError, match="but 40 timesteps of 1 somas are probed"):
        [i] = [program.populations.index(p) for p in program.populations if p.name == next(iter(lifs))]
        one = Probe(i, np.array([0]))
        more = {name: (u[:, [0, 0]], v[:, [0, 0]]) for name, (u, v) in result.potentials.items()}
        write_trace(program, trace, tmp_path / "u", ("csv",), (one,), potentials=more)
    assert any(e["ph"] == "X" for e in timeline(tmp_path / "t"))


# --- pictures ---------------------------------------------------------------------------------------------


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib, an extra")
    from nmc_emulator.tracing import plots

    for seed, chips in ((21, 2), (4, 1)):
        program = map_program(random_program(seed, layers=6, pipelined=True), seed, cores=6, parts=3, chips=chips)
        images = random_images(program, seed, 3)
        folder = tmp_path / str(seed)
        write(program, folder, chunks_of(program, images, 1), picture=3)
        links = np.zeros(resolve(program).mesh.links)
        counters: Counters = run(program, images).counters
        plots.draw_cores(folder / plots.CORES, program, resolve(program), counters, links, 3)
        for name in (plots.RASTER, plots.LOAD, plots.CORES):
            head = (folder / name).read_bytes()[:24]
            width, height = struct.unpack(">II", head[16:])
            assert head[1:4] == b"PNG" and width >= 900 and height >= 300, name


def test_pictures_do_not_need_a_mapping(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib, an extra")
    from nmc_emulator.tracing import plots

    program = random_program(5, layers=4)
    images = random_images(program, 5, 2)
    write(program, tmp_path, chunks_of(program, images, 2), picture=2)
    layout = resolve(program)
    plots.draw_cores(tmp_path / "c.png", program, layout, run(program, images).counters, np.zeros(4), 2)
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_pictures_of_a_stream(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib, an extra")
    program, steps = random_general(3), 300
    codes = {program.populations[i].name: c for i, c in random_codes(program, 3, steps, rate=0.3).items()}
    result = Emulator(program, record="all", engine="events").run_events(codes, steps)
    write_trace(program, trace_of_events(program, result), tmp_path, (), picture=True)
    assert {p.name for p in tmp_path.iterdir()} == {"raster.png", "load.png"}


def test_missing_matplotlib_is_said(tmp_path: Path, without) -> None:
    without("matplotlib")
    with pytest.raises(ToolNotFound, match=r"pictures need matplotlib: pip install 'nmc\[plot\]'"):
        open_sinks(a_program(), tmp_path, picture=3)
