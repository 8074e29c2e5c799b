"""Bad input: one clear message each, its exact text, nothing half-written."""

import io
import json
import pickle
import re
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command import ROOT, SMALL, says

torch = pytest.importorskip("torch", reason="writes the bad checkpoints; install the extra [torch]")

VECTORS = SMALL / "vectors.npz"
TARGET = ROOT / "compiler" / "nmc_compiler" / "target" / "loihi2.yaml"
WEIGHT = "block.0.attn.q_conv.weight"


# --- checkpoints ------------------------------------------------------------------------------------------


def state() -> dict:
    return torch.load(SMALL / "model.pt", weights_only=True)


def compile_state(nmc, folder: Path, change) -> str:
    """What `nmc compile` says about a changed state_dict; it must write nothing."""
    weights = state()
    change(weights)
    torch.save(weights, folder / "model.pt")
    shutil.copy(SMALL / "model.yaml", folder)
    return compile_refused(nmc, folder, "model.pt")


def compile_refused(nmc, folder: Path, model: str, *options: object, status: int = 1) -> str:
    before = sorted(p.name for p in folder.iterdir())
    done = nmc("compile", model, "-o", "out", *options, cwd=folder)
    assert done.returncode == status, done.stderr
    assert sorted(p.name for p in folder.iterdir()) == before
    return says(done)


def test_nan_weights(nmc, tmp_path: Path) -> None:
    def spoil(weights):
        weights[WEIGHT] = weights[WEIGHT].clone()
        weights[WEIGHT].view(-1)[3] = float("nan")

    assert compile_state(nmc, tmp_path, spoil) == (
        f"tensor '{WEIGHT}' of shape (24, 24, 1, 1) has 1 NaN and 0 infinite values, the first at (0, 3, 0, 0): "
        "such a network computes nothing; use a checkpoint from before training diverged"
    )


def test_an_unknown_key(nmc, tmp_path: Path) -> None:
    text = compile_state(nmc, tmp_path, lambda w: w.update({"extra.weight": torch.zeros(2)}))
    assert text == (
        "checkpoint has a tensor 'extra.weight' that a sdt_v1 model does not know; "
        "remove it, or choose the right --family"
    )


def test_a_wrong_shape(nmc, tmp_path: Path) -> None:
    text = compile_state(nmc, tmp_path, lambda w: w.update({WEIGHT: torch.zeros(3, 3, 1, 1)}))
    assert text == f"tensor '{WEIGHT}' has shape (3, 3, 1, 1), expected 24x24x1x1"


def test_a_missing_key(nmc, tmp_path: Path) -> None:
    text = compile_state(nmc, tmp_path, lambda w: w.pop(WEIGHT))
    assert text == f"model.pt is not a sdt_v1 checkpoint: it has no tensor '{WEIGHT}'"


