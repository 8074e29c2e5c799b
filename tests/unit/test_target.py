"""Targets: the pinned numbers, where they stand, and how a bad file is refused."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nmc_compiler.errors import NmcError, UsageError, VerifyError
from nmc_compiler.target import Cited, Target, describe, list_targets, load_target
from nmc_compiler.target.load import MAX_BYTES, TARGETS

MESH = (TARGETS / "generic-mesh.yaml").read_text()
MESH_LINES = MESH.splitlines()
NEURONS = MESH_LINES.index("  neurons:") + 1  # line of the key; value, unit, evidence and source follow


def write(folder: Path, text: str) -> Path:
    path = folder / "chip.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> str:
    """Error text of a target file, with the file's own path written as F."""
    path = write(folder, text)
    with pytest.raises(VerifyError) as caught:
        load_target(path)
    return str(caught.value).replace(str(path), "F")


def edit(old: str, new: str) -> str:
    assert old in MESH
    return MESH.replace(old, new, 1)


# --- what the bundled targets say


def test_bundled_targets():
    assert list_targets() == ["generic-mesh", "loihi1", "loihi2", "neurocore", "neurocore-1", "neurocore-ulx3s"]
    for name in list_targets():
        assert load_target(name).name == name
        assert load_target(TARGETS / f"{name}.yaml") == load_target(name)


LOIHI2 = {  # value, evidence and a word of the source
    "mesh.routers": ((8, 4), "transcribed", "2601.10035"),
    "mesh.cores_per_router": (4, "transcribed", "2601.10035"),
    "mesh.routing": ("xy", "transcribed", "2601.10035"),
    "mesh.multicast": ("unicast", "extrapolated", "SANA-FE"),
    "mesh.chip_axis": ("x", "assumed", "nmc"),
    "mesh.chips_max": (None, "not-stated", "Hala Point"),
    "core.neurons": (4096, "code", "compiler logs"),
    "core.neuron_groups": (8, "code", "compiler logs"),
    "core.synapse_words": (12000, "code", "compiler logs"),
    "core.synapse_word_bits": (64, "derived", "compiler logs"),
    "core.axons_in": (16000, "code", "compiler logs"),
    "core.axons_out": (16000, "code", "compiler logs"),
    "core.axon_atoms": (32, "extrapolated", "nengo-loihi"),
    "core.delay_max": (63, "code", "DelayDense"),
    "core.payload_bits": (24, "code", "num_message_bits"),
    "core.state_bits": (24, "code", "LIF"),
    "core.weight_bits": (8, "code", "Dense"),
    "core.weight_exp": ((-8, 7), "transcribed", "2601.10035"),
    "core.bias_mant_bits": (13, "code", "bias_mant"),
    "core.bias_exp": ((0, 7), "code", "bias_exp"),
    "core.vth_bits": (17, "code", "vth"),
    "core.threshold_grain_bits": (6, "code", "vth << 6"),
    "packing.conv_row_pad_bits": (64, "derived", "compiler logs"),
    "packing.dense_synapse_bits": (20, "derived", "compiler logs"),
    "packing.dense_axon_pad_bits": (64, "derived", "compiler logs"),
    "packing.table_entry_bits": (16, "assumed", "nmc"),
    "packing.table_banks": (2, "assumed", "nmc"),
    "packing.accumulator_bits": (24, "assumed", "nmc"),
    "features.graded_spikes": (True, "vendor", "brief (2021)"),
    "features.conv_synapses": (True, "vendor", "brief (2021)"),
    "features.active_sites": (True, "assumed", "arXiv:2412.07360"),
    "features.dynamic_synapse": (True, "assumed", "nmc"),
    "features.current_pool": (True, "assumed", "nmc"),
    "features.stream_accumulator": (True, "assumed", "nmc"),
    "features.multi_level_neuron": (True, "assumed", "nmc"),
    "features.microcoded_neuron": (True, "assumed", "brief (2021)"),
    "features.bias_gating": (True, "derived", "nmc"),
    "features.graded_input": (True, "code", "yolo_kp"),
    "features.host_current": (True, "derived", "nmc"),
    "defaults.chips": (1, "assumed", "nmc"),
}


def test_loihi2_numbers():
    rows = {row.field: row for row in describe(load_target("loihi2"))}
    assert rows.keys() == LOIHI2.keys()
    for field, (value, evidence, source) in LOIHI2.items():
        assert (rows[field].value, rows[field].evidence) == (value, evidence), field
        assert source in rows[field].source, field


