"""Options of a compilation that change what the chip computes or how."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class CompileOptions:
    """``input_encoding``: "host-current" (the host computes the first layer once in fixed point) or "graded8"
    (8-bit events, first layer on cores). ``input_range``: the values the real input may take (graded8).
    ``residual``: "stream" (one accumulator per position that every later layer reads), "duplicate" (each reader has
    its own copy of all fan-in; static synapses alone), or "auto": duplicate where that avoids every feature the
    target only assumes, at no more than four times the synaptic work, else stream.
    ``factors``: linear layers with no neuron between them: "fold" into one, keep apart and "relay" graded events
    between them, or "auto": relays where folding would make more than 2^18 weights and eight times the factors'.
    ``attn_order``: "kv", "qk" or "auto" (the smaller table). ``channel_bins``: most neuron groups a layer's
    channels may be binned into. ``pipelined``: a new sample starts every T*P ticks instead of after the last one
    has drained. ``stream_pieces``: segments, joined by graded relays, that residual streams are cut into; 0 cuts
    only where a stream does not fit otherwise. ``allow``: approximations of neurons that may be made (names of
    ``passes.plain_neurons.APPROXIMATIONS``, and "decay-groups"); whatever is not named is refused.
    ``weight_bits``: fewer than the target has, which is then taken as one that has so many
    (``target.with_weight_bits``); None: all of them.
    """

    input_encoding: Literal["host-current", "graded8"] = "host-current"
    input_range: tuple[float, float] = (0.0, 1.0)
    residual: Literal["auto", "stream", "duplicate"] = "auto"
    factors: Literal["auto", "fold", "relay"] = "auto"
    attn_order: Literal["auto", "kv", "qk"] = "auto"
    channel_bins: int = 4
    pipelined: bool = False
    stream_pieces: int = 0
    allow: tuple[str, ...] = ()
    weight_bits: int | None = None

    def as_json(self) -> dict[str, Any]:
        """As plain JSON; without approximations, a choice of factors or of weight bits there is no word of them."""
        silent = {"allow": (), "factors": "auto", "weight_bits": None}
        found = asdict(self) | {"allow": list(self.allow)}
        return {k: v for k, v in found.items() if k not in silent or getattr(self, k) != silent[k]}
