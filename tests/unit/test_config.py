"""Configs: what is asked for by name, what is refused, and what the front end says about the rest."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from nmc_compiler.errors import FrontendError, UsageError
from nmc_compiler.frontends import checkpoint
from nmc_compiler.frontends.checkpoint import import_checkpoint
from nmc_compiler.frontends.config import ModelConfig, find_config, parse_config, read_config
from nmc_compiler.graph import Attr

FAMILIES = tuple(tiny_models.CONFIGS)


def fails(message: str):
    return pytest.raises(FrontendError, match=f"^{re.escape(message)}$")


# ---- what a checkpoint cannot tell is asked for by name ----

ASKED = [
    *(("sdt_v1", key) for key in ("T", "num_heads", "pooling_stat", "img_size_h", "img_size_w")),
    *(("spikformer", key) for key in ("T", "num_heads", "img_size_h", "img_size_w")),
    *(("sdt_v3", key) for key in ("num_heads", "img_size_h", "img_size_w")),
]


@pytest.mark.parametrize(("name", "key"), ASKED)
def test_missing_values_are_asked_for_by_name(name: str, key: str) -> None:
    with fails(
        f"the model needs '{key}', which a checkpoint cannot tell (test config); "
        f"add '{key}: ...' to the config beside the checkpoint, or give one with --config"
    ):
        tiny_models.graph(name, **{key: None})


def test_no_config_at_all_says_so() -> None:
    with pytest.raises(FrontendError, match=r"^the model needs 'T', which a checkpoint cannot tell \(no config\);"):
        tiny_models.family("sdt_v1").build(tiny_models.sdt_v1(), ModelConfig())


# ---- wrong values, and values that the shapes contradict ----

WHOLE = "config '{}' must be a whole number >= 1, got {} (test config)"
WRONG = [
    ("sdt_v1", "T", 0, WHOLE.format("T", 0)),
    ("sdt_v1", "T", 4.0, WHOLE.format("T", 4.0)),
    ("sdt_v1", "T", "4", WHOLE.format("T", "'4'")),
    ("sdt_v1", "T", True, WHOLE.format("T", True)),
    ("spikformer", "T", -1, WHOLE.format("T", -1)),
    ("spikformer", "num_heads", [8], WHOLE.format("num_heads", "(8,)")),
    ("sdt_v3", "img_size_h", float("nan"), WHOLE.format("img_size_h", "nan")),
    ("sdt_v3", "D", 0, WHOLE.format("D", 0)),
    ("sdt_v3", "norm", 0, "config 'norm' must be a number > 0, got 0 (test config)"),
    ("sdt_v1", "tau", "two", "config 'tau' must be a number > 0, got 'two' (test config)"),
    ("sdt_v1", "v_threshold", float("inf"), "config 'v_threshold' must be a number > 0, got inf (test config)"),
    ("spikformer", "attn_scale", -0.125, "config 'attn_scale' must be a number > 0, got -0.125 (test config)"),
    ("sdt_v1", "input_time", "yes", "config 'input_time' must be true or false, got 'yes' (test config)"),
    (
        "sdt_v1",
        "num_heads",
        3,
        "config says num_heads = 3, but it is 2 by block.0.attn.talking_heads.weight (test config)",
    ),
    ("spikformer", "num_heads", 3, "num_heads = 3 does not divide the 16 channels of block.0.attn"),
    ("sdt_v3", "num_heads", 5, "num_heads = 5 does not divide the 12 and 48 channels of block3.0.attn"),
    ("sdt_v1", "embed_dims", 32, "config says embed_dims = 32, but it is 16 by head.weight (test config)"),
    ("spikformer", "num_classes", 10, "config says num_classes = 10, but it is 3 by head.weight (test config)"),
    (
        "sdt_v1",
        "in_channels",
        3,
        "config says in_channels = 3, but it is 1 by patch_embed.proj_conv.weight (test config)",
    ),
    ("spikformer", "depths", 2, "config says depths = 2, but it is 1 by the block.N keys (test config)"),
    ("sdt_v1", "mlp_ratios", 4, "config says mlp_ratios = 4, but it is 2 by block.0.mlp.fc1_conv.weight (test config)"),
    (
        "spikformer",
        "mlp_ratios",
        4,
        "config says mlp_ratios = 4, but it is 2 by block.0.mlp.fc1_linear.weight (test config)",
    ),
    (
        "sdt_v3",
        "mlp_ratios",
        4,
        "config says mlp_ratios = 4, but it is 2 by block3.0.mlp.fc1_conv.weight (test config)",
    ),
    (
        "sdt_v3",
        "embed_dim",
        [4, 6, 12, 16],
        "config says embed_dim = (4, 6, 12, 16), but it is (4, 6, 12, 8) by "
        "the downsample*.encode_conv shapes (test config)",
    ),
    ("sdt_v3", "T", 4, "config says T = 4; the sdt_v3 base model has no time axis (T = 1)"),
    (
        "sdt_v1",
        "pooling_stat",
        "011",
        "pooling_stat must be four digits 0 or 1 in quotes, such as \"0011\", got '011' (test config)",
    ),
    (
        "sdt_v1",
        "pooling_stat",
        9,  # what YAML reads for 0011 without quotes
        "pooling_stat must be four digits 0 or 1 in quotes, such as \"0011\", got '9' (test config)",
    ),
    (
        "sdt_v1",
        "spike_mode",
        "plif",
        "config says spike_mode = 'plif', but it is 'lif' by the presence of *_lif.w (test config)",
    ),
    ("sdt_v1", "dvs_mode", "on", "config 'dvs_mode' must be true or false, got 'on' (test config)"),
    ("sdt_v1", "TET", 1, "config 'TET' must be true or false, got 1 (test config)"),
]


@pytest.mark.parametrize(
    ("name", "key", "value", "message"), WRONG, ids=[f"{w[0]}-{w[1]}-{i}" for i, w in enumerate(WRONG)]
)
def test_wrong_values(name: str, key: str, value: object, message: str) -> None:
    with fails(message):
        tiny_models.graph(name, **{key: value})


def test_a_huge_value_does_not_flood_the_message() -> None:
    with pytest.raises(FrontendError) as error:
        tiny_models.graph("sdt_v1", T=[[["x" * 1000] * 1000]])
    assert len(str(error.value)) < 300


# ---- what a config may say ----


@pytest.mark.parametrize("name", FAMILIES)
def test_everything_said_rightly_changes_nothing(name: str) -> None:
    said = {"num_classes": 3, "in_channels": 1, "mlp_ratios": 2}
    if name == "sdt_v3":
        said |= {"embed_dim": [4, 6, 12, 8], "T": 1, "D": 4, "norm": 4, "depths": 8}
    else:
        said |= {"embed_dims": 16, "depths": 1, "tau": 2.0, "v_threshold": 1.0, "attn_threshold": 0.5}
    a, b = tiny_models.graph(name), tiny_models.graph(name, **said)

    def plain(graph):
        return [(n.id, n.op, n.inputs, {k: x.value for k, x in n.attrs.items()}, n.type, n.name) for n in graph]

    assert plain(a) == plain(b)


def test_family_constants_carry_their_evidence_and_may_be_overridden() -> None:
    def lifs(**config):
        return {n.name: n for n in tiny_models.graph("sdt_v1", **config) if n.op == "lif"}

    usual, other = lifs(), lifs(tau=4, v_threshold=0.75, attn_threshold=0.25)
    assert usual["head_lif"].attrs["tau"] == Attr(2.0, "family")
    assert usual["block.0.attn.talking_heads_lif"].attrs["theta"] == Attr(0.5, "family")
    assert other["head_lif"].attrs["tau"] == Attr(4, "config")
    assert other["head_lif"].attrs["theta"] == Attr(0.75, "config")
    assert other["block.0.attn.talking_heads_lif"].attrs["theta"] == Attr(0.25, "config")
    spikes = {n.name: n for n in tiny_models.graph("sdt_v3", D=8, norm=8) if n.op == "multilevel"}
    assert spikes["block3.0.attn.q_spike"].attrs["levels"] == Attr(8, "config")
    assert spikes["block3.0.attn.q_spike"].attrs["norm"] == Attr(8, "config")
    assert spikes["spike"].attrs["norm"] == Attr(1, "family")


ALIASES = {"time_steps": "T", "time_step": "T", "step": "T", "layer": "depths", "dim": "embed_dims",
           "mlp_ratio": "mlp_ratios", "in_chans": "in_channels", "threshold": "v_threshold",
           "model": "family"}  # fmt: skip


def test_embed_dim_is_one_width_or_a_list_of_another_constructor() -> None:
    assert parse_config({"embed_dim": 384}, "c").values == {"embed_dims": Attr(384, "config")}
    assert parse_config({"embed_dim": [64, 128]}, "c").values == {"embed_dim": Attr((64, 128), "config")}


@pytest.mark.parametrize("alias", ALIASES)
def test_names_of_the_authors_yml_files(alias: str) -> None:
    assert parse_config({alias: 7}, "c").values == {ALIASES[alias]: Attr(7, "config")}


def test_img_size_is_two_settings() -> None:
    assert parse_config({"img_size": 32}, "c").values == {
        "img_size_h": Attr(32, "config"),
        "img_size_w": Attr(32, "config"),
    }
    for sizes in ({"img_size": [16, 20]}, {"input_size": [3, 16, 20]}):
        two = parse_config(sizes, "c")
        assert (two.value("img_size_h"), two.value("img_size_w")) == (16, 20)
    with fails("c: 'img_size_w' and another name for 'img_size_w' disagree"):
        parse_config({"img_size": 32, "img_size_w": 16}, "c")


def test_two_names_for_one_thing_must_agree() -> None:
    assert parse_config({"T": 4, "time_steps": 4}, "c").value("T") == 4
    with fails("c: 'time_steps' and another name for 'T' disagree"):
        parse_config({"T": 4, "time_steps": 6}, "c")


# ---- files ----


@pytest.mark.parametrize("suffix", ["yaml", "yml", "json"])
@pytest.mark.parametrize("nested", [False, True])
def test_yaml_and_json_bare_or_under_a_key_config(tmp_path: Path, suffix: str, nested: bool) -> None:
    values = {"T": 4, "pooling_stat": "0011", "embed_dim": [1, 2]}
    data = {"name": "golden", "config": values, "test_accuracy": 0.9} if nested else values
    path = tmp_path / f"c.{suffix}"
    path.write_text(json.dumps(data) if suffix == "json" else yaml.safe_dump(data))
    config = read_config(path)
    assert {k: a.value for k, a in config.values.items()} == {"T": 4, "pooling_stat": "0011", "embed_dim": (1, 2)}
    assert {a.evidence for a in config.values.values()} == {"config"}
    assert config.source == f"config {path}"


BAD_FILES = [
    ("c.yaml", "T: [4", "config {} is not valid yaml: while parsing a flow sequence"),
    ("c.json", "{'T': 4}", "config {} is not valid json: Expecting property name enclosed in double quotes"),
    ("c.yaml", "T: 4\nnum_heads: 8\nT: 6\n", "config {} is not valid yaml: key 'T' is given twice"),
    ("c.json", '{"config": {"T": 4, "T": 6}}', "config {} is not valid json: key 'T' is given twice"),
    ("c.yaml", "- T\n- 4\n", "config {} must be a mapping of names to values, got list"),
    ("c.yaml", "", "config {} must be a mapping of names to values, got NoneType"),
    ("c.json", "4", "config {} must be a mapping of names to values, got int"),
    (
        "c.yaml",
        "T: !!python/object/apply:os.system [id]",
        "config {} is not valid yaml: could not determine a constructor",
    ),
    ("c.yaml", "? [a, b]\n: 4\n", "config {} is not valid yaml: "),
    ("c.yaml", "[" * 100_000, "config {} is not valid yaml: "),
    ("c.json", "[" * 100_000, "config {} is not valid json: "),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD_FILES, ids=[str(i) for i in range(len(BAD_FILES))])
def test_bad_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(FrontendError, match=f"^{re.escape(message.format(path))}"):
        read_config(path)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(FrontendError, match=r"^cannot read config .*none.yaml: .*No such file"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"T: \xff")
    with pytest.raises(FrontendError, match=r"^cannot read config .*latin.yaml: 'utf-8' codec"):
        read_config(tmp_path / "latin.yaml")
    (tmp_path / "long.yaml").write_text("#" * (1 << 20) + "\n")
    with pytest.raises(FrontendError, match=r"^config .*long.yaml is larger than 1048576 bytes$"):
        read_config(tmp_path / "long.yaml")


def test_yaml_aliases_that_multiply_are_harmless(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    (tmp_path / "bomb.yaml").write_text("\n".join([*lines, "T: *a59"]))
    config = read_config(tmp_path / "bomb.yaml")
    with pytest.raises(FrontendError, match=r"^config 'T' must be a whole number >= 1, got \(\["):
        config.integer("T")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.sampled_from([".yaml", ".json"]))
def test_any_text_is_a_config_or_a_frontend_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_text(text, encoding="utf-8")
    try:
        assert isinstance(read_config(path), ModelConfig)
    except FrontendError as error:
        assert str(path) in str(error)


def test_the_config_beside_a_checkpoint(tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    assert find_config(model) is None
    for name in ("golden.json", "config.yml", "config.yaml", "model.json", "model.yaml"):  # the later, the nearer
        (tmp_path / name).write_text("{}")
        assert find_config(model) == tmp_path / name


# ---- the whole import ----


def stored(tmp_path: Path, name: str, config: dict | None = None, **arrays: np.ndarray) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({**tiny_models.STATES[name](), **arrays}, path)
    if config is not None:
        (tmp_path / "model.yaml").write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize("name", FAMILIES)
def test_import_says_what_it_found(tmp_path: Path, name: str) -> None:
    """Every entry of the config that has no effect is named; so is every dead tensor."""
    unused = {"sr_ratios": 1, "patch_size": 4, "T": tiny_models.CONFIGS[name].get("T", 1)}
    path = stored(tmp_path, name, {**unused, **tiny_models.CONFIGS[name]})
    found = import_checkpoint(path)
    assert found.family == name
    assert found.notes[:2] == (f"family {name}", f"settings from config {tmp_path}/model.yaml")
    assert found.notes[-1] == f"config keys not used by {name}: patch_size, sr_ratios"
    dead = [n.split("'")[1] for n in found.notes if n.startswith("dead tensor")]
    norms = [f"block.0.norm{i}.{k}" for i in (1, 2) for k in ("weight", "bias")]
    want = {"sdt_v1": ["block.0.attn.talking_heads.weight"], "spikformer": norms, "sdt_v3": []}
    assert sorted(dead) == sorted(want[name])
    assert len(found.notes) == 3 + len(dead)
    assert [n.id for n in found.graph] == [n.id for n in tiny_models.graph(name)]
    assert re.fullmatch("[0-9a-f]{64}", found.checkpoint_sha256)


def test_a_config_without_idle_keys_has_no_note(tmp_path: Path) -> None:
    found = import_checkpoint(stored(tmp_path, "sdt_v1", tiny_models.CONFIGS["sdt_v1"]))
    assert not any("not used" in note for note in found.notes)


def test_depths_is_idle_in_sdt_v3(tmp_path: Path) -> None:
    found = import_checkpoint(stored(tmp_path, "sdt_v3", {**tiny_models.CONFIGS["sdt_v3"], "depths": 8}))
    assert found.notes[-1] == "config keys not used by sdt_v3: depths"


def test_batch_counters_are_no_unknown_tensors(tmp_path: Path) -> None:
    counters = {"patch_embed.proj_bn.num_batches_tracked": np.array(7)}
    found = import_checkpoint(stored(tmp_path, "sdt_v1", tiny_models.CONFIGS["sdt_v1"], **counters))
    assert not any("num_batches" in note for note in found.notes)


def test_nearest_config_wins(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    state = {k: torch.from_numpy(v) for k, v in tiny_models.sdt_v1().items()}
    inside = {**tiny_models.CONFIGS["sdt_v1"], "T": 5}
    torch.save({"state_dict": state, "config": inside}, path)
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({**inside, "T": 6}))
    (tmp_path / "mine.json").write_text(json.dumps({"config": {**inside, "T": 7}}))
    found = import_checkpoint(path)
    assert (found.graph.timesteps, found.notes[1]) == (5, "settings from the config stored in model.pt")
    assert import_checkpoint(path, config=tmp_path / "mine.json").graph.timesteps == 7
    torch.save(state, path)
    assert import_checkpoint(path).graph.timesteps == 6
    (tmp_path / "model.yaml").unlink()
    with pytest.raises(FrontendError, match=r"cannot tell \(no config found beside .*/model.pt\); add '"):
        import_checkpoint(path)


def test_families(tmp_path: Path) -> None:
    config = tiny_models.CONFIGS["sdt_v1"]
    path = stored(tmp_path, "sdt_v1", config)
    assert import_checkpoint(path, family="sdt_v1").family == "sdt_v1"
    with pytest.raises(UsageError, match=f"^unknown family 'resnet'; known: {', '.join(checkpoint.FAMILIES)}$"):
        import_checkpoint(path, family="resnet")
    with fails(f"{path} is not a spikformer checkpoint: it has no tensor 'block.0.attn.q_linear.weight'"):
        import_checkpoint(path, family="spikformer")
    stored(tmp_path, "sdt_v1", {**config, "family": "sdt_v3"})
    with fails(f"{path} is not a sdt_v3 checkpoint: it has no tensor 'downsample1_1.encode_conv.weight'"):
        import_checkpoint(path)
    stored(tmp_path, "sdt_v1", {**config, "model": "resnet"})
    found = import_checkpoint(path)
    assert found.notes[-1] == "config names the model 'resnet'; it was built as sdt_v1"
    for name in ("sdt_v1", "sdt", "sdt_cifar"):  # the last two as the authors, and STEP, call it
        stored(tmp_path, "sdt_v1", {**config, "model": name})
        assert not any("names the model" in note for note in import_checkpoint(path).notes)
    stored(tmp_path, "sdt_v1", {**config, "model": "qkformer_cifar"})
    with fails(f"{path} is not a qkformer checkpoint: it has no tensor 'patch_embed1.proj_conv.weight'"):
        import_checkpoint(path)


def test_a_checkpoint_of_no_family(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"conv1.weight": np.zeros(1), "fc.weight": np.zeros((2, 3))}, path)
    with fails(
        f"{path}: family not recognised from its keys (conv1.weight, fc.weight, ...); known families: "
        f"{', '.join(checkpoint.FAMILIES)}; name one with --family"
    ):
        import_checkpoint(path)


def test_numbers_that_are_not_finite_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    bad = tiny_models.sdt_v1()["head.bias"].copy()
    bad[1] = np.nan
    path = stored(tmp_path, "sdt_v1", tiny_models.CONFIGS["sdt_v1"], **{"head.bias": bad})
    with pytest.raises(FrontendError, match=r"tensor 'head.bias' of shape \(3,\) has 1 NaN and 0 infinite values"):
        import_checkpoint(path)