def test_loihi2_tells_what_else_is_claimed():
    target = load_target("loihi2")
    assert "8192" in target.core.neurons.note  # the vendor's brief says more than the compiler uses
    assert "one tick" in target.core.delay_max.note
    assert all(
        getattr(target.features, name).note
        for name in ("dynamic_synapse", "current_pool", "stream_accumulator", "multi_level_neuron")
    )


LOIHI1 = {  # value, evidence and a word of the source
    "mesh.routers": ((8, 4), "code", "SANA-FE"),
    "mesh.cores_per_router": (4, "code", "SANA-FE"),
    "mesh.routing": ("xy", "assumed", "nmc"),
    "mesh.multicast": ("unicast", "code", "SANA-FE"),
    "mesh.chip_axis": ("x", "assumed", "nmc"),
    "mesh.chips_max": (None, "not-stated", "Pohoiki Springs"),
    "core.neurons": (1024, "code", "MAX_COMPARTMENTS"),
    "core.neuron_groups": (16, "code", "vth_cfgs"),
    "core.synapse_words": (16384, "code", "MAX_SYNAPSE_BITS"),
    "core.synapse_word_bits": (64, "code", "bits_per_axon"),
    "core.axons_in": (4096, "code", "MAX_IN_AXONS"),
    "core.axons_out": (4096, "code", "MAX_OUT_AXONS"),
    "core.axon_atoms": (32, "code", "atom_bits_extra"),
    "core.delay_max": (62, "code", "brian2_loihi"),
    "core.payload_bits": (0, "vendor", "brief (2021)"),
    "core.state_bits": (24, "code", "U_BITS"),
    "core.weight_bits": (8, "code", "WEIGHT_BITS_MAP"),
    "core.weight_exp": ((-7, 7), "code", "weight_exp"),
    "core.bias_mant_bits": (13, "code", "BIAS_MAN_MAX"),
    "core.bias_exp": ((0, 7), "code", "BIAS_EXP_MAX"),
    "core.vth_bits": (17, "code", "VTH_MAN_MAX"),
    "core.threshold_grain_bits": (6, "code", "VTH_EXP"),
    "packing.conv_row_pad_bits": (64, "code", "bits_per_axon"),
    "packing.conv_synapse_bits": (19, "derived", "bits_per_axon"),
    "packing.dense_synapse_bits": (19, "derived", "bits_per_axon"),
    "packing.dense_axon_pad_bits": (64, "code", "bits_per_axon"),
    "packing.table_entry_bits": (16, "assumed", "nmc"),
    "packing.table_banks": (2, "assumed", "nmc"),
    "packing.accumulator_bits": (24, "assumed", "nmc"),
    "features.graded_spikes": (False, "vendor", "brief (2021)"),
    "features.conv_synapses": (True, "code", "set_population_weights"),
    "features.active_sites": (False, "assumed", "nmc"),
    "features.dynamic_synapse": (False, "assumed", "nmc"),
    "features.current_pool": (False, "vendor", "brief (2021)"),
    "features.stream_accumulator": (False, "vendor", "brief (2021)"),
    "features.multi_level_neuron": (False, "vendor", "brief (2021)"),
    "features.microcoded_neuron": (False, "vendor", "brief (2021)"),
    "features.bias_gating": (True, "derived", "nmc"),
    "features.graded_input": (False, "vendor", "brief (2021)"),
    "features.host_current": (True, "assumed", "nmc"),
    "defaults.chips": (1, "assumed", "nmc"),
}


def test_loihi1_numbers():
    target = load_target("loihi1")
    rows = {row.field: row for row in describe(target)}
    assert target.profile == "loihi1" and target.mesh.cores == 128
    assert rows.keys() == LOIHI1.keys()
    for field, (value, evidence, source) in LOIHI1.items():
        assert (rows[field].value, rows[field].evidence) == (value, evidence), field
        assert source in rows[field].source, field
    assert "8" in target.core.neuron_groups.note and "does not model" in target.packing.accumulator_bits.note


@pytest.mark.parametrize("synapses", [*range(1, 200), 1024])
def test_loihi1_rows_take_what_nengo_loihi_counts_or_a_word_more(synapses):
    """Blocks of up to 64 synapses of 8 weight and 10 index bits, a header of 10, each block in whole words."""
    counted = sum(math.ceil((min(synapses - i, 64) * 18 + 10) / 64) for i in range(0, synapses, 64))
    packing = load_target("loihi1").packing
    for bits, pad in (
        (packing.conv_synapse_bits, packing.conv_row_pad_bits),
        (packing.dense_synapse_bits, packing.dense_axon_pad_bits),
    ):
        assert 0 <= math.ceil(synapses * bits.value / pad.value) - counted <= 1