def test_a_truncated_checkpoint(nmc, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes((SMALL / "model.pt").read_bytes()[:5000])
    assert compile_refused(nmc, tmp_path, "model.pt") == (
        "model.pt: the zip archive is truncated or damaged: its directory, which stands at the end, is missing. "
        "Copy or download the file again"
    )


def test_a_pickled_module(nmc, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    assert compile_refused(nmc, tmp_path, "model.pt") == (
        "model.pt: the file refers to 'torch.nn.modules.linear.Linear', which is none of the names that a "
        "state_dict needs: refused, nothing was run. Save the weights alone, "
        "torch.save(model.state_dict(), 'weights.pt'), and use that file"
    )


def test_a_pickle_that_runs_code_does_not(nmc, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    for protocol in (2, 4):
        (tmp_path / "model.pt").write_bytes(pickle.dumps(Evil(), protocol=protocol))
        compile_refused(nmc, tmp_path, "model.pt")
    assert not (tmp_path / "ran").exists()


def test_no_such_checkpoint(nmc, tmp_path: Path) -> None:
    assert compile_refused(nmc, tmp_path, "model.pt") == "model.pt: cannot be read: No such file or directory"


# --- config, family, target -------------------------------------------------------------------------------


def test_a_missing_config_value_is_asked_for_by_name(nmc, tmp_path: Path) -> None:
    shutil.copy(SMALL / "model.pt", tmp_path)
    lines = (SMALL / "model.yaml").read_text().splitlines()
    (tmp_path / "model.yaml").write_text("\n".join(line for line in lines if not line.startswith("T:")))
    assert compile_refused(nmc, tmp_path, "model.pt") == (
        "the model needs 'T', which a checkpoint cannot tell (config model.yaml); add 'T: ...' to the config beside "
        "the checkpoint, or give one with --config"
    )


def test_a_family_that_does_not_fit(nmc, tmp_path: Path) -> None:
    shutil.copytree(SMALL, tmp_path / "m")
    text = compile_refused(nmc, tmp_path, "m/model.pt", "--family", "spikformer")
    assert text == "m/model.pt is not a spikformer checkpoint: it has no tensor 'block.0.attn.q_linear.weight'"
    text = compile_refused(nmc, tmp_path, "m/model.pt", "--family", "resnet", status=2)
    assert text.startswith("unknown family 'resnet'; known: sdt_v1, spikformer")


def test_an_unknown_target(nmc, tmp_path: Path) -> None:
    text = compile_refused(nmc, tmp_path, str(SMALL / "model.pt"), "--target", "loihi9", status=2)
    assert (
        text == "unknown target 'loihi9'; known: generic-mesh, loihi1, loihi2, neurocore, neurocore-1, "
        "neurocore-ulx3s; or give the path of a .yaml file"
    )


def test_an_impossible_target(nmc, tmp_path: Path) -> None:
    (tmp_path / "chip.yaml").write_text(TARGET.read_text().replace("value: 4096\n    unit: neurons", "value: -1"))
    text = compile_refused(nmc, tmp_path, str(SMALL / "model.pt"), "--target", "chip.yaml")
    assert re.fullmatch(
        r"target file chip\.yaml: 1 problem\n  chip\.yaml:\d+: core\.neurons\.value: "
        r"input should be greater than or equal to 1, got -1",
        text,
    )


def test_a_target_too_small_names_layer_resource_and_numbers(nmc, tmp_path: Path) -> None:
    (tmp_path / "chip.yaml").write_text(TARGET.read_text().replace("value: 12000", "value: 40"))
    text = compile_refused(nmc, tmp_path, str(SMALL / "model.pt"), "--target", "chip.yaml")
    assert re.search(r"layer 'patch_embed\.\w+'.* \d+ synapse_words .*core of loihi2 has 40 \(\d+/40\)", text)


def test_more_chips_than_there_can_be(nmc, tmp_path: Path) -> None:
    text = compile_refused(nmc, tmp_path, str(SMALL / "model.pt"), "--chips", 99999999, status=2)
    assert text == (
        "99999999 chips of 128 cores are 12799999872 cores; nmc maps to at most 1048576: ask for at most 8192 chips"
    )


def test_calibration_samples_of_a_wrong_shape(nmc, tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", images=np.zeros((3, 1, 4, 4), np.float32))
    text = compile_refused(nmc, tmp_path, str(SMALL / "model.pt"), "--calib", "calib.npz")
    assert text == (
        "calib.npz: images have shape [3, 1, 4, 4], but the network takes [N, 1, 16, 20] (N, C, H, W); "
        "reshape or resize them as in training"
    )


# --- inputs of emulate ------------------------------------------------------------------------------------


def images() -> np.ndarray:
    with np.load(VECTORS) as file:
        return file["images"]


def spoiled() -> np.ndarray:
    x = images().copy()
    x[3, 0, 2, 1] = np.nan
    return x


ARRAYS = {
    "shape": (
        lambda: {"images": images()[..., :8]},
        "x.npz: images have shape [16, 1, 16, 8], but the network takes [N, 1, 16, 20] (N, C, H, W); "
        "reshape or resize them as in training",
    ),
    "time": (
        lambda: {"images": np.repeat(images()[:, None], 4, axis=1)},
        "x.npz: images have shape [16, 4, 1, 16, 20], but the network takes [N, 1, 16, 20] (N, C, H, W); "
        "for images with a time axis compile the model with `input_time: true` in its config",
    ),
    "nan": (
        lambda: {"images": spoiled()},
        "x.npz: images: sample 3 has 1 values that are NaN or infinite, the first (nan) at [0, 2, 1]; clean the input",
    ),
    "empty": (
        lambda: {"images": images()[:0]},
        "x.npz: images hold no sample (shape [0, 1, 16, 20]); give at least one",
    ),
    "objects": (
        lambda: {"images": np.array([1, "a", None], dtype=object)},
        "x.npz: array 'images' holds pickled Python objects, which are never loaded; save numbers, for example "
        "with array.astype('float32')",
    ),
    "text": (
        lambda: {"images": np.array(["a", "b"])},
        "x.npz: array 'images' has dtype <U1; real numbers are needed",
    ),
    "no images": (lambda: {"x": images()}, "x.npz: has no array 'images'; it has 'x'"),
    "labels of no class": (
        lambda: {"images": images(), "labels": np.full(16, 11)},
        "x.npz: labels: sample 0 has class 11, but the network tells 10 apart (0 to 9); 16 such",
    ),
    "labels that are no numbers of classes": (
        lambda: {"images": images(), "labels": np.zeros(16)},
        "x.npz: labels have dtype float64; class numbers are whole numbers",
    ),
    "too few labels": (
        lambda: {"images": images(), "labels": np.zeros(3, np.int64)},
        "x.npz: labels have shape [3], but there are 16 images",
    ),
}


@pytest.mark.parametrize("case", ARRAYS, ids=lambda case: case.replace(" ", "-"))
def test_arrays_that_do_not_fit(nmc, built: Path, tmp_path: Path, case: str) -> None:
    arrays, text = ARRAYS[case]
    np.savez(tmp_path / "x.npz", **arrays())
    assert emulate_refused(nmc, built, tmp_path) == text


def emulate_refused(nmc, built: Path, folder: Path, *options: object, status: int = 1) -> str:
    done = nmc("emulate", built, "--input", "x.npz", "-o", "run", *options, cwd=folder)
    assert done.returncode == status, done.stderr
    assert not (folder / "run").exists() and not list(folder.glob(".*"))
    return says(done)


def test_a_pickle_is_no_npz(nmc, built: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(pickle.dumps({"images": 1}))
    assert emulate_refused(nmc, built, tmp_path) == (
        "x.npz: not a whole .npz file (File is not a zip file); write it with numpy.savez"
    )


def test_a_truncated_npz(nmc, built: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(VECTORS.read_bytes()[:3000])
    assert emulate_refused(nmc, built, tmp_path).startswith("x.npz: not a whole .npz file (")


def test_an_altered_npz(nmc, built: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=images())
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[2000] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(data)
    text = emulate_refused(nmc, built, tmp_path)
    assert text.startswith("x.npz: array 'images' is damaged (Bad CRC-32") and text.endswith("write the file again")


def npz_of(header: dict | bytes, data: bytes = b"") -> bytes:
    """An .npz whose one array has a header of our making."""
    text = header if isinstance(header, bytes) else (repr(header) + "\n").encode()
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("images.npy", member)
    return buffer.getvalue()


HOSTILE = {
    "huge": npz_of({"descr": "<f4", "fortran_order": False, "shape": (10**9, 1, 16, 20)}),
    "negative": npz_of({"descr": "<f4", "fortran_order": False, "shape": (-1, 1, 16, 20)}),
    "endless": npz_of({"descr": "<f4", "fortran_order": False, "shape": (10**2000, 1, 16, 20)}),
    "nested": npz_of(b"(" * 9000),
    "code": npz_of(b"__import__('os').system('touch ran')\n"),
    "objects": npz_of({"descr": "|O", "fortran_order": False, "shape": (1,)}, b"\x80\x04N."),
    "header": npz_of(b"{'descr'"),
    "too few bytes": npz_of({"descr": "<f4", "fortran_order": False, "shape": (2, 1, 16, 20)}, b"1234"),
}


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.replace(" ", "-"))
def test_hostile_arrays_are_refused_before_memory_is_taken(nmc, built: Path, tmp_path: Path, case: str) -> None:
    (tmp_path / "x.npz").write_bytes(HOSTILE[case])
    text = emulate_refused(nmc, built, tmp_path)
    assert text.startswith("x.npz: ") and len(text) < 500
    assert not (tmp_path / "ran").exists()


def test_a_population_that_does_not_exist_cannot_be_recorded(nmc, built: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=images()[:1])
    text = emulate_refused(nmc, built, tmp_path, "--record", "nope", status=2)
    assert text.startswith(
        "cannot record 'nope': Program 'sdt_v1' has no such population; it has patch_embed.proj_lif,"
    )


# --- artefacts --------------------------------------------------------------------------------------------


def test_no_artefact(nmc, tmp_path: Path) -> None:
    shutil.copy(VECTORS, tmp_path / "x.npz")
    assert emulate_refused(nmc, Path("none"), tmp_path) == (
        "none/program.json: No such file or directory; give a folder that `nmc compile` wrote"
    )


def test_an_altered_artefact(nmc, mine: Path, tmp_path: Path) -> None:
    shutil.copy(VECTORS, tmp_path / "x.npz")
    text = (mine / "program.json").read_text()
    (mine / "program.json").write_text(text.replace('"timesteps": 4', '"timesteps": 5'))
    said = emulate_refused(nmc, mine, tmp_path)
    assert re.fullmatch(
        rf"{mine}: digest is [0-9a-f]+, but program\.json says '[0-9a-f]+'; the files were altered or are not of "
        r"one compile: compile again",
        said,
    )


def test_fuzzed_programs_are_refused(nmc, mine: Path, tmp_path: Path) -> None:
    """Random damage to each file: an error of ours, exit 1, nothing written."""
    shutil.copy(VECTORS, tmp_path / "x.npz")
    rng = np.random.default_rng(0)
    for name in ("program.json", "arrays.safetensors"):
        whole = (mine / name).read_bytes()
        for _ in range(4):
            data = bytearray(whole)
            for at in rng.integers(0, len(data), 3):
                data[at] ^= int(rng.integers(1, 256))
            (mine / name).write_bytes(data)
            emulate_refused(nmc, mine, tmp_path)
        (mine / name).write_bytes(whole[: len(whole) // 2])
        emulate_refused(nmc, mine, tmp_path)
        (mine / name).write_bytes(whole)


def test_graphs_of_another_compile_are_refused(nmc, mine: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert nmc("compile", SMALL / "model.pt", "-o", other, "--channel-bins", "1").returncode == 0
    for suffix in (".txt", ".safetensors"):
        shutil.copy(other / f"graph.int{suffix}", mine)
    done = nmc("verify", mine, "--golden", VECTORS)
    assert done.returncode == 1
    text = done.stderr[done.stderr.index("nmc: error") :]
    assert "graph.int is not the graph that the Program was made from" in text and "compile again" in text


@pytest.mark.parametrize("change", ["truncate", "schema", "type"])
def test_a_damaged_report(nmc, mine: Path, change: str) -> None:
    assert nmc("emulate", mine, "--input", VECTORS, "--limit", 1).returncode == 0
    path = mine / "run" / "report.json"
    text = path.read_text()
    tree = json.loads(text)
    if change == "truncate":
        path.write_text(text[:100])
    else:
        tree["schema" if change == "schema" else "layers"] = "nmc.report/99"
        path.write_text(json.dumps(tree))
    done = nmc("report", mine)
    assert done.returncode == 1
    assert (
        says(done)
        == {
            "truncate": f"{path}: not valid JSON; run `nmc emulate` again",
            "schema": f"{path}: not a report of this version of nmc (nmc.report/2); run `nmc emulate` again",
            "type": f"{path}: layers is missing or of a wrong type; run `nmc emulate` again",
        }[change]
    )
