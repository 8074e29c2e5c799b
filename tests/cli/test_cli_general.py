"""nmc emulate, report, inspect and verify on networks that events drive, in folders that nmc did not compile."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import Done, Nmc, says
from streams import CORES, alone, column, light, pair, saved

import nmc as api
from nmc.cli import main
from nmc_compiler.program.network import Network
from nmc_emulator import Emulator
from nmc_emulator.noc import simulate
from nmc_emulator.recost import trace_of_events
from nmc_emulator.trace import events_of

STEPS = 300


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders stream, windows (20 timesteps), pair and alone, and inputs: codes, lists, samples."""
    folder, codes = tmp_path_factory.mktemp("nets"), light(STEPS)
    for name, program in (("stream", column()), ("windows", column(20)), ("pair", pair()), ("alone", alone())):
        saved(program, folder / name)
    events = events_of(codes.reshape(STEPS, 8))
    np.savez(folder / "codes.npz", light=codes)
    np.savez(folder / "lists.npz", **{"light.step": events.step, "light.soma": events.soma})
    labels = np.random.default_rng(0).integers(0, 3, STEPS // 20)
    np.savez(folder / "samples.npz", light=codes.reshape(-1, 20, 8, 1, 1).astype(np.float32), labels=labels)
    left, right = light(40)[:, :3], np.random.default_rng(2).integers(-8, 8, (40, 2, 1, 2))
    graded = events_of(right.reshape(40, -1))
    lists = {"right.step": graded.step, "right.soma": graded.soma, "right.code": graded.code}
    np.savez(folder / "both.npz", left=left, **lists)
    return folder


def ran(program, codes, steps, **options):
    return Emulator(program, record="all", **options).run_events(codes, steps)


def total(report: dict, name: str, key: str = "spikes") -> int:
    return next(layer[key] for layer in report["layers"] if layer["name"] == name)


@pytest.fixture
def nmc(capsys: pytest.CaptureFixture[str]) -> Nmc:
    """The command in this process, whose kernels are loaded: a process of its own takes seconds."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        status = main([*map(str, arguments)])
        said = capsys.readouterr()
        return Done(arguments, status, said.out, said.err)

    return run


# --- what runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["codes.npz", "lists.npz"])
def test_a_stream_runs_as_long_as_its_input(nmc, as_json, here, tmp_path, given) -> None:
    out = tmp_path / "run"
    report = as_json(nmc("emulate", here / "stream", "--input", here / given, "--record", "cells", "--json", "-o", out))
    want = ran(column(), {"light": light(STEPS)}, STEPS)
    assert (report["stream"], report["timesteps"], report["samples"]) == (True, STEPS, 1)
    assert report["engine"] == "events" and report["cores"] == CORES and report["accuracy"] is None
    for name, key in (("light", "input_events"), ("cells", "spikes"), ("out", "spikes")):
        assert total(report, name, key) == len(want.events[name]) > 0
    assert report["packets"] == want.counters.total("packets") and report["bound"] == want.counters.bound
    with np.load(out / "spikes.npz") as spikes:
        assert sorted(spikes) == ["cells.soma", "cells.step"]
        assert np.array_equal(spikes["cells.step"], want.events["cells"].step)
        assert np.array_equal(spikes["cells.soma"], want.events["cells"].soma)
    assert f"input: {STEPS} timesteps; events: {len(want.events['light'])} of light" in report["assumptions"]


def test_text_is_per_timestep_and_report_shows_it_again(nmc, here, tmp_path) -> None:
    done = nmc("emulate", here / "stream", "--input", here / "codes.npz", "--steps", 100, "-o", tmp_path / "r")
    assert done.stdout.startswith("column: 4 cores of loihi2, 100 timesteps, events engine\n")
    assert "\nLayers, per timestep\n" in done.stdout and " per sample:" not in done.stdout
    assert "latency 1 ticks, a timestep every 1 ticks, 100 ticks for the run" in done.stdout
    assert "the first of 300" in done.stdout
    assert nmc("report", tmp_path / "r").stdout == done.stdout
    assert "## Energy, per timestep" in nmc("report", tmp_path / "r", "--markdown").stdout


def test_steps_beyond_the_input_are_silent(nmc, as_json, here, tmp_path) -> None:
    padded = np.concatenate([light(STEPS), np.zeros((50, 8, 1, 1), np.uint8)])
    report = as_json(
        nmc("emulate", here / "stream", "--input", here / "codes.npz", "--steps", 350, "--json", "-o", tmp_path)
    )
    assert total(report, "cells") == len(ran(column(), {"light": padded}, 350).events["cells"])


def test_samples_go_through_a_stream_from_rest(nmc, as_json, here, tmp_path) -> None:
    """As many windows would: the same numbers, and the same accuracy from the output population."""
    given = "--input", here / "samples.npz", "--json", "-o"
    stream = as_json(nmc("emulate", here / "stream", *given, tmp_path / "a"))
    windows = as_json(nmc("emulate", here / "windows", *given, tmp_path / "b"))
    assert stream["timesteps"] == windows["timesteps"] == 20 and stream["samples"] == STEPS // 20
    different = {key for key in stream if stream[key] != windows[key]}
    assert different == {"program"}
    with np.load(here / "samples.npz") as file:
        codes, labels = file["light"].reshape(STEPS, 8, 1, 1).astype(int), file["labels"]
    events = ran(column(20), {"light": codes}, STEPS).events["out"]
    sums = np.zeros((STEPS // 20, 3), int)
    np.add.at(sums, (events.step // 20, events.soma), 1)
    right = (sums.argmax(axis=1) == labels) & sums.any(axis=1)
    assert stream["accuracy"] == right.mean() and stream["logits"] == sums.tolist()
    assert any("the class of a sample is the soma of 'out'" in line for line in stream["assumptions"])


def test_several_inputs_by_name_and_no_clear_output(nmc, as_json, here, tmp_path) -> None:
    report = as_json(nmc("emulate", here / "pair", "--input", here / "both.npz", "--json", "-o", tmp_path))
    with np.load(here / "both.npz") as file:
        right = np.zeros((40, 4), int)
        right[file["right.step"], file["right.soma"]] = file["right.code"]
        want = ran(pair(), {"left": file["left"], "right": right.reshape(40, 2, 1, 2)}, 40)
    assert total(report, "a") == len(want.events["a"]) and total(report, "b") == len(want.events["b"]) > 0
    labelled = {"left": np.zeros((2, 10, 3, 1, 1), int), "right": np.zeros((2, 10, 2, 1, 2), int)}
    told = api.emulate(here / "pair", labelled, np.array([0, 1])).report
    assert told["accuracy"] is None and "accuracy: not known, the network tells no classes" in told.text()
    assert "here 'a', 'b' do" in told["classes"]


def test_a_network_without_inputs_needs_a_number_of_steps(nmc, as_json, here, tmp_path) -> None:
    report = as_json(nmc("emulate", here / "alone", "--steps", 40, "--json", "-o", tmp_path / "r"))
    assert total(report, "beat") == len(ran(alone(), {}, 40).events["beat"]) > 0
    done = nmc("emulate", here / "alone")
    assert done.returncode == 2
    assert says(done) == (
        "Program 'alone' is a stream and nothing of its input says how long it runs; say with --steps N"
    )


def test_an_input_may_be_called_labels(nmc, as_json, tmp_path) -> None:
    net = Network("odd")
    seen, cells = net.input("labels", 3), net.lif("cells", 2, vth=1)
    net.dense("d", seen, cells, np.full((2, 3), 4))
    saved(net.program(), tmp_path / "odd")
    np.savez(tmp_path / "x.npz", labels=np.ones((5, 3, 1, 1), int))
    report = as_json(nmc("emulate", tmp_path / "odd", "--input", tmp_path / "x.npz", "--json"))
    assert report["input"] == "input: 5 timesteps; events: 15 of labels" and total(report, "cells") > 0


def test_a_recording_drives_a_stream(nmc, as_json, tmp_path) -> None:
    from nmc_compiler.program.network import Network

    net = Network("eye")
    pixels, cells = net.input("pixels", (2, 3, 3)), net.lif("cells", 4, vth=10)
    net.dense("see", pixels, cells, np.random.default_rng(0).integers(-5, 20, (4, 18)) * 2)
    folder, rng = saved(net.program(), tmp_path / "eye"), np.random.default_rng(3)
    t = np.sort(rng.integers(0, 2000, 400))
    x, y, p = (rng.integers(0, n, 400) for n in (3, 3, 2))
    np.savez(tmp_path / "recording.npz", x=x, y=y, t=t, p=p)
    report = as_json(
        nmc("emulate", folder, "--input", tmp_path / "recording.npz", "--dt", 20, "--json", "-o", tmp_path / "r")
    )
    counts = np.zeros(((t[-1] - t[0]) // 20 + 1, 2, 3, 3), int)
    np.add.at(counts, ((t - t[0]) // 20, p, y, x), 1)
    want = ran(net.program(), {"pixels": (counts > 0).astype(int)}, len(counts))
    assert report["timesteps"] == len(counts) and total(report, "cells") == len(want.events["cells"]) > 0
    merged = int(np.maximum(counts - 1, 0).sum())
    assert f"{merged:,} events fell on a pixel that had one in the same timestep" in report["input"] and merged > 0
    few = as_json(
        nmc(
            "emulate", folder, "--input", tmp_path / "recording.npz", "--dt", 20, "--steps", 9, "--json", "-o", tmp_path
        )
    )
    assert few["timesteps"] == 9 and total(few, "pixels", "input_events") == np.count_nonzero(counts[:9])


# --- files --------------------------------------------------------------------------------------------------

EVERYTHING = (
    "--record",
    "all",
    "--trace",
    "events",
    "csv",
    "chrome",
    "--probe",
    "cells:0,0,0",
    "out",
    "--timing",
    "queue",
)


@pytest.mark.parametrize("folder, more", [("stream", ("--steps", "120")), ("windows", ("--limit", "6"))])
def test_files_are_those_of_the_tick_engine(nmc, here, tmp_path, folder, more) -> None:
    given = here / folder, "--input", here / "codes.npz", *more, *EVERYTHING
    for engine in ("events", "ticks"):
        done = nmc("emulate", *given, "--engine", engine, "-o", tmp_path / engine)
        assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "events").iterdir())
    assert {"events.npz", "spikes.csv", "probes.vcd", "timeline.json", "potentials.csv", "spikes.npz"} <= set(names)
    for name in names:
        ours, slow = ((tmp_path / engine / name).read_bytes() for engine in ("events", "ticks"))
        assert ours == slow or (name == "report.json" and ours == slow.replace(b'"ticks"', b'"events"', 1)), name


def test_times_are_those_of_the_events(nmc, as_json, here, tmp_path) -> None:
    report = as_json(
        nmc("emulate", here / "stream", "--input", here / "codes.npz", *EVERYTHING, "--json", "-o", tmp_path)
    )
    program = column()
    result = ran(program, {"light": light(STEPS)}, STEPS)
    times = simulate(program, trace_of_events(program, result))
    told = report["timing"]
    assert (told["seconds"], told["packets"]) == (times.seconds, int(times.packets.sum()))
    assert not told["multicast"]


@pytest.mark.parametrize(
    "folder, given", [("stream", "codes.npz"), ("stream", "samples.npz"), ("windows", "samples.npz")]
)
def test_one_run_serves_other_mappings(nmc, as_json, here, tmp_path, folder, given) -> None:
    run = nmc("emulate", here / folder, "--input", here / given, "--trace", "events", "-o", tmp_path / "run")
    assert run.returncode == 0, run.stderr
    other = saved(column(20 if folder == "windows" else 0, cores=7), tmp_path / "other")
    again = as_json(
        nmc("emulate", other, "--from-trace", tmp_path / "run" / "events.npz", "--json", "-o", tmp_path / "again")
    )
    straight = as_json(nmc("emulate", other, "--input", here / given, "--json", "-o", tmp_path / "straight"))
    same = set(straight) - {"engine", "recosted_from", "input", "assumptions"}
    assert {key for key in same if straight[key] != again[key]} == set()


def test_what_was_recorded_drives_the_next_network(nmc, here, tmp_path) -> None:
    from nmc_compiler.program.network import Network

    net = Network("next")
    cells, sums = net.input("cells", 40), net.lif("sums", 2, vth=5)
    net.dense("in", cells, sums, np.ones((2, 40), int) * 2)
    folder = saved(net.program(), tmp_path / "next")
    assert (
        nmc(
            "emulate", here / "stream", "--input", here / "codes.npz", "--record", "cells", "-o", tmp_path / "r"
        ).returncode
        == 0
    )
    run = api.emulate(folder, tmp_path / "r" / "spikes.npz", record="all")
    spikes = ran(column(), {"light": light(STEPS)}, STEPS).events["cells"]
    assert len(run.events["cells"]) == len(spikes) and len(run.events["sums"]) > 0
    assert run.spikes("cells").sum() == len(spikes)


# --- long runs ----------------------------------------------------------------------------------------------

LONG = 24_000
START = (
    "import sys, nmc.waiting, nmc.general; nmc.waiting.RECORD_SECONDS = 0.02; nmc.general.MOST_TICKS = 64;"
    "from nmc.cli import main; sys.exit(main())"
)
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
KEPT = ("report.json", "spikes.npz", "events.npz", "probes.vcd", "potentials.csv")


def started(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", START, "emulate", *map(str, arguments)]
    return subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(*arguments: object) -> tuple[int, str]:
    process = started(*arguments)
    _, err = process.communicate(timeout=200)
    return process.returncode, err


def stopped_by(number: int, process: subprocess.Popen, checkpoint: Path) -> tuple[int, str]:
    """Send a signal once the checkpoint has grown; exit status and standard error."""
    before, until = checkpoint.stat().st_size if checkpoint.exists() else 0, time.monotonic() + 60
    state = checkpoint.with_name(f"{checkpoint.name}.state")
    while process.poll() is None and time.monotonic() < until:
        if state.exists() and checkpoint.stat().st_size > before + 5_000:
            process.send_signal(number)
            break
        time.sleep(0.002)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def wanted(folder: Path, given: Path, out: Path, *more: object) -> list[object]:
    files = "--record", "out", "--trace", "events", "csv", "--probe", "out:0,0,0"
    return [folder, "--input", given, "-o", out, *files, *more]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "light.npz"
    np.savez(path, light=light(LONG, rate=0.05))
    return path


@pytest.mark.parametrize(
    "folder, unit, size",
    [("stream", "timesteps", LONG), pytest.param("windows", "samples", LONG // 20, marks=pytest.mark.slow)],
)
def test_killed_and_interrupted_runs_end_like_undisturbed_ones(here, long, tmp_path, folder, unit, size) -> None:
    """SIGKILL, then SIGINT, then to the end; what SIGINT left is a run of fewer timesteps or samples."""
    kept = tmp_path / "kept"
    again = wanted(here / folder, long, tmp_path / "parts", "--checkpoint", kept)

    status, err = stopped_by(signal.SIGKILL, started(*again), kept)
    assert status == -signal.SIGKILL, err
    assert not (tmp_path / "parts").exists()

    status, err = stopped_by(signal.SIGINT, started(*again), kept)
    assert status == 130, err
    assert f"nmc: {kept}: going on behind " in err and "Ctrl-C again stops at once" in err
    report = json.loads((tmp_path / "parts" / "report.json").read_text())
    done = report["partial"][unit]
    assert 0 < done < size and report["partial"]["of"] == size
    assert report["assumptions"][0] == f"PARTIAL: the run was stopped behind {done} of {size} {unit}"
    assert err.endswith(f"the same command goes on behind {unit[:-1]} {done}\n")

    steps = done * (20 if unit == "samples" else 1)
    status, err = finished(*wanted(here / folder, long, tmp_path / "short", "--steps", steps))
    assert status == 0, err
    short = json.loads((tmp_path / "short" / "report.json").read_text())
    for one in (report, short):
        one["assumptions"] = [line for line in one["assumptions"] if not line.startswith(("PARTIAL", "input"))]
        del one["partial"], one["input"]
    assert report == short
    for name in KEPT[1:]:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "short" / name).read_bytes(), name

    status, err = finished(*again)
    assert status == 0 and "going on behind" in err, err
    status, err = finished(*wanted(here / folder, long, tmp_path / "whole"))
    assert status == 0, err
    for name in KEPT:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts", "short", "whole"]


def test_a_checkpoint_of_another_run_is_refused(here, long, tmp_path, nmc) -> None:
    kept = tmp_path / "kept"
    run = wanted(here / "stream", long, tmp_path / "a", "--checkpoint", kept)
    assert stopped_by(signal.SIGINT, started(*run), kept)[0] == 130
    before = kept.read_bytes()
    done = nmc("emulate", *wanted(here / "stream", here / "codes.npz", tmp_path / "b", "--checkpoint", kept))
    assert done.returncode == 2 and says(done).startswith(f"{kept}: belongs to another run: input ")
    assert kept.read_bytes() == before and not (tmp_path / "b").exists()


def test_ctrl_c_before_any_timestep_leaves_nothing(here, tmp_path) -> None:
    pressed = "import os, signal, nmc.general as g; go = g._Run.go; "
    pressed += "g._Run.go = lambda *a: (os.kill(os.getpid(), signal.SIGINT), go(*a))[1]; "
    arguments = map(str, [here / "stream", "--input", here / "codes.npz", "-o", tmp_path / "a"])
    done = subprocess.run([sys.executable, "-c", pressed + START, "emulate", *arguments], env=ENV, capture_output=True)
    assert done.returncode == 130
    assert done.stderr.endswith(b"nmc: interrupted; nothing half-written was left behind\n")
    assert list(tmp_path.iterdir()) == []


# --- refusals -----------------------------------------------------------------------------------------------

REFUSED = f"""
stream
    Program 'column' is driven by events of its inputs (light); give --input FILE
stream --input codes.npz --limit 3
    --limit 3: a stream has no samples; say with --steps how long it runs
windows --input codes.npz --steps 7
    --steps 7: a run has at least 1 timestep, and whole windows; the windows of Program 'column' have 20 each
stream --input codes.npz --dt 7
    --dt is for recordings of events (x, y, t, p); codes and lists of events have timesteps
stream --input codes.npz --engine layers
    engine 'layers' cannot run Program 'column': it has no last timestep (a stream); run it with engine='events'
stream --input codes.npz --engine ticks --checkpoint c
    the engine 'ticks' runs in one go and keeps no checkpoint; choose events
stream --input codes.npz --timing cycle --multicast
    fidelity cycle sends one packet per destination; choose queue for multicast trees, or unicast (--no-multicast)
stream --input codes.npz --multicast
    multicast says how packets travel, which only the times show; give --timing as well
stream --input codes.npz --probe cells --arithmetic float
    arithmetic float is for comparison: probes and events.npz are of exact runs only
stream --input codes.npz --record nix
    cannot record 'nix': Program 'column' has no such population; it has light, cells, out
stream --input codes.npz --probe nix
    --probe nix: no such population; Program 'column' has light, cells, out
chips --input codes.npz --timing queue
    Program 'column' has axons between chips (from chip 1 to chip 0), and nobody has published the time of such a link;
    map it to one chip, or run it without --timing
bare --input codes.npz --timing queue
    Program 'column' is not mapped: no packets, no time; compile it for a target
pair --input codes.npz
    its array 'light' belongs to no input of Program 'pair', which are left, right;
pair --input left.npz
    no events for input 'right' of Program 'pair', whose inputs are left, right; give all of them, a silent one as
    codes that are 0 or as empty Events
stream --input half.npz
    has 'light.*' but no 'light.soma'; a list of events has both
stream --input wide.npz
    codes of input 'light' have shape [9, 7, 1, 1]; give [T, 8, 1, 1], or [N, T, 8, 1, 1]
stream --input real.npz
    codes of input 'light': 72 are no whole numbers, the first (0.5) at [0, 0, 0, 0]; events carry whole numbers
stream --input codes3.npz
    events of input 'light' carry codes 3..3, it takes 0..1
pair --input wraps.npz
    codes of input 'right' are 4294967299..4294967299; events carry numbers of 32 bits
stream --input early.npz
    events of input 'light': timesteps -1..-1, somas 0..0, but the run has timesteps 0..0, the input somas 0..7
stream --input nested.npz
    events of input 'light': step is int64 []; give a one-dimensional array of integers
pair --input behind.npz
    an event has timestep 9, but the codes of other inputs end behind 5 timesteps; give as much of all, or say with
    --steps
windows --input unlabelled.npz
    an event has timestep 25, but labels are of 1 sample of 20 timesteps; give as much of all, or say with --steps
stream --input codes.npz --steps 99999999999999999999
    --steps 99999999999999999999: a run has at most 1099511627776 timesteps
stream --input class9.npz
    labels: sample 0 has class 9, but the network tells 3 apart (0 to 2); 1 such
stream --input late.npz
    an event has timestep {2**50}; a run has at most {2**40}
windows --input odd.npz
    codes have [9] samples or timesteps, but Program 'column' takes samples of 20: give [N, 20, C, H, W], or
    [T, C, H, W] with a multiple of 20
windows --input labels.npz
    labels are int64 [3], but there is 1 sample; give whole numbers [1]
stream --input camera.npz --dt 5
    events have 2 polarities, but the network's input has 8 channels
stream --input camera.npz
    holds events by time; say with --dt how long a timestep is, in the units of t
"""


def refusals() -> list[tuple[str, str]]:
    """(command, error) of REFUSED."""
    found: list[tuple[str, list[str]]] = []
    for line in REFUSED.strip().splitlines():
        if line.startswith(" "):
            found[-1][1].append(line.strip())
        else:
            found.append((line, []))
    return [(command, " ".join(lines)) for command, lines in found]


@pytest.fixture(scope="module")
def wrong(here: Path) -> Path:
    """Inputs that do not fit, beside those that do."""
    saved(column(cores=0), here / "bare")
    apart = (program := column()).mapping.cores.copy()
    apart[2:, 0], apart[2:, 1:] = 1, apart[:2, 1:]
    saved(replace(program, mapping=replace(program.mapping, cores=apart, chips=2)), here / "chips")
    left, one = np.zeros((5, 3, 1, 1), int), np.zeros(1, int)
    np.savez(here / "wraps.npz", left=left, right=np.full((5, 2, 1, 2), 2**32 + 3))
    lists = {"right.step": np.array([9]), "right.soma": one, "right.code": one + 1}
    np.savez(here / "behind.npz", left=left, **lists)
    np.savez(here / "early.npz", **{"light.step": one - 1, "light.soma": one})
    np.savez(here / "nested.npz", **{"light.step": np.array(1), "light.soma": np.array(0)})
    np.savez(here / "unlabelled.npz", **{"light.step": one + 25, "light.soma": one}, labels=one)
    np.savez(here / "class9.npz", light=np.zeros((1, 20, 8, 1, 1), int), labels=one + 9)
    np.savez(here / "left.npz", left=left)
    np.savez(here / "half.npz", **{"light.step": np.arange(3)})
    np.savez(here / "wide.npz", light=np.zeros((9, 7, 1, 1), int))
    np.savez(here / "real.npz", light=np.full((9, 8, 1, 1), 0.5))
    np.savez(here / "codes3.npz", light=np.full((9, 8, 1, 1), 3))
    np.savez(here / "late.npz", **{"light.step": np.array([2**50]), "light.soma": np.array([0])})
    np.savez(here / "odd.npz", light=np.zeros((9, 8, 1, 1), int))
    np.savez(here / "labels.npz", light=np.zeros((1, 20, 8, 1, 1), int), labels=np.arange(3))
    np.savez(here / "camera.npz", **{name: np.arange(3) % 2 for name in "xyp"}, t=np.arange(3))
    return here


@pytest.mark.parametrize("command, text", refusals())
def test_refused_with_one_clear_error_and_nothing_left(nmc, wrong, tmp_path, command, text) -> None:
    folder, *rest = command.split()
    places = {".npz": wrong, "c": tmp_path}
    given = [str(next((at / a for end, at in places.items() if a == end or a.endswith(".npz")), a)) for a in rest]
    done = nmc("emulate", wrong / folder, *given, "-o", tmp_path / "r")
    assert done.returncode in (1, 2) and text in says(done)
    assert list(tmp_path.iterdir()) == []


# --- verify, inspect, the target ----------------------------------------------------------------------------


def test_verify_compares_engines_and_checks_the_mapping(nmc, as_json, here, tmp_path) -> None:
    for folder in ("stream", "windows", "pair", "alone"):
        ladder = as_json(nmc("verify", here / folder, "--json"))
        assert ladder["ok"] and [rung["name"] for rung in ladder["rungs"]] == ["events = ticks", "mapping"]
        assert all(rung["compared"] > 0 for rung in ladder["rungs"])
        assert ladder["rungs"][0]["numbers"]["events"] > 0
    bare = saved(column(cores=0), tmp_path / "bare")
    assert [rung["name"] for rung in as_json(nmc("verify", bare, "--json"))["rungs"]] == ["events = ticks"]
    done = nmc("verify", here / "stream", "--golden", "x.npz")
    assert done.returncode == 2 and "was made from no graph that golden vectors could be compared with" in says(done)


def test_verify_finds_a_synapse_that_no_axon_serves(here, tmp_path) -> None:
    from dataclasses import replace

    program = column()
    axons = program.mapping.axons
    broken = replace(program, mapping=replace(program.mapping, axons=axons[:-1]))
    ladder = api.verify(saved(broken, tmp_path / "broken"))
    assert not ladder.ok and not ladder.rungs[1].ok


def test_inspect_tells_populations(nmc, as_json, here) -> None:
    told = as_json(nmc("inspect", here / "stream", "--json"))
    assert [(layer["layer"], layer["op"], layer["place"]) for layer in told["layers"]] == [
        ("light", "input", "host"),
        ("cells", "lif", "core"),
        ("out", "lif", "core"),
    ]
    assert told["layers"][1]["reason"] == "driven by events of light, cells"
    assert told["parameters"] == sum(len(s.weight) for s in column().sparses)


def test_multicast_is_what_the_target_does(nmc, as_json, here, tmp_path) -> None:
    from dataclasses import replace

    program = column()
    assert program.target["mesh"]["multicast"] == "unicast"
    tree = {**program.target, "mesh": {**program.target["mesh"], "multicast": "tree"}}
    branching = saved(replace(program, target=tree), tmp_path / "tree")
    run = "--input", here / "codes.npz", "--timing", "queue", "--json", "-o", tmp_path / "r"
    assert as_json(nmc("emulate", branching, *run))["timing"]["multicast"]
    assert not as_json(nmc("emulate", branching, *run, "--no-multicast"))["timing"]["multicast"]
    assert as_json(nmc("emulate", here / "stream", *run, "--multicast"))["timing"]["multicast"]
    refused = nmc("emulate", branching, "--input", here / "codes.npz", "--timing", "cycle")
    assert refused.returncode == 2 and "or unicast (--no-multicast)" in says(refused)
