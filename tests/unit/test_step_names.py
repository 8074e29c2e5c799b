"""Every model that STEP (BrainCog) registers is read as a family, or refused by its name with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_models
from safetensors.numpy import save_file

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.checkpoint import FAMILIES, MODEL_NAMES, STRANGE, import_checkpoint

READ = {
    "sdt_cifar": "sdt_v1",
    "std_imagenet": "sdt_v1",  # as it is spelt there
    "sdt_imagenet": "sdt_v1",
    "spikformer_cifar": "spikformer",
    "spikformer_imagenet": "spikformer",
    "spikingformer_cifar": "spikingformer",
    "qkformer_cifar": "qkformer",
    "qkformer_imagenet": "qkformer",
}
REFUSED = {
    "spikf_semm_cifar": "a router picks experts (SEMM) for each token",
    "spikf_semm_imagenet": "a router picks experts (SEMM) for each token",
    "sglformer_cifar": "SGLFormer attends within windows, and its head convolves over tokens and timesteps at once",
    "swformer_cifar": "SWformer mixes tokens by Haar wavelets and learned blocks between them",
    "spikingresformer_cifar": "DSSA multiplies currents by spikes, scaled by firing rates of training",
    "spt": "SPT picks neighbours of points (FPS, kNN) and weighs them by a softmax",
    "tim": "TIM mixes queries of a timestep with those before by a convolution",
    "spikformer_es": "TIM mixes queries of a timestep with those before by a convolution",
}


def stored(folder: Path, **config: object) -> Path:
    arrays = {k: np.ascontiguousarray(v) for k, v in tiny_models.sdt_v1().items()}
    save_file(arrays, folder / "model.safetensors")
    settings = {**tiny_models.CONFIGS["sdt_v1"], **config}
    (folder / "model.yaml").write_text("\n".join(f"{k}: {str(v).lower() if isinstance(v, bool) else repr(v)}"
                                                 for k, v in settings.items()))  # fmt: skip
    return folder / "model.safetensors"


def test_no_name_is_forgotten() -> None:
    assert not set(READ) & set(REFUSED) and set(REFUSED) == set(STRANGE)


@pytest.mark.parametrize("name", READ)
def test_a_name_is_a_family(name: str, tmp_path: Path) -> None:
    assert MODEL_NAMES[name] == READ[name] and READ[name] in FAMILIES
    path = stored(tmp_path, model=name)
    if READ[name] == "sdt_v1":
        assert not any("names the model" in note for note in import_checkpoint(path).notes)
        return
    with pytest.raises(FrontendError, match=f"is not a {READ[name]} checkpoint: it has no tensor"):
        import_checkpoint(path)


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    path = stored(tmp_path, model=name)
    with pytest.raises(FrontendError) as caught:
        import_checkpoint(path)
    assert str(caught.value).startswith(f"the model '{name}' is of no family that is read: {REFUSED[name]}")
    assert "its module can be traced as far as every op of it is lowered (file.py:callable" in str(caught.value)
    assert import_checkpoint(path, family="sdt_v1").family == "sdt_v1"  # the last word is the user's


def test_neurons_that_a_family_is_not_built_with_are_refused(tmp_path: Path) -> None:
    assert import_checkpoint(stored(tmp_path, model="sdt_cifar", node_type="LIFNode")).family == "sdt_v1"
    with pytest.raises(
        FrontendError, match="^config says node_type = 'GLIFNode'; checkpoints are read as networks of "
    ):
        import_checkpoint(stored(tmp_path, model="sdt_cifar", node_type="GLIFNode"))