GENERIC = {
    "mesh.routers": (16, 16),
    "mesh.cores_per_router": 1,
    "mesh.chips_max": 16,
    "core.neurons": 1024,
    "core.neuron_groups": 4,
    "core.synapse_words": 16384,
    "core.synapse_word_bits": 32,
    "core.axons_in": 4096,
    "core.axons_out": 4096,
    "core.axon_atoms": 16,
    "core.delay_max": 15,
    "core.weight_bits": 8,
}


def test_generic_mesh_is_invented_throughout():
    rows = {row.field: row for row in describe(load_target("generic-mesh"))}
    assert {field: rows[field].value for field in GENERIC} == GENERIC
    assert {row.evidence for row in rows.values()} == {"assumed"}
    assert {row.source for row in rows.values()} == {"defined by nmc for tests and comparison"}
    core = load_target("generic-mesh").core
    assert core.synapse_words.value * core.synapse_word_bits.value == 64 * 1024 * 8
    assert rows.keys() == LOIHI2.keys()


def test_numbers_are_plain():
    target = load_target("loihi2")
    assert type(target.core.neurons.value) is int
    assert target.mesh.routers.value == (8, 4)
    assert target.mesh.cores == 128
    assert load_target("generic-mesh").mesh.cores == 256


# Words that Lava's compiler gave a conv layer: kernel, c_in, c_out, weight bits, words
# (lava-dl, tutorials/lava/lib/dl/netx/pilotnet_snn/benchmark.ipynb).
CONV_LOG = [
    (3, 3, 24, 8, 81),
    (3, 24, 36, 6, 864),
    (3, 36, 48, 6, 1620),
    (3, 48, 64, 5, 2160),
    (3, 64, 64, 5, 2880),
]
# Synapses and words of one input axon (netx: oxford/run, pilotnet_sdnn/benchmark, mnist/run).
DENSE_LOG = [(10, 3), (10, 4), (50, 15), (50, 16), (64, 21), (85, 27), (200, 63), (256, 81)]


@pytest.mark.parametrize(("kernel", "c_in", "c_out", "bits", "words"), CONV_LOG)
def test_conv_packing_meets_the_compiler_logs(kernel, c_in, c_out, bits, words):
    pad = load_target("loihi2").packing.conv_row_pad_bits.value
    assert kernel * kernel * c_in * math.ceil(c_out * bits / pad) == words


@pytest.mark.parametrize(("synapses", "words"), DENSE_LOG)
def test_dense_packing_is_within_a_word_of_the_compiler_logs(synapses, words):
    packing = load_target("loihi2").packing
    row = math.ceil(synapses * packing.dense_synapse_bits.value / packing.dense_axon_pad_bits.value)
    assert abs(row - words) <= 1


# --- several chips


def test_chips_extend_the_mesh_along_x():
    assert load_target("loihi2").mesh.extent(1) == (8, 4)
    assert load_target("loihi2").mesh.extent(3) == (24, 4)
    assert load_target("generic-mesh").mesh.extent(16) == (256, 16)


@pytest.mark.parametrize(
    ("name", "chips", "text"),
    [
        ("generic-mesh", 17, "17 chips asked for, but the target has 1 to 16; choose a number within that"),
        ("loihi2", 0, "0 chips asked for, but the target has 1 or more; choose a number within that"),
        (
            "loihi2",
            10000,
            "10000 chips of 128 cores are 1280000 cores; nmc maps to at most 1048576: ask for at most 8192 chips",
        ),
    ],
)
def test_impossible_chips(name, chips, text):
    with pytest.raises(UsageError) as caught:
        load_target(name).mesh.extent(chips)
    assert str(caught.value) == text


# --- identity


def test_digest_follows_content_not_layout(tmp_path):
    target = load_target("generic-mesh")
    assert len(target.digest) == 64
    same = load_target(write(tmp_path, "# another comment\n" + MESH.replace("[16, 16]", "\n      - 16\n      - 16")))
    assert same == target and same.digest == target.digest
    other = load_target(write(tmp_path, edit("value: 1024", "value: 1023")))
    assert other.digest != target.digest
    assert load_target("loihi2").digest != target.digest


def test_a_target_is_frozen():
    target = load_target("loihi2")
    with pytest.raises(ValidationError):
        target.core.neurons.value = 8192


# --- refused by name


