"""How long the ticks of a run take, and what they wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from nmc_compiler.errors import CapacityError, UsageError
from nmc_compiler.program.model import Program

from ..layout import Layout, Mesh
from ..price_profile import PriceProfile, load_profile
from ..rates import PS, rates_of
from ..trace import Trace
from .schedule import Schedule, link_name
from .spec import NocSpec

PROFILE = "loihi2-extrapolated-rates"
FIDELITIES = ("queue", "cycle")
MOST_CORES = 64  # of fidelity cycle
KINDS = ("synapses of core", "somas of core", "link")


@dataclass(frozen=True)
class TickLoads:
    """Loads of the ticks ``first_tick`` and following, in ns of time busy; arrays [ticks, ...].

    soma, synapse [., cores]; link [., links], numbered as ``Mesh.link``; crossed [., links] packets;
    depth [., links + cores]: most packets in a link's buffer or on their way into it, and most that
    were ready in a core's output queue; last: end of the last soma or service; packets sent.
    """

    first_tick: int
    soma: np.ndarray
    synapse: np.ndarray
    link: np.ndarray
    crossed: np.ndarray
    depth: np.ndarray
    last: np.ndarray
    packets: np.ndarray

    def busiest(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per tick: index into KINDS, number of the core or link, and its ns of time busy."""
        loads = [a if a.shape[1] else np.zeros((len(a), 1)) for a in (self.synapse, self.soma, self.link)]
        most = np.stack([a.max(axis=1) for a in loads])
        kind = most.argmax(axis=0)
        number = np.stack([a.argmax(axis=1) for a in loads])[kind, np.arange(len(kind))]
        return kind, number, most.max(axis=0)


@dataclass(frozen=True)
class TickTimes:
    """Time of a run, tick by tick.

    per_tick: float64 [ticks] ns, barrier and the profile's least time of a tick included.  busy: float64
    [ticks] ns from the start of a tick to its last soma update or service.  packets: int64 [ticks].
    core_soma, core_synapse float64 [cores], link float64 [links]: ns busy over the run.
    depth int64 [links + cores]: deepest queues (see TickLoads).
    critical_kind, critical_number int32 [ticks]: the busiest core or link of each tick (see ``critical``).
    missing: what happened and takes time that is not in here.
    """

    fidelity: str
    profile: str
    multicast: bool
    mesh: Mesh
    per_tick: np.ndarray
    busy: np.ndarray
    packets: np.ndarray
    core_soma: np.ndarray
    core_synapse: np.ndarray
    link: np.ndarray
    depth: np.ndarray
    critical_kind: np.ndarray
    critical_number: np.ndarray
    missing: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Time of the whole run; a lower bound if anything is ``missing``."""
        return float(self.per_tick.sum()) * 1e-9

    @property
    def critical(self) -> list[tuple[str, int]]:
        """(core or link, ticks in which it was the busiest), most often first."""
        key = self.critical_kind.astype(np.int64) << 32 | self.critical_number
        keys, counts = np.unique(key[self.busy > 0], return_counts=True)
        order = np.lexsort((keys, -counts))
        return [(resource(self.mesh, int(keys[i] >> 32), int(keys[i] & 0xFFFFFFFF)), int(counts[i])) for i in order]


def resource(mesh: Mesh, kind: int, number: int) -> str:
    """Name of a core's pipeline or of a link."""
    return link_name(mesh, number) if kind == 2 else f"{KINDS[kind]} {number}"


Observer = Callable[[TickLoads], object]


class _Totals:
    """Adds the loads of blocks up."""

    def __init__(self, mesh: Mesh, cores: int) -> None:
        self.soma, self.synapse, self.link = np.zeros(cores), np.zeros(cores), np.zeros(mesh.links)
        self.depth = np.zeros(mesh.links + cores, np.int64)
        self.busy: list[np.ndarray] = []
        self.packets: list[np.ndarray] = []
        self.kind: list[np.ndarray] = []
        self.number: list[np.ndarray] = []

    def add(self, loads: TickLoads) -> None:
        self.soma += loads.soma.sum(axis=0)
        self.synapse += loads.synapse.sum(axis=0)
        self.link += loads.link.sum(axis=0)
        self.depth = np.maximum(self.depth, loads.depth.max(axis=0, initial=0))
        kind, number, _ = loads.busiest()
        for to, array in zip(
            (self.busy, self.packets, self.kind, self.number), (loads.last, loads.packets, kind, number), strict=True
        ):
            to.append(array)


