"""A chip as it is with fewer weight bits than it has."""

from __future__ import annotations

from nmc_compiler.errors import UsageError
from nmc_compiler.target.spec import Target

LEAST = 2  # bits, the sign among them


def with_weight_bits(target: Target, bits: int) -> Target:
    """The target with weights of ``bits`` bits, as whoever quantises, maps or reports is to see it.

    Synapse memory shrinks where its size is written in weight bits (rows of convolutions, unless the target says what
    a synapse of theirs takes); what is given as a whole, index included, stays. UsageError for bits that it does not
    have.
    """
    own = target.core.weight_bits
    if not LEAST <= bits <= own.value:
        raise UsageError(
            f"--weight-bits {bits}: target '{target.name}' has weights of {own.value} bits; choose {LEAST} to "
            f"{own.value}"
        )
    if bits == own.value:
        return target
    source = f"--weight-bits {bits}, of the {own.value} that the target has ({own.source})"
    narrow = own.model_copy(update={"value": bits, "source": source, "note": None})
    return target.model_copy(update={"core": target.core.model_copy(update={"weight_bits": narrow})})
