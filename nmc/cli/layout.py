"""What `nmc compile` and `nmc fit` ask alike of how a network is laid out."""

from __future__ import annotations

import argparse
from typing import Any

AS_GIVEN = ("input_encoding", "residual", "factors", "attn_order", "channel_bins", "stream_pieces")


def layout_of(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of ``nmc.compile``, and of ``CompileOptions``, by name."""
    found = {name: getattr(args, name) for name in AS_GIVEN}
    return found | {"input_range": tuple(args.input_range), "allow": tuple(args.allow)}
