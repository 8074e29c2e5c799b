"""sdtrack and spikeyolo: equal to our modules, code by code; maps of their heads; layouts and sizes refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends import sdtrack, spikeyolo
from nmc_compiler.frontends.checkpoint import FAMILIES
from nmc_compiler.frontends.config import parse_config
from nmc_compiler.graph import Graph
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.verify import verify
from nmc_compiler.lowering import lower
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target
from nmc_emulator import Emulator
from nmc_emulator.trace import codes_of

torch = pytest.importorskip("torch")

TRACK = {"num_heads": 2, "search_size": 128, "template_size": 64}
DETECT = {"img_size": 32, "T": 2}


def settled(model, x):
    """In float64, norms random, their statistics those of random inputs."""
    torch.manual_seed(0)
    model = model.double()
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d)):
            torch.nn.init.uniform_(module.weight, 0.7, 1.6)
            torch.nn.init.uniform_(module.bias, 0.0, 1.0)
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    return model.eval()


def state_of(model) -> dict[str, np.ndarray]:
    found = {k: v.numpy() for k, v in model.state_dict().items()}
    return {k: v for k, v in found.items() if not k.endswith("num_batches_tracked")}


def seen_codes(model, kinds: tuple, x) -> tuple[dict[str, list[np.ndarray]], Any]:
    """Codes of every neuron, a module that is called for several parts once for each, and what the model gives."""
    seen: dict[str, list[np.ndarray]] = {}
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            norm = getattr(module, "norm", 1)
            module.register_forward_hook(
                lambda m, i, out, name=name, norm=norm: seen.setdefault(name, []).append((out * norm).numpy())
            )
    with torch.no_grad():
        return seen, model(x)


def same_codes(graph: Graph, codes: dict[str, np.ndarray], seen: dict[str, list[np.ndarray]]) -> None:
    assert set(codes) == set(seen)
    for name, parts in seen.items():
        want = parts[0] if len(parts) == 1 else np.concatenate([p.reshape(*p.shape[:-2], -1) for p in parts], -1)
        mine = codes[name] if graph.record_time else codes[name][0]
        assert np.array_equal(mine.reshape(want.shape), np.rint(want)), name
    assert sum(len(np.unique(parts[0])) > 1 for parts in seen.values()) > 0.9 * len(seen)


@pytest.mark.parametrize("timed", [False, True], ids=["1x4", "T2D2"])
def test_tracker_equals_the_pytorch_module(timed: bool) -> None:
    import map_models

    model = map_models.Tracker(timed)
    shape = (2, 2, 2, 192, 192) if timed else (2, 2, 192, 192)
    x = torch.rand(*shape, dtype=torch.float64)
    model = settled(model, x)
    graph, notes = sdtrack.build(
        state_of(model), parse_config({**TRACK, **({"T": 2, "D": 2} if timed else {})}, "test")
    )
    verify(graph)
    seen, want = seen_codes(model, (map_models.TIMED.IntegerLif, map_models.models.MultiSpike), x)
    got = interpret(graph, x.numpy().swapaxes(0, 1) if timed else x.numpy(), record="all")
    same_codes(graph, got.codes, seen)
    for branch, value in want.items():
        np.testing.assert_allclose(got.outputs[branch][-1] / (2 if timed else 1), value.numpy(), atol=1e-9)
    assert notes == ["input: search image and template on one canvas of 192 x 192"]
    assert [f for f, m in FAMILIES.items() if m.recognise(state_of(model))] == ["sdtrack"]


def test_a_tracker_without_its_head_gives_the_tokens_of_the_search_image() -> None:
    import map_models

    model = settled(map_models.Tracker(False), torch.rand(2, 2, 192, 192, dtype=torch.float64))
    state = {k: v for k, v in state_of(model).items() if not k.startswith("box_head")}
    graph, _ = sdtrack.build(state, parse_config(TRACK, "test"))
    assert [(n.name, n.type.shape) for n in graph.outputs] == [("features", (16, 8, 8))]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"T": 2}, "config says T = 2; the tensors are those of a tracker without timesteps"),
        ({"search_size": 100}, "config says search_size = 100, which is no multiple of 16 pixels"),
        (
            {"search_size": 64, "template_size": 32},
            "2x2 and 4x4 tokens leave 5 of a square of 5x5, and the authors' network takes a square of those too; "
            "64 + 256 leave 4",
        ),
    ],
)
def test_trackers_that_are_refused(changes: dict[str, int], text: str) -> None:
    import map_models

    with pytest.raises(FrontendError) as error:
        sdtrack.build(state_of(map_models.Tracker(False)), parse_config(TRACK | changes, "test"))
    assert str(error.value) == text


# ---- SpikeYOLO ----


@pytest.mark.parametrize("timesteps", [1, 2])
def test_detector_equals_the_pytorch_module(timesteps: int) -> None:
    import map_models

    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    model = settled(map_models.Detector(timesteps), x)
    layout = {**map_models.LAYOUT, "backbone": [[-1, 1, "MS_GetT", [3, timesteps]], *map_models.LAYOUT["backbone"][1:]]}
    graph, notes = spikeyolo.build(state_of(model), parse_config({"img_size": 32, **layout}, "test"))
    verify(graph)
    assert {n.op for n in graph if n.type.is_event} == {"ilif" if timesteps > 1 else "multilevel"}
    seen, want = seen_codes(model, (map_models.Codes,), x)
    got = interpret(graph, x.numpy(), record="all")
    same_codes(graph, got.codes, seen)
    for level, maps in enumerate(want):
        for what, value in zip(("box", "class"), maps, strict=True):
            np.testing.assert_allclose(got.outputs[f"{what}{level}"][-1] / timesteps, value.numpy(), atol=1e-9)
    assert notes == [f"detection maps are sums over T = {timesteps}: the host divides, then makes boxes"]
    assert [f for f, m in FAMILIES.items() if m.recognise(state_of(model))] == ["spikeyolo"]


@pytest.mark.parametrize("kind", ["detector", "tracker"])
def test_emulator_equals_the_integer_interpreter(kind: str) -> None:
    """Concatenated and upsampled currents, pools one behind the other; crops and joint attention."""
    import map_models

    if kind == "detector":
        x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
        config = {"img_size": 32, **map_models.LAYOUT}
        graph, _ = spikeyolo.build(state_of(settled(map_models.Detector(2), x)), parse_config(config, "test"))
    else:
        x = torch.rand(2, 2, 192, 192, dtype=torch.float64)
        graph, _ = sdtrack.build(state_of(settled(map_models.Tracker(False), x)), parse_config(TRACK, "test"))
    target, images, report = load_target("loihi2"), x[:1].numpy(), ConversionReport()
    integers = compile_graph(graph, target, CompileOptions(), report)
    json.dumps(report.as_json(), allow_nan=False)  # some parts of the tracker's tables have no synapses
    want = interpret(integers, images, record="all").codes
    program = lower(integers, target, CompileOptions())
    (encoding,) = program.meta["inputs"]
    names = [p.name for p in program.populations if p.name in want and p.model != "input"]
    assert len(names) > 30
    codes = np.rint(images * encoding["scale"]).astype(np.int64).repeat(graph.timesteps, axis=0)
    ran = Emulator(program, record=names).run_events({encoding["population"]: codes}, graph.timesteps)
    for name in names:
        mine = codes_of(ran.events[name], graph.timesteps, want[name].shape[2:])
        np.testing.assert_array_equal(mine, want[name][:, 0], err_msg=name)


def changed(row: int, new: list) -> dict[str, Any]:
    import map_models

    head = [*map_models.LAYOUT["head"]]
    head[row] = new
    return {"head": head}


@pytest.mark.parametrize(
    ("row", "new", "text"),
    [
        (0, [-1, 1, "C2f", [16]], "layer 5 of the layout is a C2f; known: MS_GetT, MS_DownSampling, MS_AllConvBlock"),
        (0, [-1, "MS_StandardConv"], "config 'backbone' and 'head' hold [from, repeats, module, arguments], got"),
        (
            1,
            [-1, 1, "nn.Upsample", [None, "(1,2,2)", "bilinear"]],
            "model.6 upsamples by (None, '(1,2,2)', 'bilinear')",
        ),
        (2, [[-1, 3], 1, "Concat", [2]], "model.7 puts values of [(4, 8, 8), (6, 4, 4)] side by side"),
        (0, [9, 1, "MS_StandardConv", [16, 1, 1]], "layer 5 of the layout (MS_StandardConv) reads layer 9"),
    ],
)
def test_layouts_that_are_refused(row: int, new: list, text: str) -> None:
    import map_models

    state = state_of(map_models.Detector())
    with pytest.raises(FrontendError) as error:
        spikeyolo.build(state, parse_config({"img_size": 32, **map_models.LAYOUT, **changed(row, new)}, "test"))
    assert str(error.value).startswith(text)


def test_detector_on_frames_of_events() -> None:
    """The form for Gen1: frames come with the data, neurons are SpikingJelly's LIF with soft reset and codes."""
    import map_models

    x = torch.rand(2, 2, 3, 32, 32, dtype=torch.float64)
    model = settled(map_models.Detector(2), x)
    for module in model.modules():
        if isinstance(module, map_models.Codes):
            module.keep, module.gain = 0.5, 0.5
    with torch.no_grad():
        model.train()(x)
    model.eval()
    layout = {**map_models.LAYOUT, "backbone": [[-1, 1, "MS_GetT", [3, 1]], *map_models.LAYOUT["backbone"][1:]]}
    config = {"img_size": 32, **layout, "T": 2, "input_time": True, "decay": 0.5, "decay_input": True}
    graph, _ = spikeyolo.build(state_of(model), parse_config(config, "test"))
    assert graph.timesteps == 2 and graph.input_time
    seen, want = seen_codes(model, (map_models.Codes,), x)
    got = interpret(graph, x.numpy(), record="all")
    same_codes(graph, got.codes, seen)
    np.testing.assert_allclose(got.outputs["box0"][-1] / 2, want[0][0].numpy(), atol=1e-9)
    with pytest.raises(FrontendError, match="the model needs 'T', which a checkpoint cannot tell"):
        spikeyolo.build(state_of(model), parse_config({k: v for k, v in config.items() if k != "T"}, "test"))


