"""Sweeps: points, records, the front, what is shown; and parts of a run computed apart."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nmc
from nmc.cli import main
from nmc.sweep import cluster
from nmc.sweep.front import Objective, front
from nmc.sweep.points import parse_vary, points_of
from nmc.sweep.records import Energy, Record, Results, key_of, latest, merge, read_records
from nmc_compiler.errors import ArtefactError, NmcError, UsageError
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target, with_weight_bits
from nmc_emulator import Emulator
from nmc_emulator.chunked import ChunkedRun, joined

ROOT = Path(__file__).resolve().parents[2]
SMALL = ROOT / "tests" / "fixtures" / "sdt_v1"
MODEL = SMALL / "model.pt"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images with labels."""
    path = tmp_path_factory.mktemp("inputs") / "inputs.npz"
    with np.load(SMALL / "vectors.npz") as file:
        np.savez(path, images=file["images"][:4], labels=file["labels"][:4])
    return path


# --- points -----------------------------------------------------------------------------------------------


def test_points_are_all_combinations_without_defaults() -> None:
    vary = parse_vary(["weight_bits=4,8", "T=2", "allow=none,soft-reset+v-min", "pipelined=yes,no", "chips=auto"])
    found = [p.options for p in points_of(vary, {"seed": 0, "family": "sdt_v1"})]
    assert len(found) == 8
    base = {"chips": "auto", "family": "sdt_v1", "timesteps": 2}
    assert found[0] == base | {"pipelined": True, "weight_bits": 4}, "the seed, no and none are the defaults"
    assert found[7] == base | {"allow": ["soft-reset", "v-min"], "weight_bits": 8}
    many = {"seed": list(range(1000)), "chips": list(range(1, 102))}
    with pytest.raises(UsageError, match="101,000 points are asked for; a sweep has at most 100,000"):
        points_of(many, {})


def test_fewer_weight_bits() -> None:
    loihi = load_target("loihi2")
    narrow = with_weight_bits(loihi, 4)
    assert (narrow.core.weight_bits.value, narrow.digest == loihi.digest) == (4, False)
    assert narrow.core.weight_bits.source.startswith("--weight-bits 4, of the 8 that the target has (lava-nc")
    assert with_weight_bits(loihi, 8) is loihi
    with pytest.raises(UsageError, match="--weight-bits 1: target 'loihi2' has weights of 8 bits; choose 2 to 8"):
        with_weight_bits(loihi, 1)


def test_weights_have_the_bits_that_are_asked_for() -> None:
    for bits in (2, 5):
        made = nmc.compile(MODEL, weight_bits=bits)
        low, high = -(1 << bits - 1), (1 << bits - 1) - 1
        ends = [(int(c.weight.min()), int(c.weight.max())) for c in made.program.convs]
        assert all(low <= a and b <= high for a, b in ends) and any(b == high or a == low for a, b in ends)
        assert made.target().core.weight_bits.value == bits
        assert made.program.meta["options"]["weight_bits"] == bits
    assert "weight_bits" not in nmc.compile(MODEL).program.meta["options"]


def test_integers_keep_their_bits() -> None:
    graph = nmc.compile(MODEL).int_graph
    with pytest.raises(UsageError, match="--weight-bits 4: the weights of 'sdt_v1' are integers already; leave it out"):
        compile_graph(graph, load_target("loihi2"), CompileOptions(weight_bits=4), ConversionReport())


def test_a_checkpoint_with_other_timesteps() -> None:
    """The same as with another T in the config, which alone says it."""
    made = nmc.compile(MODEL, timesteps=2)
    assert made.program.timesteps == 2
    assert "T = 2 as asked for, where the config has 4" in made.conversion["notes"]
    images = np.load(SMALL / "vectors.npz")["images"][:2]
    four, two = (nmc.emulate(p, images, record="all") for p in (nmc.compile(MODEL), made))
    name = next(iter(two.codes))
    assert np.array_equal(two.codes[name], four.codes[name][:, :2])


# --- records ----------------------------------------------------------------------------------------------


def record(status: str = "done", cores: int = 3, pj: float = 1.0, **options: object) -> Record:
    about = {"nmc": "1", "files": {"model": "ab"}, "samples": None, "steps": None, "prices": [], "options": options}
    energy = {"p": Energy(kind="mapped", pj=pj, at_least=False)}
    done = {"figures": {"cores": cores, "latency_ticks": 9}, "energy": energy}
    more = done if status == "done" else {"error": "why"}
    return Record(schema="nmc.point/1", key=key_of(about), **about, status=status, **more)  # type: ignore[arg-type]


