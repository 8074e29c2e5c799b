"""`nmc explore`, and `nmc emulate` with workers: real processes, some of which are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import DIGITS, HEAR_CTRL_C, SMALL, START, run_nmc, says

import nmc
from nmc.cli import main
from nmc.sweep.records import merge
from nmc_compiler.errors import UsageError

psutil = pytest.importorskip("psutil", reason="workers need Dask: pip install 'nmc[sweep]'")
pytest.importorskip("distributed", reason="workers need Dask: pip install 'nmc[sweep]'")

MODEL = SMALL / "model.pt"
VARY = ("--vary", "seed=0,1,2", "--vary", "weight_bits=4,8")
POINTS = 6
LIMIT = 120  # seconds that a test waits at most


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images with labels."""
    path = tmp_path_factory.mktemp("inputs") / "inputs.npz"
    with np.load(SMALL / "vectors.npz") as file:
        np.savez(path, images=file["images"][:8], labels=file["labels"][:8])
    return path


@pytest.fixture(scope="module")
def serial(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the sweep in one process, merged: in order."""
    path = tmp_path_factory.mktemp("serial") / "raw.jsonl"
    assert explore(*VARY, "--input", inputs, "-o", path, "--workers", 0) == 0
    return merged(path)


def merged(path: Path) -> Path:
    merge([path], out := path.with_name(f"merged-{path.name}"))
    return out


def explore(*arguments: object) -> int:
    """In this process; its workers, if it has any, are others."""
    return main(["explore", str(MODEL), *map(str, arguments)])


def begin(*arguments: object, ctrl_c: bool = False, command: str = "explore") -> subprocess.Popen[str]:
    """A sweep under way, in a group of processes of its own."""
    line = [sys.executable, "-c", HEAR_CTRL_C * ctrl_c + START, command, *map(str, arguments)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(line, **pipes, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for(path: Path, lines: int) -> None:
    end = time.monotonic() + LIMIT
    while not (path.exists() and path.read_bytes().count(b"\n") >= lines):
        assert time.monotonic() < end
        time.sleep(0.02)


def workers_of(process: subprocess.Popen[str]) -> list[Any]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [c for c in children if any("spawn_main" in word for word in c.cmdline())]


# --- results ----------------------------------------------------------------------------------------------


def test_a_killed_worker_changes_nothing(inputs: Path, serial: Path, tmp_path: Path) -> None:
    out = tmp_path / "spread.jsonl"
    sweep = begin(MODEL, *VARY, "--input", inputs, "-o", out, "--workers", 2)
    wait_for(out, 1)
    assert len(workers := workers_of(sweep)) == 2
    workers[0].send_signal(signal.SIGKILL)
    _, told = sweep.communicate(timeout=LIMIT)
    assert sweep.returncode == 0, told
    assert "nmc: 6 points: 0 kept from" in told and "6 to run on 2 workers" in told
    assert "nmc: 1 worker has died; what was at work there runs again" in told
    assert merged(out).read_bytes() == serial.read_bytes()


def test_a_killed_sweep_goes_on(inputs: Path, serial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "spread.jsonl"
    sweep = begin(MODEL, *VARY, "--input", inputs, "-o", out, "--workers", 2)
    wait_for(out, 1)
    workers = workers_of(sweep)
    sweep.kill()
    sweep.communicate()
    assert psutil.wait_procs(workers, timeout=30)[1] == [], "workers outlive the sweep"
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines) + serial.read_bytes().splitlines()[0][:100])  # as a kill within a write leaves it
    assert explore(*VARY, "--input", inputs, "-o", out, "--workers", 0) == 0
    told = capsys.readouterr().err
    assert f"nmc: {out}: an unfinished record at its end was dropped" in told
    assert f"nmc: 6 points: {len(lines)} kept from {out}, {POINTS - len(lines)} to run" in told
    assert out.read_bytes().startswith(b"".join(lines)), "results only grow"
    assert merged(out).read_bytes() == serial.read_bytes()


def test_ctrl_c_leaves_what_is_done(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "spread.jsonl"
    sweep = begin(MODEL, *VARY, "--input", inputs, "-o", out, "--workers", 2, ctrl_c=True)
    wait_for(out, 1)
    workers = workers_of(sweep)
    os.killpg(sweep.pid, signal.SIGINT)  # as a terminal does it: to everybody
    shown, told = sweep.communicate(timeout=LIMIT)
    assert sweep.returncode == 130 and shown == "" and "Traceback" not in told
    assert f"nmc: interrupted; the points that were finished are in {out}, and the same command goes on" in told
    assert psutil.wait_procs(workers, timeout=30)[1] == []
    kept = out.read_bytes().count(b"\n")
    assert 1 <= kept < POINTS and out.read_bytes().endswith(b"\n")


def test_a_scheduler_that_is_there(
    inputs: Path, serial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its workers see no file of ours: they are sent the bytes. What they find is told alike."""
    from distributed import LocalCluster

    places = {"host": "127.0.0.1", "dashboard_address": None, "silence_logs": 60}
    with LocalCluster(n_workers=1, threads_per_worker=1, local_directory=tmp_path / "dask", **places) as there:
        url, out = there.scheduler_address, tmp_path / "there.jsonl"
        assert explore(*VARY, "--input", inputs, "-o", out, "--scheduler", url) == 0
    assert f"6 to run on the workers of {url}" in capsys.readouterr().err
    assert merged(out).read_bytes() == serial.read_bytes()


def test_without_dask(tmp_path: Path) -> None:
    """The package is really not there for the process: its import fails."""
    start = "import sys; sys.modules['distributed'] = None; from nmc.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", start, "explore", str(MODEL)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    wanted = "workers need Dask: pip install 'nmc[sweep]'; or give --workers 0, to run in this process"
    assert f"nmc: error: {wanted}\n" in done.stderr


# --- samples of a run -------------------------------------------------------------------------------------


def emulate(*arguments: object) -> int:
    return main(["emulate", *map(str, arguments)])


def test_samples_spread_over_workers_give_the_same_files(
    built: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["--record", "all", "--trace", "events", "csv", "--probe", "head_lif", "--timing", "queue"]
    wanted = [built, "--input", inputs, *wanted, "--checkpoint", tmp_path / "checkpoint", "--json", "-o"]
    assert emulate(*wanted, tmp_path / "alone") == 0
    alone = capsys.readouterr().out
    assert emulate(*wanted, tmp_path / "spread", "--workers", 2) == 0
    assert capsys.readouterr().out == alone
    names = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert {"report.json", "spikes.npz", "events.npz", "probes.vcd", "spikes.csv"} <= set(names)
    assert sorted(path.name for path in (tmp_path / "spread").iterdir()) == names
    for name in names:
        assert (tmp_path / "spread" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


def test_runs_that_are_not_spread(built: Path, inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert emulate(built, "--input", inputs, "--workers", 2, "--engine", "ticks") == 2
    told = "nmc: error: --workers: samples are spread by the engine 'layers'; leave out --engine ticks\n"
    assert capsys.readouterr().err == told
    stream = nmc.compile(SMALL.parents[2] / "examples/zoo/snn_delays/model.pt")
    with pytest.raises(UsageError, match="--workers: samples are spread by the engine 'layers' from images, but"):
        nmc.emulate(stream, np.zeros((1, 1)), workers=2)


@pytest.mark.slow
def test_a_scheduler_that_is_stopped(inputs: Path, tmp_path: Path) -> None:
    """And workers that are started as Dask's manual says, in another folder."""
    dask, address = str(Path(sys.executable).with_name("dask")), tmp_path / "address.json"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    started = []
    try:
        place = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", address)
        started.append(subprocess.Popen([dask, "scheduler", *map(str, place)], **quiet))
        wait_for(address, 1)
        url = json.loads(address.read_text())["address"]
        started.append(subprocess.Popen([dask, "worker", url, "--nworkers", "2", "--nthreads", "1"], **quiet))
        sweep = begin(MODEL, *VARY, "--input", inputs, "-o", tmp_path / "r.jsonl", "--scheduler", url)
        wait_for(tmp_path / "r.jsonl", 2)
        started[0].kill()
        shown, told = sweep.communicate(timeout=LIMIT)
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()
    assert sweep.returncode == 1 and shown == ""
    error = "nmc: error: the scheduler has been stopped; run the same command again"
    assert told.splitlines()[1:] == [error]


@pytest.mark.slow
def test_a_model_that_is_code(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="code is traced with PyTorch: pip install 'nmc[torch]'")
    model = (f"{DIGITS / 'traced.py'}:build", "--weights", DIGITS / "model.pt", "--config", DIGITS / "model.yaml")
    given = (*model, "--input-shape", "1,1,16,16", "--vary", "weight_bits=4,8")
    shown = [run_nmc("explore", *given, "-o", tmp_path / f"{n}.jsonl", "--workers", n, "--json") for n in (0, 2)]
    assert shown[0].returncode == 0, shown[0].stderr
    assert shown[0].stdout == shown[1].stdout
    told = says(run_nmc("explore", *given, "--scheduler", "tcp://127.0.0.1:9", cwd=tmp_path))
    assert told.endswith("explore it with --workers, or a checkpoint or a NIR graph of it with --scheduler")


@pytest.mark.slow
def test_samples_of_the_example_one_worker_killed(tmp_path: Path) -> None:
    build, many, kept = tmp_path / "build", tmp_path / "many.npz", tmp_path / "checkpoint"
    assert run_nmc("compile", DIGITS / "model.pt", "-o", build).returncode == 0
    with np.load(DIGITS / "test.npz") as file:
        np.savez(many, images=np.tile(file["images"], (4, 1, 1, 1)), labels=np.tile(file["labels"], 4))
    given = (build, "--input", many)
    assert run_nmc("emulate", *given, "-o", tmp_path / "alone").returncode == 0
    run = begin(*given, "-o", tmp_path / "spread", "--checkpoint", kept, "--workers", 2, command="emulate")
    end = time.monotonic() + LIMIT
    while not kept.exists() or kept.stat().st_size < 1 << 12:  # nothing but a header until samples are done
        assert time.monotonic() < end
        time.sleep(0.05)
    workers_of(run)[0].send_signal(signal.SIGKILL)
    _, told = run.communicate(timeout=LIMIT)
    assert run.returncode == 0 and "nmc: 1 worker has died" in told, told
    assert (tmp_path / "spread/report.json").read_bytes() == (tmp_path / "alone/report.json").read_bytes()


@pytest.mark.slow
def test_the_example_on_two_workers_one_killed(tmp_path: Path) -> None:
    """The sweep of docs/explore.md on the bundled digits."""
    vary = ("--vary", "weight_bits=4,6,8", "--vary", "T=2,4", "--vary", "target=loihi2,generic-mesh")
    given = (DIGITS / "model.pt", *vary, "--input", DIGITS / "test.npz", "--samples", 60)
    alone = run_nmc("explore", *given, "-o", tmp_path / "alone.jsonl", "--workers", 0)
    assert alone.returncode == 0, alone.stderr
    sweep = begin(*given, "-o", tmp_path / "spread.jsonl", "--workers", 2)
    wait_for(tmp_path / "spread.jsonl", 2)
    workers_of(sweep)[1].send_signal(signal.SIGKILL)
    shown, told = sweep.communicate(timeout=600)
    assert sweep.returncode == 0 and "1 worker has died" in told
    assert shown == alone.stdout
    assert merged(tmp_path / "spread.jsonl").read_bytes() == merged(tmp_path / "alone.jsonl").read_bytes()
