"""Traced modules of every published form give the same graph as the family's front end, in the same text."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zoo

import nmc
from nmc_compiler.errors import UsageError
from nmc_compiler.frontends.checkpoint import FAMILIES, import_checkpoint
from nmc_compiler.frontends.config import parse_config
from nmc_compiler.graph.canonical import canonical
from nmc_compiler.graph.text import to_text
from nmc_compiler.options import CompileOptions
from nmc_compiler.passes.pipeline import compile_graph
from nmc_compiler.passes.report import ConversionReport
from nmc_compiler.target import load_target

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
sys.path.insert(0, str(FIXTURES))


@pytest.fixture(scope="module", autouse=True)
def neurons() -> None:
    from model import Lif
    from traced_nets import describe

    nmc.register_neuron(Lif, describe)


def text(graph: Any) -> str:
    return to_text(canonical(graph))


@pytest.mark.parametrize("name", zoo.FORMS)
def test_a_form_of_the_zoo(name: str) -> None:
    form = zoo.FORMS[name]
    net = zoo.busy(form)
    family, _ = FAMILIES[form.family].build(zoo.state_of(net), parse_config(form.config, "test config"))
    traced = nmc.trace(net, zoo.images(form, 1), timesteps=form.config["T"])
    assert text(traced.graph) == text(family)


@pytest.mark.parametrize("name", ["sdt_v2", "sdt_v3_large", "qsd"])
def test_a_trained_network_of_the_zoo(name: str) -> None:
    """RepConv with its ring, SepConv, two heads; LayerScale, integer spikes rounded half up; 4-bit weights (LSQ)."""
    folder = zoo.ZOO / name
    if not (folder / "model.pt").exists():
        pytest.skip(f"{name} is not trained")
    net = zoo.train_zoo.load_net(name).build()
    state = torch.load(folder / "model.pt", weights_only=True)
    net.load_state_dict(state.get("state_dict", state.get("model", state)))
    family = import_checkpoint(folder / "model.pt").graph
    traced = nmc.trace(net.eval(), (1, *family.sources[0].type.shape), timesteps=family.timesteps)
    assert text(traced.graph) == text(family)


def test_logits_of_each_timestep(tmp_path: Path) -> None:
    """Erode and a residual stream behind a pool of currents in a network with outputs: LIFs as general neurons."""
    from traced_nets import compare

    form = zoo.FORMS["sdt_v1-dvs"]
    net = zoo.busy(form)

    class Each(type(net)):
        def forward(self, frames: Any) -> Any:
            x = self.patch_embed(frames.transpose(0, 1))
            for block in self.block:
                x = block(x)
            return self.head(self.head_lif(x.flatten(3).mean(3)))

    net.__class__ = Each
    x = torch.from_numpy(zoo.images(form, 1))
    imported, _ = compare(net, x)
    assert imported.graph.outputs
    compiled = nmc.compile(net, x.numpy(), target="loihi2")
    assert nmc.verify(compiled, tick_images=1).ok
    with pytest.raises(UsageError, match="^golden vectors hold the logits of a read-out, and this network has outputs"):
        nmc.verify(compiled, tmp_path / "golden.npz")


def test_a_ring_of_zeros_is_a_ring() -> None:
    """A RepConv whose first norm gives 0 for 0 pads with zeros, as any padding does; the graph keeps it foldable."""
    net = zoo.train_zoo.load_net("sdt_v2").build().eval()
    shape = import_checkpoint(zoo.ZOO / "sdt_v2" / "model.pt").graph.sources[0].type.shape
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.zeros_(norm.running_mean)
        torch.nn.init.zeros_(norm.bias)
    traced = nmc.trace(net, (1, *shape), timesteps=2).graph
    rings = [n for n in traced if n.op == "pad2d"]
    assert rings and not any(n.op == "take" for n in traced)
    assert not any(traced.tensor(n, "value").any() for n in rings)
    compile_graph(traced, load_target("loihi2"), CompileOptions(), ConversionReport())


@pytest.mark.parametrize("name", ["sdt_v1", "spikformer", "sdt_v3"])
def test_a_fixture(name: str) -> None:
    """Populations by the authors' names, tensors of the checkpoint, dead ones left out; codes are the recorded ones."""
    family = import_checkpoint(FIXTURES / name / "model.pt")
    net = fixture(name)
    shape = family.graph.sources[0].type.shape
    traced = nmc.trace(net, (1, *shape), timesteps=family.graph.timesteps if family.graph.record_time else None)
    assert text(traced.graph) == text(family.graph)
    assert {n.name for n in traced.graph if n.type.is_event and n.op != "mul"} >= {
        n.name for n in family.graph if n.name and n.op in ("lif", "multilevel")
    }
    assert all(n.attrs["weight"].evidence == "checkpoint" for n in traced.graph if n.op == "conv2d")
    with np.load(FIXTURES / name / "vectors.npz") as vectors:
        recorded = {k.removeprefix("spikes/") for k in vectors.files if k.startswith("spikes/")}
    assert recorded <= {n.name for n in traced.graph}


@pytest.mark.parametrize("heads", [1, 4])
def test_the_factor_of_attention_is_the_authors_to_the_last_digit(heads: int) -> None:
    """For 8 channels of a head d ** -0.5 and 1 / sqrt(d) are two numbers."""
    config = yaml.safe_load((FIXTURES / "sdt_v3" / "model.yaml").read_text()) | {"num_heads": heads}
    state = torch.load(FIXTURES / "sdt_v3" / "model.pt", weights_only=True)
    arrays = {k: v.numpy() for k, v in state.get("state_dict", state).items() if "num_batches" not in k}
    graph, _ = FAMILIES["sdt_v3"].build(arrays, parse_config(config, "test config"))
    found = {n.attr("scale") for n in graph if n.op == "attn"}
    assert found == {(width // heads) ** -0.5 * 2 for width in (8, 16)}


def fixture(name: str) -> Any:
    import models

    cls = {"sdt_v1": "SpikeDrivenTransformer", "spikformer": "Spikformer", "sdt_v3": "ExpandedSpikeTransformer"}[name]
    config = yaml.safe_load((FIXTURES / name / "model.yaml").read_text())
    known = inspect.signature(getattr(models, cls).__init__).parameters
    more = {"blocks": (1, 1)} if name == "sdt_v3" else {}
    net = getattr(models, cls)(**{k: v for k, v in config.items() if k in known and k not in more}, **more)
    state = torch.load(FIXTURES / name / "model.pt", weights_only=True)
    state = state.get("state_dict", state)
    assert not net.load_state_dict(state, strict=False).missing_keys
    return net
