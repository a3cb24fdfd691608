"""Write an encoder of the same shape and vocabulary with random weights, to see what pretraining is worth.

python benchmarks/mini_zh/random_weights.py peftlab/encoders/weights/mini-zh OUT SEED
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel


def main() -> None:
    """Write the folder of the command line."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("encoder", type=Path)
    asked.add_argument("out", type=Path)
    asked.add_argument("seed", type=int)
    words = asked.parse_args()
    shutil.copytree(words.encoder, words.out, ignore=shutil.ignore_patterns("model.safetensors", "README.md"))
    torch.manual_seed(words.seed)
    AutoModel.from_config(AutoConfig.from_pretrained(words.encoder)).float().save_pretrained(words.out)


if __name__ == "__main__":
    main()
