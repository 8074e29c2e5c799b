"""Every structural rule of a Program, broken once: the error names the field and the numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mapping_nets import Net, sdt_v1, sdt_v3, spikformer

from nmc_compiler.errors import VerifyError
from nmc_compiler.mapping import map_program
from nmc_compiler.program import validate_program
from nmc_compiler.program.model import HostCodes, Population, Program, Record
from nmc_compiler.program.network import Network
from nmc_compiler.target import load_target

V1 = map_program(sdt_v1(16, 16, 1, 2), load_target("loihi2"))[0]
SSA = spikformer(16, 16, 1, 2)
V3 = sdt_v3((4, 8, 8, 8), 32, 3, 2)


def graded() -> Program:
    net = Net((1, 4, 4))
    net.populations.append(Population("image", (1, 4, 4), 0, "input", "input", -1, payload_bits=8))
    net.host_codes.append(HostCodes(0, 255.0, 0, 255))
    net.readout(net.layer(0, 3, 4), 2)
    return net.build()


GRADED = graded()


def general() -> Program:
    """A mapped stream: an input, a ternary lif (1), a sigma-delta (2), a plain lif (3); delays and a shift right."""
    net = Network("general")
    net.input("in", 3, payload_bits=4)
    net.lif("ternary", 4, vth=9, vth_low=-9, restart=(3, 1), start_v=5)
    net.sigma_delta("delta", 4, vth=3, bias=2, state_exp=1)
    net.lif("plain", 4, vth=1, du=17)
    net.dense("drive", 0, 1, np.arange(12).reshape(4, 3), delay=np.arange(12).reshape(4, 3), graded=True)
    net.dense("recur", 1, 1, np.eye(4, dtype=int) * 300)
    net.dense("on", 1, 2, np.arange(16).reshape(4, 4), exponent=-3)
    net.dense("back", 2, 3, np.eye(4, dtype=int), graded=True)
    return map_program(net.program(), load_target("loihi2"))[0]


NET = general()
DRIVE = NET.sparses[0]


def change(program: Program, kind: str, index: int, **values) -> Program:
    items = list(getattr(program, kind))
    items[index] = replace(items[index], **values)
    return replace(program, **{kind: tuple(items)})


def tables(**values) -> Program:
    return replace(V1, mapping=replace(V1.mapping, **values))


def cell(name: str, row: int, column: int, value: int) -> Program:
    table = getattr(V1.mapping, name).copy()
    table[row, column] = value
    return tables(**{name: table})


# 2^24 synapses of a projection, whose arrays take no memory: a file may name one array many times
HUGE = {
    "indptr": np.array([0, 2**24, 2**24, 2**24]),
    "target": np.broadcast_to(np.int32(1), 2**24),
    "weight": np.broadcast_to(np.int8(1), 2**24),
    "extra": None,
}
POOL = next(i for i, t in enumerate(V1.transfers) if t.mode == "maxpool")
STREAM = next(i for i, d in enumerate(V1.dendrites) if d.ring > 1)
CONV = V1.convs[0]
WINDOW = next(i for i, m in enumerate(V1.maps) if m.mode == "window")
REDUCE = next(i for i, m in enumerate(V1.maps) if m.mode == "reduce")
SAME = next(i for i, m in enumerate(V1.maps) if m.mode == "same")
ONE = {"kernel": (1, 1), "stride": (1, 1), "pad": (0, 0)}
KEYED = [i for i, c in enumerate(SSA.convs) if c.weight_key == SSA.convs[-1].weight_key]

CASES = {
    "name": (replace(V1, name="a\nb"), "name: 'a\\nb' is not a printable name"),
    "timesteps": (replace(V1, timesteps=0), "timesteps: 0, a stream, but the host encodes images"),
    "interval": (replace(V1, interval=3), "interval: 3 is outside 4.."),
    "no readout": (replace(V1, populations=V1.populations[:-1]), "none has the model 'readout'"),
    "no populations": (replace(NET, populations=(), mapping=None), "populations: there are none"),
    "interval of a stream": (replace(NET, interval=1), "interval: 1, expected 0: a stream (timesteps 0) has no second"),
    "stream with a readout": (
        change(NET, "populations", 3, model="readout", role="readout", vth=None, du=4095),
        "populations/3/model: 'plain' is read after the last timestep, but a stream has none",
    ),
    "timesteps -1": (replace(NET, timesteps=-1), "timesteps: -1 is outside 0..1048576"),
    "du range": (change(NET, "populations", 1, du=4096), "populations/1/du: 4096 is outside 0..4095"),
    "du of another": (change(NET, "populations", 2, du=3), "populations/2/du: given, but model 'sigma_delta' has none"),
    "vth_low": (
        change(NET, "populations", 1, vth_low=np.array([-9, 9, -9, -9], np.int32)),
        "populations/1/vth_low: 9 of channel 1 is not below its vth 9",
    ),
    "vth_low dtype": (
        change(NET, "populations", 1, vth_low=np.full(4, -9, np.int64)),
        "populations/1/vth_low: dtype int64, expected int32",
    ),
    "vth_low range": (
        change(NET, "populations", 1, vth_low=np.full(4, -(2**17) - 1, np.int32)),
        "populations/1/vth_low: values -131073..-131073 leave",
    ),
    "vth_low of another": (
        change(NET, "populations", 2, vth_low=np.full(4, -9, np.int32)),
        "populations/2/vth_low: given, but model 'sigma_delta' has none",
    ),
    "ternary payload": (
        change(NET, "populations", 1, payload_bits=0),
        "populations/1/payload_bits: 0, signed True: a ternary lif sends signed codes",
    ),
    "ternary unsigned": (change(NET, "populations", 1, signed=False), "signed False: a ternary lif sends signed codes"),
    "signed lif": (change(NET, "populations", 3, signed=True), "populations/3/signed: true, but codes of model 'lif'"),
    "restart": (change(NET, "populations", 1, restart=(0, 1)), "populations/1/restart: 0 is outside 1.."),
    "restart offset": (change(NET, "populations", 1, restart=(1, -1)), "populations/1/restart: -1 is outside 0.."),
    "start shape": (
        change(NET, "populations", 1, start_u=np.zeros(4, np.int32)),
        "populations/1/start_u: shape [4], expected [4, 1, 1]",
    ),
    "start range": (
        change(NET, "populations", 1, start_v=np.full((4, 1, 1), 2**23, np.int32)),
        "populations/1/start_v: values 8388608..8388608 leave -8388607..8388607",
    ),
    "delta vth": (
        change(NET, "populations", 2, vth=np.full(4, -1, np.int32)),
        "populations/2/vth: values -1..-1 leave 0..2147483647",
    ),
    "delta missing": (change(NET, "populations", 2, vth=None), "populations/2/vth: missing, but model 'sigma_delta'"),
    "delta unsigned": (change(NET, "populations", 2, signed=False), "signed False: a sigma_delta sends signed codes"),
    "delta payload": (change(NET, "populations", 2, payload_bits=1), "1, signed True: a sigma_delta sends signed"),
    "delta shift": (change(NET, "populations", 2, out_shift=32), "populations/2/out_shift: 32 is outside 0..31"),
    "relu of another": (
        change(NET, "populations", 3, relu=True),
        "populations/3/relu: given, but model 'lif' has none",
    ),
    "cumulative": (change(NET, "populations", 3, cumulative=True), "populations/3/cumulative: given, but model 'lif'"),
    "out_shift": (change(NET, "populations", 3, out_shift=1), "populations/3/out_shift: given, but model 'lif'"),
    "sparse src": (change(NET, "sparses", 0, src=9), "sparses/0/src: population 9, but there are 4"),
    "sparse dst": (change(NET, "sparses", 0, dst=-1), "sparses/0/dst: dendrite -1, but there are"),
    "sparse shift": (change(NET, "sparses", 0, shift=25), "sparses/0/shift: 25 is outside 0..24"),
    "sparse lag": (change(NET, "sparses", 0, lag=-1), "sparses/0/lag: -1 is outside 0.."),
    "sparse late": (change(NET, "sparses", 1, lag=0), "sparses/1: arrives at level 1, but 'ternary' is last read at 0"),
    "indptr dtype": (
        change(NET, "sparses", 0, indptr=DRIVE.indptr.astype(np.int32)),
        "sparses/0/indptr: dtype int32, expected int64",
    ),
    "indptr shape": (change(NET, "sparses", 0, indptr=DRIVE.indptr[:-1]), "sparses/0/indptr: shape [3], expected [4]"),
    "indptr falls": (
        change(NET, "sparses", 0, indptr=np.array([0, 8, 4, 11])),
        "sparses/0/indptr: does not rise from 0",
    ),
    "indptr from 1": (change(NET, "sparses", 0, indptr=np.array([1, 3, 7, 11])), "indptr: does not rise from 0"),
    "indptr end": (
        change(NET, "sparses", 0, indptr=np.array([0, 3, 7, 10])),
        "sparses/0/target: shape [11], expected [10]",
    ),
    "indptr negative": (change(NET, "sparses", 0, indptr=np.array([0, 0, 0, -1])), "indptr: does not rise from 0"),
    "target dtype": (
        change(NET, "sparses", 0, target=DRIVE.target.astype(np.int64)),
        "sparses/0/target: dtype int64, expected int32",
    ),
    "target range": (change(NET, "sparses", 0, target=DRIVE.target + np.int32(1)), "target: values 1..4 leave 0..3"),
    "target below": (change(NET, "sparses", 0, target=DRIVE.target - np.int32(1)), "target: values -1..2 leave 0..3"),
    "sparse weight dtype": (
        change(NET, "sparses", 0, weight=DRIVE.weight.astype(np.int32)),
        "sparses/0/weight: dtype int32, expected int8",
    ),
    "sparse weight": (
        change(NET, "sparses", 0, weight=DRIVE.weight[:-1]),
        "sparses/0/weight: shape [10], expected [11]",
    ),
    "extra dtype": (
        change(NET, "sparses", 0, extra=DRIVE.extra.astype(np.int8)),
        "sparses/0/extra: dtype int8, expected uint8",
    ),
    "extra shape": (change(NET, "sparses", 0, extra=DRIVE.extra[:-1]), "sparses/0/extra: shape [10], expected [11]"),
    "extra range": (
        change(NET, "sparses", 0, extra=DRIVE.extra + np.uint8(53)),
        "sparses/0/extra: 64 is outside 0..63",
    ),
    "extra and delay": (
        change(NET, "sparses", 0, extra=DRIVE.extra + np.uint8(52), delay=2, lag=2),
        "sparses/0/extra: up to 63 timesteps after 2 ticks, 65 in all of 64",
    ),
    "extra ring": (
        change(NET, "sparses", 0, extra=DRIVE.extra + np.uint8(1)),
        "dendrites/0/ring: 12, but 'ternary' is written from level -12 and read until level 0: at 1 ticks per "
        "timestep it needs 13",
    ),
    "synapses in all": (
        replace(NET, sparses=(replace(DRIVE, **HUGE),) * 200, target={}, mapping=None),
        "sparses: 3355443200 synapses in all, at most 2147483648 can be handled",
    ),
    "sparse row in tables": (
        replace(NET, mapping=replace(NET.mapping, axons=NET.mapping.axons + np.eye(1, 11, 2, dtype=np.int32) * 9)),
        "mapping/axons/0: no such projection",
    ),
    "role of a sparse": (
        replace(NET, mapping=replace(NET.mapping, axons=NET.mapping.axons + np.eye(1, 11, 3, dtype=np.int32))),
        "mapping/axons/0: no such role",
    ),
    "two of a name": (change(V1, "populations", 1, name="p0"), "populations/1/name: 'p0' is also the name of"),
    "bad name": (change(V1, "populations", 1, name="../p"), "populations/1/name: '../p' is not a name"),
    "huge": (change(V1, "dendrites", 0, ring=2**20), "dendrites: 536"),
    "cluster": (change(V1, "dendrites", 0, cluster=99), "dendrites/0/cluster: 99 is outside"),
    "shape": (
        change(V1, "populations", 0, shape=(2, 16, 15)),
        "populations/0/shape: (2, 16, 15), expected (2, 16, 16)",
    ),
    "dendrite": (change(V1, "populations", 0, dendrite=-1), "populations/0/dendrite: dendrite -1, but there are"),
    "level": (change(V1, "populations", 0, level=-1), "populations/0/level: -1 is outside"),
    "dv": (change(V1, "populations", 0, dv=5000), "populations/0/dv: 5000 is outside 0..4096"),
    "role": (change(V1, "populations", 0, role="input"), "populations/0/role: model 'lif' and role 'input'"),
    "vth missing": (change(V1, "populations", 0, vth=None), "populations/0/vth: missing, but model 'lif' needs it"),
    "vth dtype": (
        change(V1, "populations", 0, vth=np.zeros(2, np.int64)),
        "populations/0/vth: dtype int64, expected int32",
    ),
    "vth shape": (
        change(V1, "populations", 0, vth=np.zeros(3, np.int32)),
        "populations/0/vth: shape [3], expected [2]",
    ),
    "vth range": (change(V1, "populations", 0, vth=np.full(2, 2**17, np.int32)), "values 131072..131072 leave -131072"),
    "bias range": (
        change(V1, "populations", 0, bias=np.full(2, 2**23, np.int32)),
        "populations/0/bias: values 8388608",
    ),
    "thresholds": (change(V1, "populations", 0, thresholds=np.zeros((1, 1), np.int32)), "but model 'lif' has none"),
    "descending": (
        change(V3, "populations", 0, thresholds=np.array([[3, 2]], np.int32)),
        "populations/0/thresholds: a row is not ascending",
    ),
    "payload": (change(V3, "populations", 0, payload_bits=2), "the payload holds 3, but codes reach 4"),
    "signed": (change(V3, "populations", 0, signed=True), "populations/0/signed: true, but codes of model 'levels'"),
    "lif payload": (change(V1, "populations", 0, payload_bits=4), "model 'lif' sends no code"),
    "scale": (change(V1, "populations", -1, readout_scale=float("inf")), "readout_scale: inf is not finite"),
    "record perm": (change(V1, "populations", 0, record=Record((0, 0, 1), (512,))), "[0, 0, 1] is not a permutation"),
    "record": (change(V1, "populations", 0, record=Record((0, 1, 2), (5,))), "record/shape: 5, expected 512"),
    "conv src": (change(V1, "convs", 0, src=99), "convs/0/src: population 99, but there are"),
    "conv from readout": (
        change(V1, "convs", 0, src=len(V1.populations) - 1),
        "convs/0/src: 'p15' is a readout and never fires",
    ),
    "conv dst": (change(V1, "convs", 0, dst=-3), "convs/0/dst: dendrite -3, but there are"),
    "shift": (change(V1, "convs", 0, shift=25), "convs/0/shift: 25 is outside 0..24"),
    "delay 0": (change(V1, "convs", 0, delay=0), "convs/0/delay: 0 is outside 1..64"),
    "delay 65": (change(V1, "convs", 0, delay=65), "convs/0/delay: 65 is outside 1..64"),
    "lag": (change(V1, "convs", 0, lag=-1), "convs/0/lag: -1 is outside"),
    "stride": (change(V1, "convs", 0, stride=(0, 1)), "convs/0/stride: 0 is outside 1.."),
    "weight dtype": (change(V1, "convs", 0, weight=CONV.weight.astype(np.int16)), "convs/0/weight: dtype int16"),
    "weight ndim": (
        change(V1, "convs", 0, weight=CONV.weight[0]),
        "convs/0/weight: shape [3, 2, 4], expected [n, n, n, n]",
    ),
    "weight in": (change(V1, "convs", 0, weight=CONV.weight[:, :, :1]), "convs/0/weight: 1, expected 2"),
    "weight out": (change(V1, "convs", 0, weight=CONV.weight[..., :3]), "convs/0/weight: 3, expected 4"),
    "groups": (change(V1, "convs", 0, groups=3), "convs/0/groups: 3 is outside 1..2"),
    "out_hw": (change(V1, "convs", 0, out_hw=(16, 15)), "convs/0/out_hw: (16, 15), expected (16, 16)"),
    "kernel too large": (change(V1, "convs", 0, dilation=(9, 9)), "convs/0/out_hw: (16, 16), expected (0, 0)"),
    "collapse": (change(V1, "convs", 0, collapse=True), "convs/0/dst: (16, 16), expected (1, 1)"),
    "weight_key": (
        change(SSA, "convs", KEYED[0], weight=SSA.convs[KEYED[0]].weight + np.int8(1)),
        f"convs/{KEYED[1]}/weight_key: 'head' stands for other weights in convs/{KEYED[0]}",
    ),
    "map same": (change(V1, "maps", SAME, mode="reduce"), "mode 'reduce' has a single position there"),
    "map reduce": (change(V1, "maps", REDUCE, mode="same"), "mode 'same' keeps the shape"),
    "map window": (change(V1, "maps", WINDOW, pad=(3, 1)), "has a window without any source"),
    "map stride": (change(V1, "maps", WINDOW, stride=(3, 3)), "has a window without any source"),
    "heads": (change(SSA, "dynamics", 0, heads=3), "dynamics/0/heads: 3 heads do not divide the 16 channels of q"),
    "saturate": (change(SSA, "dynamics", 0, saturate=0), "dynamics/0/saturate: 0 is outside 1.."),
    "delay_k": (change(SSA, "dynamics", 0, delay_k=2), "dynamics/0/delay_k: 9, expected 8"),
    "dynamic q": (change(SSA, "dynamics", 0, q=0), "tokens of q"),
    "transfer cluster": (
        change(V1, "dendrites", V1.transfers[0].src, cluster=0),
        "a transfer stays within one cluster",
    ),
    "transfer channels": (change(V1, "transfers", POOL, dst=0), "a transfer"),
    "transfer window": (change(V1, "transfers", POOL, pad=(3, 3)), "has a window without any source"),
    "rshift": (change(V1, "transfers", POOL, rshift=32), "rshift: 32 is outside 0..31"),
    "sum": (change(V1, "transfers", POOL, mode="sum"), "mode 'sum' has a single position there"),
    "transfer cycle": (change(V1, "transfers", POOL, dst=V1.transfers[POOL].src, **ONE), "form a cycle"),
    "ring": (change(V1, "dendrites", STREAM, ring=1), f"dendrites/{STREAM}/ring: 1, but 'd{STREAM}' is written from"),
    "too late": (change(V1, "convs", 0, delay=9), "convs/0: arrives at level 9, but 'd1' is last read at 1"),
    "host shape": (change(V1, "host_currents", 0, in_shape=(1, 9, 9)), "host_currents/0/in_shape: (1, 9, 9), expected"),
    "host frac": (change(V1, "host_currents", 0, frac=31), "host_currents/0/frac: 31 is outside 0..30"),
    "host overflow": (
        change(V1, "host_currents", 0, weight=np.full((2, 1, 3, 3), 2**27, np.int32)),
        "sum to 1207959552, but from 2^30 on 64 bits may overflow",
    ),
    "host bias": (
        change(V1, "host_currents", 0, bias=np.zeros(2, np.int32)),
        "host_currents/0/bias: dtype int32, expected int64",
    ),
    "codes": (change(GRADED, "host_codes", 0, hi=256), "host_codes/0/lo: 0..256 does not lie in 0..255"),
    "codes scale": (change(GRADED, "host_codes", 0, scale=0.0), "host_codes/0/scale: 0.0 is not a finite scale"),
    "codes twice": (replace(GRADED, host_codes=GRADED.host_codes * 2), "2 entries for input 'image', expected 1"),
    "codes missing": (
        replace(GRADED, populations=(*GRADED.populations, Population("events", (1, 4, 4), 0, "input", "input", -1))),
        "0 entries for input 'events', expected 1",
    ),
    "codes of lif": (change(GRADED, "host_codes", 0, population=1), "'p1' must be an input"),
    "input shape": (replace(GRADED, input_shape=(1, 4, 5)), "populations/0/shape: (1, 4, 4), expected (1, 4, 5)"),
    "tiles dtype": (tables(tiles=V1.mapping.tiles.astype(np.int64)), "mapping/tiles: dtype int64, expected int32"),
    "tiles shape": (tables(tiles=V1.mapping.tiles[:, :7]), "mapping/tiles: shape"),
    "tile cluster": (cell("tiles", 0, 0, 99), "mapping/tiles/0: no such cluster: [99,"),
    "tile core": (cell("tiles", 2, 1, -1), "mapping/tiles/2: no such core"),
    "tile box": (cell("tiles", 0, 3, 99), "mapping/tiles/0: box outside its base dendrite"),
    "piece tile": (cell("pieces", 0, 0, 999), "mapping/pieces/0: no such tile"),
    "piece dendrite": (cell("pieces", 0, 1, -1), "mapping/pieces/0: no such dendrite"),
    "piece of another": (cell("pieces", 0, 1, 1), "mapping/pieces/0: the dendrite is not of the tile's cluster"),
    "piece box": (cell("pieces", 0, 2, 9), "mapping/pieces/0: box outside its dendrite"),
    "piece twice": (
        tables(pieces=np.concatenate([V1.mapping.pieces, V1.mapping.pieces[:1]])),
        "a tile has two pieces of one dendrite",
    ),
    "axon kind": (cell("axons", 0, 1, 4), "mapping/axons/0: kind is not 0, 1, 2 or 3"),
    "axon projection": (cell("axons", 0, 2, 99), "mapping/axons/0: no such projection"),
    "axon role": (cell("axons", 0, 3, 1), "mapping/axons/0: no such role"),
    "axon source": (cell("axons", 0, 0, 99), "mapping/axons/0: no such source tile"),
    "axon from host": (cell("axons", 0, 0, -1), "source tile -1 goes with an input population only"),
    "axon from elsewhere": (cell("axons", 0, 0, 3), "the source tile holds no soma of the source"),
    "axon target": (cell("axons", 0, 4, 99), "mapping/axons/0: no such destination tile"),
    "axon into elsewhere": (cell("axons", 0, 4, 3), "the destination tile holds nothing of the target dendrite"),
    "axon box": (cell("axons", 0, 6, 99), "mapping/axons/0: box outside the source population"),
    "core place": (cell("cores", 0, 1, 8), "mapping/cores/0: [chip, x, y, index] outside chips of 8 x 4 routers"),
    "core chip": (cell("cores", 0, 0, 1), "mapping/cores/0: chip is not below 1"),
    "cores collide": (
        tables(cores=np.zeros_like(V1.mapping.cores)),
        f"mapping/cores: {len(V1.mapping.cores)} cores stand in 1 places",
    ),
    "mesh": (replace(V1, target={"mesh": {"routers": [8]}}), "target/mesh: routers must be [x, y]"),
    "limits": (replace(V1, target={"limits": {"delay_max": "long"}}), "target/limits/delay_max: 'long'"),
}


@pytest.mark.parametrize("case", CASES)
def test_rule(case):
    program, text = CASES[case]
    with pytest.raises(VerifyError) as error:
        validate_program(program)
    assert text in str(error.value)
    assert "Program field" in str(error.value)


@pytest.mark.parametrize("program", [V1, SSA, V3, GRADED, NET], ids=lambda p: p.name)
def test_the_programs_that_were_broken_are_valid(program):
    validate_program(program)


def test_transfer_order_within_a_level():
    """A pool that adds to what a sum of the same level has read must come before it."""
    net = Net((1, 4, 4))
    stream = net.dendrite((1, 4, 4))
    before = net.dendrite((1, 4, 4), net.cluster(stream))
    mean = net.dendrite((1, 1, 1), net.cluster(stream))
    net.image(before, 0)
    net.sum(stream, mean, 0)
    net.pool(before, stream, 0, 1, 1, 0)
    net.soma(mean, 0)
    net.soma(stream, 0, "readout", "readout")
    with pytest.raises(VerifyError, match="transfers/1: adds to what 'sum0' has read before at level 0"):
        validate_program(net.build())


def test_unread_dendrite():
    net = Net((1, 4, 4))
    net.image(net.dendrite((1, 4, 4)), 0)
    net.soma(0, 0, "readout", "readout")
    program = net.build()
    lonely = replace(program.dendrites[0], name="lonely")
    with pytest.raises(VerifyError, match="dendrites/1: no population and no transfer reads 'lonely'"):
        validate_program(replace(program, dendrites=(*program.dendrites, lonely)))
