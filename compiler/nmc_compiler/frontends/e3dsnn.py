"""E-3DSNN, the classifier on point clouds: family ``e3dsnn``. Convolutions between active voxels, codes 0..4."""

from __future__ import annotations

from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.build import FamilyBuilder, count_blocks, record
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.graph import Attr, Graph
from nmc_compiler.graph.ops_sites import MAX_EXTENT, down_extent

KNOWN = ("stem.0.weight", "enc.0.down.1.weight", "enc.0.blocks.0.voxel_block.5.running_var", "final.weight")
PREFIX = "backbone."  # in the authors' checkpoints a classifier holds the network
BN_EPS = Attr(1e-3, "family")
CUBE, POINT, PAIR = (3, 3, 3), (1, 1, 1), (2, 2, 2)
DEAD = {"max_num_voxels_during_training": "a statistic of spconv"}
VOXELS = ("voxel_size", "point_range", "voxel_features", "voxel_reduce")  # how the host codes clouds (nmc.voxels)


def recognise(keys: Any) -> bool:
    """True where the keys are those of this family (and of no other)."""
    return all(k in keys for k in KNOWN) or all(PREFIX + k in keys for k in KNOWN)


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.9) and notes on dead tensors. T = 1: a code stands for up to D spikes."""
    return _Builder(tensors, config).build()


class _Builder:
    def __init__(self, tensors: dict[str, np.ndarray], config: ModelConfig) -> None:
        self.prefix = "" if KNOWN[0] in tensors else PREFIX
        if any(key.startswith(f"{self.prefix}dec.") for key in tensors):
            raise FrontendError(
                "this E-3DSNN has a decoder (it labels every voxel); only classifiers are lowered, whose read-out is"
                " a mean over voxels"
            )
        inner = {key.removeprefix(self.prefix): tensor for key, tensor in tensors.items()}
        stages = count_blocks(inner, "enc")
        self.config = _configure(inner, config, stages)
        self.stages, self.inner = stages, inner
        self.b = FamilyBuilder("e3dsnn", tensors, self.config, 1, record_time=False)
        self.g = self.b.graph

    def build(self) -> tuple[Graph, list[str]]:
        slots, extent = self.config.value("slots"), self.config.value("extent")
        channels = self.config.integer("in_channels")
        x = self.g.add("input", id="x", shape=Attr((3 + channels, slots[0], 1), "config"))
        whole = tuple(-(-n // 2**self.stages) * 2**self.stages for n in extent)  # no voxel is lost at a border
        self.sites = self.g.add("sites", x, id="sites0", name="sites0", extent=Attr(whole, "config"))
        self.extent = whole
        x = self._conv_bn(self.g.add("features", x), "stem.0", "stem.1")
        for i in (2, 5):
            x = self._conv_bn(self._spike(x, f"stem.{i}"), f"stem.{i + 1}", f"stem.{i + 2}")
        for i in range(self.stages):
            x = self._down(self._spike(x, f"enc.{i}.down.0"), i, slots[i + 1])
            for j in range(count_blocks(self._inside(f"enc.{i}."), "blocks")):
                x = self._block(x, f"enc.{i}.blocks.{j}")
        classes = self._conv(x, "final", POINT, bias=True)
        self.g.add("readout", self.g.add("mean_sites", classes, self.sites), name=f"{self.prefix}final")
        return self.b.finish(DEAD)

    def _inside(self, start: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(start): t for k, t in self.inner.items() if k.startswith(start)}

    def _block(self, x: str, p: str) -> str:
        """Membrane residuals: x += BN(SubM(MS x)), then the same with two convolutions."""
        h = self._conv_bn(self._spike(x, f"{p}.block.0"), f"{p}.block.1", f"{p}.block.2")
        x = self.g.add("add", h, x)
        h = self._conv_bn(self._spike(x, f"{p}.voxel_block.0"), f"{p}.voxel_block.1", f"{p}.voxel_block.2")
        h = self._conv_bn(self._spike(h, f"{p}.voxel_block.3"), f"{p}.voxel_block.4", f"{p}.voxel_block.5")
        return self.g.add("add", h, x)

    def _down(self, s: str, stage: int, slots: int) -> str:
        """Kernel 2, stride 2: the sites of the next stage are what it reaches."""
        p, before = f"enc.{stage}.down", self.sites
        window = {"kernel": Attr(PAIR, "family"), "stride": Attr(PAIR, "family")}
        name = f"sites{stage + 1}"
        extent = Attr(self.extent, "derived")
        slot = Attr(slots, "config")
        self.sites = self.g.add("down_sites", before, id=name, name=name, **window, extent=extent, slots=slot)
        self.extent = down_extent(self.extent, PAIR, PAIR, (0, 0, 0))
        return self._norm(self._conv(s, f"{p}.1", PAIR, source=before, stride=PAIR), f"{p}.2")

    def _spike(self, x: str, name: str) -> str:
        """N5, not divided: codes 0..D."""
        return self.g.add(
            "multilevel",
            x,
            name=self.prefix + name,
            levels=Attr(self.config.integer("D"), self.config.get("D").evidence),
            norm=Attr(1, "family"),
            rounding=Attr("half_up", "family"),
            **record(self.g.nodes[x].type.shape, "NC", 0),
        )

    def _conv_bn(self, x: str, conv: str, bn: str) -> str:
        return self._norm(self._conv(x, conv, CUBE), bn)

    def _conv(
        self,
        x: str,
        key: str,
        kernel: tuple[int, int, int],
        source: str | None = None,
        stride: tuple[int, int, int] = POINT,
        bias: bool = False,
    ) -> str:
        """Weights are stored [out, k, k, k, in], as spconv 2 has them; from ``source`` to the sites at hand.

        Those of a single tap are stored so too, but spconv multiplies with the same numbers read as [in, out].
        """
        name, cin = self.prefix + key, self.g.nodes[x].type.shape[0]
        weight = self.b.take(f"{name}.weight", (None, *kernel, cin))
        taps = weight.reshape(len(weight), -1, cin).transpose(0, 2, 1)[..., None]
        if kernel == POINT:
            taps = weight.reshape(cin, len(weight)).T[..., None, None]
        ref = self.g.tensor(f"{name}.weight", np.ascontiguousarray(taps))
        pad = tuple(k // 2 for k in kernel) if source is None else (0, 0, 0)
        return self.g.add(
            "sparse_conv3d",
            x,
            source or self.sites,
            self.sites,
            name=name,
            weight=Attr(ref, "checkpoint"),
            bias=self.b.bias_ref(name, len(weight)) if bias else None,
            kernel=Attr(kernel, "family"),
            stride=Attr(stride, "family"),
            pad=Attr(pad, "family"),
        )

    def _norm(self, x: str, key: str) -> str:
        name, channels = self.prefix + key, (self.g.nodes[x].type.shape[0],)
        self.b.used.add(f"{name}.num_batches_tracked")
        arrays = {"weight": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
        refs: dict[str, Any] = {
            attr: Attr(self.g.tensor(f"{name}.{stored}", self.b.take(f"{name}.{stored}", channels)), "checkpoint")
            for attr, stored in arrays.items()
        }
        return self.g.add("batch_norm", x, name=name, eps=BN_EPS, **refs)


def _configure(inner: dict[str, np.ndarray], config: ModelConfig, stages: int) -> ModelConfig:
    """What shapes tell, checked against the config; family constants where it is silent."""
    config = config.with_defaults("family", T=1, D=4)
    for key, tensor, axis in (
        ("in_channels", "stem.0.weight", -1),
        ("embed_channels", "stem.0.weight", 0),
        ("num_classes", "final.weight", 0),
    ):
        config = config.agree(key, _size(inner, tensor, axis), tensor)
    widths = tuple(_size(inner, f"enc.{i}.down.1.weight", 0) for i in range(stages))
    config = config.agree("enc_channels", widths, "the enc.*.down.1 shapes")
    blocks = [{k.split(".")[3] for k in inner if k.startswith(f"enc.{i}.blocks.")} for i in range(stages)]
    config = config.agree("enc_depth", tuple(len(b) for b in blocks), "the enc.*.blocks")
    if config.integer("T") != 1:
        raise FrontendError(f"config says T = {config.value('T')}; the e3dsnn model has no time axis (T = 1)")
    slots = config.value("slots")
    slots = (slots,) * (stages + 1) if isinstance(slots, int) else slots
    whole = isinstance(slots, tuple) and all(type(n) is int and n >= 1 for n in slots)
    if not whole or len(slots) != stages + 1:
        raise FrontendError(
            f"config 'slots' must be the most voxels of a cloud, one number >= 1 or {stages + 1} of them (of the input "
            f"and {stages} stages), got {config.value('slots')!r}"
        )
    extent = config.value("extent")
    if not (isinstance(extent, tuple) and len(extent) == 3 and all(type(n) is int and n >= 1 for n in extent)):
        raise FrontendError(f"config 'extent' must be three numbers of voxels (x, y, z), got {extent!r}")
    if max(extent) + 2**stages > MAX_EXTENT:
        raise FrontendError(f"config 'extent' is {extent}; at most {MAX_EXTENT - 2**stages} voxels along an axis")
    config.asked.update(VOXELS)
    values = {**config.values, "slots": Attr(slots, "config")}
    return ModelConfig(values, config.source, config.asked)


def _size(inner: dict[str, np.ndarray], key: str, axis: int) -> int:
    if key not in inner:
        raise FrontendError(f"checkpoint has no tensor '{key}', which tells the sizes of the model")
    if inner[key].ndim != 5:
        raise FrontendError(f"tensor '{key}' has shape {tuple(inner[key].shape)}, expected [out, k, k, k, in]")
    return int(inner[key].shape[axis])
