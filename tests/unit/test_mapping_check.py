"""The checker finds each kind of damage and says where; map_program as a whole."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from mapping_nets import Net, random_net, sdt_v1, sdt_v3, spikformer, target_with

from nmc_compiler.errors import LoweringError, UsageError, VerifyError
from nmc_compiler.mapping import check_mapping, find_problems, map_program
from nmc_compiler.program import program_digest, validate_program
from nmc_compiler.target import load_target

TARGET = target_with(neurons=130)
PROGRAM = map_program(sdt_v1(16, 16, 1, 2), TARGET)[0]
MAPPING = PROGRAM.mapping


def problems(**tables) -> str:
    broken = replace(PROGRAM, mapping=replace(MAPPING, **tables))
    return "\n".join(find_problems(broken, TARGET).problems)


def rows(table: str, **wanted: int) -> np.ndarray:
    """Numbers of the rows of a table with the wanted values, by column name."""
    names = {
        "axons": ["src", "kind", "index", "role", "dst", "c0", "c1", "y0", "y1", "x0", "x1"],
        "pieces": ["tile", "dendrite", "c0", "c1", "y0", "y1", "x0", "x1"],
    }[table]
    data = getattr(MAPPING, table)
    return np.flatnonzero(np.all([data[:, names.index(k)] == v for k, v in wanted.items()], axis=0))


def changed(table: str, row: int, column: int, by: int) -> dict:
    data = getattr(MAPPING, table).copy()
    data[row, column] += by
    return {table: data}


def test_what_is_checked():
    assert len(MAPPING.tiles) > 20  # several tiles per layer: the damage below is not trivial
    result = check_mapping(PROGRAM, TARGET)
    assert (result.projections, result.axons, result.problems) == (17, len(MAPPING.axons), [])


def test_synapses_are_counted():
    """3x3 with padding on 4x4: 10 * 10 pairs of positions; two channels in, five out; one gate more."""
    net = Net((1, 4, 4))
    net.image(net.dendrite((2, 4, 4)), 0)
    q = net.layer(net.soma(0, 0), 5, 3, 1, 1)
    dst = net.dendrite((5, 1, 1))
    net.map(q, dst, 2, "reduce")
    net.soma(dst, 2, "readout", "readout")
    assert map_program(net.build(), TARGET)[1].check.synapses == 2 * 5 * 10 * 10 + 5 * 16


def test_dropped_axon():
    row = rows("axons", kind=0, index=0)[0]
    text = problems(axons=np.delete(MAPPING.axons, row, axis=0))
    assert "conv 'conv0': the event of source [0, 0, 0] reaches tile" in text
    assert "0 times instead of once" in text


def test_duplicated_axon():
    row = rows("axons", kind=1, index=2)[0]
    text = problems(axons=np.concatenate([MAPPING.axons, MAPPING.axons[row : row + 1]]))
    assert "map 'map2'" in text and "2 times instead of once" in text


@pytest.mark.parametrize("column", [6, 8, 10])
def test_shrunk_axon(column):
    row = rows("axons", kind=0, index=0)[0]
    assert "conv 'conv0'" in problems(**changed("axons", row, column, -1))


def test_grown_axon_takes_what_its_tile_has_not():
    held = {int(r[0]): int(r[7]) for r in MAPPING.pieces if r[1] == 0}
    row = next(r for r in rows("axons", kind=0, index=0) if MAPPING.axons[r, 10] == held[MAPPING.axons[r, 0]] < 16)
    text = problems(**changed("axons", row, 10, 1))
    assert f"axon {row} takes" in text and "from a tile without all of these somas" in text


def test_axon_to_a_tile_that_needs_nothing_of_it():
    first, last = (MAPPING.axons[rows("axons", kind=0, index=0)[end]] for end in (0, -1))
    corner = np.array([*first[:4], last[4], 0, 1, 0, 1, 0, 1], np.int32)  # sent to the tile of the other corner
    text = problems(axons=np.concatenate([MAPPING.axons, corner[None]]))
    assert f"axon {len(MAPPING.axons)} brings" in text and "without any synapse" in text


def test_axon_to_a_stranger():
    row = rows("axons", kind=0, index=0)[0]
    data = MAPPING.axons.copy()
    data[row, 4] = len(MAPPING.tiles) - 1
    text = problems(axons=data)
    assert f"axon {row} goes to tile {len(MAPPING.tiles) - 1}, which holds no target" in text


def test_dropped_tile():
    """Its pieces and axons go with it; the hole remains."""
    gone = int(MAPPING.pieces[rows("pieces", dendrite=1)[0], 0])
    keep = np.delete(np.arange(len(MAPPING.tiles)), gone)
    number = np.full(len(MAPPING.tiles), -1)
    number[keep] = np.arange(len(keep))
    pieces = MAPPING.pieces[MAPPING.pieces[:, 0] != gone].copy()
    axons = MAPPING.axons[(MAPPING.axons[:, 0] != gone) & (MAPPING.axons[:, 4] != gone)].copy()
    pieces[:, 0], axons[:, 0], axons[:, 4] = number[pieces[:, 0]], number[axons[:, 0]], number[axons[:, 4]]
    text = problems(tiles=MAPPING.tiles[keep], pieces=pieces, axons=axons)
    assert "dendrite 'd1': accumulator [0, 0, 0] is held 0 times instead of once" in text


def test_shifted_tile_and_piece():
    tile = int(np.argmax(MAPPING.tiles[:, 7] < 16))
    assert f"tile {tile}: box" in problems(**changed("tiles", tile, 7, 1))
    piece = next(r for r in rows("pieces", dendrite=1) if MAPPING.pieces[r, 7] < 16)
    moved = changed("pieces", piece, 7, 1)
    moved["pieces"][piece, 6] += 1
    text = problems(**moved)
    assert "dendrite 'd1': accumulator" in text and "instead of once" in text and "conv 'conv0'" in text


def test_missing_piece():
    row = rows("pieces", dendrite=PROGRAM.transfers[0].src)[0]
    text = problems(pieces=np.delete(MAPPING.pieces, row, axis=0))
    assert "holds nothing of dendrite" in text and "but nothing of its inputs" in text


def test_halo_cut_off():
    target = target_with(neurons=64)
    net = Net((1, 8, 8))
    stream = net.dendrite((4, 8, 8))
    before = net.dendrite((4, 8, 8), net.cluster(stream))
    net.image(before, 0)
    net.pool(before, stream, 0, 3, 1, 1)
    net.soma(stream, 0, "readout", "readout")
    program = map_program(net.build(), target)[0]
    pieces = program.mapping.pieces.copy()
    held = pieces[:, 1] == before
    assert (pieces[held, 2:] != pieces[~held, 2:]).any()  # halos
    row = int(np.flatnonzero(held & (pieces[:, 5] < 8) | held & (pieces[:, 7] < 8))[0])
    pieces[row, 2:] = pieces[pieces[:, 0] == pieces[row, 0]][0, 2:]
    broken = replace(program, mapping=replace(program.mapping, pieces=pieces))
    text = "\n".join(find_problems(broken, target).problems)
    assert "transfer 'pool0': tile" in text and "of its inputs in 'd1'" in text


def test_attention_events_that_do_not_reach_their_table():
    program = map_program(spikformer(16, 16, 1, 2), TARGET)[0]
    for role, name in enumerate("qkv"):
        axons = program.mapping.axons
        row = int(np.flatnonzero((axons[:, 1] == 2) & (axons[:, 3] == role))[0])
        broken = replace(program, mapping=replace(program.mapping, axons=np.delete(axons, row, axis=0)))
        assert f"{name} of dynamic 'dyn0': the event of source" in find_problems(broken, TARGET).problems[0]


def test_limits_and_delays():
    text = "\n".join(find_problems(PROGRAM, target_with(neurons=100)).problems)
    assert "neurons 128/100" in text
    text = "\n".join(find_problems(PROGRAM, target_with(delay_max=1)).problems)
    assert "is outside 1..2 ticks of target loihi2" in text
    crowded = MAPPING.tiles.copy()
    crowded[:, 1] = 0
    assert "core 0: neurons" in problems(tiles=crowded)


def test_errors_name_the_first_problems():
    broken = replace(PROGRAM, mapping=replace(MAPPING, axons=MAPPING.axons[:5]))
    with pytest.raises(VerifyError) as error:
        check_mapping(broken, TARGET)
    lines = str(error.value).splitlines()
    assert lines[0] == "the mapping does not carry out the netlist:"
    assert len(lines) == 10 and lines[-1].strip().startswith("and ")
    with pytest.raises(VerifyError, match="has no mapping to check"):
        check_mapping(replace(PROGRAM, mapping=None), TARGET)


# --- map_program ------------------------------------------------------------------------------------------------


def test_program_keeps_its_netlist_and_gains_facts():
    program = sdt_v1(16, 16, 1, 2)
    mapped, report = map_program(program, TARGET)
    assert replace(mapped, mapping=None, target={}) == program
    assert mapped.target["digest"] == TARGET.digest and mapped.target["mesh"]["routers"] == [8, 4]
    assert program.mapping is None
    assert report.cores == len(mapped.mapping.cores)
    again = map_program(mapped, TARGET)[0]
    assert program_digest(again) == program_digest(mapped)


def test_seed_changes_places_alone():
    one, other = (map_program(sdt_v1(32, 32, 1), load_target("loihi2"), seed=s)[0].mapping for s in (0, 1))
    for table in ("tiles", "pieces", "axons"):
        assert np.array_equal(getattr(one, table), getattr(other, table))
    assert not np.array_equal(one.cores, other.cores)


def test_options():
    for chips in (0, -1, 1.5, True, "many"):
        with pytest.raises(UsageError):
            map_program(PROGRAM, TARGET, chips)
    net = Net((1, 2, 2))
    net.image(net.dendrite((2, 2, 2)), 0)
    relay = net.dendrite((2, 2, 2))
    net.map(net.soma(0, 0), relay, 1)
    net.soma(relay, 1, "relay", "relay", name="relay")
    net.soma(relay, 1, "readout", "readout")
    narrow = target_with("generic-mesh", payload_bits=16)
    with pytest.raises(LoweringError, match="'relay' sends codes of 24 bits, but events of generic-mesh carry 16"):
        map_program(net.build(), narrow)


def test_summary():
    text = map_program(PROGRAM, TARGET)[1].summary()
    assert "cores of loihi2 on 1 chip" in text
    assert "neurons" in text and "/130 (" in text
    assert "packet-hops per timestep at a uniform rate" in text
    assert "synapses of 17 event streams" in text


@pytest.mark.parametrize("make", [sdt_v1, spikformer, sdt_v3])
@pytest.mark.parametrize("name", ["loihi2", "generic-mesh"])
def test_golden_sizes_map_in_seconds(make, name):
    """160 to 250 thousand neurons. generic-mesh has groups for four populations, so its streams are refused."""
    program, target = make(), load_target(name)
    start = time.perf_counter()
    if name == "generic-mesh" and make is not spikformer:
        target = target_with("generic-mesh", neuron_groups=8, neurons=4096)
    mapped, report = map_program(program, target, "auto")
    assert time.perf_counter() - start < 20
    validate_program(mapped)
    assert report.check.problems == []


def test_fewest_tiles():
    """A layer of 8192 neurons takes two cores of 4096, and small layers share one core."""
    net = Net((1, 32, 32))
    net.image(net.dendrite((8, 32, 32)), 0)
    p = net.layer(net.soma(0, 0), 2, 3, 4, 1)
    p = net.layer(p, 2, 3, 1, 1)
    dst = net.dendrite((3, 1, 1))
    net.conv(p, dst, 3, collapse=True)
    net.soma(dst, 3, "readout", "readout")
    report = map_program(net.build(), load_target("loihi2"))[1]
    assert [layer.tiles for layer in report.layers] == [2, 1, 1, 1]
    assert report.cores == 3
    assert report.layers[1].cores == report.layers[2].cores == report.layers[3].cores == (2,)


def test_random_netlists_on_the_second_target():
    target = load_target("generic-mesh")
    roomy = target_with("generic-mesh", neuron_groups=12, payload_bits=24)
    assert target.digest != roomy.digest
    for seed in range(10):
        assert map_program(random_net(seed), roomy, "auto")[1].check.problems == []