@pytest.mark.parametrize("name", ["loihi3", "", "LOIHI2"])
def test_unknown_name(name):
    with pytest.raises(UsageError) as caught:
        load_target(name)
    assert str(caught.value) == (
        f"unknown target {name!r}; known: generic-mesh, loihi1, loihi2, neurocore, neurocore-1, neurocore-ulx3s; "
        "or give the path of a .yaml file"
    )


def test_missing_file(tmp_path):
    for path in (tmp_path / "none.yaml", str(tmp_path / "none.yaml"), tmp_path):
        with pytest.raises(UsageError) as caught:
            load_target(path)
        assert str(caught.value) == f"target file {path}: no such file; give a path to a .yaml file"


# --- refused by content: file, line, field

BAD_FIELDS = [
    ("value: 1024", "value: many", 1, "core.neurons.value: input should be a valid integer, got 'many'"),
    ("value: 1024", "value: 1024.0", 1, "core.neurons.value: input should be a valid integer, got 1024.0"),
    ("value: 1024", "value: true", 1, "core.neurons.value: input should be a valid integer, got True"),
    ("value: 1024", "value: null", 1, "core.neurons.value: input should be a valid integer, got None"),
    ("value: 1024", "value: 0", 1, "core.neurons.value: input should be greater than or equal to 1, got 0"),
    ("value: 1024", "value:\n", 1, "core.neurons.value: input should be a valid integer, got None"),
    (
        "    unit: neurons\n    evidence: assumed\n",
        "    unit: neurons\n",
        0,
        "core.neurons.evidence: missing; this field is required",
    ),
    (
        "    unit: neurons\n    evidence: assumed\n",
        "    unit: neurons\n    evidence: guessed\n",
        3,
        "core.neurons.evidence: input should be 'measured', 'simulated', 'fitted', 'vendor', 'code', "
        "'derived', 'transcribed', 'extrapolated', 'assumed' or 'not-stated', got 'guessed'",
    ),
    (
        "    unit: neurons\n    evidence: assumed\n",
        "    unit: neurons\n    evidence: not-stated\n",
        0,
        "core.neurons: value null and evidence not-stated go together: give both or neither",
    ),
    (
        "    unit: neurons\n",
        "    unit: neurons\n    color: red\n",
        3,
        "core.neurons.color: unknown field; check its spelling or remove it",
    ),
]


@pytest.mark.parametrize(("old", "new", "below", "text"), BAD_FIELDS)
def test_bad_field(tmp_path, old, new, below, text):
    assert refusal(tmp_path, edit(old, new)) == f"target file F: 1 problem\n  F:{NEURONS + below}: {text}"


def test_misspelt_and_missing_fields(tmp_path):
    core = MESH_LINES.index("core:") + 1
    assert refusal(tmp_path, edit("  neurons:\n", "  neuron:\n")) == (
        "target file F: 2 problems\n"
        f"  F:{core}: core.neurons: missing; this field is required\n"
        f"  F:{core + 1}: core.neuron: unknown field; check its spelling or remove it"
    )


def test_many_problems_are_counted(tmp_path):
    text = refusal(tmp_path, MESH.replace("evidence: assumed", "evidence: guessed"))
    numbers = len(describe(load_target("generic-mesh")))
    assert text.startswith(f"target file F: {numbers} problems\n")
    assert text.endswith(f"\n  and {numbers - 8} more") and len(text.splitlines()) == 10


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("nmc.target/1", "nmc.target/2", "schema: input should be 'nmc.target/1', got 'nmc.target/2'"),
        (
            "value: [-8, 7]",
            "value: [8, 7]",
            "core.weight_exp.value: minimum 8 is above maximum 7; write [min, max]",
        ),
        ("value: [-8, 7]", "value: [8]", "core.weight_exp.value.1: missing; this field is required"),
        (
            "value: [-8, 7]",
            "value: [8, x]",
            "core.weight_exp.value.1: input should be a valid integer, got 'x'",
        ),
        ("[16, 16]", "[2048, 1024]", "mesh: 2097152 cores on a chip; nmc maps to at most 1048576"),
        (
            "    value: 16\n    unit: chips\n    evidence: assumed\n",
            "    value: null\n    unit: chips\n    evidence: not-stated\n",
            None,
        ),
        (
            "profile: loihi2",
            "profile: loihi9",
            "profile: input should be 'loihi1', 'loihi2' or 'neurocore', got 'loihi9'",
        ),
        (
            "supported: true",
            "supported: maybe",
            "features.graded_spikes.supported: input should be a valid boolean",
        ),
    ],
)
def test_other_bad_values(tmp_path, old, new, text):
    if text is None:  # a null with a note is fine, without one it is not
        load_target(write(tmp_path, edit(old, new)))
        bare = edit(old, new).replace("    note: Finite, so that the limit is exercised.\n", "")
        text = "mesh.chips_max: value is null: add a note that says why it is not known"
        assert text in refusal(tmp_path, bare)
    else:
        assert text in refusal(tmp_path, edit(old, new))


