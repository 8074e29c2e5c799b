"""Spiking LMUFormer (Liu et al., "LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre Memory Units",
ICLR 2024): family ``lmuformer``; residuals of membranes (``slmu_rnn_ms_conv1d``) and of spikes (``slmu_rnn_conv1d``).

Timesteps are the positions of the sequence. The memory m_t = A m_{t-1} + B u_t of spikes u is its response
H[:, k] = A^k B, as the authors' forward pass has it: m_t = sum over k of H[:, k] u_{t-k}.
"""

from __future__ import annotations

import numpy as np

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.build import axis, count_blocks, ratio
from nmc_compiler.frontends.config import ModelConfig
from nmc_compiler.frontends.sequence import SequenceBuilder, Signal
from nmc_compiler.graph import Graph

KNOWN = ("block.0.attn.lmu.W_u.weight", "block.0.attn.lmu.H", "head.weight")
ATTENTION = ("block.0.attn.pre_bn.weight", "block.0.attn.q_conv.weight", "head_bn.weight", "head.weight")
FIRST = "patch_embed.proj_conv.weight"
LOOK_AHEAD = 5  # convolutions of three taps, one behind the other
RESPONSE_ERROR = 1e-2  # of the largest entry: how far the response may be from its stored transform (bfloat16)
RESPONSE_SAME = 1e-5  # of the largest entry: how far it is in single precision


def recognise(tensors: dict[str, np.ndarray]) -> bool:
    """True where the keys are those of one of the authors' four models."""
    return all(k in tensors for k in KNOWN) or all(k in tensors for k in ATTENTION)


