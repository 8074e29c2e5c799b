"""Fixtures shared by every test."""

from pathlib import Path

import pytest
from hypothesis import settings

# One commit, one outcome. `--hypothesis-profile random` looks for cases that nobody has seen.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("random", derandomize=False)
settings.load_profile("fixed")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of golden checkpoints and traces beside the project; skips where it is absent."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"golden checkpoints are not at {SHARED}: they stand beside the project for its developers only")
    return SHARED