def simulate(
    program: Program,
    trace: Trace,
    *,
    fidelity: str = "queue",
    profile: str | PriceProfile = PROFILE,
    multicast: bool | None = None,
    spec: NocSpec | None = None,
    layout: Layout | None = None,
    observe: Observer | None = None,
) -> TickTimes:
    """Time of every tick of a recorded run on its mapping (docs/timing.md).

    fidelity: "queue", discrete events of packets; or "cycle", flit by flit, unicast, up to 64 cores.
    profile: times of operations, of kind latency.  multicast: one packet per event, copied where its XY
    tree branches, instead of one per destination; None: as the Program's target does it.  layout: the
    Program's, if it is resolved already.  observe: called with the loads of every block of ticks.

    UsageError for a profile that lacks a time that is needed, and for options or a trace that do not fit;
    CapacityError naming the link or core where a tick is longer than ``spec.tick_limit_ns`` or nothing moves.
    """
    trees = sends_trees(program, multicast)
    check_fidelity(program, fidelity, trees)
    profile = load_profile(profile) if isinstance(profile, str) else profile
    spec = spec or NocSpec()
    rates = rates_of(program, profile)
    schedule = Schedule(program, trace, rates, spec, layout)
    totals = _Totals(schedule.mesh, schedule.cores)
    for loads in _simulator(fidelity, schedule, trees):
        _check_limit(schedule, loads, spec)
        totals.add(loads)
        if observe is not None:
            observe(loads)
    busy = np.concatenate(totals.busy) if totals.busy else np.zeros(0)
    return TickTimes(
        fidelity=fidelity,
        profile=profile.name,
        multicast=trees,
        mesh=schedule.mesh,
        per_tick=np.maximum(busy + rates.barrier / PS, rates.floor / PS),
        busy=busy,
        packets=_joined(totals.packets, np.int64),
        core_soma=totals.soma,
        core_synapse=totals.synapse,
        link=totals.link,
        depth=totals.depth,
        critical_kind=_joined(totals.kind, np.int32),
        critical_number=_joined(totals.number, np.int32),
        missing=("current_messages",) if program.host_currents else (),
    )


def sends_trees(program: Program, multicast: bool | None = None) -> bool:
    """Whether an event travels as one packet that is copied where its way branches; None: as the target does it."""
    mesh = program.target.get("mesh") or {}
    return mesh.get("multicast", "unicast") == "tree" if multicast is None else multicast


def check_fidelity(program: Program, fidelity: str, trees: bool) -> None:
    """UsageError for what a fidelity cannot do, before anything is run."""
    if fidelity not in FIDELITIES:
        raise UsageError(f"no fidelity '{fidelity}'; choose queue or cycle, or read the counters for bound")
    if fidelity == "queue":
        return
    if trees:
        raise UsageError(
            "fidelity cycle sends one packet per destination; choose queue for multicast trees, or unicast"
            " (--no-multicast)"
        )
    cores = 1 if program.mapping is None else len(program.mapping.cores)
    if cores > MOST_CORES:
        raise UsageError(
            f"Program '{program.name}' uses {cores} cores; fidelity cycle takes up to {MOST_CORES}; choose queue"
        )


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)


def _simulator(fidelity: str, schedule: Schedule, multicast: bool) -> Iterator[TickLoads]:
    if fidelity == "queue":
        from .queue import run_queue

        return run_queue(schedule, multicast)
    from .cycle import run_cycle

    return run_cycle(schedule)


def _check_limit(schedule: Schedule, loads: TickLoads, spec: NocSpec) -> None:
    if spec.tick_limit_ns is None or not len(loads.last) or loads.last.max() <= spec.tick_limit_ns:
        return
    t = int(np.argmax(loads.last > spec.tick_limit_ns))
    kind, number, busy = loads.busiest()
    name = resource(schedule.mesh, int(kind[t]), int(number[t]))
    raise CapacityError(
        f"overload: tick {loads.first_tick + t} of Program '{schedule.program.name}' takes {loads.last[t]:.0f} ns, over"
        f" the limit of {spec.tick_limit_ns:.0f} ns; {name} chokes: it is busy for {busy[t]:.0f} ns of it,"
        f" {loads.packets[t]} packets on the mesh; spread its work or traffic over more cores, or raise tick_limit_ns"
    )
