"""Proofs of hw/formal: each holds, each reaches what it talks about, and some fail where a mistake is put in."""

import pytest

from formal import HW, proves

TASKS = [
    (path.stem, task.split()[0])
    for path in sorted((HW / "formal").glob("*.sby"))
    for task in path.read_text().split("[tasks]")[1].split("[options]")[0].splitlines()
    if task
]
QUICK = ("lane", "induction")


def test_learning_saturates_as_specified(tmp_path) -> None:
    holds, log = proves(tmp_path, *QUICK)
    assert holds, log


@pytest.mark.slow
@pytest.mark.parametrize(("proof", "task"), [each for each in TASKS if each != QUICK])
def test_the_others(tmp_path, proof, task) -> None:
    holds, log = proves(tmp_path, proof, task)
    assert holds, log


def test_every_proof_has_a_cover_task() -> None:
    """A proof whose assumptions nothing satisfies holds too."""
    assert len({proof for proof, _ in TASKS}) >= 5
    for path in sorted((HW / "formal").glob("*.sby")):
        assert "mode cover" in path.read_text(), path.name


MISTAKES = [
    ("fifo", "bounded", ("nc_fifo", "assign full  = count[AW];", "assign full  = 1'b0;")),
    (
        "lane",
        "induction",
        ("nc_lane", "enable1 && past ? bound", "past ? bound"),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("proof", "task", "mistake"), MISTAKES)
def test_a_mistake_is_found(tmp_path, proof, task, mistake) -> None:
    holds, log = proves(tmp_path, proof, task, mistake)
    assert not holds and "Assert failed" in log, log
