"""Blocks with a part on the host, in plain PyTorch, written to their published equations (models.md 4.11, N17, N18).

Small and with random weights: what is compared is one computation with another, never an accuracy.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

import nmc


class Lif(nn.Module):
    """h = v + (x - v)/2; fires at h >= 1, then v = 0; [T, B, C]."""

    def forward(self, current):
        v, spikes = torch.zeros_like(current[0]), []
        for x in current:
            h = v + (x - v) / 2.0
            spikes.append((h >= 1).to(x.dtype))
            v = h * (1 - spikes[-1])
        return torch.stack(spikes)


nmc.register_neuron(
    Lif,
    lambda lif: {
        "op": "lif", "tau": 2.0, "theta": 1.0, "decay_input": True, "compare": "ge", "reset": "hard", "call": "sequence"
    },
)  # fmt: skip


class NormLif(nn.Module):
    """The narrowest: LayerNorm, LIF, Linear, and a residual of real values; [T, B, C]."""

    def __init__(self, width=8):
        super().__init__()
        self.norm, self.lif, self.fc = nn.LayerNorm(width), Lif(), nn.Linear(width, width)

    def forward(self, x):
        return x + self.fc(self.lif(self.norm(x)))


# ---- SpikeGPT: RWKV blocks with LIFs ----


class Wkv(nn.Module):
    """RWKV-4's weighted mean of values, [T, B, C]; the CUDA kernel's recurrence."""

    def __init__(self, width):
        super().__init__()
        self.time_decay = nn.Parameter(torch.linspace(-5.0, 3.0, width))
        self.time_first = nn.Parameter(torch.full((width,), math.log(0.3)) + 0.1 * torch.arange(width))

    def forward(self, k, v):
        rate = -torch.exp(self.time_decay)
        a, b, top, found = torch.zeros_like(k[0]), torch.zeros_like(k[0]), torch.full_like(k[0], -1e38), []
        for now, value in zip(k, v, strict=True):
            high = torch.maximum(top, self.time_first + now)
            old, new = torch.exp(top - high), torch.exp(self.time_first + now - high)
            found.append((old * a + new * value) / (old * b + new))
            high = torch.maximum(top + rate, now)
            old, new = torch.exp(top + rate - high), torch.exp(now - high)
            a, b, top = old * a + new * value, old * b + new, high
        return torch.stack(found)


nmc.register_host(
    Wkv,
    lambda m: {
        "op": "wkv",
        "decay": m.time_decay.detach().double().numpy(),
        "first": m.time_first.detach().double().numpy(),
        "call": "sequence",
    },
)


def shifted(x):
    """The token before, zeros first; [T, B, C]."""
    return F.pad(x, (0, 0, 0, 0, 1, -1))


class TimeMix(nn.Module):
    def __init__(self, width):
        super().__init__()
        for name in "kvr":
            self.register_parameter(f"time_mix_{name}", nn.Parameter(torch.rand(1, 1, width)))
        self.key, self.value, self.receptance, self.output = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.wkv = Wkv(width)

    def forward(self, x):
        before = shifted(x)
        xk, xv, xr = (x * m + before * (1 - m) for m in (self.time_mix_k, self.time_mix_v, self.time_mix_r))
        return self.output(torch.sigmoid(self.receptance(xr)) * self.wkv(self.key(xk), self.value(xv)))


class ChannelMix(nn.Module):
    def __init__(self, width):
        super().__init__()
        for name in "kr":
            self.register_parameter(f"time_mix_{name}", nn.Parameter(torch.rand(1, 1, width)))
        self.key, self.receptance = nn.Linear(width, 4 * width, bias=False), nn.Linear(width, width, bias=False)
        self.value = nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        before = shifted(x)
        xk, xr = (x * m + before * (1 - m) for m in (self.time_mix_k, self.time_mix_r))
        return torch.sigmoid(self.receptance(xr)) * self.value(torch.square(torch.relu(self.key(xk))))


class SpikeGptBlock(nn.Module):
    """x = x + LIF(TimeMix(LN x)); x = x + LIF(ChannelMix(LN x)); [T, B, C]."""

    def __init__(self, width=8, first=False):
        super().__init__()
        self.ln0 = nn.LayerNorm(width) if first else nn.Identity()
        self.ln1, self.ln2, self.lif1, self.lif2 = nn.LayerNorm(width), nn.LayerNorm(width), Lif(), Lif()
        self.att, self.ffn = TimeMix(width), ChannelMix(width)

    def forward(self, x):
        x = self.ln0(x)
        x = x + self.lif1(self.att(self.ln1(x)))
        return x + self.lif2(self.ffn(self.ln2(x)))


class SpikeGpt(nn.Module):
    """Embedding, its spikes (N18), blocks, norm and head, token by token; tokens [T, B, 1]."""

    def __init__(self, vocabulary=11, width=8, depth=2):
        super().__init__()
        self.emb = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(SpikeGptBlock(width, first=i == 0) for i in range(depth))
        self.ln_out, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.emb(tokens.squeeze(-1).long())
        x = (x >= 0).to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_out(x))


# ---- SpikingBrain: codes of real values into linear layers ----


class CodedLinear(nn.Linear):
    """Per token V = mean|x|/k, kept in 1e-5 to 1e4; codes round(x / V); the layer of codes, times V (N17)."""

    def forward(self, x):
        threshold = (x.abs().mean([-1], keepdim=True) / 3.0).clamp(min=1e-5, max=1e4)
        codes = (x / threshold).round()
        return F.linear(codes * threshold, self.weight, self.bias)


class WindowAttention(nn.Module):
    """Softmax attention of each token to itself and the ones before it, in a window; keys have fewer heads."""

    def __init__(self, heads, groups, window):
        super().__init__()
        self.heads, self.groups, self.window = heads, groups, window

    def forward(self, q, k, v):
        steps, batch, wide = q.shape
        size = wide // self.heads
        q = q.reshape(steps, batch, self.heads, size)
        k, v = (
            x.reshape(steps, batch, self.groups, size).repeat_interleave(self.heads // self.groups, 2) for x in (k, v)
        )
        score = torch.einsum("tbhd,sbhd->bhts", q, k) / math.sqrt(size)
        t = torch.arange(steps)
        seen = (t[None, :] <= t[:, None]) & (t[None, :] > t[:, None] - self.window)
        weights = torch.softmax(score.masked_fill(~seen, -torch.inf), -1)
        return torch.einsum("bhts,sbhd->tbhd", weights, v).reshape(steps, batch, wide)


nmc.register_host(
    WindowAttention,
    lambda m: {
        "op": "window_attention", "heads": m.heads, "window": m.window, "scale": m.scale, "call": "sequence"
    },
)  # fmt: skip


class Rotary(nn.Module):
    """Rotary embedding of [T, B, heads * d]; channel i of a head turns with channel i + d/2."""

    def __init__(self, heads, base=10000.0):
        super().__init__()
        self.heads, self.base = heads, base

    def forward(self, x):
        steps, batch, wide = x.shape
        one, two = x.reshape(steps, batch, self.heads, -1).chunk(2, -1)
        half = one.shape[-1]
        angle = torch.arange(steps, dtype=x.dtype)[:, None] * self.base ** (-torch.arange(half, dtype=x.dtype) / half)
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        return torch.cat([one * cos - two * sin, two * cos + one * sin], -1).reshape(steps, batch, wide)


nmc.register_host(Rotary, lambda m: {"op": "rotary", "heads": m.heads, "base": m.base, "call": "sequence"})


class GatedTable(nn.Module):
    """Gated linear attention, S_t = diag(g_t) S_{t-1} + k_t^T v_t, o_t = q_t S_t; [T, B, C]."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads

    def forward(self, q, k, v, gate):
        steps, batch, _ = q.shape
        q, k, v, gate = (x.reshape(steps, batch, self.heads, -1) for x in (q, k, v, gate))
        table, found = torch.zeros(batch, self.heads, k.shape[-1], v.shape[-1], dtype=q.dtype), []
        for t in range(steps):
            table = gate[t, ..., None] * table + k[t, ..., None] * v[t, ..., None, :]
            found.append(torch.einsum("bhk,bhkv->bhv", q[t], table).reshape(batch, -1))
        return torch.stack(found)


