"""Fixtures shared by every test."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of golden checkpoints and traces beside the project; skips where it is absent."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"golden checkpoints are not at {SHARED}: they stand beside the project for its developers only")
    return SHARED
