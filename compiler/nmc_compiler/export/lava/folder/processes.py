"""Processes that Lava does not have, each with a bit-accurate model: what a chip's microcode would have to do.

All somas and ports are laid out (X, Y, C), as Lava's Conv wants them. A connection of Lava takes one time
step; what is below takes none unless it says so: it answers within the step in which it receives.
Time: ``tick`` counts from 0, Lava's ``time_step`` from 1. A soma of level L lives timestep t of sample n at
tick ``n * interval + t * period + L``; ``timesteps`` 0 stands for one sample without end.
"""

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from scipy.sparse import csr_matrix

PORTS = 48  # of an Accumulator, each way; of a Recorder, in
LIMIT = 2**23


def _in():
    return LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)


def _out():
    return LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)


def decay(x, d):
    """``x`` times (4096 - d) / 4096, rounded toward zero."""
    return np.sign(x) * ((np.abs(x) * (4096 - d)) >> 12)


def wrap(u):
    """A current of 24 bits: it wraps, once."""
    return np.where(u > LIMIT, u - 2 * LIMIT, np.where(u <= -LIMIT, u + 2 * LIMIT, u))


def clip(v):
    """A potential of 24 bits: it saturates."""
    return np.clip(v, -LIMIT + 1, LIMIT - 1)


def int32(x):
    """Two's complement of 32 bits."""
    return (np.asarray(x, np.int64) + 2**31) % 2**32 - 2**31


# --- somas: like Lava's, but they live in windows, one after the other, and only every ``period`` ticks --------


class Soma(AbstractProcess):
    """A population of somas with windows: at rest when one starts, silent and unchanging outside.

    ``arrays``: what a model needs, each broadcast to ``shape`` (of the thresholds of levels: plus one axis).
    """

    def __init__(self, *, shape, window, numbers=None, arrays=None):
        super().__init__(shape=shape, window=window, numbers=numbers or {}, arrays=arrays or {})
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)


class GatedLIF(Soma):
    """LIF and TernaryLIF with a window, thresholds of each soma's own, and (in)itial u and v for each window.

    u = wrap(decay(u, du + 1) + (a << 6)); v = clip(decay(v, dv) + u + bias); s = v > vth << 6, less
    v < vth_low << 6 where given; v = 0 where s. With ``restart`` (interval, offset) u = v = 0 before the
    update of the t-th timestep of the window, counted from 1, where t % interval = offset % interval.
    """


class Levels(Soma):
    """Graded soma without memory: how many of its ascending thresholds v = clip(wrap(a << 6) + bias) reaches."""


class Cell(Soma):
    """Graded soma with memory: several levels, soft or late resets, thresholds and gains that move.

    u = wrap(decay(u, du + 1) + (a * gain >> 6)); b = clip(decay(b, db) + sent * jump); r = b + rise;
    h = decay(v, dv) + u + bias, less sent * (step + r) where soft and late, 0 where late, not soft and sent;
    v = clip(h); sent = how many of its ascending thresholds, raised by r, v reaches, less v < low, within ``sums``
    of all that was sent; where not late v is reset by it, too; then v is at least floor. gain, bias and rise have
    a row for each timestep, or one.
    """


class Relay(Soma):
    """Hands the value of its dendrite on as a signed graded event of 24 bits."""


class GatedSigmaDelta(Soma):
    """Lava's SigmaDelta with a window, and vth and bias of each soma's own."""


class Readout(Soma):
    """v = clip(v + wrap(a << 6) + bias); sends v, for the host alone."""


