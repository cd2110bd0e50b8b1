"""Fashion-MNIST and small networks trained on it, kept in the folder of the material.

    python -m bench.data.fashion [--seeds 3]        train what is not there yet, print accuracies

The data set is Debian's package dataset-fashion-mnist (31 MB), downloaded by apt-get without installing it. Networks
train on one thread, so that the same seed gives the same weights on the same machine.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.material import ROOT, MaterialError
from bench.lib import common
from bench.nets.criteria_nets import EVERY, NETS
from secateur.passes.train import Hook, attach

PACKAGE = "dataset-fashion-mnist"
FILES = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
EPOCHS, BATCH, RATE = 3, 128, 0.1
MEAN, DEVIATION = 0.286, 0.353
SOFT = 2.0


@dataclass(frozen=True)
class Data:
    """Pictures f32[n, 1, 28, 28] with mean 0 and deviation 1, and their classes."""

    x: Tensor
    y: Tensor

    def first(self, count: int) -> Data:
        """The first so many examples."""
        return Data(self.x[:count], self.y[:count])


def folder(root: Path = ROOT) -> Path:
    """The folder of the four files, fetched and checked if it is not there. Raises MaterialError."""
    target = root / "fashion-mnist"
    if target.exists():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        for command in (["apt-get", "download", PACKAGE], ["sh", "-c", "dpkg -x *.deb out"]):
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
            if done.returncode:
                raise MaterialError(f"{PACKAGE}: '{' '.join(command)}' failed: {done.stderr.strip()[-300:]}")
        found = Path(scratch) / "out/usr/share/datasets/fashion-mnist"
        for name, digest in FILES.items():
            if hashlib.sha256((found / name).read_bytes()).hexdigest() != digest:
                raise MaterialError(f"{PACKAGE}: '{name}' is not the file it was (its SHA-256 is pinned)")
        shutil.move(found, target)
    return target


def load(part: str, root: Path = ROOT) -> Data:
    """``train``, 60,000 examples, or ``t10k``, 10,000."""
    x, y = (
        np.frombuffer(gzip.decompress((folder(root) / f"{part}-{kind}-ubyte.gz").read_bytes()), np.uint8, offset=skip)
        for kind, skip in (("images-idx3", 16), ("labels-idx1", 8))
    )
    pictures = (x.reshape(-1, 1, 28, 28).astype(np.float32) / 255 - MEAN) / DEVIATION
    return Data(torch.from_numpy(pictures.astype(np.float32)), torch.from_numpy(y.astype(np.int64)))


def fit(
    module: nn.Module, data: Data, epochs: float, seed: int, rate: float = RATE, hooks: Sequence[Hook] = (),
    teacher: nn.Module | None = None,
) -> nn.Module:  # fmt: skip
    """SGD with momentum, one-cycle rate, hooks on its steps, for so many passes over the data; in eval mode
    afterwards. ``teacher``, in eval mode: half of the loss is the divergence from its outputs (``divergence``).
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(len(data.x), generator=generator) for _ in range(max(1, round(epochs + 0.49)))])
    batches = order[: round(epochs * len(data.x)) // BATCH * BATCH].view(-1, BATCH)
    optimiser = torch.optim.SGD(module.parameters(), rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=len(batches) + 1)
    module.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster, grouped most
    with attach(optimiser, *hooks):
        for batch in batches:
            outputs = module(data.x[batch])
            loss = nn.functional.cross_entropy(outputs, data.y[batch])
            if teacher is not None:
                loss = (loss + divergence(outputs, teacher, data.x[batch])) / 2
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    module.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return module


def divergence(outputs: Tensor, teacher: nn.Module, x: Tensor) -> Tensor:
    """Kullback and Leibler's, from the teacher's classes, both softened by ``SOFT`` (Hinton et al., 2015)."""
    with torch.no_grad():
        wanted = torch.log_softmax(teacher(x) / SOFT, 1)
    found = torch.log_softmax(outputs / SOFT, 1)
    return SOFT**2 * nn.functional.kl_div(found, wanted, log_target=True, reduction="batchmean")


def accuracy(module: nn.Module, data: Data) -> float:
    """The share of examples whose class is the most likely one."""
    with torch.inference_mode():
        classes = torch.cat([module(x).argmax(1) for x in torch.split(data.x, 1000)])
    return float((classes == data.y).double().mean())


def fresh(name: str, seed: int) -> nn.Module:
    """The network with weights drawn from the seed."""
    torch.manual_seed(seed)
    return EVERY[name]()


def trained(name: str, seed: int, train: Data, epochs: float = EPOCHS, root: Path = ROOT) -> nn.Module:
    """The network after ``epochs`` on ``train``, from the folder if it was trained before."""
    module = fresh(name, seed)
    key = hashlib.sha256(f"{module}{len(train.x)}{epochs:g}{RATE}{BATCH}".encode()).hexdigest()[:8]
    file = root / "trained" / f"{name}-{seed}-{key}.pth"
    if file.exists():
        module.load_state_dict(torch.load(file, weights_only=True))
        return module.eval()
    fit(module, train, epochs, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")  # two processes may train the same network
    torch.save(module.state_dict(), part)
    part.rename(file)
    return module


def main() -> int:
    """Train every network with every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="networks of each kind (default 3)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, test = load("train"), load("t10k")
    rows = []
    for seed in range(arguments.seeds):
        for name in NETS:
            start = time.perf_counter()
            module = trained(name, seed, train)
            seconds = time.perf_counter() - start
            size = sum(p.numel() for p in module.parameters())
            rows.append([name, seed, size, f"{accuracy(module, test):.2%}", seconds])
            print(*rows[-1], flush=True)
    print(common.table(["network", "seed", "parameters", "accuracy", "seconds"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
