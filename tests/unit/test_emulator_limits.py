"""Numbers beyond 32 bits, and Programs that no machine has the memory for."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from nmc_compiler.errors import UsageError
from nmc_compiler.program.model import Conv, Dendrite, HostCodes, Population, Program
from nmc_compiler.program.network import Network
from nmc_emulator import Emulator, run
from nmc_emulator.fanout import fan
from nmc_emulator.kernels import tally
from nmc_emulator.layout import resolve
from nmc_emulator.loads import TickLoads
from nmc_emulator.memory import Ref, Step, bind
from nmc_emulator.timing import analyse


def image_net(channels: int, shape: tuple[int, int], outs: int, kernel: int, pad: int, **options) -> Program:
    """An input, one convolution of zeros that keeps its positions, and a readout of one channel."""
    wide = np.zeros((kernel, kernel, channels, outs), np.int8)
    shapes = (channels, *shape), (outs, *shape), (1, *shape)
    return Program(
        "image", 1, 1, shapes[0], False,
        (Population("in", shapes[0], 0, "input", "input", -1),
         Population("p", shapes[1], 1, "lif", "neuron", 0, vth=np.full(outs, 5, np.int32)),
         Population("head", shapes[2], 2, "readout", "readout", 1)),
        (Dendrite("d", shapes[1], 0), Dendrite("e", shapes[2], 1)),
        (Conv("wide", 0, 0, 1, wide, 0, pad=(pad, pad), out_hw=shape),
         Conv("head", 1, 1, 1, np.zeros((1, 1, outs, 1), np.int8), 0, out_hw=shape)),
        (), (), (), (), (HostCodes(0, 1.0, 0, 1),), None, {}, **{"interval": 3, **options},
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["layers", "events"])
def test_synops_of_one_tick_beyond_32_bits(engine):
    """2^20 events that each reach up to 9 * 256 accumulators, all on one core."""
    program = image_net(64, (128, 128), 256, 3, 1)
    result = run(program, np.ones((1, 64, 128, 128), np.float32), engine=engine)
    synops = (3 * 128 - 2) ** 2 * 64 * 256  # at the rims a tap less
    assert synops > 2**31
    assert result.counters.total("synops_ac") == synops
    assert result.counters.total("synops_ac_dense") == synops + 128 * 128 * 256
    assert result.counters.bound["synops"] == synops
    assert result.counters.bound["memory_reads"] == synops + 64 * 128 * 128


def test_work_along_a_row_beyond_32_bits():
    """A table of 64 bits where the channels and taps of one row of events need it, and only there."""
    many = image_net(2**12, (1, 1024), 1, 1025, 512)
    for program, dtype in ((image_net(8, (3, 5), 4, 3, 1), np.int32), (many, np.int64)):
        timing, channels = analyse(program), program.input_shape[0]
        table = fan(program, resolve(program), timing.edges[0], np.array([0, channels]))
        assert table.columns.dtype == dtype
    count, load, total = np.full((1, 1, 1024), 2**12, np.int32), np.zeros((2, 1), np.int64), np.zeros(2, np.int64)
    factors = table.channels, table.rows, table.columns, table.extent, table.core
    tally.work(np.array([0, 1]), 1, count, 1024, *factors, 1, 0, np.array([0]), load, total)
    assert total.tolist() == [int(table.columns.sum()) * 2**12, 0] and total[0] > 2**31
    assert load[1, 0] == total[0]


# --- more memory than there is --------------------------------------------------------------------------------


@pytest.fixture
def small_machine(monkeypatch):
    """A machine of 1 MiB."""
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 256}[name])


def late(delay: int, somas: int) -> Program:
    net = Network("late")
    net.input("in", somas, payload_bits=3)
    net.lif("out", 1, vth=1)
    net.sparse("w", 0, 1, [0] * somas + [1], [0], [1], graded=True)
    program = net.program()
    return replace(program, sparses=(replace(program.sparses[0], delay=delay, lag=1),), ticks_per_step=delay)


def test_events_under_way_are_refused_before_they_are_made():
    """A file of a few kB that would take 9 TiB; the tick engine keeps only what there is."""
    program = late(2**20, 2**20)
    with pytest.raises(UsageError) as caught:
        Emulator(program, engine="events")
    text = str(caught.value)
    assert text.startswith(
        "Program 'late': events under way, of 1048577 somas for up to 1048576 ticks, need 8796113993728 bytes, "
        "more than the "
    )
    assert text.endswith(" of this machine; shorten its longest delay, or choose the engine 'ticks'")


def test_what_fits_runs(small_machine):
    codes = np.ones((2, 100, 1, 1), np.int32)
    for engine in ("events", "ticks"):
        assert Emulator(late(7, 100), engine=engine).run_events({"in": codes}, 2).counters.total("events") == 200
    with pytest.raises(UsageError, match="of 101 somas for up to 9999 ticks, need 8.* bytes, more than the 1048576 of"):
        Emulator(late(9999, 100), engine="events")


def test_loads_of_endless_intervals_are_refused():
    program = image_net(1, (1, 1), 1, 1, 0, interval=2**40)
    run(program, np.zeros((1, 1, 1, 1), np.float32))
    with pytest.raises(
        UsageError,
        match=r"the loads of 1099511627779 ticks on 1 cores and 4 links need 61572651155624 bytes, more than the \d+ "
        "of this machine; choose a smaller batch, or a Program with a shorter interval",
    ):
        Emulator(program, batch=2)
    with pytest.raises(UsageError, match="the loads of"):
        TickLoads(2**50, 1, 1)


def test_buffers_of_a_batch_are_refused(small_machine):
    shapes = {"a": ((1024, 1024), np.uint8), "b": ((1024,), np.uint8)}
    steps = [Step(print, (Ref("a"),)), Step(print, (Ref("b"), Ref("a")))]
    with pytest.raises(UsageError, match="the 2 buffers of a batch need 1049600 bytes, more than the 1048576 of this"):
        bind(steps, shapes, forever=False)
    bind(steps[:1], shapes, forever=False)
