"""Proofs of hw/formal: each holds, each reaches what it talks about, and fails where a mistake is put in."""

import re

import pytest

from formal import HW, proves

PROOFS = sorted((HW / "formal").glob("*.sby"))
TASKS = [
    (path.stem, task.split()[0])
    for path in PROOFS
    for task in path.read_text().split("[tasks]")[1].split("[options]")[0].splitlines()
    if task
]
REACH = [(path.stem, task) for path in PROOFS for task in re.findall(r"^(\w+): mode cover", path.read_text(), re.M)]
QUICK = [("lane", "induction"), ("mesh", "progress")]
ASSERTION = re.compile(r"(\w+) : assert \((.+)\);")  # one a line
ASSERTIONS = [
    (path.stem, found[1]) for path in PROOFS for found in ASSERTION.finditer(path.with_suffix(".sv").read_text())
]


@pytest.mark.parametrize(("proof", "task"), QUICK)
def test_a_proof_holds(tmp_path, proof, task) -> None:
    holds, log = proves(tmp_path, proof, task)
    assert holds, log


@pytest.mark.slow
@pytest.mark.parametrize(("proof", "task"), [each for each in TASKS if each not in QUICK])
def test_the_others(tmp_path, proof, task) -> None:
    holds, log = proves(tmp_path, proof, task)
    assert holds, log


def test_every_proof_has_a_cover_task() -> None:
    """A proof whose assumptions nothing satisfies holds too."""
    assert len(PROOFS) >= 5 and {proof for proof, _ in REACH} == {path.stem for path in PROOFS}
    for path in PROOFS:
        text = path.with_suffix(".sv").read_text()
        assert len(ASSERTION.findall(text)) == text.count("assert ("), f"{path.stem}: an assertion without a name"


@pytest.mark.slow
@pytest.mark.parametrize(("proof", "name"), ASSERTIONS)
def test_no_assertion_is_idle(tmp_path, proof, name) -> None:
    """Turned into its opposite it does not hold: what a proof is too short to come to holds either way."""
    found = next(a for a in ASSERTION.finditer((HW / "formal" / f"{proof}.sv").read_text()) if a[1] == name)
    opposite = (f"formal/{proof}.sv", found[0], f"{name} : assert (!({found[2]}));")
    tasks = [task for of, task in TASKS if of == proof and (of, task) not in REACH]
    assert not all(proves(tmp_path / task, proof, task, opposite)[0] for task in tasks)


def of(module: str, right: str, wrong: str) -> tuple[str, str, str]:
    return f"rtl/{module}.sv", right, wrong


Y_POP = "y_pop = y_to_core && core_out_ready && (!x_to_core || !core_turn)"
CORE_TO_Y = "core_to_y && y_out_ready && (!x_to_y || !y_turn)"
CORE_OUT = "core_out = x_to_core && (!y_to_core || core_turn) ?"
X_TO_Y = "assign x_to_y = !x_empty && x_head[12] != MY_Y"
CORE_TO_X = "assign core_to_x = !core_empty && core_head[11] != MY_X"
MISTAKES = [
    ("fifo", "bounded", of("nc_fifo", "assign full  = count[AW];", "assign full  = 1'b0;")),
    ("lane", "induction", of("nc_lane", "{!data[7], data[6:0]} < limit", "data[7:0] < limit")),
    # stuck once the core took an event of X
    ("mesh", "progress", of("nc_router", Y_POP, "y_pop = y_to_core && core_out_ready && !x_to_core && !core_turn")),
    # offered, taken by its target, not taken from its queue
    ("mesh", "progress", of("nc_router", CORE_TO_Y, "core_to_y && y_out_ready && !x_to_y")),
    # doubled
    ("mesh", "progress", of("nc_router", "assign x_out_valid = core_to_x", "assign x_out_valid = !core_empty")),
    # taken without room
    ("mesh", "induction", of("nc_router", "assign x_in_ready = !x_full", "assign x_in_ready = 1'b1")),
    ("mesh", "induction", of("nc_router", "assign core_in_ready = !core_full", "assign core_in_ready = 1'b1")),
    # taken by nobody, and gone
    ("router", "anywhere", of("nc_router", "core_pop = core_to_x ? x_out_ready", "core_pop = core_to_x ? 1'b1")),
    # what is offered is not what is taken from its queue
    ("router", "anywhere", of("nc_router", "y_out = x_to_y && (!core_to_y || y_turn) ?", "y_out = x_to_y ?")),
    ("router", "anywhere", of("nc_router", CORE_OUT, "core_out = x_to_core ?")),
    # both at once
    ("router", "anywhere", of("nc_router", Y_POP, "y_pop = y_to_core && core_out_ready")),
    # the wrong way
    ("router", "anywhere", of("nc_router", X_TO_Y, X_TO_Y.replace("x_head[12]", "x_head[11]"))),
    ("router", "anywhere", of("nc_router", CORE_TO_X, CORE_TO_X.replace(" != MY_X", ""))),
]


@pytest.mark.slow
@pytest.mark.parametrize(("proof", "task", "mistake"), MISTAKES)
def test_a_mistake_is_found(tmp_path, proof, task, mistake) -> None:
    holds, log = proves(tmp_path, proof, task, mistake)
    assert not holds and "Assert failed" in log, log
