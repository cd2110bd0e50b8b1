"""A backend of ``torch.compile``: what TorchDynamo captures runs as a library.

    model = torch.compile(model.eval(), backend="secateur", options={"threads": 2, "records": "kernels.jsonl"})

Networks are built at the first call with inputs of a shape, which takes seconds, and again where weights were changed:
assigned, or written to as optimisers and ``load_state_dict`` do. Torch keeps no count of what is written through
``.data``, so that is not seen.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from secateur.ir import InputError, Unsupported
from secateur.ir.frontends.torch.trace import trace

from .deploy import build

if TYPE_CHECKING:
    from secateur.codegen import Library

_OPTIONS = tuple(name for name in inspect.signature(build).parameters if name not in ("graph", "batch"))
_KEPT = 16  # libraries of one capture


def backend(
    module: fx.GraphModule,
    example_inputs: Sequence[object],
    *,
    options: Mapping[str, Any] | None = None,
    **mode: object,
) -> Callable[..., Sequence[torch.Tensor]]:
    """What ``torch.compile`` calls with each graph that it captured; ``options`` are those of ``secateur.build``.

    The callable runs a library where nobody asks for gradients, and else, or where there is no code for the graph, the
    graph as it is, with a warning that says why. ``threads`` is torch's own number unless given.
    Raises InputError for an unknown option or a mode.
    """
    given = dict(options or {})
    unknown = sorted(set(given) - set(_OPTIONS))
    if unknown or any(mode.values()):
        what = f"the option '{unknown[0]}'" if unknown else f"mode={next(filter(None, mode.values()))!r}"
        raise InputError(f"torch.compile: the backend 'secateur' does not know {what}; it takes {', '.join(_OPTIONS)}")
    held = [isinstance(x, torch.Tensor) and _is_static(x) for x in example_inputs]
    return _Compiled(module, held, given)


def _is_static(x: torch.Tensor) -> bool:
    """Is this input a parameter or a buffer of the user's module?"""
    return isinstance(x, nn.Parameter) or hasattr(x, "_dynamo_static_input_type")


class _Compiled:
    """One captured graph with a library for each shape of its inputs.

    The weights of a library are kept with it: freed, their memory could become that of others, taken for the same.
    """

    def __init__(self, module: fx.GraphModule, held: Sequence[bool], options: Mapping[str, Any]) -> None:
        self._module, self._held, self._options = module, tuple(held), options
        self._libraries: dict[Hashable, tuple[Library | None, list[torch.Tensor]]] = {}

    def __call__(self, *args: Any) -> Sequence[torch.Tensor]:
        tensors = [x for x in args if isinstance(x, torch.Tensor)]
        if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
            _warn("gradients are asked for, which a library does not give; call the model under torch.no_grad()")
            return self._eager(args)
        if any(held and x.is_inference() for x, held in zip(args, self._held, strict=True)):
            _warn("weights were made in inference mode, where nobody counts what is written to them")
            return self._eager(args)
        library = self._library(args)
        if library is None:
            return self._eager(args)
        free = [x for x, held in zip(args, self._held, strict=True) if not held and isinstance(x, torch.Tensor)]
        found = library(*free)
        return found if isinstance(found, tuple) else (found,)

    def _eager(self, args: Sequence[Any]) -> Sequence[torch.Tensor]:
        found: Sequence[torch.Tensor] = self._module(*args)
        return found

    def _library(self, args: Sequence[Any]) -> Library | None:
        """Built where there is none for these shapes and weights; None where there is no code for the graph."""
        key = tuple(map(_key, args, self._held))
        if key not in self._libraries:
            if len(self._libraries) >= _KEPT:
                self._libraries.pop(next(iter(self._libraries)))
            weights = [x.detach() for x, held in zip(args, self._held, strict=True) if held]
            self._libraries[key] = self._built(args), weights
        return self._libraries[key][0]

    def _built(self, args: Sequence[Any]) -> Library | None:
        options = {"threads": torch.get_num_threads(), **self._options}
        bound = _Bound(self._module, args, self._held)
        try:
            graph = trace(bound, bound.example, name="compiled", dynamic_batch=False)
            return build(graph, **options)
        except Unsupported as error:
            _warn(f"a graph runs in PyTorch as it is: {error}")
            return None


def _key(x: object, held: bool) -> Hashable:
    """What a library is good for: weights at this place that nobody has written to since, inputs of this shape."""
    if not isinstance(x, torch.Tensor):
        return x if isinstance(x, Hashable) else repr(x)
    if not held:
        return tuple(x.shape), x.dtype
    return x.data_ptr(), x._version


def _warn(text: str) -> None:
    warnings.warn(f"torch.compile with the backend 'secateur': {text}", stacklevel=3)


class _Bound(nn.Module):
    """The graph as a module of its own: weights and numbers are part of it, the other inputs are its arguments."""

    def __init__(self, module: fx.GraphModule, args: Sequence[Any], held: Sequence[bool]) -> None:
        super().__init__()
        self.graph_module = module
        self.places = [i for i, x in enumerate(args) if isinstance(x, torch.Tensor) and not held[i]]
        self.numbers = {i: x for i, x in enumerate(args) if not isinstance(x, torch.Tensor)}
        self.names = {i: f"weight{i}" for i, known in enumerate(held) if known}
        self.count = len(args)
        self.example = tuple(args[i] for i in self.places)
        for i, name in self.names.items():
            self.register_buffer(name, args[i].detach())

    def forward(self, *given: torch.Tensor) -> Any:
        args: list[Any] = [self.numbers.get(i) for i in range(self.count)]
        for i, name in self.names.items():
            args[i] = getattr(self, name)
        for i, x in zip(self.places, given, strict=True):
            args[i] = x
        return self.graph_module(*args)
