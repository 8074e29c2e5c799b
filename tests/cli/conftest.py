"""Fixtures of the command-line tests: artefacts that several tests share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import SMALL, Done, Nmc, run_nmc


@pytest.fixture(scope="session")
def nmc() -> Nmc:
    return run_nmc


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small SDT fixture, compiled by the command. Tests that change it take a copy (``mine``)."""
    folder = tmp_path_factory.mktemp("artefacts") / "build"
    done = run_nmc("compile", SMALL / "model.pt", "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def mine(built: Path, tmp_path: Path) -> Path:
    """A copy of the artefact for tests that change or damage it."""
    return Path(shutil.copytree(built, tmp_path / "build"))


@pytest.fixture(scope="session")
def as_json() -> Callable[[Done], Any]:
    """The JSON value that a command printed; anything else beside it on standard output is an error."""

    def parse(done: Done) -> Any:
        assert done.returncode in (0, 3), done.stderr
        return json.loads(done.stdout)

    return parse
