"""What a layer of lava-dl's ``.net`` files is, for reading and writing them: integers of the chip, as netx takes them.

Sources of the numbers: lava-dl 0.6, ``lava.lib.dl.netx`` (hdf5, blocks, utils), and what its networks compute.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Shape = tuple[int, int, int]

FULL_DECAY = 4096  # 12 bits: nothing is kept of a step
NEVER = (1 << 17) - 1  # threshold mantissa that no potential exceeds without saturating
MAX_VTH = (1 << 18) - 1  # lava-dl writes it for layers that are not to fire
MAX_BIAS = 1 << 12  # 13-bit mantissa
BIAS_EXP = 6  # netx gives its LIFs the bias mantissa << 6
MAX_DELAY = 62  # where netx cuts
DENSE_LOW, DENSE_HIGH = -256, 254  # where netx cuts weights of both signs
CONV_LIMIT = 1 << 15
SDNN_SPIKE_EXP = SDNN_STATE_EXP = 6  # what netx gives its sigma-delta Processes
SDNN_EXP = SDNN_SPIKE_EXP + SDNN_STATE_EXP
ENTRY = (64, 0, FULL_DECAY)  # weight, bias and iDecay of an input layer where a file does not say
NEURONS = ("CUBA", "LOIHI", "SDNN")
LAYERS = ("input", "dense", "dense_rec", "conv", "pool", "flatten", "average")


@dataclass(frozen=True)
class Cuba:
    """Lava's LIF: current and voltage decay of 4096, threshold in steps of 64."""

    i_decay: int
    v_decay: int
    vth: int


@dataclass(frozen=True)
class Sdnn:
    """Sigma-delta unit; ``sigma_output``: it sends its whole sum at every step (Lava's Sigma)."""

    vth: int
    sigma_output: bool = False


@dataclass(frozen=True)
class Layer:
    """One layer. ``shape`` (C, H, W) of its output; weights whole numbers, dense [O, I], conv [O, I / groups, kh, kw].

    ``bias`` int64 [C], mantissas; ``delay`` int64 [O, I] or None; ``transform``: (weight, bias) of an input layer.
    """

    index: int
    kind: str
    shape: Shape
    neuron: Cuba | Sdnn | None = None
    weight: np.ndarray | None = field(default=None, repr=False)
    weight_rec: np.ndarray | None = field(default=None, repr=False)
    bias: np.ndarray | None = field(default=None, repr=False)
    delay: np.ndarray | None = field(default=None, repr=False)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    transform: tuple[int, int] = ENTRY[:2]

    @property
    def name(self) -> str:
        """How populations and reports call it."""
        return f"layer{self.index}"