# Millions of parameters as the authors' yaml has them (13.2 is 13.27, cut; 69 is 68.48), and parameters and entries of
# their own classes, counted.
PUBLISHED = {
    "n": (13.2, 13_271_632, 755),
    "s": (23.1, 23_153_024, 755),
    "m": (48, 47_841_856, 947),
    "l": (69, 68_478_400, 947),
}


@pytest.mark.parametrize("scale", PUBLISHED)
def test_parameters_are_the_published_ones(scale: str) -> None:
    import map_models

    said, parameters, entries = PUBLISHED[scale]
    with torch.device("meta"):
        model = map_models.published(*map_models.SCALES[scale])
    assert (sum(p.numel() for p in model.parameters()), len(model.state_dict())) == (parameters, entries)
    assert abs(parameters / 1e6 - said) < 0.6


def test_the_published_layout_is_built() -> None:
    """Of zeros, at a small image: every tensor has its place."""
    import map_models

    with torch.device("meta"):
        shapes = {f"model.{k}": v.shape for k, v in map_models.published(*map_models.SCALES["n"]).state_dict().items()}
    state = {k: np.zeros(s, np.float32) for k, s in shapes.items() if not k.endswith("num_batches_tracked")}
    graph, notes = spikeyolo.build(state, parse_config({"img_size": 64}, "test"))
    assert [n.name for n in graph.outputs] == [f"{what}{n}" for n in range(3) for what in ("box", "class")]
    assert {n.type.shape[0] for n in graph.outputs} == {64, 80} and notes[0].startswith(
        "dead tensor 'model.26.dfl.conv"
    )