def test_files_merge_to_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    found = [record(seed=n) for n in (10, 2, 1)] + [record(weight_bits=4), record(target="x"), record()]
    (tmp_path / "a").write_bytes(b"".join(r.line() for r in found))
    (tmp_path / "b").write_bytes(b"".join(r.line() for r in found[::-1]))
    one = merge([tmp_path / "a"], tmp_path / "c")
    both = merge([tmp_path / "b", tmp_path / "a"], tmp_path / "d")
    assert (tmp_path / "c").read_bytes() == (tmp_path / "d").read_bytes()
    assert one == both == read_records(tmp_path / "c")
    in_order = [{}, {"seed": 1}, {"seed": 2}, {"seed": 10}, {"weight_bits": 4}, {"target": "x"}]
    assert [r.options for r in one] == in_order


def test_merging_overwrites_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_bytes(record().line())
    (tmp_path / "b").write_bytes(record(seed=1).line())
    assert run("--merge", tmp_path / "a", "-o", tmp_path / "b") == 2
    told = "is there, and not among the files that are merged; name it too, or choose another -o"
    assert told in capsys.readouterr().err
    assert run("--merge", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "b") == 0
    assert (tmp_path / "b").read_bytes() == record().line() + record(seed=1).line()
    assert run("--merge", tmp_path / "a") == 2
    assert "--merge: say with -o which file is written" in capsys.readouterr().err


def test_records_that_contradict_are_refused_and_lost_ones_give_way() -> None:
    lost, done = record("lost", seed=1), record(seed=1)
    assert latest([lost, done]) == latest([done, lost, lost]) == {done.key: done}
    with pytest.raises(
        UsageError, match=r"two records of the point seed=1 \(key .{12}\) have different results \(done"
    ):
        latest([done, record(cores=4, seed=1)])


def test_only_a_torn_record_is_dropped(tmp_path: Path) -> None:
    path, line = tmp_path / "r.jsonl", record().line()
    for torn in (line[:1], line[:50], line[:-1]):
        path.write_bytes(line + torn)
        assert read_records(path) == [record()]
        results = Results(path)
        assert (results.dropped, path.read_bytes()) == (len(torn), line)
        results.add(record(seed=1))
        results.close()
        assert read_records(path) == [record(), record(seed=1)]


@pytest.mark.parametrize("text", ["notes of mine", "notes of mine\n", '{"a": 1}\n', "[" * 5000 + "\n", "\0" * 9])
def test_a_file_that_holds_something_else_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes"
    path.write_text(text)
    with pytest.raises(ArtefactError, match="notes, line 1: is no record of nmc.point/1; remove the line, or the file"):
        Results(path)
    assert path.read_text() == text


def test_a_record_that_was_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    for change in ({"options": {"seed": 5}}, {"status": "fine"}, {"figures": {"cores": "many"}}, {"more": 1}):
        path.write_text(json.dumps(json.loads(record().line()) | change) + "\n")
        with pytest.raises(ArtefactError, match="line 1: is no record"):
            read_records(path)


def test_one_sweep_writes_at_a_time(tmp_path: Path) -> None:
    first = Results(tmp_path / "r.jsonl")
    with pytest.raises(UsageError, match="another sweep is writing to it; wait, or choose another -o"):
        Results(tmp_path / "r.jsonl")
    first.close()
    Results(tmp_path / "r.jsonl").close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8))
def test_the_front_is_what_nothing_beats(values: list[tuple[int, int]]) -> None:
    records = [record(cores=c, pj=float(p), seed=n) for n, (c, p) in enumerate(values)]
    aims = [Objective("cores", True, "cores"), Objective("energy", False, profile="p")]
    beaten = {
        a.key
        for a, (c, p) in zip(records, values, strict=True)
        for c2, p2 in values
        if c2 >= c and p2 <= p and (c2 > c or p2 < p)
    }
    assert front([*records, record("refused", seed=99)], aims) == {r.key for r in records} - beaten


# --- workers ----------------------------------------------------------------------------------------------


def test_work_that_kills_its_workers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="workers need Dask: pip install 'nmc[sweep]'")
    monkeypatch.setattr(cluster, "DEATHS", 0)
    with cluster.pool(1) as team:
        [(job, outcome)] = team.unordered(os._exit, [9])
        assert outcome == cluster.Lost("the worker died each of 1 times that it was tried; is there memory enough?")
        assert (job, team.deaths) == (9, 1)
        assert list(team.in_order(abs, [-1, -2])) == [(-1, 1), (-2, 2)], "there is another worker then"


