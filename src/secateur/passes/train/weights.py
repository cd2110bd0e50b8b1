"""The weights that sparsity in training is about: of which layers, and which groups of numbers in them."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from secateur.ir import InputError
from secateur.ir.near import did_you_mean

Form = Literal["filter", "channel", "shape", "depth"]
FORMS: tuple[Form, ...] = ("filter", "channel", "shape", "depth")
Layer = nn.Module  # a convolution, transposed or not, or a linear layer


def layers(module: nn.Module, names: Sequence[str] | None = None) -> dict[str, Layer]:
    """Convolutions and linear layers by name, those that ``names`` (globs) name; each weight once.

    Raises InputError for a glob that names none, and for weights that are computed (``torch.nn.utils.parametrize``):
    nothing can be set to zero in them.
    """
    known = {n: m for n, m in module.named_modules() if isinstance(m, _ConvNd | nn.Linear)}
    for glob in names or ():
        if not any(fnmatch.fnmatchcase(n, glob) for n in known):
            hint = did_you_mean(glob, known) or f"; there are {', '.join(list(known)[:5]) or 'none'}"
            raise InputError(f"'{glob}' names no convolution or linear layer of the module{hint}")
    found: dict[str, Layer] = {}
    seen: set[int] = set()
    for name, layer in known.items():
        if names is not None and not any(fnmatch.fnmatchcase(name, glob) for glob in names):
            continue
        if not isinstance(layer._parameters.get("weight"), nn.Parameter):
            raise InputError(f"the weight of '{name}' is computed, not stored, so it cannot become zero; remove that")
        if id(weight_of(layer)) not in seen:
            seen.add(id(weight_of(layer)))
            found[name] = layer
    return found


def weight_of(layer: Layer) -> Tensor:
    """The layer's weight itself."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def path_of(layer: str) -> str:
    """The parameter name of a layer's weight; the module itself has the name ""."""
    return f"{layer}.weight" if layer else "weight"


def batch_norms(module: nn.Module) -> dict[str, _BatchNorm]:
    """Batch norms that have a scale, by name."""
    return {n: m for n, m in module.named_modules() if isinstance(m, _BatchNorm) and m.affine}


def grouped(layer: Layer) -> Tensor:
    """The weight as a view [groups, outputs of one, inputs of one, ..taps], transposed convolutions too."""
    weight = weight_of(layer).detach()
    groups = layer.groups if isinstance(layer, _ConvNd) else 1
    view = split(weight, groups)
    return view.transpose(1, 2) if isinstance(layer, _ConvTransposeNd) else view


def split(x: Tensor, groups: int) -> Tensor:
    """The tensor as a view with its first axis in so many parts, whatever its strides are."""
    return x.view(groups, x.shape[0] // groups, *x.shape[1:])


def ungrouped(view: Tensor, layer: Layer) -> Tensor:
    """A tensor laid out as ``grouped``, in the shape of the layer's weight."""
    return (view.transpose(1, 2) if isinstance(layer, _ConvTransposeNd) else view).flatten(0, 1)


def reduced(view: Tensor, form: Form) -> tuple[int, ...]:
    """The axes of ``grouped`` that one group of this form goes over."""
    taps = tuple(range(3, view.dim()))
    return {"filter": (2, *taps), "channel": (1, *taps), "shape": (1,), "depth": tuple(range(view.dim()))}[form]


def norms(view: Tensor, form: Form) -> Tensor:
    """The Euclidean norm of each group of this form, along the axes that are left; others have the size 1."""
    found: Tensor = torch.linalg.vector_norm(view, dim=reduced(view, form), keepdim=True)
    return found


def forms_of(layer: Layer, forms: Sequence[Form]) -> Iterator[Form]:
    """These forms without what is the same twice: a depthwise filter is its channel."""
    depthwise = grouped(layer).shape[1:3] == (1, 1)
    return (f for f in forms if not (depthwise and f == "channel" and "filter" in forms))


def check_forms(forms: Sequence[str], names: Sequence[str] | None) -> None:
    """Raises InputError for a form that does not exist, and for whole layers that nobody named."""
    for form in forms:
        if form not in FORMS:
            raise InputError(f"there is no form '{form}'{did_you_mean(form, FORMS)}; take some of {', '.join(FORMS)}")
    if "depth" in forms and names is None:
        raise InputError(
            "form 'depth' takes whole layers out, which only those can lose that a shortcut leads around; name them "
            "(layers=[..])"
        )


def keep_largest(scores: Tensor, count: int) -> Tensor:
    """bool of the scores' shape: the ``count`` largest; among equals those that come first."""
    order = torch.argsort(scores.flatten(), descending=True, stable=True)
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[order[:count]] = True
    return mask.view(scores.shape)


def check_share(value: float, what: str, least_open: bool = False) -> float:
    """The number itself. Raises InputError outside of 0 to 1; ``least_open``: at 0 too."""
    if not 0 <= value <= 1 or (least_open and value == 0):
        raise InputError(f"{what} is {value:g}; give a share {'above 0' if least_open else 'from 0'} to 1")
    return value
