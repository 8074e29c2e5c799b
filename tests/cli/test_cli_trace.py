"""`nmc compile file.py:callable`: code that the user names is run, and nothing else; whatever it does is one error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import nmc
from nmc.cli import main
from nmc_compiler.graph.canonical import canonical
from nmc_compiler.graph.text import to_text

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
SHAPE = ("--input-shape", "1,1,16,16")

GOOD = """
import nmc
from torch import nn

class Step(nn.Module):
    def forward(self, x):
        raise AssertionError("known by its class: never called")

nmc.register_neuron(Step, lambda step: {"op": "neuron", "beta": 0.5, "theta": 1.0, "compare": "ge", "reset": "hard"})

def build(width=3):
    return nn.Sequential(nn.Linear(4, width), Step())

def broken():
    raise ValueError("no such thing")

def leaves():
    raise SystemExit(7)

number = 3
"""


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command in this process: PyTorch takes seconds to import."""

    def command(*arguments: object) -> Done:
        try:
            code = main([*map(str, arguments)])
        except SystemExit as error:
            code = int(error.code or 0)
        return Done(code, *capsys.readouterr())

    return command


Run = Callable[..., Done]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "my_model.py"
    path.write_text(GOOD)
    return path


def test_the_bundled_network_traced_is_the_one_of_its_family(run: Run, tmp_path: Path) -> None:
    """Same graph, same integers, same Program; only names of the graph and notes differ."""
    out = tmp_path / "build"
    options = ("--weights", DIGITS / "model.pt", "--config", DIGITS / "model.yaml", *SHAPE, "-o", out, "--json")
    done = run("compile", f"{DIGITS / 'traced.py'}:build", *options)
    assert done.code == 0, done.err
    notes = json.loads(done.out)["conversion"]["notes"]
    assert notes[:3] == ["traced.py:build was run", "weights from model.pt", "traced from model.SpikeDrivenTransformer"]
    traced, family = nmc.load(out), nmc.compile(DIGITS / "model.pt")
    assert to_text(canonical(traced.float_graph)) == to_text(canonical(family.float_graph))
    with np.load(DIGITS / "test.npz") as file:
        images = file["images"][:8]
    assert np.array_equal(nmc.emulate(traced, images).logits, nmc.emulate(family, images).logits)


def test_one_timestep_is_a_stream_or_a_sample(run: Run, code: Path) -> None:
    for more, timesteps in (((), 0), (("-T", "5"), 5)):
        done = run("inspect", f"{code}:build", "--input-shape", "1,4", *more, "--json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["timesteps"] == timesteps


def test_a_checkpoint_never_runs_code(run: Run, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "model.py").write_text(f"open({str(marker)!r}, 'w')")
    done = run("compile", DIGITS / "model.pt", "-o", tmp_path / "build")
    assert done.code == 0 and not marker.exists()


@pytest.mark.parametrize(
    ("name", "options", "code_", "text"),
    [
        ("build", (), 2, "give the shape of its input, batch included, with --input-shape, such as 1,3,32,32"),
        ("build", ("--input-shape", "1,x"), 2, "'1,x' is not a shape such as 1,3,32,32"),
        ("build", ("--input-shape", "1,4", "--family", "sdt_v1"), 2, "--family does not go with a traced module"),
        ("nothing", ("--input-shape", "1,4"), 2, "has no 'nothing'; callables in it: Step, broken, build, leaves"),
        ("number", ("--input-shape", "1,4"), 2, "int is no torch.nn.Module"),
        ("broken", ("--input-shape", "1,4"), 1, "broken() failed at my_model.py:15: ValueError: no such thing"),
        ("leaves", ("--input-shape", "1,4"), 1, "leaves() failed at my_model.py:18: SystemExit: 7"),
        ("build", ("--input-shape", "1,4", "--weights", "{weights}"), 1, "does not fit the module: tensors 2 missing:"),
        ("build", ("--input-shape", "1,4", "--config", "{config}"), 1, "unexpected keyword argument 'height'"),
    ],
)
def test_one_clear_error(
    run: Run, code: Path, tmp_path: Path, name: str, options: tuple[str, ...], code_: int, text: str
) -> None:
    (tmp_path / "config.yaml").write_text("height: 3\n")
    given = [o.format(weights=DIGITS / "model.pt", config=tmp_path / "config.yaml") for o in options]
    done = run("compile", f"{code}:{name}", *given, "-o", tmp_path / "build")
    assert done.code == code_ and text in done.err, done.err
    assert "Traceback" not in done.err and not (tmp_path / "build").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [("def build(:\n", "failed at bad.py:1: SyntaxError"), ("import nowhere\n", "ModuleNotFoundError")],
)
def test_files_that_do_not_run(run: Run, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    done = run("compile", f"{tmp_path / 'bad.py'}:build", "--input-shape", "1,4", "-o", tmp_path / "build")
    assert done.code == 1 and told in done.err


def test_a_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    done = run("compile", f"{tmp_path / 'none.py'}:build", "--input-shape", "1,4", "-o", tmp_path / "build")
    assert done.code == 2 and "there is no such file" in done.err


def test_the_api_tells_modules_from_files() -> None:
    from nmc_compiler.errors import UsageError

    with pytest.raises(UsageError, match="an example input goes with a torch module, not with a file; name a target"):
        nmc.compile(DIGITS / "model.pt", "loihi2")
    with pytest.raises(UsageError, match="a torch module is compiled with an example of its input"):
        nmc.compile(torch.nn.Linear(2, 2))
    with pytest.raises(UsageError, match="config does not go with a torch module"):
        nmc.compile(torch.nn.Linear(2, 2), (1, 2), config="c.yaml")