def test_workers_of_another_nmc_are_refused() -> None:
    with pytest.raises(UsageError, match="a worker has nmc .*, but was sent work by 0.0.1; install that there"):
        cluster.check_version("0.0.1")


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="workers need Dask: pip install 'nmc[sweep]'")
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1)
    with pytest.raises(NmcError, match=r"--scheduler tcp://127.0.0.1:9: no answer \(.*\); is `dask scheduler` running"):
        cluster.pool(0, "tcp://127.0.0.1:9").__enter__()


# --- parts of a run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pipelined", [False, True])
def test_parts_computed_apart_are_the_run(pipelined: bool) -> None:
    """Samples that overlap on the chip, too: their ticks are shared by two parts."""
    program = nmc.compile(MODEL, pipelined=pipelined).program
    images = np.load(SMALL / "vectors.npz")["images"][:11]
    options = {"record": "all", "engine": "layers", "batch": 2}
    whole, apart, other = (ChunkedRun(Emulator(program, **options), images) for _ in range(3))
    assert (whole.overlap > 1) == pipelined
    pieces = []
    while whole.done < whole.samples:
        pieces.append(whole.step())
    wanted, parts = joined(pieces), []
    for first, last in ((0, 1), (1, 6), (6, 9), (9, 11)):
        other.begin_at(first)
        while other.done < last:
            parts.append(other.step(last - other.done))
        apart.follow(last - first, other.state())
    found = joined(parts)
    assert np.array_equal(found.logits_int, wanted.logits_int)
    assert all(np.array_equal(found.codes[i], codes) for i, codes in wanted.codes.items())
    assert apart.counters().differences(whole.counters()) == []


# --- the command ------------------------------------------------------------------------------------------


def run(*arguments: object) -> int:
    return main(["explore", *map(str, arguments)])


