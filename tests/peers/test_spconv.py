"""Convolutions between active sites against spconv itself, module by module, on the processor."""

from __future__ import annotations

import numpy as np
import pytest
from site_nets import EXTENT, cloud

from nmc_compiler.graph import GraphBuilder
from nmc_compiler.graph.interpret import interpret
from nmc_compiler.graph.ops_sites import down_extent

torch = pytest.importorskip("torch", reason="spconv needs PyTorch; pip install .[torch]")
spconv = pytest.importorskip("spconv.pytorch", reason="compares with spconv 2; pip install spconv (Linux, x86-64)")
PAIR, CUBE, POINT = (2, 2, 2), (3, 3, 3), (1, 1, 1)


def tensor(sites: np.ndarray, features: np.ndarray):
    voxels = torch.tensor(np.concatenate([np.zeros((len(sites), 1)), sites], axis=1)).int()
    return spconv.SparseConvTensor(torch.tensor(features).float(), voxels, list(EXTENT), 1)


def weights(module) -> np.ndarray:
    """As a graph has them; of a single tap spconv reads the stored numbers as [in, out]."""
    w = module.weight.detach().double().numpy()
    if w[0, ..., 0].size == 1:
        return w.reshape(w.shape[-1], w.shape[0]).T[:, :, None, None]
    return np.moveaxis(w.reshape(len(w), -1, w.shape[-1]), 1, 2)[..., None]


class Ours:
    """The same layers as a graph; ``values`` on ``sites``."""

    def __init__(self, channels: int, slots: int) -> None:
        self.b = GraphBuilder("g", 1, "float")
        x = self.b.add("input", id="x", shape=(3 + channels, slots, 1))
        self.sites, self.values = self.b.add("sites", x, extent=EXTENT), self.b.add("features", x)
        self.slots, self.extent = slots, EXTENT

    def conv(self, module, kernel, stride=POINT, pad=(0, 0, 0), to=None, inverse=False) -> None:
        n = len(self.b.nodes)
        bias = None if module.bias is None else self.b.tensor(f"b{n}", module.bias.detach().double().numpy())
        form = {"kernel": kernel, "stride": stride, "pad": pad, "inverse": inverse, "bias": bias}
        to = to or self.sites
        weight = self.b.tensor(f"w{n}", weights(module))
        self.values = self.b.add("sparse_conv3d", self.values, self.sites, to, weight=weight, **form)
        self.sites = to

    def down(self, module, kernel, stride, pad) -> None:
        form = {"kernel": kernel, "stride": stride, "pad": pad}
        made = self.b.add("down_sites", self.sites, extent=self.extent, slots=8 * self.slots, **form)
        self.extent = down_extent(self.extent, kernel, stride, pad)
        self.conv(module, **form, to=made)

    def run(self, sites: np.ndarray, features: np.ndarray) -> dict[tuple, np.ndarray]:
        """Values by site."""
        head = np.eye(self.b.nodes[self.values].type.shape[0])[:, :, None, None]
        read = self.b.add(
            "sparse_conv3d", self.values, self.sites, self.sites, weight=self.b.tensor("eye", head), kernel=POINT
        )
        self.b.add("readout", self.b.add("mean_sites", read, self.sites), name="head")
        image = np.concatenate([sites.T, features.T])[None, :, :, None]
        found = interpret(self.b.build(), image, values=[self.values, self.sites]).values
        table, values = found[self.sites][0, 0, :, :, 0].T, found[self.values][0, 0, :, :, 0].T
        return {tuple(s): v for s, v in zip(table.tolist(), values, strict=True) if s[0] >= 0}


def agree(theirs, ours: dict[tuple, np.ndarray]) -> None:
    found = {tuple(s): v for s, v in zip(theirs.indices[:, 1:].tolist(), theirs.features.detach().numpy(), strict=True)}
    assert found.keys() == ours.keys()
    assert max(np.abs(found[s] - ours[s]).max() for s in found) < 1e-4


@pytest.mark.parametrize(
    ("kernel", "stride", "pad"),
    [(PAIR, PAIR, (0, 0, 0)), (CUBE, PAIR, (1, 1, 1)), ((3, 1, 1), (2, 1, 1), (0, 0, 0)), (CUBE, POINT, (1, 1, 1))],
)
def test_submanifold_strided_and_pointwise(kernel, stride, pad):
    """The configurations of the backbones, after a submanifold convolution and before one of a single tap."""
    torch.manual_seed(0)
    sites, features = cloud(1, 50), np.random.default_rng(2).normal(size=(50, 4)).astype(np.float32)
    first = spconv.SubMConv3d(4, 5, 3, padding=1, bias=True, indice_key="a")
    middle = spconv.SparseConv3d(5, 6, kernel, stride, pad, bias=False)
    last = spconv.SubMConv3d(6, 3, 1, padding=1, bias=True)
    torch.nn.init.normal_(last.bias)
    ours = Ours(4, 50)
    ours.conv(first, CUBE, pad=(1, 1, 1))
    ours.down(middle, kernel, stride, pad)
    ours.conv(last, POINT)
    agree(last(middle(first(tensor(sites, features)))), ours.run(sites, features))


def test_inverse():
    torch.manual_seed(1)
    sites, features = cloud(3, 40), np.random.default_rng(4).normal(size=(40, 4)).astype(np.float32)
    down = spconv.SparseConv3d(4, 5, 2, 2, bias=False, indice_key="d")
    back = spconv.SparseInverseConv3d(5, 3, 2, indice_key="d", bias=False)
    ours = Ours(4, 40)
    fine = ours.sites
    ours.down(down, PAIR, PAIR, (0, 0, 0))
    ours.conv(back, PAIR, PAIR, to=fine, inverse=True)
    agree(back(down(tensor(sites, features))), ours.run(sites, features))