class PySoma(PyLoihiProcessModel):
    """The window, common to all: ``wake`` before the first timestep, ``live`` in every one, else silence."""

    a_in: PyInPort = None
    s_out: PyOutPort = None

    def __init__(self, proc_params):
        super().__init__(proc_params)
        self.window, self.numbers, self.shape = (proc_params[k] for k in ("window", "numbers", "shape"))
        self.arrays = {k: np.asarray(v).astype(np.int64) for k, v in proc_params["arrays"].items()}

    def due(self):
        """Timestep of the window that lives now, or -1."""
        w = self.window
        since = self.time_step - 1 - w["level"]
        if since < 0:
            return -1
        if w["timesteps"]:
            since %= w["interval"]
        t, between = divmod(since, w["period"])
        return -1 if between or (w["timesteps"] and t >= w["timesteps"]) else t

    def run_spk(self):
        a = self.a_in.recv().astype(np.int64)
        t = self.due()
        if t == 0:
            self.wake()
        sent = np.zeros(self.shape, np.int64) if t < 0 else self.live(a, t)
        self.s_out.send(sent.astype(np.int32))

    def wake(self):
        """At rest."""

    def live(self, a, t):
        """Codes of timestep ``t`` from the dendrites' values."""
        raise NotImplementedError


@implements(proc=GatedLIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyGatedLIF(PySoma):
    """GatedLIF."""

    a_in: PyInPort = _in()
    s_out: PyOutPort = _out()

    def wake(self):
        rest = np.zeros(self.shape, np.int64)
        self.u, self.v = (rest + self.arrays.get(k, 0) for k in ("start_u", "start_v"))

    def live(self, a, t):
        n = self.numbers
        if n["restart_interval"] and (t + 1 - n["restart_offset"]) % n["restart_interval"] == 0:
            self.u, self.v = self.u * 0, self.v * 0
        self.u = wrap(decay(self.u, n["du"] + 1) + (a << 6))
        self.v = clip(decay(self.v, n["dv"]) + self.u + self.arrays["bias"])
        sent = (self.v > self.arrays["vth"] << 6).astype(np.int64)
        if "vth_low" in self.arrays:
            sent -= self.v < self.arrays["vth_low"] << 6
        self.v = np.where(sent != 0, 0, self.v)
        return sent


@implements(proc=Levels, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyLevels(PySoma):
    """Levels."""

    a_in: PyInPort = _in()
    s_out: PyOutPort = _out()

    def live(self, a, t):
        v = clip(wrap(a << 6) + self.arrays["bias"])
        return (v[..., None] >= self.arrays["thresholds"]).sum(axis=-1)


@implements(proc=Cell, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyCell(PySoma):
    """Cell."""

    a_in: PyInPort = _in()
    s_out: PyOutPort = _out()

    def wake(self):
        rest = np.zeros(self.shape, np.int64)
        self.u, self.v = (rest + self.arrays.get(k, 0) for k in ("start_u", "start_v"))
        self.b, self.sent, self.total = rest, rest, rest

    def row(self, key, t):
        table = self.arrays[key]
        return table[t if len(table) > 1 else 0]

    def reset(self, h, sent, unit):
        kind = self.numbers["reset"]
        return h if kind == "none" else h - sent * unit if kind == "soft" else np.where(sent != 0, 0, h)

    def live(self, a, t):
        n = self.numbers
        self.u = wrap(decay(self.u, n["du"] + 1) + (a * self.row("gain", t) >> 6))
        self.b = clip(decay(self.b, n["db"]) + self.sent * self.arrays["jump"])
        raised = self.b + self.row("rise", t)
        unit = self.arrays["step"] + raised
        h = decay(self.v, n["dv"]) + self.u + self.row("bias", t)
        v = clip(self.reset(h, self.sent, unit) if n["late"] else h)
        sent = (v[..., None] >= self.arrays["thresholds"] + raised[..., None]).sum(axis=-1)
        if "low" in self.arrays:
            sent = sent - (v < self.arrays["low"])
        if n["sums"]:
            sent = np.clip(sent, n["sums"][0] - self.total, n["sums"][1] - self.total)
        v = v if n["late"] else clip(self.reset(v, sent, unit))
        self.v = np.maximum(v, self.arrays["floor"]) if "floor" in self.arrays else v
        self.sent, self.total = sent, self.total + sent
        return sent


@implements(proc=Relay, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyRelay(PySoma):
    """Relay."""

    a_in: PyInPort = _in()
    s_out: PyOutPort = _out()

    def live(self, a, t):
        return a


@implements(proc=GatedSigmaDelta, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyGatedSigmaDelta(PySoma):
    """GatedSigmaDelta."""

    a_in: PyInPort = _in()
    s_out: PyOutPort = _out()

    def wake(self):
        self.sigma, self.act, self.residue, self.error = (np.zeros(self.shape, np.int64) for _ in range(4))

    def live(self, a, t):
        n, vth = self.numbers, self.arrays["vth"]
        self.sigma = int32(self.sigma + a)
        act = int32(self.sigma + self.arrays["bias"])
        if n["relu"]:
            act = np.maximum(act, 0)
        delta = int32(int32(act - self.act) + self.residue)
        self.error = int32(self.error + delta) if n["cumulative"] else self.error
        fire = np.abs(self.error if n["cumulative"] else delta) >= vth
        sent = np.where(fire, delta, 0)
        self.residue, self.act = int32(delta - sent), act
        self.error = np.where(fire, 0, self.error)
        return sent >> n["out_shift"]


@implements(proc=Readout, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyReadout(PySoma):
    """Readout."""

    a_in: PyInPort = _in()
    s_out: PyOutPort = _out()

    def wake(self):
        self.v = np.zeros(self.shape, np.int64)

    def live(self, a, t):
        self.v = clip(self.v + wrap(a << 6) + self.arrays["bias"])
        return self.v


# --- dendrites ------------------------------------------------------------------------------------------------


class Accumulator(AbstractProcess):
    """A shared residual accumulator: several somas read it, each what has arrived up to its own level.

    What arrives at ``in<k>`` is for the timestep that lives ``arrivals[k]`` ticks after its start; a reader of
    level L finds it L - arrivals[k] ticks later (not at all if that is negative). On a chip: a ring of
    accumulators per timestep, zeroed after the last reader. ``channels[j]``: those that ``out<j>`` sends.
    """

    def __init__(self, *, shape, arrivals, readers, channels):
        super().__init__(shape=shape, arrivals=arrivals, readers=readers, channels=channels)
        for k in range(PORTS):
            setattr(self, f"in{k}", InPort(shape=shape if k < len(arrivals) else (1,)))
        for k in range(PORTS):
            last = len(channels[k]) if k < len(channels) else 1
            setattr(self, f"out{k}", OutPort(shape=(*shape[:2], last) if k < len(readers) else (1,)))


@implements(proc=Accumulator, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyAccumulator(PyLoihiProcessModel):
    """Accumulator."""

    for _k in range(PORTS):
        vars()[f"in{_k}"] = _in()
        vars()[f"out{_k}"] = _out()

    def __init__(self, proc_params):
        super().__init__(proc_params)
        self.arrivals, self.readers, self.channels = (proc_params[k] for k in ("arrivals", "readers", "channels"))
        self.shape = proc_params["shape"]
        self.past: list = []
        self.keep = max(self.readers) - min(self.arrivals) + 1

    def run_spk(self):
        now = [getattr(self, f"in{k}").recv().astype(np.int64) for k in range(len(self.arrivals))]
        self.past = [now, *self.past[: self.keep - 1]]
        for j, level in enumerate(self.readers):
            found = np.zeros(self.shape, np.int64)
            for k, arrival in enumerate(self.arrivals):
                if 0 <= level - arrival < len(self.past):
                    found += self.past[level - arrival][k]
            getattr(self, f"out{j}").send(found[:, :, self.channels[j]].astype(np.int32))


class Pool(AbstractProcess):
    """Moves a dendrite's value into another: the maximum over a window, or the sum of all positions.

    Positions outside never win. The value is shifted right by ``rshift`` (floor) first.
    ``kernel``, ``stride``, ``pad`` are (X, Y).
    """

    def __init__(self, *, shape_in, shape_out, mode, kernel, stride, pad, rshift):
        super().__init__(
            shape_in=shape_in, shape_out=shape_out, mode=mode, kernel=kernel, stride=stride, pad=pad, rshift=rshift
        )
        self.a_in = InPort(shape=shape_in)
        self.s_out = OutPort(shape=shape_out)


@implements(proc=Pool, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyPool(PyLoihiProcessModel):
    """Pool."""

    a_in: PyInPort = _in()
    s_out: PyOutPort = _out()

    def run_spk(self):
        p = self.proc_params
        a = self.a_in.recv().astype(np.int64)
        found = a.sum(axis=(0, 1), keepdims=True) if p["mode"] == "sum" else self.largest(a)
        self.s_out.send((found >> p["rshift"]).astype(np.int32))

    def largest(self, a):
        """Maximum over every window."""
        p = self.proc_params
        (kx, ky), (sx, sy), (px, py) = p["kernel"], p["stride"], p["pad"]
        width, height, _ = p["shape_out"]
        low = np.iinfo(np.int64).min
        wide = (max((width - 1) * sx + kx - px - a.shape[0], 0), max((height - 1) * sy + ky - py - a.shape[1], 0))
        a = np.pad(a, ((px, wide[0]), (py, wide[1]), (0, 0)), constant_values=low)
        best = np.full(p["shape_out"], low)
        for i in range(kx):
            for j in range(ky):
                cut = a[i : i + (width - 1) * sx + 1 : sx, j : j + (height - 1) * sy + 1 : sy]
                best = np.maximum(best, cut)
        return best


# --- synapses: like Lava's, they send first what they worked out before ------------------------------------------


class DynamicSynapse(AbstractProcess):
    """Attention: per head a table that events of two populations write and those of the third read.

    order "kv": M[i, j] += k[i, n] v[j, n] over tokens n; a[j, n] = sum over i of q[i, n] M[i, j].
    order "qk": M[m, n] += k[i, m] q[i, n] over channels i; a[j, n] = sum over m of v[j, m] M[m, n].
    The table is written in one tick and read in the next, while another bank takes the writes; it is zero
    for each timestep. The sum saturates at ``saturate``, then is shifted left. ``delays``: ticks on the way
    of q, k and v, counted from when they are sent; the written ones arrive one tick before the reading one.
    """

    def __init__(self, *, shape_q, shape_k, shape_v, order, heads, shift, saturate, delays):
        super().__init__(
            shape_q=shape_q, shape_v=shape_v, order=order, heads=heads, shift=shift, saturate=saturate, delays=delays
        )
        self.q_in, self.k_in, self.v_in = (InPort(shape=s) for s in (shape_q, shape_k, shape_v))
        self.a_out = OutPort(shape=shape_v)


@implements(proc=DynamicSynapse, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyDynamicSynapse(PyLoihiProcessModel):
    """DynamicSynapse."""

    q_in: PyInPort = _in()
    k_in: PyInPort = _in()
    v_in: PyInPort = _in()
    a_out: PyOutPort = _out()

    def __init__(self, proc_params):
        super().__init__(proc_params)
        dq, dk, dv = proc_params["delays"]
        read = 0 if proc_params["order"] == "kv" else 2
        self.back = [d if role == read else d + 1 for role, d in enumerate((dq, dk, dv))]
        self.past: list = [[], [], []]

    def run_spk(self):
        p = self.proc_params
        ready = all(len(past) >= back for past, back in zip(self.past, self.back, strict=True))
        found = self.product() if ready else np.zeros(p["shape_v"], np.int64)
        self.a_out.send(found.astype(np.int32))
        for role, port in enumerate((self.q_in, self.k_in, self.v_in)):
            self.past[role] = [*self.past[role], port.recv().astype(np.int64)][-self.back[role] :]

    def product(self):
        """What arrived, through the tables, to the dendrites (X, Y, C)."""
        p = self.proc_params
        q, k, v = (self.by_head(past[-back]) for past, back in zip(self.past, self.back, strict=True))
        if p["order"] == "kv":
            found = np.einsum("hin,hij->hjn", q, np.einsum("hin,hjn->hij", k, v))
        else:
            found = np.einsum("hjm,hmn->hjn", v, np.einsum("him,hin->hmn", k, q))
        width, height, channels = p["shape_v"]
        found = np.minimum(found, p["saturate"]) << p["shift"]
        return found.reshape(channels, width, height).transpose(1, 2, 0)

    def by_head(self, codes):
        """(X, Y, C) as [head, channel, token]."""
        heads, channels = self.proc_params["heads"], codes.shape[2]
        return codes.transpose(2, 0, 1).reshape(heads, channels // heads, -1)


class WindowedSynapses(AbstractProcess):
    """Synapses one by one whose events end with the window they were sent in.

    An event of timestep t acts ``later[k]`` timesteps on, ``ticks[k]`` ticks after it is sent, through matrix k
    (rows targets, columns sources); beyond the window's last timestep it is dropped.
    """

    def __init__(self, *, shape, window, matrices, later, ticks, graded, shift):
        sizes = (matrices[0].shape[1],), (matrices[0].shape[0],)
        super().__init__(
            shape=shape, window=window, matrices=matrices, later=later, ticks=ticks, graded=graded, shift=shift
        )
        self.s_in, self.a_out = InPort(shape=sizes[0]), OutPort(shape=sizes[1])


@implements(proc=WindowedSynapses, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyWindowedSynapses(PyLoihiProcessModel):
    """WindowedSynapses."""

    s_in: PyInPort = _in()
    a_out: PyOutPort = _out()

    def __init__(self, proc_params):
        super().__init__(proc_params)
        self.matrices = [csr_matrix(m).astype(np.int64) for m in proc_params["matrices"]]
        self.coming = np.zeros((max(proc_params["ticks"]), self.matrices[0].shape[0]), np.int64)

    def run_spk(self):
        p = self.proc_params
        self.a_out.send(self.coming[0].astype(np.int32))
        self.coming = np.concatenate((self.coming[1:], self.coming[:1] * 0))
        codes = self.s_in.recv().astype(np.int64)
        codes = codes if p["graded"] else (codes != 0).astype(np.int64)
        w = p["window"]
        t = (self.time_step - 1 - w["level"]) % w["interval"] // w["period"]
        for matrix, later, ticks in zip(self.matrices, p["later"], p["ticks"], strict=True):
            if t + later < w["timesteps"]:
                self.coming[ticks - 1] += matrix.dot(codes) << p["shift"]


# --- measuring ------------------------------------------------------------------------------------------------


class Recorder(AbstractProcess):
    """Writes what it receives to a file, int32, tick after tick; no part of the network."""

    def __init__(self, *, shapes, file):
        super().__init__(shapes=shapes, file=file)
        for k in range(PORTS):
            setattr(self, f"in{k}", InPort(shape=shapes[k] if k < len(shapes) else (1,)))


@implements(proc=Recorder, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyRecorder(PyLoihiProcessModel):
    """Recorder."""

    for _k in range(PORTS):
        vars()[f"in{_k}"] = _in()

    def __init__(self, proc_params):
        super().__init__(proc_params)
        self.inputs, self.file = len(proc_params["shapes"]), None

    def run_spk(self):
        if self.file is None:
            self.file = open(self.proc_params["file"], "wb", buffering=0)  # noqa: SIM115 - lives as long as this
        for k in range(self.inputs):
            self.file.write(getattr(self, f"in{k}").recv().astype("<i4").tobytes())