nmc.register_host(GatedTable, lambda m: {"op": "gated_table", "heads": m.heads, "call": "sequence"})


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(1 + 0.1 * torch.randn(width))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class SpikingBrainBlock(nn.Module):
    """RMSNorm, attention (softmax in a window, or gated linear), RMSNorm, SwiGLU; every linear layer reads codes."""

    def __init__(self, width=8, heads=2, groups=1, window=3, linear=False):
        super().__init__()
        kv = width if linear else width // heads * groups
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)
        self.q_proj, self.k_proj, self.v_proj = (
            CodedLinear(width, width),
            CodedLinear(width, kv),
            CodedLinear(width, kv),
        )
        self.o_proj = CodedLinear(width, width, bias=False)
        self.gate_proj, self.up_proj = (CodedLinear(width, 2 * width, bias=False) for _ in range(2))
        self.down_proj = CodedLinear(2 * width, width, bias=False)
        if linear:
            self.g_proj, self.table = CodedLinear(width, width), GatedTable(heads)
        else:
            self.turn_q, self.turn_k = Rotary(heads), Rotary(groups)
            self.attention = WindowAttention(heads, groups, window)
            self.attention.scale = 1 / math.sqrt(width // heads)
        self.linear = linear

    def mix(self, x):
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.linear:
            return self.table(torch.relu(q), torch.relu(k), v, torch.sigmoid(self.g_proj(x)))
        return self.attention(self.turn_q(q), self.turn_k(k), v)

    def forward(self, x):
        x = x + self.o_proj(self.mix(self.norm1(x)))
        y = self.norm2(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))


# ---- DeepEISNN: excitation over inhibition ----


class DividedInhibition(nn.Module):
    """I = gain (I_ee - W_ei I_ie) / (W_ei (g * I_ie)) + bias into LIFs (models.md 4.11), of spikes [T, B, C].

    ``mended``: zeros of the divisor become its second least number, as published; else it is kept above 0.1.
    """

    def __init__(self, width=6, mended=False):
        super().__init__()
        self.e, self.i, self.w_ei = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.lif, self.mended = Lif(), mended
        self.gain, self.g, self.bias = (nn.Parameter(2 + torch.rand(width)) for _ in range(3))
        with torch.no_grad():
            self.w_ei.weight.abs_()
            self.i.weight.abs_()

    def forward(self, spikes):
        excited, inhibited = self.e(spikes), self.i(spikes)
        divisor = self.w_ei(self.g * inhibited)
        mend = (lambda x: torch.where(x == 0, x.unique()[1], x)) if self.mended else (lambda x: x.clamp(min=0.1))
        divisor = mend(divisor)
        return self.lif(self.gain * (excited - self.w_ei(inhibited)) / divisor + self.bias)