def test_table_json_csv_and_plot(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A point that is refused is a result."""
    vary = ("--vary", "weight_bits=3,8,9", "--vary", "T=2,4")
    command = (MODEL, *vary, "--input", inputs, "--samples", 3, "--workers", 0, "-o", tmp_path / "r.jsonl")
    assert run(*command, "--plot", tmp_path / "front.svg") == 0
    shown = capsys.readouterr().out
    assert "Refused (2 of 6 points)\n  --weight-bits 9: target 'loihi2' has weights of 8 bits" in shown
    assert shown.count("at least ") == 4 and "at least: terms without a published price are missing" in shown
    svg = (tmp_path / "front.svg").read_text()
    assert "energy:loihi1-davies2018 [uJ] (at least, less is better)" in svg
    assert run(*command, "--json") == 0
    printed = capsys.readouterr()
    assert "6 points: 6 kept" in printed.err
    told = json.loads(printed.out)
    assert told["schema"] == "nmc.explore/1" and told["vary"] == ["weight_bits", "timesteps"]
    assert [o["name"] for o in told["objectives"]] == ["energy:loihi1-davies2018", "accuracy"]
    points = {(p["options"]["weight_bits"], p["options"]["timesteps"]): p for p in told["points"]}
    assert [points[b, 4]["status"] for b in (3, 8, 9)] == ["done", "done", "refused"]
    assert points[3, 2]["figures"]["synapse_words"] < points[8, 2]["figures"]["synapse_words"]
    assert points[3, 2]["figures"]["weight_error"] > 10 * points[8, 2]["figures"]["weight_error"]
    assert points[8, 2]["figures"]["latency_ticks"] == points[8, 4]["figures"]["latency_ticks"] - 2
    assert run(*command, "--csv", "--plot", tmp_path / "again.svg") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [r["key"] for r in rows] == [p["key"] for p in told["points"]]
    assert [r["front"] for r in rows] == [str(int(p["front"])) for p in told["points"]]
    assert (tmp_path / "again.svg").read_text() == svg


def test_a_point_is_what_compile_and_emulate_make(inputs: Path, tmp_path: Path) -> None:
    report = nmc.emulate(nmc.compile(MODEL, weight_bits=5, timesteps=3), inputs).report
    vary = {"weight_bits": [5], "timesteps": [3]}
    [point] = nmc.explore(MODEL, vary, input=inputs, workers=0, out=tmp_path / "r.jsonl").records
    assert point.program == report["program"]
    assert point.figures is not None and point.energy is not None
    assert point.figures["accuracy"] == report["accuracy"]
    assert point.figures["packets"] == report["packets"] / 4
    assert {name: e.pj for name, e in point.energy.items()} == {
        e["profile"]: e["total_pj"] / 4 for e in report["energy"]
    }


def test_a_file_that_changes_is_another_point(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.pt").write_bytes(MODEL.read_bytes())
    config = (SMALL / "model.yaml").read_text()
    for text, told in ((config, "1 point: 0 kept"), (config, "1 point: 1 kept"), (config + "\n", "1 point: 0 kept")):
        (tmp_path / "model.yaml").write_text(text)
        assert run(tmp_path / "model.pt", "--workers", 0, "-o", tmp_path / "r.jsonl") == 0
        assert told in capsys.readouterr().err


def test_prices_of_ones_own(inputs: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    profiles = ROOT / "emulator" / "nmc_emulator" / "prices"
    mine.write_text((profiles / "loihi1-davies2018.yaml").read_text().replace("name: loihi1-davies2018", "name: mine"))
    given: dict = {"input": inputs, "workers": 0, "out": tmp_path / "r.jsonl", "objectives": ["energy", "cores"]}
    both = [nmc.explore(MODEL, {}, prices=prices, **given) for prices in ([mine], ["loihi1-davies2018"])]
    energies = [sweep.objectives[0].value(sweep.records[0]) for sweep in both]
    assert [sweep.objectives[0].name for sweep in both] == ["energy:mine", "energy:loihi1-davies2018"]
    assert energies[0] == energies[1] and both[0].records[0].prices == ["mine.yaml"]
    assert "prices mine.yaml" in both[0].records[0].files


def test_when_nothing_comes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(MODEL, "--vary", "weight_bits=9,10", "--workers", 0, "-o", tmp_path / "r.jsonl") == 1
    shown = capsys.readouterr()
    assert "Refused (2 of 2 points)" in shown.out
    assert "nmc: error: no point came out; of the first: --weight-bits 9: target 'loihi2' has weights" in shown.err


KEYS = (
    "target, weight_bits, timesteps, attn_order, residual, factors, input_encoding, pipelined, channel_bins,"
    " stream_pieces, chips, seed, allow, config, dt, nir_rule, nir_reset, nir_input"
)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--vary", "bits=4"], f"--vary bits=4: 'bits' is nothing to vary; keys: {KEYS}"),
        (["--vary", "seed"], f"--vary seed: say KEY=VALUE,VALUE; keys: {KEYS}"),
        (["--vary", "seed=1,x"], "--vary seed=1,x: 'x' is no seed; give a whole number of at least 0"),
        (["--vary", "residual=x"], "--vary residual=x: 'x' is no residual; give one of auto, stream, duplicate"),
        (["--vary", "dt=-1"], "--vary dt=-1: '-1' is no dt; give a number above 0"),
        (["--vary", "seed=1", "--vary", "seed=2"], "--vary seed=2: seed is varied twice; give all its values at once"),
        (["--vary", "seed=1,1"], "--vary seed=1,1: the value 1 is given twice"),
        (["--vary", "T=2", "-T", "4"], "timesteps is given as an option and varied; give it once"),
        (["--objective", "joy"], "--objective joy: no such figure; known: accuracy, cores, chips, synapse_words,"),
        (["--objective", "accuracy"], "--objective accuracy: no point has this figure; it takes --input with labels"),
        (["--plot", "front.gif"], "--plot front.gif: give a file that ends in .png, .svg, .pdf"),
        (["--samples", "4"], "samples, steps and prices are of a run; give its --input as well"),
        (["--input", "x.npz", "--prices", "gold"], "unknown price profile 'gold'"),
        (["--input", "nowhere.npz"], "nowhere.npz: there is no such file"),
        (["--vary", "target=loihi3"], "target loihi3: there is no such file; targets: generic-mesh, loihi1, loihi2,"),
        (["--merge", "a.jsonl"], "--merge runs nothing, so it does not take a model"),
        (
            ["--scheduler", "tcp://127.0.0.1:9"],
            "--workers starts processes here, --scheduler uses those that are there; give one of them",
        ),
    ],
)
def test_wrong_options(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(MODEL, *arguments, "--workers", 0) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1].startswith(f"nmc: error: {text}") and shown.out == ""
