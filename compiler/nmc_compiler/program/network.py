"""Build a Program soma by soma and synapse by synapse: recurrent networks, streams, networks of other tools.

Everything runs at one level: ticks are timesteps, and an event of timestep t reaches the other side at
t + 1, as in Lava. Populations and projections may come in any order and form any cycle.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nmc_compiler.errors import UsageError
from nmc_compiler.program.arguments import (
    STATE,
    bias_array,
    check_within,
    checked_name,
    checked_restart,
    conv_form,
    per_channel,
    per_soma,
    plastic_weights,
    shifted,
    stored_weights,
    weight_bytes,
)
from nmc_compiler.program.facts import target_facts
from nmc_compiler.program.model import (
    Cell,
    Conv,
    CoreSoma,
    Dendrite,
    Mapping,
    Population,
    Program,
    Shape,
    Sparse,
    Stdp,
    Traces,
    Transfer,
)
from nmc_compiler.program.rules import NUMBER_LIMIT
from nmc_compiler.program.synapses import (
    bounds,
    canonical_shape,
    check_rows,
    extra_delays,
    integers,
    narrow,
    rows_of,
    rows_where,
)
from nmc_compiler.program.validate import validate_program
from nmc_compiler.target import Target

VTH = 2**17  # threshold mantissa of a lif, 64 membrane units each
SIGMA_DELTA_BITS = 24  # payload of a sigma-delta event
TERNARY_BITS = 2  # -1, 0, 1


class Network:
    """A network under construction; methods return the index of the population they add.

    ``shape`` is (C, H, W), or n for n somas. ``vth``, ``bias`` and ``vth_low`` are one integer or one per
    channel, ``start_u`` and ``start_v`` one integer or one per soma. All numbers are those that Lava's
    bit-accurate models use. UsageError, with the name and the numbers, for whatever cannot be meant.

    >>> net = Network("loop")
    >>> a, b = net.input("in", 2), net.lif("out", 3, du=409, dv=205, vth=600, bias=-40)
    >>> net.dense("drive", a, b, np.array([[100, -58], [32, 0], [4, 4]]), exponent=2, delay=1)
    >>> net.dense("recur", b, b, np.eye(3, dtype=int))
    >>> program = net.program()
    >>> [(s.name, s.weight.tolist(), s.shift) for s in program.sparses]
    [('drive', [50, 16, 2, -29, 2], 3), ('recur', [1, 1, 1], 0)]
    >>> program.dendrites[0].ring
    2
    """

    def __init__(self, name: str, timesteps: int = 0, traces: Traces | None = None) -> None:
        """``timesteps`` of one sample's window; 0: a stream, one window without end.

        ``traces``: by which plastic projections learn (given a ``rule``).
        """
        if isinstance(timesteps, bool) or not isinstance(timesteps, int) or not 0 <= timesteps <= NUMBER_LIMIT:
            raise UsageError(f"timesteps {timesteps!r}: expected 0 (a stream) to {NUMBER_LIMIT}")
        self.name, self.timesteps, self.traces = name, timesteps, traces
        self._populations: list[Population] = []
        self._dendrites: list[Dendrite] = []
        self._convs: list[Conv] = []
        self._sparses: list[Sparse] = []
        self._transfers: list[Transfer] = []
        self._projections: set[str] = set()

    # --- populations ------------------------------------------------------------------------------------

    @property
    def populations(self) -> tuple[Population, ...]:
        """What was added so far."""
        return tuple(self._populations)

    def input(self, name: str, shape: int | Shape, *, payload_bits: int = 0, signed: bool = False) -> int:
        """Somas whose events come from the host; ``payload_bits`` 0: plain spikes."""
        where = self._new_population(name)
        check_within(f"{where}: payload_bits", payload_bits, 2 if signed else 0, 24)
        full = canonical_shape(where, shape)
        return self._add(
            Population(name, full, 0, "input", "input", -1, payload_bits=payload_bits, signed=bool(signed))
        )

    def lif(
        self,
        name: str,
        shape: int | Shape,
        *,
        du: int = 4095,
        dv: int = 4096,
        vth: Any,
        bias: Any = 0,
        vth_low: Any = None,
        restart: tuple[int, int] | None = None,
        start_u: Any = None,
        start_v: Any = None,
        core: CoreSoma | None = None,
    ) -> int:
        """Lava's LIF; TernaryLIF with ``vth_low``, LIFReset with ``restart`` (interval, offset).

        ``core``: linear leak, refractory time, soft reset and gain, which only the neurocore has.

        ``vth`` and ``vth_low`` are mantissas (shifted left by 6 to compare), ``bias`` is the effective one,
        ``bias_mant << bias_exp``.
        """
        where = self._new_population(name)
        full = canonical_shape(where, shape)
        check_within(f"{where}: du", du, 0, 4095)
        check_within(f"{where}: dv", dv, 0, 4096)
        ternary = vth_low is not None
        high = per_channel(f"{where}: vth", vth, full, -VTH, VTH - 1)
        low = per_channel(f"{where}: vth_low", vth_low, full, -VTH, VTH - 1) if ternary else None
        if low is not None and (low >= high).any():
            c = int(np.argmax(low >= high))
            raise UsageError(f"{where}: vth_low {low[c]} of channel {c} is not below its vth {high[c]}")
        return self._with_dendrite(
            name,
            full,
            model="lif",
            du=int(du),
            dv=int(dv),
            vth=high,
            vth_low=low,
            bias=bias_array(f"{where}: bias", bias, full, STATE),
            restart=checked_restart(where, restart),
            start_u=per_soma(f"{where}: start_u", start_u, full),
            start_v=per_soma(f"{where}: start_v", start_v, full),
            core=core,
            payload_bits=TERNARY_BITS if ternary else 0,
            signed=ternary,
        )

    def cell(
        self,
        name: str,
        shape: int | Shape,
        *,
        thresholds: Any,
        cell: Cell,
        du: int = 4095,
        dv: int = 4096,
        bias: Any = 0,
        start_u: Any = None,
        start_v: Any = None,
    ) -> int:
        """A soma that microcode carries out (``Cell``). ``thresholds`` [C or 1, D] in membrane units, ascending."""
        where = self._new_population(name)
        full = canonical_shape(where, shape)
        check_within(f"{where}: du", du, 0, 4095)
        check_within(f"{where}: dv", dv, 0, 4096)
        table = integers(f"{where}: thresholds", thresholds)
        if table.ndim != 2 or table.shape[0] not in (1, full[0]) or not table.shape[1]:
            raise UsageError(f"{where}: thresholds have shape {list(table.shape)}, expected [1 or {full[0]}, D]")
        signed, depth = cell.low is not None, table.shape[1]
        return self._with_dendrite(
            name,
            full,
            model="cell",
            du=int(du),
            dv=int(dv),
            thresholds=narrow(table, np.int32),
            cell=cell,
            bias=bias_array(f"{where}: bias", bias, full, STATE),
            start_u=per_soma(f"{where}: start_u", start_u, full),
            start_v=per_soma(f"{where}: start_v", start_v, full),
            payload_bits=depth.bit_length() + signed if depth > 1 or signed else 0,
            signed=signed,
        )

    def sigma_delta(
        self,
        name: str,
        shape: int | Shape,
        *,
        vth: Any,
        bias: Any = 0,
        relu: bool = False,
        cumulative: bool = False,
        spike_exp: int = 0,
        state_exp: int = 0,
    ) -> int:
        """Lava's SigmaDelta, with what its constructor does: vth and bias are shifted by the two exponents."""
        where = self._new_population(name)
        full = canonical_shape(where, shape)
        check_within(f"{where}: spike_exp", spike_exp, 0, 30)
        check_within(f"{where}: state_exp", state_exp, 0, 30)
        up = int(spike_exp + state_exp)
        top = (2**31 - 1) >> up
        return self._with_dendrite(
            name,
            full,
            model="sigma_delta",
            vth=per_channel(f"{where}: vth", vth, full, 0, top) << np.int32(up),
            bias=shifted(bias_array(f"{where}: bias", bias, full, top), up),
            relu=bool(relu),
            cumulative=bool(cumulative),
            out_shift=int(state_exp),
            payload_bits=SIGMA_DELTA_BITS,
            signed=True,
        )

    # --- projections ------------------------------------------------------------------------------------

    def sparse(
        self,
        name: str,
        src: int,
        dst: int,
        indptr: Any,
        target: Any,
        weight: Any,
        *,
        exponent: int = 0,
        delay: Any = 0,
        graded: bool | None = None,
        rule: Stdp | None = None,
    ) -> None:
        """Synapses of each source soma s: entries ``indptr[s]:indptr[s + 1]`` of ``target`` and ``weight``.

        Weights are those that Lava multiplies by (see `loihi_weights.prepare_weights`); sums are shifted left
        by ``exponent``, or right where it is negative, once per projection and delay. ``delay``: timesteps
        beyond the one of every projection, one number or one per synapse, 0..63. ``graded`` False: an event
        counts as 1, whatever its code (Lava's num_message_bits = 0). Arrays of the stored types (int64, int32,
        int8 or int16) are kept and not copied where nothing changes: leave them alone afterwards.

        ``rule`` makes the synapses plastic, on the neurocore alone: weights are then of 8 bits, ``exponent`` is not
        negative.
        """
        where = self._new_projection(name, src, dst)
        rows = integers(f"{where}: indptr", indptr)
        targets, weights = integers(f"{where}: target", target), integers(f"{where}: weight", weight)
        check_rows(where, rows, targets, weights, (self._size(src), self._size(dst)))
        stored = stored_weights(where, weights, exponent) if rule is None else plastic_weights(where, weights, exponent)
        extra = extra_delays(where, delay, targets.shape)
        graded = self._sends_codes(src) and graded is not False
        item = Sparse(
            name=name,
            src=src,
            dst=self._populations[dst].dendrite,
            delay=1,
            lag=1,
            indptr=narrow(rows, np.int64),
            target=narrow(targets, np.int32),
            weight=stored.values,
            shift=stored.shift,
            extra=extra,
            graded=graded,
            rule=rule,
        )
        if stored.rshift:
            self._add_shifted(item, dst, stored.rshift)
        else:
            self._add_sparse(item)
        self._projections.add(name)

    def dense(
        self,
        name: str,
        src: int,
        dst: int,
        matrix: Any,
        *,
        exponent: int = 0,
        delay: Any = 0,
        graded: bool | None = None,
        rule: Stdp | None = None,
    ) -> None:
        """A weight matrix [targets, sources], as in Lava; otherwise as `sparse`, ``delay`` a number or a matrix.

        Zeros are left out: they change no sum, and a row of a synapse memory need not hold them. The counters
        therefore count the synapses that are not zero. With a ``rule`` every pair has a synapse, which may grow.
        """
        where = self._new_projection(name, src, dst)
        weights = integers(f"{where}: matrix", matrix)
        expected = (self._size(dst), self._size(src))
        if weights.shape != expected:
            raise UsageError(f"{where}: matrix {list(weights.shape)}, expected [targets, sources] = {list(expected)}")
        indptr, target, source = rows_of(weights if rule is None else np.ones_like(weights))
        extra = extra_delays(where, delay, expected)
        self.sparse(
            name,
            src,
            dst,
            indptr,
            target,
            weights[target, source],
            exponent=exponent,
            delay=0 if extra is None else extra[target, source],
            graded=graded,
            rule=rule,
        )

    def conv(
        self,
        name: str,
        src: int,
        dst: int,
        weight: Any,
        *,
        stride: int | tuple[int, ...] = 1,
        pad: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        graded: bool | None = None,
        slices: int | None = None,
    ) -> None:
        """Cross-correlation, ``weight`` [kh, kw, C_in // groups, C_out]; one dimension is H = 1.

        In three dimensions: the source, (C, D*H, W), holds ``slices`` D of equal height one after the other, and so
        does the target; ``weight`` is [kd, kh, kw, C_in // groups, C_out]; stride, pad and dilation are a number
        for all axes, or one each for slices, rows and columns.

        Lava's Conv flips its kernel (give it flipped) and wraps its output to 24 bits, in two's complement;
        here sums are exact, so that the two differ where a sum leaves 24 bits. Weights are of 8 bits, or even
        of 9; others are the sum of two convolutions (``name`` and ``name.high``), of low and high bytes.
        """
        where = self._new_projection(name, src, dst)
        if graded is False and self._sends_codes(src):
            raise UsageError(
                f"{where}: a convolution multiplies by the codes that {self._populations[src].name!r} sends; "
                "write it as a sparse projection, which can count events as 1"
            )
        weights = integers(f"{where}: weight", weight)
        source, target = self._populations[src].shape, self._populations[dst].shape
        form = conv_form(where, weights.shape, (source, target), groups, slices, (stride, pad, dilation))
        for suffix, values, shift in weight_bytes(where, weights):
            self._convs.append(
                Conv(
                    name=name + suffix,
                    src=src,
                    dst=self._populations[dst].dendrite,
                    delay=1,
                    lag=1,
                    weight=values.reshape(-1, *values.shape[-3:]),
                    shift=shift,
                    **form,
                )
            )
        self._projections.add(name)

    # --- the result -------------------------------------------------------------------------------------

    def program(self, target: Target | None = None, mapping: Mapping | None = None) -> Program:
        """The Program, valid, with the facts of `target` and a mapping if they are given."""
        inputs = [p.shape for p in self._populations if p.model == "input"]
        program = Program(
            name=self.name,
            timesteps=self.timesteps,
            ticks_per_step=1,
            input_shape=inputs[0] if inputs else (1, 1, 1),
            input_time=True,
            populations=tuple(self._populations),
            dendrites=tuple(self._dendrites),
            convs=tuple(self._convs),
            maps=(),
            dynamics=(),
            transfers=tuple(self._transfers),
            host_currents=(),
            host_codes=(),
            mapping=mapping,
            target={} if target is None else target_facts(target),
            interval=self.timesteps,
            sparses=tuple(self._sparses),
            traces=self.traces,
        )
        validate_program(program)
        return program

    # --- parts ------------------------------------------------------------------------------------------

    def _new_population(self, name: str) -> str:
        where = checked_name(f"network {self.name!r}", "population", name)
        if name in {p.name for p in self._populations} | {d.name for d in self._dendrites}:
            raise UsageError(f"{where}: there is one of that name already; give each its own")
        return where

    def _new_projection(self, name: str, src: int, dst: int) -> str:
        where = checked_name(f"network {self.name!r}", "projection", name)
        if name in self._projections:
            raise UsageError(f"{where}: there is one of that name already; give each its own")
        for end, index in (("src", src), ("dst", dst)):
            if not isinstance(index, (int, np.integer)) or not 0 <= index < len(self._populations):
                raise UsageError(f"{where}: {end} {index!r}, but there are {len(self._populations)} populations")
        if self._populations[dst].dendrite < 0:
            raise UsageError(f"{where}: dst {self._populations[dst].name!r} is an input; project to other populations")
        return where

    def _add(self, population: Population) -> int:
        self._populations.append(population)
        return len(self._populations) - 1

    def _with_dendrite(self, name: str, shape: Shape, **parameters: Any) -> int:
        cluster = sum(p.dendrite >= 0 for p in self._populations)
        self._dendrites.append(Dendrite(name, shape, cluster))
        index = len(self._dendrites) - 1
        return self._add(Population(name=name, shape=shape, level=0, role="neuron", dendrite=index, **parameters))

    def _size(self, population: int) -> int:
        return math.prod(self._populations[population].shape)

    def _sends_codes(self, population: int) -> bool:
        return self._populations[population].payload_bits > 0

    def _add_sparse(self, item: Sparse) -> None:
        """Append a projection and let its dendrite hold as many timesteps as its delays ask for."""
        self._sparses.append(item)
        ring = 1 if item.extra is None else bounds(item.extra)[1] + 1
        dendrite = self._dendrites[item.dst]
        if ring > dendrite.ring:
            self._dendrites[item.dst] = Dendrite(dendrite.name, dendrite.shape, dendrite.cluster, ring)

    def _add_shifted(self, item: Sparse, dst: int, rshift: int) -> None:
        """Sums of each delay on accumulators of their own, shifted right into those of the soma."""
        home = self._dendrites[self._populations[dst].dendrite]
        for delay in [0] if item.extra is None else np.unique(item.extra).tolist():
            name = item.name if item.extra is None else f"{item.name}.{delay}"
            self._new_population(f"{name}.sum")
            self._dendrites.append(Dendrite(f"{name}.sum", home.shape, home.cluster))
            index = len(self._dendrites) - 1
            self._add_sparse(_of_delay(item, delay, name, index))
            self._transfers.append(Transfer(f"{name}.shift", index, item.dst, 0, "maxpool", rshift=rshift))


def _of_delay(item: Sparse, delay: int, name: str, dst: int) -> Sparse:
    """The synapses of one delay, as a projection of their own into dendrite `dst`."""
    indptr, target, weight, extra = item.indptr, item.target, item.weight, item.extra
    if extra is not None:
        chosen = extra == delay
        indptr, target, weight = rows_where(indptr, chosen), target[chosen], weight[chosen]
        extra = extra[chosen] if delay else None
    return Sparse(
        name, item.src, dst, item.delay, indptr, target, weight, item.shift, extra, item.graded, item.lag
    )  # fmt: skip
