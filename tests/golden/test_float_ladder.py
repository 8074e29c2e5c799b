"""First rung of the ladder: the float interpreter equals what PyTorch recorded, spike by spike.

Goldens of the authors' own code where they stand beside the project; the fixtures of this repository
(our training scripts, our modules) always. A flip would be a code that float32 rounding decides the other
way; more than one in 10^6 is a bug, and fewer are reported.
"""

import inspect
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nmc_compiler.frontends.checkpoint import Imported, import_checkpoint
from nmc_compiler.graph import Graph, rebuild
from nmc_compiler.graph.graph import Node, Use
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.store import load_graph, save_graph
from nmc_compiler.graph.verify import verify

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = ("sdt_v1", "spikformer", "sdt_v3")
RECORDED = 8  # images 0..7 have their spikes recorded
MAX_FLIPS = 1e-6


def authors_layout(graph: Graph, node: Node, codes: np.ndarray) -> np.ndarray:
    """[T, B, C, H, W] codes as the authors' module gives them."""
    moved = codes.transpose(0, 1, *(2 + p for p in node.attr("record_perm")))
    shaped = moved.reshape(*codes.shape[:2], *node.attr("record_shape"))
    return shaped if graph.record_time else shaped[0]


def flips(graph: Graph, vectors: dict[str, np.ndarray]) -> tuple[dict[str, int], int]:
    """Mismatches per recorded module (only those that have some), and how many codes were compared."""
    recorded = {k.removeprefix("spikes/"): v for k, v in vectors.items() if k.startswith("spikes/")}
    nodes = {n.name: n for n in graph if "record_perm" in n.attrs}
    assert set(recorded) == set(nodes)
    codes = interpret(graph, vectors["images"][:RECORDED], record="all").codes
    wrong = {}
    for name, want in recorded.items():
        mine = authors_layout(graph, nodes[name], codes[name])
        assert mine.shape == want.shape
        if (mine != want).any():
            wrong[name] = int((mine != want).sum())
    return wrong, sum(v.size for v in recorded.values())


def check_spikes(graph: Graph, vectors: dict[str, np.ndarray]) -> None:
    wrong, total = flips(graph, vectors)
    assert total > 100_000
    count = sum(wrong.values())
    assert count <= MAX_FLIPS * total, f"{count} of {total} codes differ, in {wrong}"
    if wrong:
        warnings.warn(f"{count} of {total} codes flipped by float32 rounding, in {wrong}", stacklevel=1)


def all_logits(graph: Graph, images: np.ndarray, batch: int = 40) -> np.ndarray:
    return np.concatenate([interpret(graph, images[i : i + batch]).logits for i in range(0, len(images), batch)])


def check_logits(graph: Graph, vectors: dict[str, np.ndarray], but_for: tuple[int, ...] = ()) -> np.ndarray:
    """Every image within 1e-4 of the recorded logits, but for those named."""
    logits = all_logits(graph, vectors["images"])
    assert logits.shape == vectors["logits"].shape
    error = np.abs(logits - vectors["logits"]).max(axis=1)
    assert np.flatnonzero(error > 1e-4).tolist() == list(but_for), error[error > 1e-4]
    return logits


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return {k: stored[k] for k in stored.files}


# ---- goldens of the authors' code ----

POPULATIONS = {"sdt_v1": 19, "spikformer": 19, "sdt_v3": 105}
ACCURACY = {"sdt_v1": 0.98333, "spikformer": 0.96389, "sdt_v3": 0.96111}

# Images of which PyTorch's float32 decides a tie of a real sum otherwise than exact arithmetic: the same modules
# in float64 give our logits (tested below), and in float32 they leave the recorded logits of four images of
# sdt_v3 by up to 0.75 as soon as the batch is one image. None of them has its spikes recorded.
ROUNDED = {"sdt_v1": (), "spikformer": (108, 163), "sdt_v3": (85, 139)}


def shared_golden(shared: Path, name: str) -> tuple[Imported, dict[str, np.ndarray]]:
    folder = shared / "golden" / name
    found = import_checkpoint(folder / "model.pt", config=folder / "golden.json")
    verify(found.graph)
    return found, arrays(folder / "vectors.npz")


@pytest.mark.parametrize("name", FAMILIES)
def test_spikes_of_the_authors_models(shared: Path, name: str) -> None:
    found, vectors = shared_golden(shared, name)
    assert found.family == name
    assert sum(k.startswith("spikes/") for k in vectors) == POPULATIONS[name]
    check_spikes(found.graph, vectors)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_of_the_authors_models(shared: Path, name: str) -> None:
    """All 360 images; where float32 rounded a tie, float64 PyTorch is the witness that we are not wrong."""
    found, vectors = shared_golden(shared, name)
    assert len(vectors["images"]) == 360
    logits = check_logits(found.graph, vectors, but_for=ROUNDED[name])
    accuracy = (logits.argmax(axis=1) == vectors["labels"]).mean()
    assert accuracy == pytest.approx(ACCURACY[name], abs=1e-5)
    rounded = list(ROUNDED[name])
    exact = float64_logits(shared, name, vectors["images"][rounded]) if rounded else logits[rounded]
    np.testing.assert_allclose(logits[rounded], exact, rtol=0, atol=1e-9)


