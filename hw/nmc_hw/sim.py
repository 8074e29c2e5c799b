"""The RTL of the mesh as a machine: the same methods as the emulator's, clock by clock through Verilator."""

from __future__ import annotations

import ctypes
import weakref
from functools import cache

import numpy as np

from nmc_compiler.errors import NmcError, UsageError
from nmc_compiler.neurocore import Image, Sizes, memories
from nmc_hw.verilate import HW, built, rtl_sources

PARTS = (
    *(
        "nc_ram",
        "nc_lutram",
        "nc_bits",
        "nc_delay",
        "nc_near",
        "nc_pair",
        "nc_fifo",
        "nc_decay",
        "nc_pending",
        "nc_scan",
        "nc_taps",
        "nc_walk",
        "nc_change",
        "nc_lane",
        "nc_words",
    ),
    *("nc_deliver", "nc_update", "nc_send", "nc_count", "nc_core", "nc_router", "nc_mesh"),
)  # modules of a mesh


def mesh_parameters(sizes: Sizes) -> dict[str, int]:
    """Parameters of module nc_mesh."""
    names = {"N": "neurons", "A": "axons", "W": "words", "TYPES": "types", "GEOMS": "geoms", "X": "x", "Y": "y"}
    return {parameter: getattr(sizes, name) for parameter, name in names.items()}


@cache
def _library(sizes: Sizes) -> ctypes.CDLL:
    sources = [path for path in rtl_sources() if path.stem in PARTS]
    library = ctypes.CDLL(str(built("nc_mesh", mesh_parameters(sizes), sources, [HW / "tb" / "mesh.cpp"], shared=True)))
    machine, word, items = ctypes.c_void_p, ctypes.c_int, np.ctypeslib.ndpointer(np.uint64, flags="C")
    pairs = np.ctypeslib.ndpointer(np.int32, flags="C")
    for name, result, arguments in (
        ("new", machine, []),
        ("free", None, [machine]),
        ("stall", None, [machine, ctypes.c_uint32, ctypes.c_uint32]),
        ("clocks", ctypes.c_uint64, [machine]),
        ("step_count", ctypes.c_uint32, [machine]),
        ("write", None, [machine, word, word, word, word, items]),
        ("read", None, [machine, word, word, word, word, items]),
        ("inject", None, [machine, word, word, word, pairs]),
        ("run", word, [machine, word, pairs]),
    ):
        function = getattr(library, f"mesh_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class RtlMachine:
    """Runs an image on the simulated RTL. Raises ToolNotFound without Verilator, UsageError for a bad address."""

    def __init__(self, image: Image) -> None:
        self.sizes = image.sizes
        self.memories = memories(image.sizes)
        self._library = _library(image.sizes)
        self._mesh = self._library.mesh_new()
        weakref.finalize(self, self._library.mesh_free, self._mesh)
        self._log = np.zeros((self.sizes.cores * self.sizes.neurons, 2), np.int32)
        for mem in sorted(image.memories):
            for core in range(self.sizes.cores):
                self.write(core, mem, 0, image.memories[mem][core])

    @property
    def step_count(self) -> int:
        """The sample's step about to run."""
        return int(self._library.mesh_step_count(self._mesh))

    @property
    def clocks(self) -> int:
        """Clocks since power-up, accesses of the host included."""
        return int(self._library.mesh_clocks(self._mesh))

    def stall_log(self, of256: int, seed: int = 1) -> None:
        """Refuse logged spikes in so many of 256 clocks, at random."""
        self._library.mesh_stall(self._mesh, of256, seed)

    def write(self, core: int, mem: int, address: int, items: np.ndarray) -> None:
        """Write items of memory ``mem`` from ``address`` on; bits beyond an item's width are ignored."""
        values = np.ascontiguousarray(np.asarray(items).astype(np.uint64)) & np.uint64((1 << 40) - 1)
        self._check(core, mem, address, values.size)
        self._library.mesh_write(self._mesh, core, mem, address, values.size, values)

    def read(self, core: int, mem: int, address: int = 0, count: int | None = None) -> np.ndarray:
        """uint64 items of memory ``mem``: ``count`` of them from ``address`` on, or all that follow."""
        count = self.memories[mem].items - address if count is None else count
        self._check(core, mem, address, count)
        items = np.zeros(count, np.uint64)
        self._library.mesh_read(self._mesh, core, mem, address, count, items)
        return items

    def inject(self, core: int, axons: np.ndarray, slot: int) -> None:
        """Set the bits of axons in slot ``slot`` modulo 16."""
        values = np.ascontiguousarray(np.asarray(axons).reshape(-1).astype(np.int32))
        if not 0 <= core < self.sizes.cores or (
            values.size and not 0 <= values.min() <= values.max() < self.sizes.axons
        ):
            raise UsageError(f"core {core}: axons up to {values.max(initial=0)}; the mesh has {self.sizes}")
        self._library.mesh_inject(self._mesh, core, slot % 16, values.size, values)

    def step(self) -> np.ndarray:
        """Run a step; int32 [k, 2] of logged (core, neuron)."""
        return self._run(restart=False)

    def run(self, steps: int, events: np.ndarray) -> np.ndarray:
        """Run steps with events int64 [n, 3] of (step from now, core, axon), sorted by step.

        Returns uint8 [steps, cores, N]: the spikes of neurons that log theirs.
        """
        fired = np.zeros((steps, self.sizes.cores, self.sizes.neurons), np.uint8)
        at = np.searchsorted(events[:, 0], np.arange(steps + 1))
        for step in range(steps):
            for core in range(self.sizes.cores):
                here = events[at[step] : at[step + 1]]
                self.inject(core, here[here[:, 1] == core, 2], self.step_count)
            logged = self.step()
            fired[step, logged[:, 0], logged[:, 1]] = 1
        return fired

    def over(self) -> None:
        """Nobody counts here which neuron left its range; counters 10 and 11 say how many did."""

    def restart(self) -> None:
        """Step 0; potentials, traces and pending bits are zeroed."""
        self._run(restart=True)

    def _run(self, restart: bool) -> np.ndarray:
        logged = self._library.mesh_run(self._mesh, int(restart), self._log)
        if logged < 0:
            raise NmcError(f"the RTL hangs in step {self.step_count}")
        return self._log[:logged].copy()

    def _check(self, core: int, mem: int, address: int, count: int) -> None:
        known = 0 <= core < self.sizes.cores and 0 <= mem < len(self.memories)
        if not known or address < 0 or count < 0 or address + count > self.memories[mem].items:
            raise UsageError(f"core {core}, memory {mem}: items {address} to {address + count - 1} are not there")
