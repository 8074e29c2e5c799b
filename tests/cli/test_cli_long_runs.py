"""Long runs: progress, Ctrl-C, kill -9, checkpoints. Real processes, real signals."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from command import SMALL, says

from nmc.waiting import RECORD_SECONDS

# Records every 20 ms instead of every two seconds: the tests should not take minutes.
START = "import sys, nmc.waiting; nmc.waiting.RECORD_SECONDS = 0.02; from nmc.cli import main; sys.exit(main())"
SAMPLES = 450
FILES = ("report.json", "spikes.npz", "events.npz", "probes.vcd")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many samples, all different."""
    path = tmp_path_factory.mktemp("images") / "many.npz"
    with np.load(SMALL / "vectors.npz") as file:
        base, labels = file["images"], file["labels"]
    noise = np.random.default_rng(0).normal(0, 0.1, (SAMPLES, *base.shape[1:])).astype(np.float32)
    turns = np.arange(SAMPLES) % len(base)
    np.savez(path, images=base[turns] + noise, labels=labels[turns])
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", START, "emulate", *map(str, arguments)]


def options(images: Path, out: Path, checkpoint: Path | None = None) -> list[object]:
    wanted = ["--input", images, "-o", out, "--record", "head_lif", "--trace", "events", "--probe", "head_lif:0,0,0"]
    return wanted + (["--checkpoint", checkpoint] if checkpoint else [])


ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def stopped_by(number: int, process: subprocess.Popen, checkpoint: Path, grow: int) -> tuple[int, str]:
    """Send a signal once the checkpoint has grown; exit status and standard error."""
    before, until = checkpoint.stat().st_size if checkpoint.exists() else 0, time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if checkpoint.exists() and checkpoint.stat().st_size > before + grow:
            process.send_signal(number)
            break
        time.sleep(0.002)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def start(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen(command(*arguments), env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_and_interrupted_runs_are_taken_up_and_end_alike(built: Path, images: Path, tmp_path: Path) -> None:
    """SIGKILL, then SIGINT, then to the end: every file has the bytes of a run that nobody disturbed."""
    whole = subprocess.run(
        command(built, *options(images, tmp_path / "whole")), env=ENV, capture_output=True, text=True
    )
    assert whole.returncode == 0, whole.stderr
    kept = tmp_path / "kept"
    again = [built, *options(images, tmp_path / "parts", kept)]

    status, err = stopped_by(signal.SIGKILL, start(*again), kept, 2_000)
    assert status == -signal.SIGKILL, err
    assert not (tmp_path / "parts").exists() and kept.stat().st_size > 2_000
    assert len(list(tmp_path.glob(".parts.*.part"))) == 1

    status, err = stopped_by(signal.SIGINT, start(*again), kept, 2_000)
    assert status == 130, err
    assert f"nmc: {kept}: going on behind " in err and "Ctrl-C again stops at once" in err
    report = json.loads((tmp_path / "parts" / "report.json").read_text())
    done = report["samples"]
    assert 0 < done < SAMPLES and report["partial"] == {"samples": done, "of": SAMPLES}
    assert report["assumptions"][0] == f"PARTIAL: the run was stopped behind {done} of {SAMPLES} samples"
    assert err.endswith(f"the same command goes on behind sample {done}\n")
    with np.load(tmp_path / "parts" / "spikes.npz") as spikes:
        assert spikes["spikes/head_lif"].shape[1] == done == len(report["logits"])

    last = subprocess.run(command(*again), env=ENV, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert f"going on behind {done} of {SAMPLES} samples" in last.stderr
    for name in FILES:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert last.stdout == whole.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts", "whole"]


def test_a_partial_run_is_one_of_fewer_samples(nmc, built: Path, images: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    status, err = stopped_by(signal.SIGINT, start(built, *options(images, tmp_path / "a", kept)), kept, 2_000)
    assert status == 130, err
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    n = report["samples"]
    assert nmc("emulate", built, *options(images, tmp_path / "b"), "--limit", n).returncode == 0
    shorter = json.loads((tmp_path / "b" / "report.json").read_text())
    assert report.pop("partial") and report["assumptions"].pop(0) and shorter.pop("partial") is None
    assert report == shorter
    for name in FILES[1:]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_ctrl_c_before_any_sample_leaves_nothing(built: Path, images: Path, tmp_path: Path) -> None:
    pressed = "import os, signal, nmc.running as r; go = r._Run.go; "
    pressed += "r._Run.go = lambda *a: (os.kill(os.getpid(), signal.SIGINT), go(*a))[1]; "
    arguments = map(str, [built, *options(images, tmp_path / "a")])
    done = subprocess.run([sys.executable, "-c", pressed + START, "emulate", *arguments], env=ENV, capture_output=True)
    assert done.returncode == 130
    assert done.stderr.endswith(b"nmc: interrupted; nothing half-written was left behind\n")
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_of_another_input_is_refused(nmc, built: Path, images: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    status, _ = stopped_by(signal.SIGINT, start(built, *options(images, tmp_path / "a", kept)), kept, 2_000)
    assert status == 130
    before = kept.read_bytes()
    done = nmc("emulate", built, *options(SMALL / "vectors.npz", tmp_path / "b", kept))
    assert done.returncode == 2
    told = says(done)
    assert told.startswith(f"{kept}: belongs to another run: input ") and ", samples 450 instead of 16; " in told
    assert kept.read_bytes() == before and not (tmp_path / "b").exists()


def test_records_are_written_every_few_seconds() -> None:
    assert 0 < RECORD_SECONDS <= 5


def test_progress_with_the_time_left_is_shown_on_a_terminal_only(built: Path, images: Path, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = subprocess.Popen(
        command(built, "--input", images, "-o", tmp_path / "r"), env=ENV,
        stdout=subprocess.DEVNULL, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert done.wait(60) == 0
    assert f"/{SAMPLES} [".encode() in shown and b"sample/s]" in shown and b"%|" in shown


def test_no_progress_elsewhere(nmc, built: Path, tmp_path: Path) -> None:
    done = nmc("emulate", built, "--input", SMALL / "vectors.npz", "-o", tmp_path / "r")
    assert done.stderr == f"written: {tmp_path}/r/report.json\n"
