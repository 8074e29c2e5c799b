"""The command as a user runs it: a process of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"
SMALL = ROOT / "tests" / "fixtures" / "sdt_v1"  # compiles in a second
START = "import sys; from nmc.cli import main; sys.exit(main())"
# A shell starts what runs in its background with Ctrl-C ignored, and a test run hands that on.
HEAR_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "

Done = subprocess.CompletedProcess[str]
Nmc = Callable[..., Done]


def run_nmc(*arguments: object, cwd: Path | None = None, file_limit: int | None = None, **env: str) -> Done:
    """Run `nmc` with ``arguments``; ``file_limit``: no file may grow beyond that many bytes, as on a full disk."""

    def limit() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return subprocess.run(
        [sys.executable, "-c", START, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=300,
    )


def says(done: Done) -> str:
    """The one message of a command that failed: no traceback, nothing on standard output."""
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("nmc: error: ")]
    assert len(lines) == 1, done.stderr
    assert done.stdout == ""
    return done.stderr[done.stderr.index("nmc: error: ") + len("nmc: error: ") :].strip()
