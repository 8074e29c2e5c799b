"""How an event reaches several cores is a fact of the target, which Programs keep and runs may override."""

import hashlib
import json
from dataclasses import replace

import pytest
from streams import column, light

from nmc_compiler.errors import UsageError, VerifyError
from nmc_compiler.program.facts import target_facts
from nmc_compiler.program.model import Program
from nmc_compiler.program.validate import validate_program
from nmc_compiler.target import describe, list_targets, load_target
from nmc_emulator import Emulator
from nmc_emulator.layout import resolve
from nmc_emulator.noc import check_fidelity, sends_trees, simulate
from nmc_emulator.recost import trace_of_events


def on(mesh: dict | None) -> Program:
    """The column, as if it had been mapped for a target with such a mesh."""
    program = column()
    target = {key: value for key, value in program.target.items() if key != "mesh"}
    return replace(program, target=target if mesh is None else {**target, "mesh": mesh})


@pytest.mark.parametrize("name", list_targets())
def test_every_target_says_it_and_why(name) -> None:
    target = load_target(name)
    row = next(row for row in describe(target) if row.field == "mesh.multicast")
    assert row.value == target_facts(target)["mesh"]["multicast"] and row.evidence and row.source


def test_a_target_without_the_fact_is_unicast_and_keeps_its_digest() -> None:
    target = load_target("loihi2")
    old = target.model_copy(update={"mesh": target.mesh.model_copy(update={"multicast": None})})
    content = old.model_dump(mode="json", by_alias=True)
    del content["mesh"]["multicast"], content["packing"]["rows"]  # both null, and younger than Programs there are
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert old.digest == hashlib.sha256(text.encode()).hexdigest() != target.digest
    assert target_facts(old)["mesh"]["multicast"] == "unicast"


def test_a_program_without_the_fact_is_unicast() -> None:
    mesh = {key: value for key, value in column().target["mesh"].items() if key != "multicast"}
    old, tree = on(mesh), on(mesh | {"multicast": "tree"})
    assert not sends_trees(old) and not sends_trees(replace(old, target={})) and sends_trees(tree)
    assert sends_trees(old, True) and not sends_trees(tree, False)
    result = Emulator(old, record="all").run_events({"light": light(60)}, 60)
    trace = trace_of_events(old, result)
    one, branched = simulate(old, trace), simulate(tree, trace)
    assert (one.multicast, branched.multicast) == (False, True)
    assert branched.seconds == simulate(old, trace, multicast=True).seconds
    with pytest.raises(UsageError, match="fidelity cycle sends one packet per destination"):
        check_fidelity(tree, "cycle", sends_trees(tree))


def test_a_mapping_without_a_mesh_is_one_clear_error() -> None:
    with pytest.raises(VerifyError, match=r"target/mesh: a mapped Program says there how many routers \[x, y\]"):
        validate_program(on(None))
    with pytest.raises(VerifyError, match="target/mesh is missing, which says how many routers"):
        resolve(on(None))
    with pytest.raises(VerifyError, match="multicast is 'star'; expected 'unicast' or 'tree'"):
        validate_program(on({**column().target["mesh"], "multicast": "star"}))