def test_default_chips_must_exist(tmp_path):
    text = edit("    value: 1\n    unit: chips", "    value: 17\n    unit: chips")
    assert "the file: defaults.chips is 17, above mesh.chips_max 16" in refusal(tmp_path, text)


BAD_YAML = [
    (
        edit("    value: 1024\n", "    value: 1024\n    value: 8192\n"),
        f"F:{NEURONS + 2}: core.neurons.value: given twice, first in line {NEURONS + 1}; keep one",
    ),
    (
        edit("value: 1024", "value: &n 1024").replace("value: 16384", "value: *n"),
        f"F:{MESH_LINES.index('    value: 16384') + 1}: an alias (*name) is not allowed here; write",
    ),
    (edit("value: 1024", f"value: {'[' * 5000}"), f"F:{NEURONS + 1}: nested deeper than 16 levels"),
    (
        edit("value: 1024", "value: 2024-01-01"),
        f"F:{NEURONS + 1}: core.neurons.value: YAML type 'timestamp' is not allowed; use text or a number",
    ),
    (
        edit("value: 1024", "value: !!python/object/apply:os.getcwd []"),
        f"F:{NEURONS + 1}: core.neurons.value: YAML type 'python/object/apply:os.getcwd' is not allowed",
    ),
    (
        edit("value: 1024", f"value: {'9' * 5000}"),
        f"F:{NEURONS + 1}: core.neurons.value: '999999999999...9999999999999' does not fit its YAML type",
    ),
    (
        edit("value: 1024", "value: !!bool 1024"),
        f"F:{NEURONS + 1}: core.neurons.value: '1024' does not fit its YAML type",
    ),
    (
        edit("value: 1024", "value: !!int ''"),
        f"F:{NEURONS + 1}: core.neurons.value: '' does not fit its YAML type",
    ),
    (
        edit("value: 1024", "value: [1024"),
        f"F:{NEURONS + 2}: not valid YAML: expected ',' or ']', but got ':'",
    ),
    ("a: 1\nb: \x01\n", "F:2: not valid YAML: special characters are not allowed"),
    ("a: 1\n---\nb: 2\n", "F:2: not valid YAML: but found another document"),
    ("<<: {a: 1}\n", "F:1: a key in the file is not plain text"),
    ("a: 1\n? [b]\n: 2\n", "F:2: a key in the file is not plain text"),
    ("", "F:1: not a mapping of fields; is it the right file?"),
    ("- 1\n", "F:1: not a mapping of fields; is it the right file?"),
]


@pytest.mark.parametrize(("content", "text"), BAD_YAML)
def test_bad_yaml(tmp_path, content, text):
    assert text in refusal(tmp_path, content)


def test_binary_and_oversized_files(tmp_path):
    path = tmp_path / "chip.yaml"
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(VerifyError) as caught:
        load_target(path)
    assert str(caught.value) == f"target file {path}: not UTF-8 text (byte 3); is it the right file?"
    path.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(VerifyError) as caught:
        load_target(path)
    assert str(caught.value) == (
        f"target file {path}: larger than 1048576 bytes; such a file has a few kB: is it the one?"
    )


@given(st.integers(0, len(MESH_LINES) - 1), st.text(alphabet=" :-[]{}&*!|>'\"#%@`,?\n\ta1~.<=", max_size=12))
def test_a_damaged_line_never_escapes_the_error_hierarchy(tmp_path_factory, index, junk):
    lines = [*MESH_LINES]
    lines[index] = junk
    path = write(tmp_path_factory.mktemp("damaged"), "\n".join(lines))
    try:
        target = load_target(path)
    except NmcError as error:
        assert str(path) in str(error)
    else:  # a comment, a note or free text was hit: every number must have survived
        old = {r.field: r.value for r in describe(load_target("generic-mesh"))}
        assert isinstance(target, Target) and {r.field: r.value for r in describe(target)} == old


def test_cited_keeps_its_type():
    assert Cited[int](value=3, evidence="code", source="here").value == 3
    with pytest.raises(ValidationError):
        Cited[int](value="3", evidence="code", source="here")
