"""nc_update over the corners of every field, neuron by neuron against the plain-Python twin of the core."""

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge
from link_bench import numbers, start
from naive_core import Naive

from nmc_compiler.neurocore import Image, Sizes
from nmc_compiler.neurocore.items import TRACES, TYPE, group_items, pack

N, TYPES = 64, 16
SIZES = Sizes(neurons=N, axons=64, words=64, types=TYPES, geoms=2)
ENDS = (-(2**23), -(2**23) + 1, -1, 0, 1, 2**23 - 1)


def types(rng):
    """Corners of a type's fields, sixteen at a time."""
    corners = {"du": (0, 1, 4095, 4096), "dv": (0, 1, 4095, 4096), "refr": (0, 1, 63), "soft": (0, 1),
               "vth": (*ENDS, 100), "gain": (0, 1, 255), "ishift": (0, 6, 9, 15), "leak": (0, 1, 2**20 - 1),
               "level": (0, 1, 63)}  # fmt: skip
    while True:
        yield [{name: rng.choice(values) for name, values in corners.items()} for _ in range(TYPES)]


class Update:
    """The memories beside the pipeline: accumulators and post traces, who fired, where spikes go."""

    def __init__(self, dut, twin):
        self.dut, self.twin, self.spikes, self.saturated = dut, twin, [], 0
        self.acc = list(twin.cores[0].mem[9])
        self.post = list(twin.cores[0].mem[10])
        self.fired = [0, 0]

    async def serve(self):
        dut, addresses = self.dut, [0, 0]
        while True:
            await RisingEdge(dut.clk)
            asked = dut.cell_raddr.value  # nothing is asked before the first start
            addresses = [int(asked) if asked.is_resolvable else 0, addresses[0]]
            dut.cell_acc.value, dut.cell_post.value = self.acc[addresses[1]], self.post[addresses[1]]
            if dut.cell_we.value:
                self.acc[int(dut.cell_waddr.value)], self.post[int(dut.cell_waddr.value)] = 0, int(dut.cell_wpost.value)
            if dut.fired_we.value:
                self.fired[int(dut.fired_waddr.value)] = int(dut.fired_wdata.value)
            if dut.spike.value:
                self.spikes.append((int(dut.spike_neuron.value), int(dut.spike_route.value)))
            self.saturated += int(dut.saturated.value)
            dut.may_issue.value = self.rng.random() < 0.8

    async def write(self, strobe, items):
        for address, item in enumerate(items):
            self.dut.bus_active.value, self.dut.bus_addr.value, self.dut.bus_wdata.value = 1, address, int(item)
            await ClockCycles(self.dut.clk, 4)
            getattr(self.dut, strobe).value = 1
            await RisingEdge(self.dut.clk)
            getattr(self.dut, strobe).value = 0
        self.dut.bus_active.value = 0
        await ClockCycles(self.dut.clk, 2)

    async def read(self, output, count):
        values = []
        for address in range(count):
            self.dut.bus_active.value, self.dut.bus_addr.value = 1, address
            await ClockCycles(self.dut.clk, 4)
            values.append(int(getattr(self.dut, output).value))
        self.dut.bus_active.value = 0
        await ClockCycles(self.dut.clk, 2)
        return values


def image(rng, kinds, window, learn):
    memories = {
        2: [rng.choice((-(2**19), -1, 0, 2**19 - 1)) % 2**20 | rng.randrange(TYPES) << 20 for _ in range(N)],
        3: [rng.getrandbits(16) & ~0x7800 for _ in range(N)],
        4: group_items(TYPE, kinds),
        7: [rng.choice((*ENDS, 0)) % 2**24 for _ in range(N)],
        8: [rng.choice(ENDS) % 2**24 | rng.choice((0, 0, 1, 63)) << 24 for _ in range(N)],
        9: [rng.choice((*ENDS, 5, -5, 0, 0)) % 2**24 for _ in range(N)],
        10: [rng.choice((0, 1, 7, 254, 255)) for _ in range(N)],
    }
    traces = pack(TRACES, k_pre=1, k_post=rng.choice((1, 3, 8)), inc_pre=0, inc_post=rng.choice((0, 100, 255)),
                  add_pre=0, add_post=rng.choice((0, 1)))  # fmt: skip
    memories[14] = [window, learn, int(traces), *[0] * 13]
    return Image(SIZES, {mem: np.array([items], np.uint64) for mem, items in memories.items()})


@cocotb.test()
async def corners_as_the_twin_says(dut):
    rng = numbers("update")
    names = "start may_issue step window learn k_post inc_post add_post cell_acc cell_post bus_active bus_addr "
    names += "bus_wdata params_we routes_we types_we u_we v_we"
    await start(dut, **dict.fromkeys(names.split(), 0))
    draw = types(rng)
    serving, neurons = None, 0
    for case in range(6):
        step, window, learn = rng.choice((0, 1, 62, 63, 64, 2**32 - 1)), rng.choice((0, 0, 1, 64, 2**32 - 1)), case % 2
        twin = Naive(image(rng, next(draw), window, learn))
        bench = Update(dut, twin)
        bench.rng = rng
        if serving:
            serving.cancel()
        serving = cocotb.start_soon(bench.serve())
        mem, traces = twin.cores[0].mem, twin.cores[0].mem[14][2]
        dut.step.value, dut.window.value, dut.learn.value = step, window, learn
        dut.k_post.value, dut.inc_post.value, dut.add_post.value = traces >> 4 & 15, traces >> 16 & 255, traces >> 25
        for strobe, number in (("params_we", 2), ("routes_we", 3), ("types_we", 4), ("u_we", 7), ("v_we", 8)):
            await bench.write(strobe, mem[number])
        before = list(mem[8])
        dut.start.value = 1
        await RisingEdge(dut.clk)
        dut.start.value = 0
        await ClockCycles(dut.clk, 2)
        while dut.working.value:
            await RisingEdge(dut.clk)
        twin.update(0, step)
        fired = [n for n in range(N) if mem[13][n // 32] >> n % 32 & 1]
        where = f"case {case}, step {step}, window {window}"
        assert await bench.read("u_rdata", N) == mem[7], f"{where}: u"
        for n, value in enumerate(await bench.read("v_rdata", N)):
            assert value == mem[8][n], f"{where}, neuron {n}: v {value:#x}, twin {mem[8][n]:#x}, was {before[n]:#x}"
        assert bench.acc == mem[9] and bench.post == mem[10], f"{where}: accumulators and traces"
        assert bench.fired == mem[13][:2] and bench.spikes == [(n, mem[3][n]) for n in fired], where
        assert bench.saturated == mem[15][11], where
        neurons += len(fired)
    assert neurons > 25
