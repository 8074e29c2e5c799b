"""Makes the Lava Processes that network.json lists, and connects them."""

import json
from pathlib import Path

import numpy as np
import processes
from host import by_tick, values
from lava.proc.conv.process import Conv
from lava.proc.io.source import RingBuffer
from lava.proc.lif.process import LIF, LIFReset, TernaryLIF
from lava.proc.prodneuron.process import ProdNeuron
from lava.proc.sdn.process import ActivationMode, SigmaDelta
from lava.proc.sparse.process import DelaySparse, Sparse
from lava.utils.weightutils import SignMode
from scipy.sparse import csr_matrix

HERE = Path(__file__).parent
CELL = ("step", "low", "floor", "jump", "gain", "rise")  # arrays of a Cell, besides those of other somas
STOCK = {"LIF": LIF, "LIFReset": LIFReset, "TernaryLIF": TernaryLIF, "ProdNeuron": ProdNeuron}


def load():
    """(network.json, arrays.npz as a dict)."""
    net = json.loads((HERE / "network.json").read_text(encoding="utf-8"))
    with np.load(HERE / "arrays.npz", allow_pickle=False) as file:
        return net, {key: file[key] for key in file.files}


def build(net, arrays, inputs, unroll=False):
    """Name -> Process of the whole network, connected.

    unroll: Conv becomes Sparse with the same synapses one by one, the same integers faster: Lava's Conv
    calls SciPy once per pair of channels where torch is not installed.
    """
    made = {}
    for item in net["processes"]:
        params = dict(item["params"], **{k: arrays[v] for k, v in item["arrays"].items()})
        made[item["name"]] = _process(item["kind"], params, net, arrays, inputs, unroll)
    for src, out, dst, port in net["connections"]:
        _connect(getattr(made[src], out), getattr(made[dst], port))
    return made


def _process(kind, params, net, arrays, inputs, unroll):
    if kind == "Source":
        return RingBuffer(data=by_tick(values(params, inputs, arrays, net), net, params))
    if kind == "Ones":
        return RingBuffer(data=np.ones((*params["shape"], 1), int))
    if kind == "Conv":
        return _conv(params, unroll)
    if kind in ("Sparse", "DelaySparse"):
        return _sparse(kind, params)
    if kind == "SigmaDelta":
        mode = ActivationMode.RELU if params.pop("relu") else ActivationMode.UNIT
        return SigmaDelta(act_mode=mode, **_tuples(params))
    if kind in STOCK:
        return STOCK[kind](**_full(_tuples(params)))
    return _generated(kind, params)


def _tuples(params):
    return {k: tuple(v) if isinstance(v, list) else v for k, v in params.items()}


def _full(params):
    """Numbers per channel as numbers per soma."""
    shape = params["shape"]
    return {k: np.broadcast_to(v, shape).astype(int) if isinstance(v, np.ndarray) else v for k, v in params.items()}


def _conv(params, unroll):
    given = _tuples(params)
    weight, shift = given.pop("weight").astype(np.int32), given.pop("shift")
    if not unroll:
        return Conv(weight=weight << shift, **given)
    return _matrix(_unrolled(weight, given), None, shift - 1, given["num_message_bits"])


def _unrolled(weight, p):
    """csr [targets, sources] of a Conv, twice its weights."""
    (width, height, channels), (outs, kx, ky, per_group) = p["input_shape"], weight.shape
    (sx, sy), (px, py), (dx, dy) = p["stride"], p["padding"], p["dilation"]
    across, down = (width + 2 * px - dx * (kx - 1) - 1) // sx + 1, (height + 2 * py - dy * (ky - 1) - 1) // sy + 1
    o, i = np.meshgrid(np.arange(outs), np.arange(per_group), indexing="ij")
    source_channel = o // (outs // p["groups"]) * per_group + i
    rows, columns, data = [], [], []
    x, y = (n.reshape(-1) for n in np.meshgrid(np.arange(across), np.arange(down), indexing="ij"))
    for a in range(kx):
        for b in range(ky):
            at_x, at_y = x * sx + a * dx - px, y * sy + b * dy - py
            inside = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
            target, source = ((x * down + y) * outs)[inside], ((at_x * height + at_y) * channels)[inside]
            rows.append((target[:, None] + o.reshape(-1)).reshape(-1))
            columns.append((source[:, None] + source_channel.reshape(-1)).reshape(-1))
            taps = weight[:, kx - 1 - a, ky - 1 - b].reshape(-1)  # Lava's Conv flips its kernel
            data.append(np.broadcast_to(2 * taps, (len(target), taps.size)).reshape(-1))
    form = (across * down * outs, width * height * channels)
    found = csr_matrix((np.concatenate(data), (np.concatenate(rows), np.concatenate(columns))), shape=form)
    found.eliminate_zeros()
    return found


def _sparse(kind, p):
    matrix = csr_matrix((p["weight"].astype(np.int32), p["source"], p["indptr"]), shape=tuple(p["size"]))
    delays = None
    if kind == "DelaySparse":
        later = np.broadcast_to(p["delay"], matrix.data.shape).astype(int)
        delays = csr_matrix((later, matrix.indices.copy(), matrix.indptr.copy()), shape=matrix.shape)
        delays.eliminate_zeros()
    return _matrix(matrix, delays, p["weight_exp"], p["num_message_bits"])


def _matrix(matrix, delays, weight_exp, num_message_bits):
    """Weights are even, -256 to 254: what Lava keeps of weights of mixed signs and 8 bits."""
    given = {"weight_exp": weight_exp, "num_message_bits": num_message_bits, "sign_mode": SignMode.MIXED}
    if delays is None:
        return Sparse(weights=matrix, **given)
    return DelaySparse(weights=matrix, delays=delays, **given)


def _generated(kind, params):
    given = _tuples(params)
    if kind == "Accumulator":
        given["channels"] = [list(c) for c in given["channels"]]
    if kind == "WindowedSynapses":
        given["matrices"] = [
            csr_matrix((given.pop(f"weight{k}").astype(np.int64), given.pop(f"source{k}"), given.pop(f"indptr{k}")),
                       shape=tuple(given["size"]))
            for k in range(len(given["later"]))
        ]  # fmt: skip
        given["shape"] = given.pop("size")
    if issubclass(getattr(processes, kind), processes.Soma):
        names = ("bias", "vth", "vth_low", "thresholds", "start_u", "start_v", *CELL)
        given["arrays"] = {k: given.pop(k) for k in names if k in given}
    return getattr(processes, kind)(**given)


def _connect(src, dst):
    if src.shape == dst.shape:
        src.connect(dst)
    elif len(dst.shape) == 1:
        src.flatten().connect(dst)
    else:
        src.reshape(new_shape=dst.shape).connect(dst)
