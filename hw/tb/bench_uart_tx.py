"""nc_uart_tx: bytes, their timing, and no pause between them."""

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge, Timer
from cocotb.utils import get_sim_time
from link_bench import numbers, start

CLOCK_PS = 10_000


@cocotb.test()
async def bytes_follow_each_other_at_the_rate(dut):
    rng = numbers("uart tx")
    await start(dut, valid=0, data=0, rate=0)
    for clocks_per_bit in (4.0, 8.68, 16.0):
        bit_ps = clocks_per_bit * CLOCK_PS
        dut.rate.value = round(2**20 / clocks_per_bit)
        data, got, times = [rng.randrange(256) for _ in range(20)], [], []

        async def listen(wanted: int, bit_ps: float = bit_ps, got: list = got, times: list = times) -> None:
            for _ in range(wanted):
                await FallingEdge(dut.tx)
                times.append(get_sim_time("ps"))
                await Timer(round(1.5 * bit_ps), "ps")
                byte = 0
                for bit in range(8):
                    byte |= int(dut.tx.value) << bit
                    await Timer(round(bit_ps * (bit + 2.5)) - round(bit_ps * (bit + 1.5)), "ps")
                assert int(dut.tx.value) == 1  # stop
                got.append(byte)

        listening = cocotb.start_soon(listen(len(data)))
        for byte in data:
            dut.valid.value, dut.data.value = 1, byte
            while True:
                await RisingEdge(dut.clk)
                if dut.ready.value:
                    break
        dut.valid.value = 0
        await listening
        assert got == data
        assert abs(times[-1] - times[0] - 19 * 10 * bit_ps) < 3 * CLOCK_PS
        while not dut.ready.value:
            await RisingEdge(dut.clk)
