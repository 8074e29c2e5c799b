"""Shared helpers of the checkpoint families: take tensors by key, add conv + batch norm, infer sizes."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.graph import Attr, Graph, GraphBuilder, Ref

MAX_AVERAGES = 1 << 26  # values of an average pool, whose factors are held in memory
BN_EPS = Attr(1e-5, "family")  # torch.nn.BatchNorm default; a state_dict does not hold it


class FamilyBuilder:
    """A GraphBuilder that takes its arrays from a state_dict and remembers which keys were used."""

    eps = BN_EPS

    def __init__(self, name: str, tensors: dict[str, np.ndarray], config: ModelConfig, timesteps: int, **flags: bool):
        self.state, self.config = tensors, config
        self.graph = GraphBuilder(name, timesteps, "float", **flags)
        self.used: set[str] = set()

    def take(self, key: str, shape: tuple[int | None, ...] | None = None) -> np.ndarray:
        """One array of the checkpoint; ``shape`` entries of None match any length."""
        if key not in self.state:
            raise FrontendError(f"checkpoint has no tensor '{key}', which a {self.graph.name} model needs")
        array = self.state[key]
        if shape is not None and (
            len(array.shape) != len(shape)
            or any(w is not None and w != g for w, g in zip(shape, array.shape, strict=True))
        ):
            want = "x".join("?" if w is None else str(w) for w in shape)
            raise FrontendError(f"tensor '{key}' has shape {tuple(array.shape)}, expected {want}")
        if not array.size:
            raise FrontendError(f"tensor '{key}' has shape {tuple(array.shape)}: it is empty")
        if array.dtype.kind not in "fiu":
            raise FrontendError(f"tensor '{key}' has dtype {array.dtype}; weights are real numbers")
        self.used.add(key)
        return array

    def _ref(self, key: str, shape: tuple[int | None, ...] | None = None, to: tuple[int, ...] | None = None) -> Attr:
        array = self.take(key, shape)
        return self._kept(key, array if to is None else array.reshape(to))

    def _kept(self, key: str, array: np.ndarray) -> Attr:
        """A tensor of the graph under the checkpoint's key; one that is used twice is stored once."""
        return Attr(Ref(key) if key in self.graph.tensors else self.graph.tensor(key, array), "checkpoint")

    def bias_ref(self, key: str, length: int) -> Attr:
        return self._ref(f"{key}.bias", (length,))

    def conv(
        self,
        x: str,
        key: str,
        bias: bool = False,
        stride: int = 1,
        pad: int = 0,
        groups: int = 1,
        out: int | None = None,
        side: int | None = None,
    ) -> str:
        """conv2d ``key``.weight (a Linear or Conv1d weight is a 1x1 convolution over positions).

        Kernels are (2*pad + 1) wide where ``side`` does not say otherwise; ``out`` channels where known.
        """
        side = 2 * pad + 1 if side is None else side
        rank = max(self.take(f"{key}.weight").ndim, 2)
        cin = self.graph.nodes[x].type.shape[0] // groups
        weight = self.take(f"{key}.weight", (out, cin, side, side)[: min(rank, 4)])
        to = (*weight.shape, 1, 1)[:4]
        if rank < 4 and side > 1:
            raise FrontendError(f"tensor '{key}.weight' has shape {weight.shape}, expected a 2D kernel")
        return self.graph.add(
            "conv2d",
            x,
            name=key,
            weight=self._kept(f"{key}.weight", weight.reshape(to)),
            bias=self._ref(f"{key}.bias", (weight.shape[0],)) if bias else None,
            stride=Attr((stride, stride), "family"),
            pad=Attr((pad, pad), "family"),
            groups=Attr(groups, "family"),
        )

    def norm(self, x: str, key: str) -> str:
        """Batch norm ``key`` in evaluation mode."""
        channels = (self.graph.nodes[x].type.shape[0],)
        self.used.add(f"{key}.num_batches_tracked")
        return self.graph.add(
            "batch_norm",
            x,
            name=key,
            weight=self._ref(f"{key}.weight", channels),
            bias=self._ref(f"{key}.bias", channels),
            mean=self._ref(f"{key}.running_mean", channels),
            var=self._ref(f"{key}.running_var", channels),
            eps=self.eps,
        )

    def conv_bn(self, x: str, conv: str, bn: str, **options: Any) -> str:
        return self.norm(self.conv(x, conv, **options), bn)

    def lif(
        self, x: str, name: str, theta: str = "v_threshold", layout: str = "CHW", heads: int = 0, **more: Any
    ) -> str:
        """LIF N1 with the family's tau, threshold, hard reset to 0, and ``more``; ``layout`` is the authors'."""
        plif = self.config.has("spike_mode") and self.config.value("spike_mode") == "plif"
        tau = self._learned_tau(f"{name}.w") if plif else self.config.number("tau")
        return self.graph.add(
            "lif",
            x,
            name=name,
            tau=tau,
            theta=self.config.number(theta),
            v_reset=Attr(0.0, "family"),
            reset=Attr("hard", "family"),
            compare=Attr("ge", "family"),
            decay_input=Attr(True, "family"),
            **more,
            **record(self.graph.nodes[x].type.shape, layout, heads),
        )

    def _learned_tau(self, key: str) -> Attr:
        """PLIF (models.md N3) stores w with 1/tau = sigmoid(w)."""
        w = self.take(key)
        if w.size != 1:
            raise FrontendError(f"tensor '{key}' has shape {w.shape}, expected one number (w of a PLIF)")
        with np.errstate(over="ignore"):
            tau = float(1.0 + np.exp(-w.astype(np.float64).reshape(())))
        if not np.isfinite(tau):
            raise FrontendError(f"tensor '{key}' is {w.item()}: its tau = 1 + exp(-w) is infinite")
        return Attr(tau, "checkpoint")

    def multilevel(
        self, x: str, name: str, norm: Attr, layout: str = "CHW", rounding: str = "half_even", gain: float | None = None
    ) -> str:
        """Stateless multi-level spike (models.md N4, N5; N6 with a gain): levels 0..D, value code/norm."""
        return self.graph.add(
            "multilevel",
            x,
            name=name,
            levels=Attr(self.config.integer("D"), self.config.get("D").evidence),
            norm=norm,
            rounding=Attr(rounding, "family"),
            gain=None if gain is None else Attr(gain, "family"),
            **record(self.graph.nodes[x].type.shape, layout, 0),
        )

    def maxpool(self, x: str) -> str:
        """3x3, stride 2, pad 1: the pool of every stem here."""
        return self.graph.add(
            "maxpool2d",
            x,
            kernel=Attr((3, 3), "family"),
            stride=Attr((2, 2), "family"),
            pad=Attr((1, 1), "family"),
        )

    def shape(self, x: str) -> tuple[int, int, int]:
        """(C, H, W) of a node."""
        return self.graph.nodes[x].type.shape

    def image(self, name: str = "") -> str:
        """The input, in the size that the config says; ``name`` where events of it are sent."""
        shape = (
            self.config.integer("in_channels"),
            self.config.integer("img_size_h"),
            self.config.integer("img_size_w"),
        )
        return self.graph.add("input", id="x", name=name, shape=Attr(shape, self.config.get("img_size_h").evidence))

    def num_heads(self) -> Attr:
        """What the config says."""
        return Attr(self.config.integer("num_heads"), self.config.get("num_heads").evidence)

    def avgpool(self, x: str) -> str:
        """Average over 3x3 windows, stride 2, pad 1, of the positions that are inside (count_include_pad=False)."""
        pool = self.graph.add("sumpool2d", x, kernel=Attr((3, 3), "family"), stride=Attr((2, 2), "family"),
                              pad=Attr((1, 1), "family"))  # fmt: skip
        shape, (_, height, width) = self.shape(pool), self.shape(x)
        if math.prod(shape) > MAX_AVERAGES:
            raise FrontendError(
                f"an average pool gives {'x'.join(map(str, shape))} values, each with a factor of its own; at most "
                f"{MAX_AVERAGES} are handled, give a smaller img_size"
            )
        inside = [
            np.minimum(2 * np.arange(n) + 2, size) - np.maximum(2 * np.arange(n) - 1, 0)
            for n, size in zip(shape[1:], (height, width), strict=True)
        ]
        key = f"avgpool.{'x'.join(map(str, shape))}"
        factor = self.graph.tensors.get(key)
        if factor is None:
            factor = np.broadcast_to(1.0 / np.outer(*inside), shape).copy()
        return self.graph.add("scale", pool, factor=Attr(self.graph.tensor(key, factor), "family"))

    def mean_head(self, x: str) -> None:
        """Linear on the mean over tokens, mean over T: the 1/N goes behind the (linear) product."""
        _, h, w = self.shape(x)
        current = self.conv(self.graph.add("sum_positions", x), "head")
        scaled = self.graph.add("scale", current, factor=Attr(1.0 / (h * w), "family"))
        self.graph.add("readout", scaled, name="head", bias=self.bias_ref("head", self.config.integer("num_classes")))

    def mean_positions(self, x: str) -> str:
        _, h, w = self.graph.nodes[x].type.shape
        return self.graph.add("scale", self.graph.add("sum_positions", x), factor=Attr(1.0 / (h * w), "family"))

    def finish(self, dead: dict[str, str]) -> tuple[Graph, list[str]]:
        """The graph and notes on dead tensors; unknown keys are refused. ``dead``: key suffix -> why."""
        notes = []
        for key in self.state:
            if key in self.used:
                continue
            reason = next((why for suffix, why in dead.items() if key.endswith(suffix)), None)
            if reason is None:
                raise FrontendError(
                    f"checkpoint has a tensor '{key}' that a {self.graph.name} model does not know; "
                    f"remove it, or choose the right --family"
                )
            notes.append(f"dead tensor '{key}': {reason}")
        return self.graph.build(), notes


