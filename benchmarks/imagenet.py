"""Spike-Driven Transformer V1, 8-512 at 224 x 224, T = 4: time and memory of `nmc compile`, `emulate`, `report`, `fit`.

    python benchmarks/imagenet.py [--layers 8] [--dim 512] [--rate 15] [--seed 0] [--folder FOLDER] [--json]

Needs the torch extra and about 20 minutes. Weights are random; every layer's batch norm is shifted until its neurons
fire at the asked mean rate on one image. `nmc report` writes the page; `nmc fit` is given the config alone, and besides
that of Spike-Driven Transformer V3 large. All commands run as processes of their own, by wall clock, processor time
and peak memory; the peer is the same model in PyTorch fp32, eager, one thread, batch norms folded, on the same image.
Only ratios within one run mean something; processor time does not depend on what else the machine does, or little.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformer import digits, fold, tuned_by

torch.set_num_threads(1)
COMMON = {"in_channels": 3, "num_classes": 1000, "num_heads": 8, "mlp_ratios": 4, "T": 4, "pooling_stat": "1111"}
SIDE = 224
V3_LARGE = {"model": "spikformer12_768", "img_size": SIDE}
SAMPLE = 1 << 17  # elements of a layer whose rate is tuned
STREAM = ("proj_lif3", "shortcut_lif", "fc1_lif", "head_lif")  # read the residual stream
COMMAND = "import sys; from nmc.cli import main; sys.exit(main(sys.argv[1:]))"


def image(seed: int) -> np.ndarray:
    """One smooth random image in 0..1, [1, 3, 224, 224]."""
    coarse = torch.tensor(np.random.default_rng(seed).random((1, 3, 28, 28)), dtype=torch.float32)
    return nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear").clamp(0, 1).numpy()


def calibrate(net: nn.Module, depths: int, x: np.ndarray, rate: float, seed: int) -> None:
    """Shift batch norms until each LIF fires at ``rate``, all in one forward pass.

    A LIF gets its input with the shifts that it will have: those of its own norm, and of the whole stream before it.
    """
    modules, stream, shifts = dict(net.named_modules()), [0.0], {}
    rng = np.random.default_rng(seed)

    def shifted(name: str, lif: nn.Module, current: torch.Tensor) -> torch.Tensor:
        norm, on_stream = tuned_by(name, depths), name.rpartition(".")[2] in STREAM
        if norm is None:
            return current
        current = current + stream[0] if on_stream else current
        flat = current.flatten(1)
        chosen = flat[:, rng.integers(0, flat.shape[1], min(SAMPLE, flat.shape[1]))]
        low, high = -50.0, 50.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if float(lif.forward(chosen + middle).mean()) < rate else (low, middle)
        shifts[norm] = middle
        stream[0] += middle if on_stream else 0.0
        return current + middle

    hooks = [
        m.register_forward_pre_hook(lambda m, args, n=n: (shifted(n, m, args[0]),))
        for n, m in net.named_modules()
        if isinstance(m, digits.Lif)
    ]
    with torch.inference_mode():
        net(torch.tensor(x))
        for hook in hooks:
            hook.remove()
        for name, shift in shifts.items():
            modules[name].bias += shift


def process(*arguments: str, expected: int = 0) -> dict[str, float]:
    """Run `nmc` in a process of its own: seconds by the wall and of processors, peak memory in GiB."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status) != expected:
        raise SystemExit(f"nmc {' '.join(arguments)} ended with status {os.waitstatus_to_exitcode(status)}")
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "gib": used.ru_maxrss / (1 << 20)}


def peer(net: nn.Module, x: np.ndarray) -> dict[str, float]:
    """The fastest of three passes of PyTorch."""
    folded, found = fold(net), []
    with torch.inference_mode():
        for _ in range(3):
            wall, cpu = time.perf_counter(), time.process_time()
            folded(torch.tensor(x))
            found.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = min(found)
    return {"seconds": wall, "cpu_seconds": cpu}


def measure(layers: int, dim: int, rate: float, seed: int, folder: Path) -> dict:
    torch.manual_seed(seed)
    config = {**COMMON, "embed_dims": dim, "depths": layers}
    net, x = digits.SpikeDrivenTransformer(**config).eval(), image(seed)
    calibrate(net, layers, x, rate, seed)
    torch.save(net.state_dict(), folder / "model.pt")
    config |= {"img_size_h": SIDE, "img_size_w": SIDE, "spike_mode": "lif", "family": "sdt_v1"}
    (folder / "model.json").write_text(json.dumps(config))
    np.savez(folder / "image.npz", images=x)
    pytorch = peer(net, x)
    weights = sum(p.numel() for p in net.parameters())
    del net
    build = str(folder / "build")
    compiled = process("compile", str(folder / "model.pt"), "--target", "loihi2", "--chips", "auto", "-o", build)
    emulated = process("emulate", build, "--input", str(folder / "image.npz"))
    reported = process("report", build, "--html", str(folder / "report.html"))
    reported["megabytes"] = (folder / "report.html").stat().st_size / 1e6
    (folder / "v3.json").write_text(json.dumps(V3_LARGE))
    sized = process("fit", "--config", str(folder / "model.json"))
    large = process("fit", "--config", str(folder / "v3.json"), expected=3)  # it does not fit
    report = json.loads((folder / "build" / "run" / "report.json").read_text())
    mapping = json.loads((folder / "build" / "program.json").read_text())["mapping"]
    return {
        "layers": layers, "dim": dim, "weights": weights, "rate_asked": rate, "compile": compiled, "emulate": emulated,
        "report": reported, "fit": sized, "fit V3 large": large,
        "pytorch": pytorch, "slower_than_pytorch": emulated["cpu_seconds"] / pytorch["cpu_seconds"],
        "chips": mapping["chips"], "synops_share": report["synops_effective"] / report["synops_dense"],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rate", type=float, default=15.0, help="mean firing rate in per cent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep model, artefact and run there")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = measure(args.layers, args.dim, args.rate / 100, args.seed, folder)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    for name in ("compile", "emulate", "report", "fit", "fit V3 large", "pytorch"):
        told = ", ".join(f"{value:.1f} {unit}" for unit, value in found[name].items())
        print(f"{name:13s} {told}")
    print(f"emulate, process and all, against a pass of PyTorch: {found['slower_than_pytorch']:.1f} x processor time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
