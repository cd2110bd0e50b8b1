"""The 233 networks of the coverage run: architectures from torchvision and timm with weights made to show mistakes.

    python -m bench.data.zoo                       list them
    python -m bench.data.zoo tv/resnet18 ...       build some, print size and the spread of the output

Random weights as the libraries draw them hide errors: normalisation starts as the identity, residual branches at zero,
layer scales at 1e-6. Here every such constant is drawn anew, and running statistics are those of the activations that
really arrive, perturbed; so a wrong channel order changes the output, and no activation dies or explodes.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.torchvision_shim import models

LIST = Path(__file__).resolve().with_name("zoo.csv")


@dataclass(frozen=True)
class Entry:
    """One network: which collection it is from, its name there, and the side of its square input."""

    zoo: str
    model: str
    size: int

    @property
    def name(self) -> str:
        """The name used in results, as tv/resnet18."""
        return f"{self.zoo}/{self.model}"


def entries() -> list[Entry]:
    """All networks, in the order of the list."""
    with LIST.open(newline="", encoding="utf-8") as file:
        return [Entry(row["zoo"], row["model"], int(row["size"])) for row in csv.DictReader(file)]


def entry(zoo: str, model: str) -> Entry:
    """The entry of this name. Raises KeyError."""
    for found in entries():
        if (found.zoo, found.model) == (zoo, model):
            return found
    raise KeyError(f"{zoo}/{model} is not in {LIST.name}")


def build(zoo: str, model: str, seed: int = 0) -> nn.Module:
    """The network in eval mode, with drawn weights and calibrated statistics. The same seed gives the same weights."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  some constructors of timm draw from NumPy or random
    random.seed(seed)
    module = BUILDERS[zoo](model).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        redraw(module, generator)
        calibrate(module, example(zoo, model, seed=seed + 1, batch=2), generator)
    return module


def example(zoo: str, model: str, seed: int = 0, batch: int = 1) -> Tensor:
    """An input: f32[batch, 3, size, size], normally distributed."""
    size = entry(zoo, model).size
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


# --- construction ---------------------------------------------------------------------------------------------------


def _torchvision(model: str) -> nn.Module:
    # These two would spend a minute drawing truncated normals that are drawn again anyway.
    options: dict[str, Any] = {"init_weights": False} if model in {"googlenet", "inception_v3"} else {}
    built: nn.Module = models.get_model(model, weights=None, **options)
    return built


def _segmentation(model: str) -> nn.Module:
    built: nn.Module = getattr(models.segmentation, model)(weights=None, weights_backbone=None)
    return built


def _detection(model: str) -> nn.Module:
    """A detection backbone with its feature pyramid; parameters frozen as torchvision does, unless `_unfrozen`.

    The ResNets have BatchNorm, the MobileNets torchvision's default: FrozenBatchNorm2d, whose weights are buffers.
    """
    backbone_utils = models.detection.backbone_utils
    name = model.removeprefix("fpn_").removesuffix("_unfrozen")
    built: nn.Module
    if name.startswith("resnet"):
        built = backbone_utils.resnet_fpn_backbone(backbone_name=name, weights=None, norm_layer=nn.BatchNorm2d)
    else:
        built = backbone_utils.mobilenet_backbone(backbone_name=name, weights=None, fpn=True)
    return built.requires_grad_(True) if model.endswith("_unfrozen") else built


def _timm(model: str) -> nn.Module:
    import timm

    built: nn.Module = timm.create_model(model, pretrained=False)
    return built


BUILDERS: dict[str, Callable[[str], nn.Module]] = {
    "tv": _torchvision, "seg": _segmentation, "det": _detection, "timm": _timm,
}  # fmt: skip

# --- weights --------------------------------------------------------------------------------------------------------


def redraw(module: nn.Module, generator: torch.Generator) -> None:
    """Draw anew whatever is constant, and the weights of networks that no normalisation keeps in scale."""
    normalised = any(
        "norm" in type(m).__name__.lower() or type(m).__name__.startswith("Scaled") for m in module.modules()
    )
    for name, tensor in [*module.named_parameters(), *_frozen_affine(module)]:
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        constant = bool((tensor == tensor.flatten()[0]).all())
        vector = tensor.numel() <= 2 * max(tensor.shape, default=1)
        last = name.rpartition(".")[2].lower()
        if last.endswith(("bias", "beta")) and (constant or not normalised):
            _normal(tensor, 0.1, generator)
        elif constant and vector:
            low, high = (0.5, 1.5) if abs(float(tensor.flatten()[0])) > 0.5 else (0.1, 1.0)
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
        elif tensor.ndim >= 2 and (constant or not normalised):
            _normal(tensor, (2 / tensor[0].numel()) ** 0.5, generator)


def _frozen_affine(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The scales and shifts that FrozenBatchNorm keeps as buffers."""
    return [
        (f"{name}.{key}", getattr(child, key))
        for name, child in module.named_modules()
        if "frozen" in type(child).__name__.lower()
        for key in ("weight", "bias")
        if isinstance(getattr(child, key, None), Tensor)
    ]


def _normal(tensor: Tensor, deviation: float, generator: torch.Generator) -> None:
    tensor.copy_(torch.randn(tensor.shape, generator=generator) * deviation)


def calibrate(module: nn.Module, x: Tensor, generator: torch.Generator) -> None:
    """Give every layer with running statistics those of its own input, perturbed, in one pass from front to back."""

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean, variance = _statistics(inputs[0])
        shift = torch.randn(mean.shape, generator=generator) * 0.1
        factor = torch.rand(mean.shape, generator=generator) * 0.4 + 0.8
        layer.running_mean.copy_(mean + shift * variance.sqrt())  # type: ignore[operator]
        layer.running_var.copy_(variance * factor)  # type: ignore[operator]

    layers = [m for m in module.modules() if isinstance(getattr(m, "running_var", None), Tensor)]
    hooks = [m.register_forward_pre_hook(hook) for m in layers]
    module(x)
    for handle in hooks:
        handle.remove()


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance by channel (axis 1); over all channels where a channel has too few values to tell."""
    channels = x.transpose(0, 1).flatten(1)
    count = channels.shape[0]
    if channels.shape[1] < 8:
        return channels.mean().expand(count), channels.var().clamp(min=1e-6).expand(count)
    variance = channels.var(dim=1)
    # A channel that is dead on this input must not be magnified where it is not.
    return channels.mean(dim=1), variance.clamp(min=max(1e-6, 0.05 * float(variance.mean())))


def main() -> None:
    """List the networks, or build some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="as tv/resnet18")
    arguments = parser.parse_args()
    if not arguments.names:
        print("\n".join(e.name for e in entries()))
    for name in arguments.names:
        zoo, _, model = name.partition("/")
        module = build(zoo, model)
        with torch.no_grad():
            found = module(example(zoo, model))
        outputs = list(found.values()) if isinstance(found, dict) else [found]
        spread = " ".join(f"{tuple(y.shape)} std {float(y.std()):.3g} max {float(y.abs().max()):.3g}" for y in outputs)
        print(f"{name:40} {sum(p.numel() for p in module.parameters()) / 1e6:7.2f} M  {spread}", flush=True)


if __name__ == "__main__":
    main()