def float64_logits(shared: Path, name: str, images: np.ndarray) -> np.ndarray:
    """What our PyTorch module gives with the authors' weights in float64 (it is bit-equal to theirs in float32)."""
    torch = pytest.importorskip("torch")
    sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
    import models

    kind = {"spikformer": models.Spikformer, "sdt_v3": models.ExpandedSpikeTransformer}[name]
    config = json.loads((shared / "golden" / name / "golden.json").read_text())["config"]
    known = inspect.signature(kind.__init__).parameters
    model = kind(**{k: v for k, v in config.items() if k in known})
    model.load_state_dict(torch.load(shared / "golden" / name / "model.pt", weights_only=True), strict=False)
    with torch.inference_mode():
        return model.double().eval()(torch.from_numpy(images).double()).numpy()


@pytest.mark.parametrize("name", FAMILIES)
def test_config_is_found_beside_the_authors_models(shared: Path, name: str) -> None:
    found = import_checkpoint(shared / "golden" / name / "model.pt")
    assert f"settings from config {shared / 'golden' / name / 'golden.json'}" in found.notes


# ---- our own models ----

OURS = {name: ROOT / "tests" / "fixtures" / name for name in FAMILIES}


def ours(name: str) -> tuple[Graph, dict[str, np.ndarray]]:
    found = import_checkpoint(OURS[name] / "model.pt")
    assert found.family == name
    verify(found.graph)
    return found.graph, arrays(OURS[name] / "vectors.npz")


@pytest.mark.parametrize("name", FAMILIES)
def test_our_fixtures(name: str) -> None:
    graph, vectors = ours(name)
    check_spikes(graph, vectors)
    check_logits(graph, vectors)


def test_the_digits_example() -> None:
    found = import_checkpoint(ROOT / "examples" / "digits" / "model.pt")
    vectors = arrays(ROOT / "examples" / "digits" / "golden.npz")
    check_spikes(found.graph, vectors)
    check_logits(found.graph, vectors)
    test = arrays(ROOT / "examples" / "digits" / "test.npz")
    assert np.array_equal(test["images"][: len(vectors["images"])], vectors["images"])


def test_the_digits_example_is_accurate() -> None:
    graph = import_checkpoint(ROOT / "examples" / "digits" / "model.pt").graph
    test = arrays(ROOT / "examples" / "digits" / "test.npz")
    logits = all_logits(graph, test["images"])
    assert (logits.argmax(axis=1) == test["labels"]).mean() > 0.95


@pytest.mark.parametrize("name", FAMILIES)
def test_a_stored_graph_computes_the_same(tmp_path: Path, name: str) -> None:
    graph, vectors = ours(name)
    save_graph(graph, tmp_path, "graph.float")
    again = load_graph(tmp_path, "graph.float")
    images = vectors["images"][:4]
    one, two = interpret(graph, images, record="all"), interpret(again, images, record="all")
    assert np.array_equal(one.logits, two.logits)
    assert all(np.array_equal(one.codes[k], two.codes[k]) for k in one.codes)


# ---- the check bites ----


@pytest.mark.parametrize("name", FAMILIES)
def test_removing_the_attention_is_noticed(name: str) -> None:
    """What each attention gives replaced by q (by v where q is narrower): spikes and logits must differ."""
    graph, vectors = ours(name)
    without = without_attention(graph)
    wrong, total = flips(without, vectors)
    assert sum(wrong.values()) > 1e-3 * total
    with pytest.raises(AssertionError):
        check_logits(without, vectors)


def without_attention(graph: Graph) -> Graph:
    """The same populations; those behind an attention read its q (or v) directly."""
    by_id, users = graph.by_id(), graph.users()
    instead: dict[str, str] = {}
    for node in graph:
        if node.op == "mul" and by_id[node.operands[1]].name.endswith("talking_heads_lif"):
            instead[node.id] = node.operands[0]
        if node.op == "attn":
            q, _, v = node.operands
            instead[users[node.id][0].id] = q if by_id[q].type == by_id[v].type else v
    assert instead
    return rebuild(
        graph,
        [replace(n, inputs=tuple(Use(instead.get(u.node, u.node), u.lag) for u in n.inputs)) for n in graph],
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_changed_threshold_or_tie_is_noticed(name: str) -> None:
    """theta 5 % higher, or halves rounded up: more than one code in 10^6 differs."""
    graph, vectors = ours(name)
    changed = []
    for n in graph:
        if n.op == "lif" and n.name.endswith("fc1_lif"):
            n = n.with_attrs(theta=replace(n.attrs["theta"], value=n.attr("theta") * 1.05))
        if n.op == "multilevel" and n.name.endswith("attn_spike"):
            n = n.with_attrs(rounding=replace(n.attrs["rounding"], value="half_up"))
        changed.append(n)
    with pytest.raises(AssertionError, match="codes differ"):
        check_spikes(rebuild(graph, changed), vectors)
