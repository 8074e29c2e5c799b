"""Emulator (exact integers, counters on) against PyTorch fp32 on one spike-driven transformer, one thread each.

    python benchmarks/transformer.py [--size golden cifar] [--rate 10 15 20] [--batch 1 32] [--eager] [--json]

Needs the torch extra. Weights are random; each layer's batch norm is shifted until its
neurons fire at the asked mean rate, so both sides do the same work. The peer is the model of
``examples/digits/model.py`` with batch norms folded into its convolutions and a LIF without
autograd, eager and by ``torch.compile`` (which needs a C++ compiler); the faster one counts.
Only ratios within one run mean something. Memory is the growth of a fresh process's peak RSS over
its RSS after imports and JIT warm-up on a small net.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402  (thread counts must be set first)
import torch  # noqa: E402
from torch import nn  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples" / "digits"))
import model as digits  # noqa: E402

SIZES = {
    "golden": {"in_channels": 1, "num_classes": 10, "embed_dims": 64, "num_heads": 8},
    "cifar": {"in_channels": 3, "num_classes": 10, "embed_dims": 256, "num_heads": 8},
}
COMMON = {"mlp_ratios": 4, "depths": 2, "T": 4, "pooling_stat": "0011"}
SIDE = 32


class InferenceLif(nn.Module):
    """The same LIF without autograd: four element-wise ops per timestep."""

    def __init__(self, theta: float):
        super().__init__()
        self.theta = theta

    def forward(self, current: torch.Tensor) -> torch.Tensor:
        v = torch.zeros_like(current[0])
        out = torch.empty_like(current)
        for t in range(current.shape[0]):
            h = torch.lerp(v, current[t], 0.5)
            s = (h >= self.theta).to(h.dtype)
            v = h * (1 - s)
            out[t] = s
        return out


def build(size: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return digits.SpikeDrivenTransformer(**SIZES[size], **COMMON).eval()


def images_for(size: str, count: int, seed: int) -> np.ndarray:
    """Smooth random images in 0..1."""
    rng = np.random.default_rng(seed)
    coarse = torch.tensor(rng.random((count, SIZES[size]["in_channels"], 8, 8)), dtype=torch.float32)
    return nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear").clamp(0, 1).numpy()


# The batch norm whose offset moves each LIF's rate: the last producer of its current.
def tuned_by(name: str, depths: int) -> str | None:
    stem = {f"patch_embed.proj_lif{s}": f"patch_embed.proj_bn{s}" for s in ("", "1", "2", "3")}
    if name in stem:
        return stem[name]
    if name == "head_lif":
        return f"block.{depths - 1}.mlp.fc2_bn"
    _, i, _, lif = name.split(".")
    if lif == "shortcut_lif":
        return "patch_embed.rpe_bn" if i == "0" else f"block.{int(i) - 1}.mlp.fc2_bn"
    known = {"q_lif": "attn.q_bn", "k_lif": "attn.k_bn", "v_lif": "attn.v_bn"}
    known |= {"fc1_lif": "attn.proj_bn", "fc2_lif": "mlp.fc1_bn"}
    return f"block.{i}.{known[lif]}" if lif in known else None


def calibrate(net: nn.Module, images: np.ndarray, rate: float) -> None:
    """Shift batch norms, in call order, until each LIF fires at ``rate`` on these images."""
    modules = dict(net.named_modules())
    lifs = [n for n, m in net.named_modules() if isinstance(m, digits.Lif)]
    order: list[str] = []
    hooks = [modules[n].register_forward_hook(lambda *_a, n=n: order.append(n)) for n in lifs]
    with torch.inference_mode():
        net(torch.tensor(images))
        for hook in hooks:
            hook.remove()
        for name in order:
            norm = tuned_by(name, COMMON["depths"])
            if norm is not None:
                modules[norm].bias += _offset(net, modules[name], images, rate)


def _offset(net: nn.Module, lif: nn.Module, images: np.ndarray, rate: float) -> float:
    seen: list[torch.Tensor] = []
    hook = lif.register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    net(torch.tensor(images))
    hook.remove()
    low, high = -50.0, 50.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if float(lif(seen[0] + middle).mean()) < rate else (low, middle)
    return (low + high) / 2


def fold(net: nn.Module) -> nn.Module:
    """Batch norms into convolutions, LIFs without autograd: the peer at its best."""
    peer = copy.deepcopy(net)
    for parent in list(peer.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, digits.Lif):
                setattr(parent, name, InferenceLif(child.theta))
            if name.replace("bn", "conv") != name and isinstance(child, nn.BatchNorm2d):
                conv = getattr(parent, name.replace("bn", "conv"))
                fused = nn.utils.fusion.fuse_conv_bn_eval(conv, child)
                setattr(parent, name.replace("bn", "conv"), fused)
                setattr(parent, name, nn.Identity())
    return peer


def best_time(call: Callable[[], object], seconds: float = 4.0, least: int = 3) -> float:
    """Fastest of several calls, after one that warms up."""
    call()
    times: list[float] = []
    while len(times) < least or (sum(times) < seconds and len(times) < 50):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def peer_time(net: nn.Module, images: np.ndarray, compiled: bool) -> tuple[float, str]:
    """Seconds per sample of the faster of eager and compiled."""
    x = torch.tensor(images)
    with torch.inference_mode():
        found = [(best_time(lambda: net(x)) / len(x), "eager")]
        if compiled:
            fast = torch.compile(net)
            found.append((best_time(lambda: fast(x)) / len(x), "torch.compile"))
    return min(found)


def save(net: nn.Module, size: str, folder: Path) -> Path:
    torch.save(net.state_dict(), folder / "model.pt")
    config = {**SIZES[size], **COMMON, "img_size_h": SIDE, "img_size_w": SIDE, "spike_mode": "lif", "family": "sdt_v1"}
    (folder / "model.json").write_text(json.dumps(config))
    return folder / "model.pt"


def measure(size: str, rate: float, batches: list[int], compiled: bool, seed: int) -> list[dict]:
    import nmc
    from nmc_emulator import Emulator

    net = build(size, seed)
    images = images_for(size, max(batches), seed)
    calibrate(net, images[:4], rate)
    peer = fold(net)
    with tempfile.TemporaryDirectory() as tmp:
        program = nmc.compile(
            save(net, size, Path(tmp)), target="loihi2", chips="auto", out=Path(tmp) / "build"
        ).program
        memory = memory_ratio(Path(tmp) / "build", images[:1])
    rows = []
    for batch in batches:
        x = images[:batch]
        emulator = Emulator(program, batch=batch)  # ready to run, as the peer is
        ours = best_time(lambda emulator=emulator, x=x: emulator.run(x)) / batch
        theirs, how = peer_time(peer, x, compiled)
        rows.append(
            {
                "size": size,
                "rate_asked": rate,
                "rate_seen": mean_rate(program, x[:4]),
                "batch": batch,
                "emulator_ms": ours * 1e3,
                "pytorch_ms": theirs * 1e3,
                "pytorch": how,
                "speedup": theirs / ours,
                "memory_ratio": memory,
            }
        )
    return rows


def mean_rate(program: object, images: np.ndarray) -> float:
    """Mean firing rate of the calibrated LIF populations in the integer network, to show the work is the same."""
    from nmc_emulator import run

    codes = run(program, images, record="all").codes
    lifs = (name for name in codes if "_lif" in name and not name.endswith(".pool") and "talking" not in name)
    return float(np.mean([codes[name].mean() for name in lifs]))  # masks follow from k and v: not calibrated


def memory_ratio(build: Path, images: np.ndarray) -> float | None:
    """Peak RSS growth of emulating one sample over (integer weights + neuron states), in a fresh process."""
    child = ROOT / "benchmarks" / "memory_child.py"
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, images)
        out = subprocess.run([sys.executable, str(child), str(build), file.name], capture_output=True, text=True)
    if out.returncode:
        raise RuntimeError(f"memory measurement failed: {out.stderr.strip()[-400:]}")
    found = json.loads(out.stdout)
    return found["growth_bytes"] / found["program_bytes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs="+", choices=sorted(SIZES), default=["golden", "cifar"])
    parser.add_argument("--rate", nargs="+", type=float, default=[10, 15, 20], help="mean firing rate, percent")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    parser.add_argument(
        "--eager", dest="compiled", action="store_false", help="leave torch.compile out: it compiles for a minute"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    points = [(size, rate / 100) for size in args.size for rate in args.rate]
    rows = [row for size, rate in points for row in measure(size, rate, args.batch, args.compiled, args.seed)]
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print("size     rate  seen  batch  emulator ms  PyTorch ms  peer           speed-up  memory")
    for r in rows:
        print(
            f"{r['size']:7}{r['rate_asked']:6.0%}{r['rate_seen']:6.1%}{r['batch']:7}{r['emulator_ms']:13.2f}"
            f"{r['pytorch_ms']:12.2f}  {r['pytorch']:14}{r['speedup']:8.2f}x{r['memory_ratio']:7.2f}x"
        )


if __name__ == "__main__":
    main()
