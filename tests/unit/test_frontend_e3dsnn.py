"""Family e3dsnn: names, counts and values of its authors' network; what a checkpoint or config must say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends import e3dsnn
from nmc_compiler.frontends.checkpoint import import_checkpoint
from nmc_compiler.frontends.config import parse_config
from nmc_compiler.graph.interpret import interpret

torch = pytest.importorskip("torch", reason="the network is compared with PyTorch; pip install .[torch]")
ZOO = Path(__file__).resolve().parents[2] / "examples" / "zoo" / "e3dsnn"
CONFIG = {"slots": [60, 50, 20], "extent": [9, 8, 7], "voxel_size": 1.0}
SIZES = {"in_channels": 4, "num_classes": 5, "embed_channels": 3, "enc_channels": [4, 6], "enc_depth": [1, 2]}


@pytest.fixture(scope="module")
def zoo():
    """The example's module of that name."""
    spec = importlib.util.spec_from_file_location("e3dsnn_model", ZOO / "model.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["e3dsnn_model"] = module
    spec.loader.exec_module(module)
    return module


def clouds(counts: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(0)
    out = np.zeros((len(counts), 7, 60, 1))
    out[:, :3] = -1
    for sample, n in zip(out, counts, strict=True):
        every = np.array([(x, y, z) for x in range(9) for y in range(8) for z in range(7)])
        sample[:3, :n, 0] = every[rng.permutation(len(every))[:n]].T
        sample[3:, :n, 0] = rng.normal(size=(4, n))
    return out


def sparse(zoo, sample: np.ndarray):
    used = sample[0, :, 0] >= 0
    voxels = np.concatenate([np.zeros((1, used.sum())), sample[:3, used, 0]]).T
    features = torch.tensor(sample[3:, used, 0].T.copy())
    return zoo.Sparse(features, torch.tensor(voxels.astype(np.int64)), (9, 8, 7))


def calibrated(zoo):
    torch.manual_seed(0)
    model = zoo.Classifier(**SIZES).double().train()
    with torch.no_grad():
        for _ in range(60):
            model(sparse(zoo, clouds((60,))[0]))
    return model.eval()


def arrays(model, prefix: str = "") -> dict[str, np.ndarray]:
    kept = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    return {prefix + k: v.numpy() for k, v in kept.items()}


@pytest.mark.parametrize(
    ("embed", "enc", "count"), [(16, [16, 32, 64, 128], 1874216), (24, [24, 48, 96, 160], 3271144)]
)
def test_published_parameter_counts(zoo, embed, enc, count):
    """1.87 M (T) and 3.27 M (S) of the paper, from its configs."""
    with torch.device("meta"):
        model = zoo.Classifier(6, 40, embed, enc, [1, 1, 1, 1])
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_spikes_and_logits_are_those_of_pytorch(zoo, prefix):
    model, images = calibrated(zoo), clouds((60, 31, 1))
    graph, notes = e3dsnn.build(arrays(model, prefix), parse_config(CONFIG, "test"))
    result = interpret(graph, images, record="all")
    names = {m: n for n, m in model.named_modules() if isinstance(m, zoo.Multispike)}
    assert set(result.codes) == {prefix + n for n in names.values()} and not notes
    for i, sample in enumerate(images):
        found = {}
        hooks = [
            m.register_forward_hook(lambda m, x, y, found=found: found.update({names[m]: y.numpy()})) for m in names
        ]
        with torch.no_grad():
            want = model(sparse(zoo, sample)).numpy()
        for hook in hooks:
            hook.remove()
        assert np.abs(result.logits[i] - want[0]).max() < 1e-12
        for name, codes in found.items():
            got = result.codes[prefix + name][0, i, :, :, 0]
            assert np.array_equal(got[:, : len(codes)].T, codes) and not got[:, len(codes) :].any(), name


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        (lambda s: s.update({"dec.0.up.1.weight": np.zeros((3, 2, 2, 2, 4))}), {}, "this E-3DSNN has a decoder"),
        (lambda s: s.update({"stem.0.weight": np.zeros((3, 27, 4))}), {},
         "tensor 'stem.0.weight' has shape (3, 27, 4), expected [out, k, k, k, in]"),
        (lambda s: s.pop("enc.1.down.2.running_var"), {}, "checkpoint has no tensor 'enc.1.down.2.running_var'"),
        (lambda s: s.update({"stem.3.weight": np.zeros((3, 3, 3, 3, 5))}), {},
         "tensor 'stem.3.weight' has shape (3, 3, 3, 3, 5), expected ?x3x3x3x3"),
        (lambda s: s.update({"more": np.zeros(3)}), {}, "checkpoint has a tensor 'more' that a e3dsnn model does not"),
        (lambda s: None, {"slots": [60, 50]}, "config 'slots' must be the most voxels of a cloud, one number >= 1 or"),
        (lambda s: None, {"slots": 0}, "config 'slots' must be the most voxels of a cloud, one number >= 1 or"),
        (lambda s: None, {"extent": [9, 8]}, "config 'extent' must be three numbers of voxels (x, y, z), got (9, 8)"),
        (lambda s: None, {"extent": [9, 8, 2**20]}, "config 'extent' is (9, 8, 1048576); at most 1048572 voxels along"),
        (lambda s: None, {"enc_depth": [1, 1]}, "config says enc_depth = (1, 1), but it is (1, 2) by the enc.*.blocks"),
        (lambda s: None, {"T": 4}, "config says T = 4; the e3dsnn model has no time axis (T = 1)"),
    ],
)  # fmt: skip
def test_what_is_refused(zoo, change, config, message):
    state = arrays(zoo.Classifier(**SIZES))
    change(state)
    with pytest.raises(FrontendError) as error:
        e3dsnn.build(state, parse_config(CONFIG | config, "test"))
    assert str(error.value).startswith(message)


def test_settings_that_no_checkpoint_tells_are_asked_for(zoo):
    with pytest.raises(FrontendError, match="the model needs 'slots', which a checkpoint cannot tell"):
        e3dsnn.build(arrays(zoo.Classifier(**SIZES)), parse_config({"extent": [9, 8, 7]}, "test"))


def test_the_family_is_recognised():
    imported = import_checkpoint(ZOO / "model.pt")
    assert imported.family == "e3dsnn" and imported.notes[:2] == (
        "family e3dsnn",
        f"settings from config {ZOO}/model.yaml",
    )
    assert len(imported.notes) == 2  # every key of the config had an effect
