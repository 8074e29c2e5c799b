"""The neurocore in plain Python, line by line as docs/neurocore.md says: what the kernels and the RTL must equal."""

from nmc_compiler.neurocore import Image, memories


def bits(item, low, width):
    return (item >> low) % (1 << width)


def signed(item, low, width):
    value = bits(item, low, width)
    return value - (1 << width) if value >> (width - 1) else value


def sat(x):
    return max(-(2**23) + 1, min(2**23 - 1, x))


def decay(x, d):
    magnitude = (abs(x) * (4096 - d)) >> 12
    return magnitude if x >= 0 else -magnitude


def trace(x, k, spike, inc, add):
    if x > 0:
        x = x - max(x >> k, 1)
    if spike:
        x = min(x + inc, 255) if add else inc
    return x


def change(x, amount, shift, rect):
    return (amount if x > 0 else 0) if rect else (amount * x) >> shift


def width(memory, address):
    """Bits of an item that mean something."""
    special = {4: [33, 36, 26, 0], 6: [25, 16], 14: [32, 1, 26, *[32] * 13]}.get(memory.id, [memory.bits])
    return special[address % len(special)]


class Core:
    def __init__(self, sizes):
        self.mem = [[0] * memory.items for memory in memories(sizes)]


class Naive:
    """All values are Python integers; a memory is a list of items as the host sees them."""

    def __init__(self, image: Image):
        self.sizes = image.sizes
        self.memories = memories(image.sizes)
        self.cores = [Core(image.sizes) for _ in range(image.sizes.cores)]
        for mem, items in image.memories.items():
            for core in range(image.sizes.cores):
                self.write(core, mem, 0, items[core])

    # --- the host's side ---

    @property
    def step_count(self):
        return self.cores[0].mem[14][3]

    def write(self, core, mem, address, items):
        for i, item in enumerate(items):
            if mem == 15:
                self.cores[core].mem[15] = [0] * 16
            elif mem != 14 or address + i < 3:
                self.cores[core].mem[mem][address + i] = int(item) % (1 << width(self.memories[mem], address + i))

    def read(self, core, mem, address=0, count=None):
        items = self.cores[core].mem[mem]
        return items[address : len(items) if count is None else address + count]

    def inject(self, core, axons, slot):
        for axon in axons:
            self.set_pending(core, int(axon), slot)

    def restart(self):
        for core in self.cores:
            for mem in range(7, 14):
                core.mem[mem] = [0] * self.memories[mem].items
            core.mem[14][3] = 0

    def step(self):
        log = []
        t = self.step_count
        for c in range(len(self.cores)):
            self.deliver(c, t)
        for c in range(len(self.cores)):
            log += self.update(c, t)
        for c, core in enumerate(self.cores):
            if core.mem[14][1] & 1:
                self.learn(c, t)
        for core in self.cores:
            words = self.sizes.axons // 32
            for w in range(words):
                core.mem[12][t % 16 * words + w] = 0
            core.mem[14][3] = (t + 1) % 2**32
            self.count(core, 3)
        return log

    # --- pieces ---

    def count(self, core, counter):
        core.mem[15][counter] = (core.mem[15][counter] + 1) % 2**32
        if counter == 0 and core.mem[15][0] == 0:
            self.count(core, 1)

    def set_pending(self, c, axon, slot):
        axon %= self.sizes.axons
        self.cores[c].mem[12][slot % 16 * (self.sizes.axons // 32) + axon // 32] |= 1 << axon % 32

    def pending(self, c, axon, slot):
        return self.cores[c].mem[12][slot % 16 * (self.sizes.axons // 32) + axon // 32] >> axon % 32 & 1

    def fired(self, c, neuron):
        return self.cores[c].mem[13][neuron // 32] >> neuron % 32 & 1

    def chain(self, c, axon):
        """Row descriptors of an axon's chain."""
        for d in range(axon, self.sizes.axons):
            row = self.cores[c].mem[1][d]
            yield row
            if not bits(row, 3, 1):
                return

    def add(self, core, target, value):
        total = signed(core.mem[9][target], 0, 24) + value
        core.mem[9][target] = total % 2**24
        self.count(core, 0)
        if not -(2**23) <= total < 2**23:
            self.count(core, 10)

    def synapses(self, core, row):
        """Synapses of a SPARSE or DENSE row: (word, low bit of the weight, target)."""
        base, length = bits(row, 20, 16), bits(row, 10, 10) + 1
        if bits(row, 0, 3) == 1:
            for i in range(length):
                word = (base + i) % self.sizes.words
                yield word, 0, bits(core.mem[0][word], 8, 10) % self.sizes.neurons
        else:
            first = bits(core.mem[0][base % self.sizes.words], 8, 10)
            for i in range(length):
                yield (base + 1 + i // 2) % self.sizes.words, i % 2 * 8, (first + i) % self.sizes.neurons

    def store(self, core, word, low, weight):
        assert -128 <= weight <= 127
        core.mem[0][word] += (weight % 256 - bits(core.mem[0][word], low, 8)) << low

    # --- the phases ---

    def deliver(self, c, t):
        core = self.cores[c]
        for axon in range(self.sizes.axons):
            if not self.pending(c, axon, t):
                continue
            self.count(core, 13)
            for row in self.chain(c, axon):
                fmt, shift = bits(row, 0, 3), bits(row, 4, 3)
                if fmt in (1, 2):
                    self.deliver_row(core, row, shift)
                elif fmt == 3:
                    self.deliver_conv(core, row, shift)
                elif fmt == 4:
                    self.add(core, bits(row, 18, 10) % self.sizes.neurons, signed(row, 10, 8) << shift)
                elif fmt == 5 and not self.fired(c, bits(row, 10, 10) % self.sizes.neurons):
                    break
                elif fmt == 6 and bits(row, 21, 4) > 0:
                    self.set_pending(c, bits(row, 10, 11), t + bits(row, 21, 4))

    def deliver_row(self, core, row, shift):
        rule = bits(row, 7, 3)
        for word, low, target in self.synapses(core, row):
            weight = signed(core.mem[0][word], low, 8)
            self.add(core, target, weight << shift)
            if rule and core.mem[14][1] & 1:
                first, second = core.mem[6][2 * rule], core.mem[6][2 * rule + 1]
                dw = change(core.mem[10][target], bits(first, 8, 8), bits(first, 20, 4), bits(first, 24, 1))
                if dw > 0:
                    self.count(core, 8)
                    self.store(core, word, low, max(weight - dw, signed(second, 0, 8)))

    def deliver_conv(self, core, row, shift):
        geom = bits(row, 10, 4) % self.sizes.geoms
        y, x, base = bits(row, 14, 6), bits(row, 20, 6), 64 * bits(row, 26, 10)
        g0, g1, g2 = core.mem[5][4 * geom : 4 * geom + 3]
        kh, kw, sy, sx = bits(g0, 0, 4), bits(g0, 4, 4), bits(g0, 8, 2), bits(g0, 10, 2)
        dy, dx, cout = bits(g0, 12, 3), bits(g0, 15, 3), bits(g0, 18, 10)
        oy, ox, ho, wo = signed(g1, 0, 8), signed(g1, 8, 8), bits(g1, 16, 6), bits(g1, 22, 6)
        plane, first = bits(g2, 0, 10), bits(g2, 10, 10)
        for ky in range(kh):
            for kx in range(kw):
                r, c = y + oy - ky * dy, x + ox - kx * dx
                if r < 0 or r % 2**sy or (r >> sy) >= ho or c < 0 or c % 2**sx or (c >> sx) >= wo:
                    continue
                for o in range(cout):
                    word = base + (ky * kw + kx) * ((cout + 1) // 2) + o // 2
                    weight = signed(core.mem[0][word % self.sizes.words], o % 2 * 8, 8)
                    target = first + o * plane + (r >> sy) * wo + (c >> sx)
                    self.add(core, target % self.sizes.neurons, weight << shift)

    def update(self, c, t):
        core, log = self.cores[c], []
        window, learn, traces = core.mem[14][0], core.mem[14][1] & 1, core.mem[14][2]
        spikes = []
        for n in range(self.sizes.neurons):
            param = core.mem[2][n]
            kind = bits(param, 20, 6) % self.sizes.types
            i0, i1, i2 = core.mem[4][4 * kind : 4 * kind + 3]
            since, spike = t - bits(i2, 20, 6), False
            if since >= 0 and (window == 0 or since < window):
                spike = self.soma(core, n, (i0, i1, i2), signed(param, 0, 20))
                if learn:
                    k, inc, add = bits(traces, 4, 4), bits(traces, 16, 8), bits(traces, 25, 1)
                    core.mem[10][n] = trace(core.mem[10][n], k, spike, inc, add)
            core.mem[9][n] = 0
            spikes.append(spike)
            if not spike:
                continue
            self.count(core, 2)
            route = core.mem[3][n]
            for to, other in enumerate(self.cores):
                if bits(route, 11, 4) >> to & 1:
                    self.set_pending(to, bits(route, 0, 11), t + 1)
                    if to != c:
                        self.count(core, 6)
                        self.count(other, 7)
            if bits(route, 15, 1):
                log.append((c, n))
        for n, spike in enumerate(spikes):
            core.mem[13][n // 32] = core.mem[13][n // 32] & ~(1 << n % 32) | spike << n % 32
        return log

    def soma(self, core, n, items, bias):
        i0, i1, i2 = items
        du, dv, refractory, soft = bits(i0, 0, 13), bits(i0, 13, 13), bits(i0, 26, 6), bits(i0, 32, 1)
        vth, gain, ishift, leak = signed(i1, 0, 24), bits(i1, 24, 8), bits(i1, 32, 4), bits(i2, 0, 20)
        a, u = signed(core.mem[9][n], 0, 24), signed(core.mem[7][n], 0, 24)
        v, refr = signed(core.mem[8][n], 0, 24), bits(core.mem[8][n], 24, 6)
        exact = decay(u, du) + ((a * gain) << ishift)
        u = sat(exact)
        saturated, spike = u != exact, False
        if refr > 0:
            refr -= 1
        else:
            exact = decay(v, dv) + u + bias
            v = sat(exact)
            saturated = saturated or v != exact
            if v > 0:
                v = max(v - leak, 0)
            elif v < 0:
                v = min(v + leak, 0)
            spike = v > vth
            if spike:
                exact = v - vth if soft else 0
                v = sat(exact)
                saturated = saturated or v != exact
                refr = refractory
        core.mem[7][n] = u % 2**24
        core.mem[8][n] = v % 2**24 + (refr << 24)
        if saturated:
            self.count(core, 11)
        return spike

    def learn(self, c, t):
        core, traces = self.cores[c], self.cores[c].mem[14][2]
        k, inc, add = bits(traces, 0, 4), bits(traces, 8, 8), bits(traces, 24, 1)
        for axon in range(self.sizes.axons):
            core.mem[11][axon] = trace(core.mem[11][axon], k, self.pending(c, axon, t), inc, add)
            x = core.mem[11][axon]
            if x == 0:
                continue
            for row in self.chain(c, axon):
                rule = bits(row, 7, 3)
                if bits(row, 0, 3) not in (1, 2) or rule == 0:
                    continue
                first, second = core.mem[6][2 * rule], core.mem[6][2 * rule + 1]
                dw = change(x, bits(first, 0, 8), bits(first, 16, 4), bits(first, 24, 1))
                for word, low, target in self.synapses(core, row):
                    if dw > 0 and self.fired(c, target):
                        self.count(core, 9)
                        weight = signed(core.mem[0][word], low, 8)
                        self.store(core, word, low, min(weight + dw, signed(second, 8, 8)))