def record(shape: tuple[int, int, int], layout: str, heads: int) -> dict[str, Any]:
    """Record attributes of a neuron: the authors' layout of its (C, H, W) codes."""
    c, h, w = shape
    layouts = {
        "CHW": ((0, 1, 2), (c, h, w)),
        "NC": ((1, 2, 0), (h * w, c)),
        "CN": ((0, 1, 2), (c, h * w)),
        "C": ((0, 1, 2), (c,)),
        "heads": ((0, 1, 2), (heads, 1, c // max(heads, 1))),
        "head tokens": ((0, 1, 2), (c, 1, h * w)),
    }
    perm, shaped = layouts[layout]
    return {"record_perm": Attr(perm, "family"), "record_shape": Attr(shaped, "family")}


def axis(tensors: dict[str, np.ndarray], key: str, index: int, rank: int) -> int:
    """Length of one axis of a tensor that must have ``rank`` axes."""
    if key not in tensors:
        raise FrontendError(f"checkpoint has no tensor '{key}', which tells the sizes of the model")
    if tensors[key].ndim != rank:
        raise FrontendError(f"tensor '{key}' has shape {tuple(tensors[key].shape)}, expected {rank} axes")
    return int(tensors[key].shape[index])


def ratio(hidden: int, width: int) -> int | float:
    """Widening of an MLP, a whole number wherever it is one."""
    return hidden // width if width and hidden % width == 0 else hidden / max(width, 1)


def count_blocks(tensors: dict[str, np.ndarray], prefix: str) -> int:
    """Number of consecutive ``prefix.0.``, ``prefix.1.``, ... in the keys."""
    number = re.compile(re.escape(prefix) + r"\.([0-9]{1,9})(\.|$)")
    found = {int(name[1]) for name in map(number.match, tensors) if name}
    if found != set(range(len(found))):
        raise FrontendError(f"checkpoint has '{prefix}.N' for N = {sorted(found)}; blocks must count up from 0")
    return len(found)
