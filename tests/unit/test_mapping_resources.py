"""Resource counts by hand: the published packing of Loihi 2, and each kind of memory."""

from __future__ import annotations

import numpy as np
import pytest
from mapping_nets import Net, sdt_v1, spikformer, target_with

from nmc_compiler.errors import CapacityError
from nmc_compiler.mapping import map_program
from nmc_compiler.mapping.reach import find_reaches
from nmc_compiler.mapping.resources import block_bits, sizes
from nmc_compiler.target import load_target

LOIHI2 = load_target("loihi2")


def words(net: Net, c0: int | None = None, c1: int | None = None, number: int = -1) -> float:
    """Words of the last projection of a net, for target channels c0..c1."""
    reach = find_reaches(net.build())[number]
    return block_bits(reach, c0 or 0, c1 or reach.dst_shape[0], sizes(LOIHI2)) / 64


def one_conv(inputs, outputs, kernel, size=8, groups=1, single=False):
    net = Net((1, 1, 1) if single else (1, size, size))
    net.image(net.dendrite((inputs, *net.input_shape[1:])), 0)
    p = net.soma(0, 0)
    q = net.layer(p, outputs, kernel, 1, kernel // 2, groups)
    net.soma(net.populations[q].dendrite, 1, "readout", "readout")
    return net


@pytest.mark.parametrize(
    ("inputs", "outputs", "published"),
    [(3, 24, 81), (24, 36, 1080), (36, 48, 1944), (36, 64, 2592), (64, 40, 2880)],
)
def test_conv_rows_as_in_the_published_compiler_logs(inputs, outputs, published):
    """3x3 kernels: kx*ky*c_in*ceil(c_out*8/64) words, among them rows of the PilotNet logs (81, 2592, 2880)."""
    assert words(one_conv(inputs, outputs, 3)) == published


def test_conv_rows_of_a_part_of_the_channels():
    net = one_conv(4, 32, 3)
    assert words(net) == 9 * 4 * 4
    assert words(net, 8, 16) == 9 * 4 * 1
    assert words(net, 4, 13) == 9 * 4 * 2


def test_depthwise_and_grouped_rows():
    """One row per tap and input channel, of its group's outputs on the core."""
    assert words(one_conv(16, 16, 3, groups=16)) == 9 * 16
    assert words(one_conv(16, 16, 3, groups=16), 3, 8) == 9 * 5
    grouped = one_conv(8, 40, 3, groups=2)  # groups of 4 inputs and 20 outputs: 3 words per row
    assert words(grouped) == 9 * 8 * 3
    assert words(grouped, 0, 20) == 9 * 4 * 3
    assert words(grouped, 16, 24) == 9 * 4 * (1 + 1)


def test_dense_rows():
    """20 bits per synapse, each source's row in whole words: 200 outputs took 63 words in the logs."""
    assert words(one_conv(5, 200, 1, single=True)) == 5 * 63
    assert words(one_conv(5, 200, 1, size=2)) == 5 * 25


def test_tables_of_both_orders():
    net = Net((1, 4, 4))
    net.image(net.dendrite((6, 4, 4)), 0)
    p = net.soma(0, 0)
    q, k, v = net.layer(p, 6), net.layer(p, 6), net.layer(p, 12)
    for order in ("kv", "qk"):
        dst = net.dendrite((12, 4, 4))
        net.dynamic(q, k, v, dst, 3, 2, order)
        net.soma(dst, 3)
    net.soma(dst, 3, "readout", "readout")
    bits = 16 * 2  # entry and banks
    kv, qk = find_reaches(net.build())[5], find_reaches(net.build())[8]
    assert (kv.index, kv.role, qk.index, qk.role) == (0, 2, 1, 2)
    assert block_bits(kv, 0, 12, sizes(LOIHI2)) == 12 * 3 * bits
    assert block_bits(kv, 0, 4, sizes(LOIHI2)) == 4 * 3 * bits
    assert block_bits(qk, 0, 6, sizes(LOIHI2)) == 16 * 16 * bits
    assert block_bits(qk, 4, 8, sizes(LOIHI2)) == 2 * 16 * 16 * bits
    assert all(block_bits(r, 0, 12, sizes(LOIHI2)) == 0 for r in find_reaches(net.build())[3:5])


def usage(program, target=LOIHI2):
    report = map_program(program, target, "auto")[1]
    return [{name: used for name, (used, _) in core.items()} for core in report.utilisation]


def test_shared_weights_count_once():
    """Two projections with one key into one dendrite take one block; without a key, two."""
    amounts = []
    for key in ("w", ""):
        net = Net((1, 4, 4))
        net.image(net.dendrite((8, 4, 4)), 0)
        a, b = net.soma(0, 0), net.soma(0, 0)
        dst = net.dendrite((16, 4, 4))
        net.conv(a, dst, 1, key=key)
        net.conv(b, dst, 1, key=key)
        net.soma(dst, 1, "readout", "readout")
        amounts.append(usage(net.build())[0])
    own = 8 * 16 * 24 // 64  # accumulators of the first dendrite: two somas share them
    host = 8
    assert amounts[0]["synapse_words"] == 8 * 2 + own + host
    assert amounts[1]["synapse_words"] == 2 * 8 * 2 + own + host
    assert amounts[0]["axons_in"] == 16 * 2 + 16  # two spikes and a host current per position
    assert amounts[0]["neurons"] == 2 * 128 + 256


def test_groups_are_thresholds_of_a_population():
    net = Net((1, 1, 1))
    net.image(net.dendrite((6, 1, 1)), 0, 1, 1, 0)
    net.soma(0, 0, vth=np.array([1, 2, 2, 3, 3, 3], np.int32))
    net.readout(0, 2)
    assert usage(net.build())[0]["neuron_groups"] == 3 + 1


def test_every_core_of_real_networks_is_within_limits():
    for program in (sdt_v1(32, 32, 1), spikformer(32, 32, 1)):
        report = map_program(program, LOIHI2)[1]
        assert all(used <= limit for core in report.utilisation for used, limit in core.values())
        total = sum(core["neurons"][0] for core in report.utilisation)
        assert total == sum(np.prod(p.shape) for p in program.populations)


# --- errors -----------------------------------------------------------------------------------------------------


def refusal(program, target, chips=1) -> str:
    with pytest.raises(CapacityError) as error:
        map_program(program, target, chips)
    return str(error.value)


def test_too_many_cores():
    program = sdt_v1(64, 32, 2)
    small = target_with(routers=(2, 2))
    assert refusal(program, small) == (
        "the network needs 40 cores, but 1 chip of loihi2 has 16 (cores 40/16). Give --chips 3 (or auto)"
    )
    assert map_program(program, small, 3)[1].chips == 3
    assert map_program(program, small, "auto")[1].chips == 3
    capped = target_with(routers=(2, 2), chips_max=2)
    assert "loihi2 has 2 chips at most: use a target with 40 cores" in refusal(program, capped, "auto")


def test_attention_too_large_for_a_core():
    text = refusal(spikformer(16, 16, 1, 2), target_with(neurons=10))
    assert text == (
        "layer 'p10': its smallest tile needs 16 neurons of one core, but a core of loihi2 has 10 (16/10). Attention "
        "and sums keep all positions of a channel on one core: use fewer tokens, or use a target with at least "
        "16 neurons per core"
    )


def test_stream_whose_readers_differ_too_much():
    net = Net((1, 1, 1))
    net.image(net.dendrite((6, 1, 1)), 0, 1, 1, 0)
    for level in range(5):
        net.soma(0, level, vth=np.full(6, 10 + level, np.int32))
    net.readout(0, 7)
    text = refusal(net.build(), target_with(neuron_groups=4))
    assert "on the same accumulators: its smallest tile needs 5 neuron_groups of one core" in text
    assert "Compile with --residual duplicate, so that each population has accumulators of its own" in text


def test_populations_with_equal_parameters_share_a_group():
    report = map_program(sdt_v1(16, 16, 2, 2), target_with(neuron_groups=4))[1]
    assert max(used for core in report.utilisation for used, _ in [core["neuron_groups"]]) <= 4


def test_ring_too_long():
    text = refusal(sdt_v1(16, 16, 1, 2), target_with(synapse_words=140))
    assert "needs 344 synapse_words of one core, but a core of loihi2 has 140 (344/140)" in text
    assert "Compile with --residual duplicate instead of one stream (4 timesteps alive at once)" in text


def test_fan_in_and_fan_out():
    program = sdt_v1(64, 32, 1)
    text = refusal(program, target_with(axons_in=50))
    assert "axons_in of one core" in text and "use a target with at least" in text
    assert "axons_out of one core" in refusal(program, target_with(axons_out=3))


def test_per_channel_thresholds():
    net = Net((1, 1, 1))
    net.image(net.dendrite((6, 1, 1)), 0, 1, 1, 0)
    net.soma(0, 0, vth=np.arange(6, dtype=np.int32))
    net.soma(0, 0)
    net.readout(0, 2)
    report = map_program(net.build(), target_with(neuron_groups=3))[1]  # cut into pairs of channels
    assert report.layers[0].cut[0] == 3
    text = refusal(net.build(), target_with(neuron_groups=1))
    assert "needs 2 neuron_groups of one core" in text


def test_long_delays():
    net = Net((1, 2, 2))
    net.image(net.dendrite((2, 2, 2)), 0)
    p = net.layer(net.soma(0, 0), 2, delay=20)
    net.soma(net.populations[p].dendrite, 20, "readout", "readout")
    map_program(net.build(), LOIHI2)
    assert refusal(net.build(), load_target("generic-mesh")) == (
        "projection 'conv0' needs a delay of 20 ticks, but generic-mesh has 16 (delay 20/16). "
        "Insert relay populations, or use a target with longer delays"
    )


def test_table_entries_that_could_overflow():
    net = Net((1, 70, 70))
    net.image(net.dendrite((2, 70, 70)), 0)
    p = net.soma(0, 0)
    q, k, v = (net.layer(p, 2, model="levels", levels=4) for _ in range(3))
    dst = net.dendrite((2, 70, 70))
    net.dynamic(q, k, v, dst, 3, 1)
    net.soma(dst, 3, "readout", "readout")
    text = refusal(net.build(), target_with(neurons=8192))
    assert "attention 'dyn0': a table entry can reach 78400, but loihi2 keeps 16 bits (78400/65535)" in text