def configure(tensors: dict[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """What shapes tell, checked against the config; family constants where it is silent."""
    _refuse_others(tensors)
    config = config.agree("in_channels", axis(tensors, FIRST, 1, 3), FIRST)
    config = config.agree("embed_dims", axis(tensors, FIRST, 0, 3), FIRST)
    config = config.agree("num_classes", axis(tensors, "head.weight", 0, 2), "head.weight")
    hidden = axis(tensors, "block.0.mlp.fc1_conv.weight", 0, 3)
    config = config.agree("mlp_ratios", ratio(hidden, axis(tensors, FIRST, 0, 3)), "block.0.mlp.fc1_conv.weight")
    config = config.agree("depths", count_blocks(tensors, "block"), "the block.N keys")
    config = config.agree("audio_length", axis(tensors, KNOWN[1], 1, 2), KNOWN[1])
    return config.with_defaults("family", tau=2.0, v_threshold=1.0, attn_threshold=0.5)


def _refuse_others(tensors: dict[str, np.ndarray]) -> None:
    if "block.0.attn.lmu.H" not in tensors:
        raise FrontendError(
            "this is attn_ms_conv1d, whose attention is over the whole sequence, which is its time: the first position "
            "reads keys of the last one; train slmu_rnn_ms_conv1d instead"
        )
    if "block.0.attn.lmu.bn_u.weight" not in tensors:
        raise FrontendError(
            "this is lmu_rnn_conv1d, the LMUFormer without spikes: ReLU and GELU make real values, and nothing but "
            "events goes between cores; train slmu_rnn_ms_conv1d instead"
        )


def build(tensors: dict[str, np.ndarray], config: ModelConfig) -> tuple[Graph, list[str]]:
    """The float graph (models.md 4.11) and notes; it runs ``LOOK_AHEAD`` timesteps longer than the sequence is."""
    config = configure(tensors, config)
    steps, width = config.integer("audio_length"), config.integer("embed_dims")
    b = SequenceBuilder("lmuformer", tensors, config, steps + LOOK_AHEAD, input_time=True)
    x = b.begin(steps, LOOK_AHEAD, config.get("in_channels"))
    membrane = "head_bn.weight" in tensors
    x = _embedded(b, x, width, membrane)
    for i in range(config.integer("depths")):
        p = f"block.{i}"
        inside = b.fired(b.normed(x, f"{p}.attn.prev_bn"), f"{p}.attn.prev_lif", "attn_threshold") if membrane else x
        x = b.plus(x, _half(b, _memory(b, inside, f"{p}.attn.lmu"), f"{p}.attn.proj", spikes=not membrane, norm=True))
        x = b.plus(x, _mlp(b, x, f"{p}.mlp", membrane))
    if membrane:
        x = b.fired(b.normed(x, "head_bn"), "head_lif")
    b.mean_readout(x, "head", config.integer("num_classes"))
    graph, notes = b.finish({
        ".lmu.A": "of the recurrent form; the forward pass has its response H",
        ".lmu.B": "of the recurrent form; the forward pass has its response H",
    })  # fmt: skip
    late = f"samples have {steps} positions and {LOOK_AHEAD} timesteps of zeros, since convolutions look ahead"
    return graph, [*notes, late]


def _embedded(b: SequenceBuilder, x: Signal, width: int, membrane: bool) -> Signal:
    """Five convolutions; the last one is added to what it sees, to its current (``membrane``) or to its spikes."""
    for n in ("", "1", "2"):
        x = b.along(x, f"patch_embed.proj_conv{n}", width)
        x = b.fired(b.normed(x, f"patch_embed.proj_bn{n}"), f"patch_embed.proj_lif{n}")
    current = b.along(x, "patch_embed.proj_conv3", width)
    spikes = b.fired(b.normed(current, "patch_embed.proj_bn3"), "patch_embed.proj_lif3")
    position = b.along(spikes, "patch_embed.rpe_conv", width)
    if membrane:
        return b.plus(current, position)
    return b.plus(spikes, b.fired(b.normed(position, "patch_embed.rpe_bn"), "patch_embed.rpe_lif"))


def _memory(b: SequenceBuilder, x: Signal, p: str) -> Signal:
    """u = LIF(BN(W_u x)), m = LIF(BN(sum of H[:, k] u_{t-k})), h = LIF(BN(W_h [m; x]))."""
    width = b.shape(x.node)[0]
    u = b.fired(b.normed(b.at_point(x, f"{p}.W_u", out=1), f"{p}.bn_u"), f"{p}.f_u")
    m = b.remembered(u, f"{p}.H", _response(b, p))
    m = b.fired(b.normed(m, f"{p}.bn_m"), f"{p}.f_m")
    return b.fired(b.normed(b.at_point(b.beside(m, x), f"{p}.W_h", out=width), f"{p}.bn_h"), f"{p}.f_h")


def _response(b: SequenceBuilder, p: str) -> np.ndarray:
    """H; the authors' forward pass has its Fourier transform over twice the length, which must be that of H.

    Where H was stored in fewer bits (no file rounds complex numbers), it is taken back from the transform.
    """
    response = b.take(f"{p}.H", (None, b.steps))
    key = f"{p}.fft_H"
    stored = b.state.get(key)
    if stored is None:
        raise FrontendError(f"checkpoint has no tensor '{key}', which a lmuformer model needs")
    wanted = np.fft.rfft(response.astype(np.float64), 2 * b.steps)
    off, most = (np.abs(stored - wanted).max() if stored.shape == wanted.shape else np.inf), np.abs(wanted).max()
    if not off <= RESPONSE_ERROR * most:
        raise FrontendError(f"tensor '{key}' is not the Fourier transform of '{p}.H'; the authors' classes store both")
    b.used.add(key)
    return response if off <= RESPONSE_SAME * most else np.fft.irfft(stored, 2 * b.steps)[:, : b.steps]


def _half(b: SequenceBuilder, x: Signal, p: str, spikes: bool, norm: bool, out: int | None = None) -> Signal:
    """``p_conv`` of one tap, ``p_bn``, ``p_lif``."""
    x = b.at_point(x, f"{p}_conv", out=out)
    x = b.normed(x, f"{p}_bn") if norm else x
    return b.fired(x, f"{p}_lif") if spikes else x


def _mlp(b: SequenceBuilder, x: Signal, p: str, membrane: bool) -> Signal:
    """LIF(BN(conv x)) twice; of membranes conv(LIF(BN x)) twice."""
    width = b.shape(x.node)[0]
    if not membrane:
        return _half(b, _half(b, x, f"{p}.fc1", True, True), f"{p}.fc2", True, True, width)
    for n, out in (("fc1", None), ("fc2", width)):
        x = b.at_point(b.fired(b.normed(x, f"{p}.{n}_bn"), f"{p}.{n}_lif"), f"{p}.{n}_conv", out=out)
    return x
