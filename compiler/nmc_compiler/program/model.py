"""The Program: what a chip (or an emulator of one) needs to run a network, and nothing else.

A Program has two halves. The *netlist* says what is computed: populations of somas,
the dendrites they read, and the projections that add into dendrites. The *mapping*
says where: tiles of dendrites on cores and the axons between them. Function depends
on the netlist alone; a correct mapping carries it out, and the tick engine proves so
by running from the mapping's own tables.

Coordinates. Every population and dendrite has the canonical shape (C, H, W); a token
tensor of N tokens is (C, N, 1) or (C, H, W) with N = H*W; a vector is (C, 1, 1); a volume
(C, D, H, W) is (C, D*H, W), slice after slice, so that (d, h) is row d*H + h.

Time. A population of level L lives timestep t (counted over all samples' windows) at
tick ``t*P + L``. An event emitted there arrives ``delay`` ticks later. In terms of
levels it arrives at level ``A = L + delay - lag*P`` for timestep ``t + lag``.
Within a tick a core first takes in arriving events (phase 1), then runs transfers
(phase 2), then updates somas in any order (phase 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np

Shape = tuple[int, int, int]

SCHEMA = "nmc.program/2"
MODULAR, SATURATING = 1, 2  # of a current u beyond 24 bits: two's complement, or the nearest in range
RULES = MappingProxyType({"loihi1": MODULAR, "neurocore": SATURATING})  # by integer profile
LEFT_OUT = MappingProxyType({"left out": True})  # of a file where it is None


@dataclass(frozen=True)
class Box:
    """Half-open box of a (C, H, W) array."""

    c0: int
    c1: int
    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> Shape:
        return (self.c1 - self.c0, self.y1 - self.y0, self.x1 - self.x0)

    @property
    def size(self) -> int:
        c, h, w = self.shape
        return max(c, 0) * max(h, 0) * max(w, 0)

    def as_tuple(self) -> tuple[int, int, int, int, int, int]:
        return (self.c0, self.c1, self.y0, self.y1, self.x0, self.x1)


def whole(shape: Shape) -> Box:
    """The box of a full array."""
    return Box(0, shape[0], 0, shape[1], 0, shape[2])


@dataclass(frozen=True)
class Record:
    """How the authors lay a population out: ``canonical.transpose(perm).reshape(shape)``."""

    perm: tuple[int, int, int]
    shape: tuple[int, ...]


Role = Literal["neuron", "or", "and", "pool", "relay", "input", "readout"]
Model = Literal["lif", "levels", "cell", "relay", "sigma_delta", "input", "readout"]
CELL_ONE = 4096  # of a cell's gain


@dataclass(frozen=True)
class CoreSoma:
    """What a lif soma of the neurocore may have besides (docs/neurocore.md); other engines refuse it.

    u = sat(D(u, du + 1) + (a * gain << 6));  after decay, input and bias v moves by ``leak`` membrane units towards 0;
    after a spike v stays for ``refractory`` timesteps without spiking, and is v - (vth << 6) with ``soft``, else 0.
    """

    leak: int = 0  # 20 bits
    refractory: int = 0  # 6 bits
    soft: bool = False
    gain: int = 1  # 8 bits


@dataclass(frozen=True)
class Cell:
    """What somas of the model cell have besides (``Population``, and docs/integers.md). Arrays are int32.

    Tables by timestep have T rows; None: the same at every timestep.
    """

    soft: bool = False  # a code subtracts ``step``; else it resets v to 0
    late: bool = False  # in the update after it; else at once
    step: np.ndarray | None = None  # [C] membrane units, with ``soft``; None: nothing is reset
    low: np.ndarray | None = None  # [C]: below it the soma sends -1
    floor: np.ndarray | None = None  # [C]: v is never kept below it
    sums: tuple[int, int] | None = None  # least and largest sum of what was sent in a window
    db: int = 0  # 12-bit decay of b, what thresholds are raised by
    jump: np.ndarray | None = None  # [C]: what a code adds to b; None: b is 0
    gain: np.ndarray | None = None  # [T, C or 1] of the dendrite's value; CELL_ONE is one
    bias: np.ndarray | None = None  # [T, C], in place of the population's
    rise: np.ndarray | None = None  # [T, C or 1], added to thresholds and to ``step``


@dataclass(frozen=True)
class Stdp:
    """Pair STDP of a plastic projection (docs/neurocore.md, learning); only the engine ``neurocore`` learns.

    Where an event arrives: w = max(w - dw(post, am, sm), wmin); where the target spikes: w = min(w + dw(pre, ap, sp),
    wmax), each if dw > 0; dw(x, A, s) = (A * x) >> s, with ``rect`` A where x > 0.
    """

    ap: int
    am: int
    sp: int = 0
    sm: int = 0
    rect: bool = False
    wmin: int = -128
    wmax: int = 127


@dataclass(frozen=True)
class Traces:
    """Traces of arrived events and of spikes, of 8 bits each.

    x -= max(x >> k, 1) in every step while x > 0, then for an event x = min(x + inc, 255) with ``add``, else x = inc.
    """

    k_pre: int = 3
    k_post: int = 3
    inc_pre: int = 127
    inc_post: int = 127
    add_pre: bool = False
    add_post: bool = False


@dataclass(frozen=True)
class Population:
    """Somas of one model; they read one dendrite of the same shape, position by position.

    With a the dendrite's value of this timestep (integer, synaptic units), c the channel:

    ``lif``      u = wrap24(D(u, du + 1) + (a << 6));  v = clip24(D(v, dv) + u + bias[c]);
                 s = v > (vth[c] << 6), with ``vth_low`` s = (v > (vth[c] << 6)) - (v < (vth_low[c] << 6));
                 v = 0 where s != 0.  D(x, d) = sgn(x) * ((|x| * (4096 - d)) >> 12).
                 wrap24(u): u - 2^24 if u > 2^23; u + 2^24 if u <= -2^23; applied once.
                 Under the integer profile loihi1: ((u + 2^23) mod 2^24) - 2^23, from any distance;
                 under neurocore u saturates like v.
                 clip24: to [-2^23 + 1, 2^23 - 1].  (Lava 0.10 LIF and TernaryLIF; du = 4095 forgets u.)
                 With ``restart`` (interval, offset), u = v = 0 before the update of the t-th timestep of
                 the window, counted from 1, where t % interval = offset % interval (LIFReset).
    ``levels``   u as above; v = clip24(u + bias[c]); code = #{n : v >= thresholds[c or 0, n]},
                 thresholds ascending; stateless.
    ``cell``     u = wrap24(D(u, du + 1) + (a * gain[t, c] >> 6));  b = clip24(D(b, db) + s * jump[c]);
                 r = b + rise[t, c];  h = D(v, dv) + u + bias[c];  with ``late``: h - s * (step[c] + r) where
                 ``soft``, else 0 where s != 0;  v = clip24(h);
                 code = #{n : v >= thresholds[c or 0, n] + r} - (v < low[c]), kept so far in that the sum of
                 what was sent stays in ``sums``;  s = code, 0 in the first timestep of a window;
                 without ``late``: v = clip24(v - code * (step[c] + r)) where ``soft``, else 0 where code != 0;
                 v = max(v, floor[c]).  (nmc's own, as microcode can do it; the fields of ``Cell``.)
    ``relay``    code = a itself as a signed graded spike of 24 bits, no event where 0.
    ``sigma_delta``  sigma += a;  act' = sigma + bias[c], no less than 0 with ``relu``;
                 delta = act' - act + residue;  error += delta;
                 fire = |delta| >= vth[c], with ``cumulative`` |error| >= vth[c];
                 s = delta where fire, else 0;  residue = delta - s;  act = act';  error = 0 where fire;
                 code = s >> out_shift.  int32 without saturation (Lava 0.10 SigmaDelta; vth and bias
                 are given as it stores them, shifted left by spike_exp + state_exp; out_shift is state_exp).
    ``input``    no dendrite: codes come from the host, as HostCodes says or else as events.
    ``readout``  u as above; v = clip24(v + u + bias[c]); never fires; the host reads v after the
                 last timestep: logit = v * readout_scale; where it has ``sites``, of which there are n,
                 (v / n + offset[c]) * readout_scale: a mean over sites.
    All state is 0 at the first timestep of every sample's window, or u and v of a lif or cell what ``start_u`` and
    ``start_v`` say; bias acts inside windows only.
    """

    name: str
    shape: Shape
    level: int
    model: Model
    role: Role
    dendrite: int  # index into Program.dendrites, -1 for model "input"
    dv: int = 4096  # 12-bit decay; 4096 forgets everything between timesteps
    vth: np.ndarray | None = None  # int32 [C] (lif)
    bias: np.ndarray | None = None  # int32 [C], membrane units (64 per synaptic unit)
    thresholds: np.ndarray | None = None  # int32 [C or 1, D] (levels, cell), membrane units
    payload_bits: int = 0  # 0: plain spike (0/1); else bits of the graded code
    signed: bool = False
    readout_scale: float = 1.0
    record: Record | None = None
    du: int = 4095  # 12-bit decay of u (lif, cell); 4095 forgets everything between timesteps
    vth_low: np.ndarray | None = None  # int32 [C] (lif): below it the soma sends -1 (ternary)
    restart: tuple[int, int] | None = None  # (interval, offset) in timesteps (lif)
    start_u: np.ndarray | None = None  # int32 [C, H, W] (lif, cell)
    start_v: np.ndarray | None = None  # int32 [C, H, W] (lif, cell)
    relu: bool = False  # sigma_delta
    cumulative: bool = False  # sigma_delta
    out_shift: int = 0  # sigma_delta
    core: CoreSoma | None = field(default=None, metadata=LEFT_OUT)  # lif
    sites: int | None = field(default=None, metadata=LEFT_OUT)  # index into Program.sites; no event from empty slots
    offset: np.ndarray | None = field(default=None, metadata=LEFT_OUT)  # int64 [C] (readout of a mean over sites)
    cell: Cell | None = field(default=None, metadata=LEFT_OUT)  # cell


@dataclass(frozen=True)
class Dendrite:
    """Integer accumulators, one per position; zeroed for each new timestep.

    ``ring`` is the number of timesteps alive at once: 1 for an ordinary dendrite, more for a
    residual stream that several somas read at different levels, or under synapses with ``extra`` delays.
    """

    name: str
    shape: Shape
    cluster: int  # dendrites of one cluster share their cores
    ring: int = 1


@dataclass(frozen=True)
class Depth:
    """The third axis of a Conv between volumes: slices of source and output grid, and the window along it."""

    source: int
    target: int
    kernel: int
    stride: int = 1
    pad: int = 0
    dilation: int = 1


@dataclass(frozen=True)
class Sites:
    """Active sites of a volume, one per slot: a population on them has the shape (C, slots, 1) (docs/sparse.md).

    ``parent`` -1: sites of the input, else those that a convolution of ``kernel``, ``stride`` and ``pad`` makes of
    the sites ``parent``: site o wherever o * stride - pad + k is one of them for some tap k, numbered as they are
    found, slot by slot and tap by tap (C order).
    ``table`` [slots, 3]: the sites of a fixed cloud. Without it the first three channels of each sample's input are
    the coordinates of its sites, -1 in slots that have none, and sites are made as the cores hear of their parents.
    """

    name: str
    slots: int
    extent: tuple[int, int, int]  # coordinates are 0..extent - 1
    parent: int = -1
    kernel: tuple[int, int, int] = (1, 1, 1)
    stride: tuple[int, int, int] = (1, 1, 1)
    pad: tuple[int, int, int] = (0, 0, 0)
    table: np.ndarray | None = field(default=None, metadata=LEFT_OUT)  # int32


@dataclass(frozen=True)
class SiteWindow:
    """What a Conv between sites reads: fine = coarse * stride - pad + tap for every pair of sites that meet.

    ``source`` and ``target`` are indices into Program.sites; the source is the fine one, or the coarse one where
    ``inverse``. Equal sites, stride 1 and pad kernel // 2 make a submanifold convolution.
    """

    source: int
    target: int
    kernel: tuple[int, int, int]
    stride: tuple[int, int, int] = (1, 1, 1)
    pad: tuple[int, int, int] = (0, 0, 0)
    inverse: bool = False


@dataclass(frozen=True)
class Conv:
    """Conv-addressed projection: cross-correlation as in PyTorch, weights shared by position.

    a[o, y, x] += (sum over taps of w * code) << shift, with zero padding.
    ``weight`` int8 [kh, kw, C_in // groups, C_out]  (a row of output channels is contiguous);
    for output channel o of group g = o // (C_out // groups), input channel g*(C_in//groups) + i.
    ``collapse``: the target position is (0, 0) whatever the output position (sum over positions;
    the dendrite is (C_out, 1, 1) while ``out_hw`` is the size of the uncollapsed grid).
    ``depth``: source and output grid are volumes of so many slices each, row d*H + h is row h of slice d,
    and ``weight`` is [kd*kh, kw, ...], row kz*kh + ky that of tap (kz, ky). Stride, pad and dilation
    of rows hold within a slice: a tap counts where both its slice and its row of that slice exist.
    ``sites``: both ends are slots of active sites; ``weight`` is [taps, 1, C_in, C_out], taps of the three axes in
    C order, ``out_hw`` (slots of the target, 1), and the window along the sites is that of ``sites`` alone.
    """

    name: str
    src: int
    dst: int
    delay: int
    weight: np.ndarray
    shift: int
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    collapse: bool = False
    out_hw: tuple[int, int] = (1, 1)
    lag: int = 0
    weight_key: str = ""  # projections with equal keys share one synapse memory block on a core
    depth: Depth | None = field(default=None, metadata=LEFT_OUT)
    sites: SiteWindow | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class Sparse:
    """Synapses one by one: a[target] += (weight * code) << shift, for the timestep ``extra`` later still.

    Row s, entries ``indptr[s]:indptr[s + 1]``, holds the synapses of source soma s; somas and
    accumulators are counted in C order over (C, H, W). A pair may have several synapses. An event
    is read, and its synapses done, in the tick it arrives in, whatever ``extra`` says; what they
    add for a timestep beyond the sample's window is dropped.
    ``graded`` False: every event counts as 1, whatever its code (Lava's num_message_bits = 0).
    With a ``rule`` the weights, int8, are those before learning; then no pair has two synapses.
    """

    name: str
    src: int
    dst: int
    delay: int
    indptr: np.ndarray  # int64 [somas of src + 1]
    target: np.ndarray  # int32 [synapses]
    weight: np.ndarray  # int8 or int16 [synapses]
    shift: int = 0
    extra: np.ndarray | None = None  # uint8 [synapses], 0..63 timesteps
    graded: bool = True
    lag: int = 0
    rule: Stdp | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class Map:
    """Constant-weight channel-wise projection (gates, OR-pools, relays): a += code << shift.

    ``mode``: "same" (c,y,x)->(c,y,x); "reduce" (c,y,x)->(c,0,0); "broadcast" (c,0,0)->(c,all);
    "window": sum pool with ``kernel``, ``stride``, ``pad`` (every window that contains the source);
    "reduce_channels" (c,y,x)->(c // (C / G),y,x) onto the G channels of the dendrite;
    "broadcast_channels" (g,y,x)->(the C / G channels of the dendrite in block g,y,x).
    """

    name: str
    src: int
    dst: int
    delay: int
    shift: int
    mode: Literal["same", "reduce", "broadcast", "window", "reduce_channels", "broadcast_channels"] = "same"
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    lag: int = 0


@dataclass(frozen=True)
class Lasting:
    """A table that lives for its sample: before the writes of a timestep every entry becomes (keep * entry) >> 12.

    It is 0 before the first timestep of a window, and of every ``block``-th one. An event pair adds its product
    << ``frac``.
    """

    keep: np.ndarray  # int32 [heads], 0 to 4096
    frac: int = 0
    block: int = 0  # timesteps; 0: the whole window


@dataclass(frozen=True)
class Dynamic:
    """Dynamic synapse (attention): per head a table written by k and v events and read by q events.

    q, k have ``heads*d`` channels, v and the dendrite ``heads*dv``; N = H*W tokens each.
    order "kv":  M[i, j] += k[i, n] * v[j, n] over tokens n (written at arrival level A-1),
                 a[j, n] += (sum_i q[i, n] * M[i, j]) << shift (read at arrival level A).
    order "qk":  M[m, n] += k[i, m] * q[i, n] over channels i (written at A-1),
                 a[j, n] += (sum_m v[j, m] * M[m, n]) << shift (read at A).
    The sum before the shift is saturated at ``saturate`` (codes are >= 0, sums only grow, so
    saturating above the last threshold changes no spike).
    Delays: the two written populations arrive at level A-1, the reading one at level A.
    A table is 0 before its writes, or with ``lasting`` (order "kv") what is left of that of the timestep before.
    """

    name: str
    q: int
    k: int
    v: int
    dst: int
    delay_q: int
    delay_k: int
    delay_v: int
    heads: int
    shift: int
    saturate: int
    order: Literal["kv", "qk"] = "kv"
    lasting: Lasting | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class Transfer:
    """In-core move between dendrites of one cluster, before the somas of level ``level`` update.

    "maxpool": dst[c,y,x] += max of src over the window (padding never wins: out-of-range
    positions are left out); "sum": dst[c,0,0] += sum of src over all positions.
    The value moved is shifted right by ``rshift`` first (arithmetic, floor): a 1x1 "maxpool" with an
    rshift is a projection with a negative weight exponent, applied after summation as Lava does.
    """

    name: str
    src: int
    dst: int
    level: int
    mode: Literal["maxpool", "sum"]
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    rshift: int = 0


@dataclass(frozen=True)
class HostCurrent:
    """First layer on the host, in fixed point, added to a dendrite every timestep.

    x_int = rint(x * 2^frac) (half to even, float64), y = (conv(x_int, weight) + bias + (1 << (shift-1))) >> shift
    (arithmetic shift; no rounding term when shift = 0).  weight int32 [O, I/groups, kh, kw], bias int64 [O].
    |x_int| must stay below 2^31; the result must fit the 24-bit payload.
    """

    name: str
    dst: int
    level: int
    weight: np.ndarray
    bias: np.ndarray
    frac: int
    shift: int
    in_shape: Shape
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    sites: SiteWindow | None = field(default=None, metadata=LEFT_OUT)  # weight [O, features, taps, 1]


@dataclass(frozen=True)
class HostCodes:
    """Graded input: code = rint(x * scale) (half to even), must lie in [lo, hi], emitted every timestep."""

    population: int
    scale: float
    lo: int
    hi: int


@dataclass(frozen=True)
class Mapping:
    """Where everything is. All tables are int32, one row per item.

    tiles      [n, 8]  cluster, core, box of the cluster's base dendrite
    pieces     [n, 8]  tile, dendrite, box of that dendrite held by the tile.  Dendrites read by
                       somas are covered exactly once; dendrites read by a maxpool transfer may
                       overlap (halo: the accumulators are held twice).
    axons      [n, 11] src_tile, kind, projection, role, dst_tile, box of source coordinates.
                       kind 0 Conv, 1 Map, 2 Dynamic (role 0 q, 1 k, 2 v), 3 Sparse.  src_tile is the tile
                       that holds the source soma; a population of model "input" has src_tile -1.
                       An event inside the box reaches the destination tile, through a Sparse only if its
                       soma has a synapse there.
    cores      [n, 4]  chip, router x and y on that chip, index at the router.  Chips stand side by side
                       along x and make one mesh.
    """

    tiles: np.ndarray
    pieces: np.ndarray
    axons: np.ndarray
    cores: np.ndarray
    chips: int = 1


@dataclass(frozen=True)
class Program:
    """A compiled network. ``ticks_per_step`` is P; ``depth`` the level of the last population.

    ``timesteps`` 0: a stream, one window without end.
    """

    name: str
    timesteps: int
    ticks_per_step: int
    input_shape: Shape
    input_time: bool  # images carry a time axis [N, T, C, H, W]
    populations: tuple[Population, ...]
    dendrites: tuple[Dendrite, ...]
    convs: tuple[Conv, ...]
    maps: tuple[Map, ...]
    dynamics: tuple[Dynamic, ...]
    transfers: tuple[Transfer, ...]
    host_currents: tuple[HostCurrent, ...]
    host_codes: tuple[HostCodes, ...]
    mapping: Mapping | None
    target: dict  # name, digest, integer profile, and the limits this Program was checked against
    interval: int  # ticks between sample starts: T*P + depth, or T*P when pipelined
    record_time: bool = True  # recorded spikes carry a time axis
    logits: Literal["mean"] = "mean"
    meta: dict = field(default_factory=dict)  # provenance: options, input digests, tool version
    sparses: tuple[Sparse, ...] = ()
    traces: Traces | None = field(default=None, metadata=LEFT_OUT)  # of all plastic projections
    sites: tuple[Sites, ...] | None = field(default=None, metadata=LEFT_OUT)  # parents before what is made of them

    @property
    def depth(self) -> int:
        return max(p.level for p in self.populations)

    @property
    def current_rule(self) -> int | None:
        """What becomes of u beyond 24 bits: None wraps as Lava does, the integer profile loihi2 and no target."""
        profile = self.target.get("profile")
        return RULES.get(profile) if isinstance(profile, str) else None

    @property
    def modular(self) -> bool:
        """Whether u wraps in two's complement: the integer profile loihi1."""
        return self.current_rule == MODULAR

    def arrival(self, src: int, delay: int, lag: int = 0) -> int:
        """Level at which events of population ``src`` arrive."""
        return self.populations[src].level + delay - lag * self.ticks_per_step
