"""Train a spiking transformer that four neurocores hold, and write the files bundled beside this script.

    python examples/neurocore/attention/train.py     # two minutes on two cores; needs the torch and dev extras

The network and its training are those of examples/digits; here it has 16 tokens of 16 channels, one block, and
reads the digits at their own 8x8. README.md says what it becomes on the FPGA.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "digits"))

from model import SpikeDrivenTransformer
from train import MODEL_ARGS, accuracy, digits, train, wake_attention, write_all

HERE = Path(__file__).resolve().parent
CONFIG = {
    "family": "sdt_v1", "img_size_h": 8, "img_size_w": 8, "patch_size": 2, "in_channels": 1,
    "num_classes": 10, "embed_dims": 16, "num_heads": 2, "mlp_ratios": 2, "depths": 1, "T": 4,
    "pooling_stat": "0010", "spike_mode": "lif",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=HERE, help="folder for the five files")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    train_set, test_set = digits(size=(8, 8))
    model = SpikeDrivenTransformer(**{name: CONFIG[name] for name in MODEL_ARGS})
    wake_attention(model)
    train(model, train_set, args.epochs, args.seed, shift=0)  # a pixel is an eighth of the image
    write_all(args.output, model, CONFIG, train_set, test_set)
    print(f"accuracy on {len(test_set[1])} test images: {100 * accuracy(model, test_set):.2f} %")


if __name__ == "__main__":
    main()
