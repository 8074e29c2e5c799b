// nc_mesh as a shared library: the host's side of its memory bus, steps, events and log, driven clock by clock.
#include <cstdint>
#include <memory>

#include "Vnc_mesh.h"
#include "verilated.h"

namespace {
constexpr uint64_t PATIENCE = 100'000'000;  // clocks until a step that does not end is given up

struct Mesh {
    VerilatedContext context;
    Vnc_mesh top{&context};
    uint64_t clocks = 0;
    uint32_t stall = 0;  // the log is not ready in stall of 256 clocks
    uint32_t random = 1;

    void clock() {
        top.clk = 0;
        top.eval();
        top.clk = 1;
        top.eval();
        ++clocks;
    }
    bool chance(uint32_t of256) {
        random = random * 1664525u + 1013904223u;
        return (random >> 24) < of256;
    }
};

// Holds a request until the clock that takes it.
template <typename Ready>
void until(Mesh& m, const Ready& ready) {
    for (;;) {
        m.top.eval();
        const bool taken = ready();
        m.clock();
        if (taken) return;
    }
}
}  // namespace

extern "C" {
Mesh* mesh_new() {
    auto m = std::make_unique<Mesh>();
    m->top.rst = 1;
    for (int i = 0; i < 4; ++i) m->clock();
    m->top.rst = 0;
    for (int i = 0; i < 24; ++i) m->clock();  // the counters clear themselves
    return m.release();
}

void mesh_free(Mesh* m) { delete m; }

void mesh_stall(Mesh* m, uint32_t of256, uint32_t seed) {
    m->stall = of256;
    m->random = seed;
}

uint64_t mesh_clocks(const Mesh* m) { return m->clocks; }
uint32_t mesh_step_count(const Mesh* m) { return m->top.step_count; }

void mesh_write(Mesh* m, int core, int mem, int address, int count, const uint64_t* items) {
    m->top.bus_valid = m->top.bus_write = 1;
    m->top.bus_core = core;
    m->top.bus_mem = mem;
    for (int i = 0; i < count; ++i) {
        m->top.bus_addr = address + i;
        m->top.bus_wdata = items[i];
        until(*m, [&] { return m->top.bus_ready; });
    }
    m->top.bus_valid = 0;
}

void mesh_read(Mesh* m, int core, int mem, int address, int count, uint64_t* items) {
    m->top.bus_write = 0;
    m->top.bus_core = core;
    m->top.bus_mem = mem;
    for (int i = 0; i < count; ++i) {
        m->top.bus_addr = address + i;
        m->top.bus_valid = 1;
        until(*m, [&] { return m->top.bus_ready; });
        m->top.bus_valid = 0;
        while (!m->top.bus_rvalid) m->clock();
        items[i] = m->top.bus_rdata;
    }
}

void mesh_inject(Mesh* m, int core, int slot, int count, const int32_t* axons) {
    m->top.inj_valid = 1;
    m->top.inj_core = core;
    m->top.inj_slot = slot;
    for (int i = 0; i < count; ++i) {
        m->top.inj_axon = axons[i];
        until(*m, [&] { return m->top.inj_ready; });
    }
    m->top.inj_valid = 0;
}

// Runs a step, or RESTART. Logged (core, neuron) pairs go to `log`, which has room for every neuron.
// Returns their number, or -1 where the mesh never becomes idle.
int mesh_run(Mesh* m, int restart, int32_t* log) {
    m->top.bus_valid = m->top.inj_valid = 0;
    (restart ? m->top.restart : m->top.step) = 1;
    m->clock();
    m->top.restart = m->top.step = 0;
    int logged = 0;
    for (uint64_t waited = 0; m->top.busy; ++waited) {
        if (waited == PATIENCE) return -1;
        m->top.log_ready = m->stall == 0 || !m->chance(m->stall);
        m->top.eval();
        if (m->top.log_valid && m->top.log_ready) {
            log[2 * logged] = m->top.log_core;
            log[2 * logged + 1] = m->top.log_neuron;
            ++logged;
        }
        m->clock();
    }
    return logged;
}
}
