"""nc_deliver: runs of synapses on the same few targets, gaps of any length, and what learning makes of the words."""

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from link_bench import numbers, start

N, W = 64, 256
SPARSE, DENSE, CONV, ONE = range(4)


def signed(value: int, width: int) -> int:
    return (value & (1 << width) - 1) - ((value >> width - 1 & 1) << width)


class Deliver:
    """Drives the pipeline, and keeps what words, accumulators and counts must be."""

    def __init__(self, dut, rng):
        self.dut, self.rng = dut, rng
        self.words = [rng.getrandbits(18) for _ in range(W)]
        self.acc = [rng.choice((0, 2**23 - 1, -(2**23), rng.randrange(-(2**23), 2**23))) for _ in range(N)]
        self.post = [rng.choice((0, 0, 255, rng.randrange(256))) for _ in range(N)]
        self.fired = rng.getrandbits(N)
        self.rules = [[rng.getrandbits(25), rng.getrandbits(16)] for _ in range(8)]
        self.counts = {"synapse": 0, "wrap": 0, "down": 0, "up": 0}
        self.seen = dict.fromkeys(self.counts, 0)

    async def count(self) -> None:
        while True:
            await RisingEdge(self.dut.clk)
            for name in self.seen:
                self.seen[name] += int(getattr(self.dut, f"counts_{name}").value)

    async def bus(self, strobe: str, address: int, data: int) -> None:
        self.dut.bus_active.value, self.dut.bus_addr.value, self.dut.bus_wdata.value = 1, address, data
        await ClockCycles(self.dut.clk, 4)  # a part of a cell needs the rest of it
        getattr(self.dut, strobe).value = 1
        await RisingEdge(self.dut.clk)
        getattr(self.dut, strobe).value = 0
        self.dut.bus_active.value = 0
        await ClockCycles(self.dut.clk, 2)

    async def load(self) -> None:
        for address, word in enumerate(self.words):
            await self.bus("words_we", address, word)
        for n in range(N):
            await self.bus("acc_we", n, self.acc[n] & 0xFFFFFF)
            await self.bus("post_we", n, self.post[n])
        for r, items in enumerate(self.rules):
            for i, item in enumerate(items):
                await self.bus("rules_we", 2 * r + i, item)
        for w in range(N // 32):
            self.dut.fired_we.value, self.dut.fired_waddr.value = 1, w
            self.dut.fired_wdata.value = self.fired >> 32 * w & 0xFFFFFFFF
            await RisingEdge(self.dut.clk)
        self.dut.fired_we.value = 0

    async def op(self, **fields) -> None:
        given = dict(header=0, kind=ONE, half=0, addr=0, target=0, weight=0, shift=0, rule=0, pre=0, lanes=0)
        for name, value in (given | fields).items():
            getattr(self.dut, f"op_{name}").value = value
        self.dut.op_valid.value = 1
        await RisingEdge(self.dut.clk)
        self.dut.op_valid.value = 0
        if self.rng.random() < 0.15:
            await ClockCycles(self.dut.clk, self.rng.randint(1, 5))

    def add(self, target: int, weight: int, shift: int) -> None:
        total = self.acc[target % N] + (weight << shift)
        self.acc[target % N] = signed(total, 24)
        self.counts["synapse"] += 1
        self.counts["wrap"] += not -(2**23) <= total < 2**23

    def amount(self, rule: int, trace: int, up: bool) -> int:
        item = self.rules[rule][0]
        factor, shift = (item & 255, item >> 16 & 15) if up else (item >> 8 & 255, item >> 20 & 15)
        return (factor if trace else 0) if item >> 24 else factor * trace >> shift

    def change(self, word: int, low: int, rule: int, dw: int, up: bool) -> None:
        if not rule or not dw:
            return
        weight, bounds = signed(self.words[word] >> low, 8), self.rules[rule][1]
        new = min(weight + dw, signed(bounds >> 8, 8)) if up else max(weight - dw, signed(bounds, 8))
        self.words[word] = self.words[word] & ~(255 << low) | (new & 255) << low
        self.counts["up" if up else "down"] += 1

    async def sparse(self, base: int, length: int, shift: int, rule: int) -> None:
        for word in range(base, base + length):
            target, weight = self.words[word] >> 8, signed(self.words[word], 8)
            self.add(target, weight, shift)
            self.change(word, 0, rule, self.amount(rule, self.post[target % N], False), False)
            await self.op(kind=SPARSE, addr=word, shift=shift, rule=rule)

    async def dense(self, base: int, length: int, shift: int, rule: int) -> None:
        await self.op(kind=DENSE, header=1, addr=base, shift=shift, rule=rule)
        first = self.words[base] >> 8
        for i in range(length):
            word, low, target = base + 1 + i // 2, i % 2 * 8, (first + i) % N
            self.add(target, signed(self.words[word] >> low, 8), shift)
            self.change(word, low, rule, self.amount(rule, self.post[target], False), False)
            await self.op(kind=DENSE, addr=word, half=i % 2, shift=shift, rule=rule)

    async def learn_sparse(self, base: int, length: int, rule: int, pre: int) -> None:
        for group in range(0, length, 4):
            lanes = [lane for lane in range(4) if group + lane < length]
            for lane in lanes:
                word = base + group + lane
                if self.fired >> (self.words[word] >> 8) % N & 1:
                    self.change(word, 0, rule, self.amount(rule, pre, True), True)
            await self.op(kind=SPARSE, addr=base + group, rule=rule, pre=pre, lanes=sum(1 << lane for lane in lanes))

    async def learn_dense(self, base: int, length: int, rule: int, pre: int) -> None:
        await self.op(kind=DENSE, header=1, addr=base, rule=rule, pre=pre)
        first = self.words[base] >> 8
        for group in range(0, 1 + (length + 1) // 2, 4):
            for half in range(2):
                lanes = 0
                for lane in range(4):
                    i = 2 * (group + lane - 1) + half
                    if 0 <= i < length:
                        lanes |= 1 << lane
                        if self.fired >> (first + i) % N & 1:
                            self.change(base + group + lane, 8 * half, rule, self.amount(rule, pre, True), True)
                await self.op(kind=DENSE, addr=base + group, half=half, rule=rule, pre=pre, lanes=lanes)

    async def check(self) -> None:
        await ClockCycles(self.dut.clk, 16)
        assert not self.dut.working.value
        self.dut.bus_active.value = 1
        for address, word in enumerate(self.words):
            self.dut.bus_addr.value = address
            await ClockCycles(self.dut.clk, 7)
            assert int(self.dut.words_rdata.value) == word, f"word {address}"
        for n in range(N):
            self.dut.bus_addr.value = n
            await ClockCycles(self.dut.clk, 4)
            assert signed(int(self.dut.cell_acc.value), 24) == self.acc[n], f"accumulator {n}"
            assert int(self.dut.cell_post.value) == self.post[n], f"post trace {n}"
        self.dut.bus_active.value = 0
        assert self.seen == self.counts


async def prepared(dut, name: str) -> Deliver:
    rng = numbers(name)
    names = "delivering learning op_valid op_header op_kind op_half op_addr op_target op_weight op_shift op_rule "
    names += "op_pre op_lanes gate_neuron update cell_raddr cell_we cell_waddr cell_wpost fired_we fired_waddr "
    names += "fired_wdata bus_active bus_addr bus_wdata words_we acc_we post_we rules_we"
    await start(dut, **dict.fromkeys(names.split(), 0))
    dut.delivering.value = 1
    bench = Deliver(dut, rng)
    cocotb.start_soon(bench.count())
    return bench


@cocotb.test()
async def the_same_few_targets_back_to_back(dut):
    bench = await prepared(dut, "back to back")
    await bench.load()
    for few in (1, 2, 3, 5):
        for _ in range(250):
            target, weight, shift = bench.rng.randrange(few), bench.rng.randrange(-128, 128), bench.rng.randrange(8)
            bench.add(target, weight, shift)
            await bench.op(kind=ONE, target=target, weight=weight & 255, shift=shift)
    await bench.check()


@cocotb.test()
async def rows_and_depression(dut):
    bench = await prepared(dut, "depression")
    for word in range(W):  # a row with a rule names no target twice
        bench.words[word] = bench.words[word] & 255 | (word * 7 % N) << 8
    await bench.load()
    for base in range(0, W - 31, 32):
        length, rule = bench.rng.randint(1, 28), bench.rng.choice((0, *range(1, 8)))
        await (bench.sparse if bench.rng.random() < 0.5 else bench.dense)(base, length, bench.rng.randrange(8), rule)
    await bench.check()
    assert bench.counts["down"]


@cocotb.test()
async def four_lanes_of_potentiation(dut):
    bench = await prepared(dut, "potentiation")
    await bench.load()
    dut.learning.value = 1
    for base in range(0, W - 31, 32):
        length, rule, pre = bench.rng.randint(1, 32), bench.rng.randint(1, 7), bench.rng.randint(1, 255)
        dense = bench.rng.random() < 0.5
        await (bench.learn_dense(base, length, rule, pre) if dense else bench.learn_sparse(base, length, rule, pre))
    await bench.check()
    assert bench.counts["up"] and not bench.seen["synapse"]
