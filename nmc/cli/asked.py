"""What several commands ask alike: of a model, and of how a network is laid out."""

from __future__ import annotations

import argparse
from typing import Any

OF_MODEL = (
    *("config", "family", "state", "timesteps", "dt", "nir_rule", "nir_reset", "nir_input"),
    *("weights", "input_shape", "time_axis", "input_kind"),
)
AS_GIVEN = ("input_encoding", "residual", "factors", "attn_order", "channel_bins", "stream_pieces")


def model_of(args: argparse.Namespace) -> dict[str, Any]:
    """What a model file cannot say, by the names of ``nmc.compile`` and ``ModelOptions``; None: not given."""
    return {name: getattr(args, name) for name in OF_MODEL}


def layout_of(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of ``nmc.compile``, and of ``CompileOptions``, by name."""
    found = {name: getattr(args, name) for name in AS_GIVEN}
    return found | {"input_range": tuple(args.input_range), "allow": tuple(args.allow)}
