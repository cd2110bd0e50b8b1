"""What is known before the network runs: constants, weights, and what is computed of them."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import fx

from secateur.ir.errors import Unsupported
from secateur.ir.graph import Value

from .arrays import to_numpy
from .build import Argument, Builder, bind
from .capture import Capture
from .constants import (
    CREATES,
    FOLLOWED,
    LAYER_WEIGHTS,
    MATRICES,
    NORMALISES,
    WEIGHT_NORMS,
    Const,
    create,
    hollow,
    rests,
)
from .grown import NOTHING, Grown
from .source import source_of


class Known(ABC):
    """The state of one walk over one capture, and how calls are computed that depend on no input.

    ``fold``: replace weights of layers that cannot be cut where they are stored by what they are now, such as a
    normalised one, whose norm would otherwise see the columns that pruning removes; without it everything that is
    computed from parameters stays computed. ``grown``: calls that give other constants at another size stay calls.
    """

    def __init__(self, capture: Capture, fold: bool = True, grown: Grown = NOTHING) -> None:
        self.capture = capture
        self.fold = fold
        self.grown = grown
        self.folded: dict[fx.Node, Value] = {}
        self.parameters = frozenset(name for name, _, kind in capture.bound.values() if kind == "parameter")
        self.b = Builder([name for name, _, _ in capture.bound.values()])
        self.b.open_sizes = grown is not NOTHING
        self.env: dict[fx.Node, Argument] = {}
        self.consts: dict[fx.Node, Const] = {}
        self.rename: dict[str, str] = {}
        self.sizes: dict[str, int] = {}

    @abstractmethod
    def _emit(self, node: fx.Node, base: str) -> None:
        """Build the nodes of a call."""

    def _fold(self, node: fx.Node, base: str) -> bool:
        """Compute a call that depends on no input. True if it needs no IR node."""
        if node.name in self.grown:
            return False
        known_by_shape = hollow(node, base, self.consts)
        tensors = [n for n in node.all_input_nodes if not self._is_number(n) and n not in known_by_shape]
        creates = base in CREATES
        if not creates and any(n not in self.consts for n in tensors):
            return False
        known = [] if creates else [self.consts[n] for n in tensors]
        origins = frozenset(itertools.chain.from_iterable(c.origins for c in known))
        if torch.Tag.nondeterministic_seeded in node.target.tags and not rests(node):  # type: ignore[union-attr]
            return False
        if node.target._schema.is_mutable and known and known[0].name:  # type: ignore[union-attr]
            return False  # never write into the user's weights
        result: Argument
        with torch.no_grad():
            if creates:
                result = create(node, base, self._args)
            else:
                args = self._args(node.args, known_by_shape)
                result = node.target(*args, **self._args(node.kwargs))  # type: ignore[operator]
        if not isinstance(result, torch.Tensor | tuple | list):
            self.env[node] = result  # a size
            return True
        folded = any(c.folded for c in known) or (bool(origins) and base in NORMALISES)
        strayed = any(c.strayed for c in known) or base not in FOLLOWED
        scaled = None
        if base in WEIGHT_NORMS and all(c.name for c in known):
            scaled = int(bind(node, node.args, node.kwargs).get("dim", 0))
        self.consts[node] = Const(result, origins, "", folded, strayed, scaled)
        tensors_out = [result] if isinstance(result, torch.Tensor) else result
        if not origins or not all(t.dtype.is_floating_point for t in tensors_out):
            return True
        return self._unfold(node, base)

    def _unfold(self, node: fx.Node, base: str) -> bool:
        """Arithmetic on weights stays in the graph, next to its value for layers that fold it.

        What the IR has no operator for is that value.
        """
        begin = len(self.b.nodes)
        self._emit(node, base)
        if any(made.op == "opaque" for made in self.b.nodes[begin:]):
            for made in self.b.nodes[begin:]:
                for value in made.outputs:
                    self.b.values.pop(value.name, None)
            del self.b.nodes[begin:], self.env[node]
        return True

    def _is_number(self, node: fx.Node) -> bool:
        return node in self.env and not isinstance(self.env[node], Value | tuple | list)

    def _args(self, items: Argument, shown: Mapping[fx.Node, torch.Tensor] = MappingProxyType({})) -> Argument:
        def pick(node: fx.Node) -> Argument:
            if node in shown:
                return shown[node]
            return self.consts[node].tensor if node in self.consts else self.env.get(node)

        return fx.map_arg(items, pick)

    def _value(self, node: fx.Node) -> Argument:
        """What a rule sees for this node: a Value, a sequence of them, or a number."""
        if node in self.env:
            return self.env[node]
        const = self.consts.get(node)
        if const is None:
            raise Unsupported(f"'{source_of(node).name}': {node.name} is read but nothing defines it.")
        if not isinstance(const.tensor, torch.Tensor):
            value: Argument = tuple(self.b.const(to_numpy(t.contiguous())) for t in const.tensor)
        elif const.name:
            value = self.b.add_weight(const.name, to_numpy(const.tensor))
        elif const.origins:
            value = self._folded_weight(node, const)
        else:
            value = self.b.const(np.array(to_numpy(const.tensor)))
        self.env[node] = value
        return value

    def _operands(self, node: fx.Node, base: str) -> Argument:
        """What a rule is given for this call's arguments: normalised weights of layers are folded."""
        slots = LAYER_WEIGHTS.get(base, frozenset()) if self.fold else frozenset()
        names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
        if not slots or all(n in self.consts for n in node.all_input_nodes):
            return fx.map_arg(node.args, self._value), fx.map_arg(node.kwargs, self._value)
        args = [
            self._folded_value(item, node, name == "weight" or base in MATRICES)
            if name in slots and isinstance(item, fx.Node)
            else [self._folded_value(one, node, True) if base in MATRICES else self._stacked(one) for one in item]
            if name in slots and isinstance(item, list | tuple)
            else fx.map_arg(item, self._value)
            for name, item in zip(names, node.args, strict=False)
        ]
        return tuple(args), fx.map_arg(node.kwargs, self._value)

    def _stacked(self, item: Argument) -> Argument:
        """A weight of a recurrent layer, where the gates are stacked anew: one that is computed, as what it is now."""
        const = self.consts.get(item) if isinstance(item, fx.Node) else None
        if const is None or const.name or not const.origins or not isinstance(const.tensor, torch.Tensor):
            return fx.map_arg(item, self._value)
        if item not in self.folded:
            self.folded[item] = self._folded_weight(item, const)
        return self.folded[item]

    def _folded_value(self, item: fx.Node, user: fx.Node, weight: bool) -> Argument:
        const = self.consts.get(item)
        if const is None or not isinstance(const.tensor, torch.Tensor) or const.tensor.ndim < 2:
            return self._value(item)
        weight = weight and (const.tensor.ndim == 2 or _base(user) not in MATRICES)
        if not const.folded and not (weight and const.strayed and const.origins):
            return self._value(item)
        if weight and const.scaled == 0 and _whole_filters(user, const.tensor):
            return self._value(item)  # a filter's length is that of the columns that are kept
        if item not in self.folded:
            self.folded[item] = self._folded_weight(item, const, source_of(user).name)
        return self.folded[item]

    def _folded_weight(self, node: fx.Node, const: Const, layer: str = "") -> Value:
        """A computed weight is not a parameter of the module and takes the name of none.

        Its layer's ``weight`` where no parameter is called so, else that of the largest it comes from, and "folded".
        """
        if not any(name in self.parameters for name in const.origins):  # of buffers alone: nothing to train
            return self.b.const(np.array(to_numpy(const.tensor)))
        temporary = self.b.fresh(f"{node.name}.folded")
        largest = max(sorted(const.origins), key=lambda n: self.sizes[n])
        wanted = f"{layer}.weight" if layer else largest
        own = {name for name, _, _ in self.capture.bound.values()}
        self.rename[temporary] = wanted if wanted not in own else f"{largest}_folded"
        return self.b.add_weight(temporary, np.array(to_numpy(const.tensor)))


def _whole_filters(layer: fx.Node, weight: torch.Tensor) -> bool:
    """Are the rows of a layer's weight its filters, and its columns what all of them read, or each one alone?"""
    base = _base(layer)
    if base == "linear":
        return True
    if base not in ("conv1d", "conv2d", "conv3d"):
        return False
    groups = dict(zip((a.name for a in layer.target._schema.arguments), layer.args, strict=False)).get("groups", 1)  # type: ignore[union-attr]
    return bool(groups == 1 or weight.shape[1] == 1)


def _base(call: fx.Node) -> str:
    name: str = call.target._schema.name  # type: ignore[union-attr]
    return name.rpartition("::")[2]
