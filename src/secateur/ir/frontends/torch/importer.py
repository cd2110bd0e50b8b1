"""Walks a captured ATen graph and builds the IR from it.

Calls are looked up by their ATen name in ``RULES``. What depends on no input is computed on the
spot; a call without a rule, or that its rule refuses, becomes an opaque node.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

import torch
from torch import fx

from secateur.ir.errors import Unsupported
from secateur.ir.graph import Attr, Graph, Node, Value, prune_dead
from secateur.ir.torch_origin import TorchOrigin

from .arrays import short_name, to_numpy
from .build import Args, Argument, Rule, Skip, bind
from .capture import Capture
from .constants import Const
from .grown import MAKERS, NOTHING, SHAPED, Grown, constant, numbers
from .known import Known
from .parts import parts_of
from .refusals import check_known
from .results import check, jsonable, replaced, settle, titled
from .rules_functions import FUNCTIONS
from .rules_index import INDEX
from .rules_layers import LAYERS
from .rules_math import MATH
from .rules_movement import MOVE
from .source import source_of

RULES: Mapping[str, Rule] = MappingProxyType({**FUNCTIONS, **MATH, **MOVE, **INDEX, **LAYERS, **SHAPED})

_AUTOCAST = frozenset({"f32", "f16", "bf16"})
_SIZED = re.compile(r"SymInt(?:\[\d*\])?\??(?:\[\])? (\w+)")  # an argument of a schema, in its words
_IGNORED = frozenset({"_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_constrain_range_for_size"})


class Importer(Known):
    """One walk over one capture. See ``Known`` for its arguments."""

    def __init__(self, capture: Capture, fold: bool = True, grown: Grown = NOTHING) -> None:
        super().__init__(capture, fold, grown)
        self.inputs: list[Value] = []
        self.arguments: list[bool] = []
        self.names: dict[int, str] = {}
        self.train_as: dict[str, str] = {}
        self.autocast = False  # inside of a region where torch chooses the types that calls compute in

    def run(self, name: str) -> Graph:
        """The graph, with dead nodes and weights dropped."""
        self._walk(self.capture.module, self._placeholder)
        outputs: list[str] = []
        leaves: list[int | tuple[Argument, ...]] = []
        for result in self.capture.results:
            if isinstance(result, tuple):
                leaves.append(result)
                continue
            leaves.append(len(outputs))
            outputs.append(self._value(result).name)
        kinds: dict[str, set[str]] = {"parameter": set(), "buffer": set(), "constant": set()}
        for weight, _, kind in self.capture.bound.values():
            kinds[kind].add(weight)
        graph = Graph(name, tuple(self.inputs), tuple(self.b.nodes), tuple(outputs), self.b.weights)
        graph = settle(prune_dead(graph), self.rename)
        origin = TorchOrigin(
            frozenset(kinds["parameter"]), frozenset(kinds["buffer"]),
            self.capture.in_spec, self.capture.out_spec, tuple(leaves), MappingProxyType(self.train_as),
            capture_remarks=replaced(graph, self.rename, kinds["parameter"]), arguments=tuple(self.arguments),
        )  # fmt: skip
        return graph.with_note(origin)

    def _placeholder(self, node: fx.Node) -> None:
        found = self.capture.bound.get(node.name)
        if found is not None:
            self._bind_weight(node, *found)
            return
        meta = node.meta.get("val")
        self.arguments.append(isinstance(meta, torch.Tensor))
        if not isinstance(meta, torch.Tensor):
            self.env[node] = meta  # a number the capture has fixed
            return
        value = Value(self.b.fresh(node.name), tuple(int(d) for d in meta.shape), short_name(meta.dtype))
        self.inputs.append(value)
        self.b.values[value.name] = value
        self.env[node] = value

    def _bind_weight(self, node: fx.Node, name: str, tensor: torch.Tensor, kind: str) -> None:
        if kind == "constant" and self._grow(node, tensor):
            return
        # Tied weights are one weight under the first name.
        name = self.names.setdefault(id(tensor), name)
        named = kind != "constant" and tensor.dtype.is_floating_point
        self.consts[node] = Const(tensor, frozenset({name} if named else ()), "" if kind == "constant" else name)
        if named:
            self.sizes[name] = tensor.numel()

    def _grow(self, node: fx.Node, tensor: torch.Tensor) -> bool:
        """Build a constant that holds sizes. False where it does not."""
        if node.name not in self.grown:
            return False
        self.b.start(node.name, source_of(node))
        try:
            self.env[node] = constant(self.b, tensor, self.grown[node.name])
        except Skip:
            return False
        return True

    def _walk(self, module: fx.GraphModule, placeholder: Argument) -> Argument:
        for node in module.graph.nodes:
            if node.op == "placeholder":
                placeholder(node)
            elif node.op == "get_attr":
                found: Argument = operator.attrgetter(node.target)(module)
                if isinstance(found, torch.Tensor):
                    if not self._grow(node, found):
                        self.consts[node] = Const(found)
                else:
                    self.env[node] = found
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                return node.args[0]
        return None

    def _call(self, node: fx.Node) -> None:
        target = node.target
        if target is operator.getitem:
            self._getitem(node)
        elif not isinstance(target, torch._ops.OpOverload):
            self._call_python(node)
        elif target._schema.name.rpartition("::")[2] in _IGNORED:
            self.env[node] = None
        else:
            base = target._schema.name.rpartition("::")[2]
            if not self._fold(node, base):
                self._emit(node, base)
            if target._schema.is_mutable and node.args and isinstance(node.args[0], fx.Node):
                self._overwrite(node.args[0], node)

    def _overwrite(self, old: fx.Node, new: fx.Node) -> None:
        """An in-place call: whoever reads the old tensor from here on reads the new one."""
        self.consts.pop(old, None)
        self.env.pop(old, None)
        if new in self.consts:
            self.consts[old] = self.consts[new]
        if new in self.env:
            self.env[old] = self.env[new]

    def _getitem(self, node: fx.Node) -> None:
        source, index = node.args
        if source in self.consts:
            const = self.consts[source]  # type: ignore[index]
            scaled = const.scaled if index == 0 else None
            self.consts[node] = Const(const.tensor[index], const.origins, "", const.folded, True, scaled)
        if source in self.env:
            self.env[node] = self.env[source][index]  # type: ignore[index]

    def _call_python(self, node: fx.Node) -> None:
        """Arithmetic on sizes, and regions with gradients or autocast switched off."""
        if str(node.target) in ("wrap_with_set_grad_enabled", "wrap_with_autocast"):
            grad = "grad" in str(node.target)
            before, self.autocast = self.autocast, self.autocast or not grad
            self._inline(node, 1 if grad else 4)
            self.autocast = before
            return
        args = fx.map_arg(node.args, self._plain)
        kwargs = fx.map_arg(node.kwargs, self._plain)
        if not callable(node.target):
            raise Unsupported(f"call of {node.target} in '{source_of(node).name}' cannot be read.")
        self.env[node] = node.target(*args, **kwargs)

    def _plain(self, node: fx.Node) -> Argument:
        found = self.env.get(node)
        if isinstance(found, Value) or node in self.consts:
            raise Unsupported(
                f"'{source_of(node).name}' ({source_of(node).where}): a tensor is used by a Python function that torch "
                "could not trace. Replace it by torch operators."
            )
        return found

    def _inline(self, node: fx.Node, skip: int) -> None:
        body, *args = node.args[skip:]
        module = self.env[body] if isinstance(body, fx.Node) else body
        given = iter(args)

        def bind_argument(inner: fx.Node) -> None:
            outer: Argument = next(given)
            if outer in self.consts:
                self.consts[inner] = self.consts[outer]
            else:
                self.env[inner] = self.env[outer] if isinstance(outer, fx.Node) else outer

        results = self._walk(cast(fx.GraphModule, module), bind_argument)
        values = fx.map_arg(results, self._value)
        self.env[node] = tuple(values) if isinstance(values, list) else values

    # Nodes.

    def _emit(self, node: fx.Node, base: str) -> None:
        b = self.b
        b.start(node.name, source_of(node))
        check_known(node)
        args = bind(node, *self._operands(node, base))
        rule = RULES.get(base) or (RULES.get(base[:-1]) if base.endswith("_") else None)
        if node.name in self.grown:
            rule = MAKERS.get(base, rule)
        begin = len(b.nodes)
        try:
            args = numbers(b, node, self.grown.get(node.name, frozenset()), args)
            args = self._as_recorded(args) if self.autocast else args
            if rule is None:
                raise Skip(f"no rule for {base}")
            result = rule(b, args)
            check(result, args.meta)
            if _lacks(node, result):
                raise Skip(f"the rule for {base} gives not all that is read")
            if args.ignored():
                raise Skip(f"the rule for {base} says nothing of {', '.join(args.ignored())}")
        except (Skip, ValueError, KeyError, IndexError, TypeError, AttributeError):
            for made in b.nodes[begin:]:
                for value in made.outputs:
                    b.values.pop(value.name, None)
            del b.nodes[begin:]
            b.start(node.name, source_of(node))
            module = parts_of(node, base, RULES)
            if module is not None:
                self._spell_out(node, module)
                return
            result = self._opaque(node, args)
        self.env[node] = result = titled(b, node.name, result, begin)
        if node.name in self.grown and not node.all_input_nodes and isinstance(result, Value):
            b.now[result.name] = to_numpy(node.target(*node.args, **node.kwargs))  # type: ignore[operator]
        if b.train_as and isinstance(result, Value):
            self.train_as[result.name] = b.train_as

    def _as_recorded(self, args: Args) -> Args:
        """Floats in the type of the result, where autocast chose another than theirs."""
        kind = short_name(args.meta.dtype) if isinstance(args.meta, torch.Tensor) else ""
        given = {name: args.peek(name) for name in args}
        floats = {name: v for name, v in given.items() if isinstance(v, Value) and v.dtype in _AUTOCAST}
        if kind not in _AUTOCAST or not floats or all(v.dtype == kind for v in floats.values()):
            return args
        return args.with_values({name: self.b.cast(v, kind) for name, v in floats.items()})

    def _spell_out(self, node: fx.Node, module: fx.GraphModule) -> None:
        """Build a call of its parts."""
        given = iter(node.all_input_nodes)

        def bind_argument(inner: fx.Node) -> None:
            outer = next(given)
            if outer in self.consts:
                self.consts[inner] = self.consts[outer]
            else:
                self.env[inner] = self.env[outer]

        results = self._walk(module, bind_argument)
        values = fx.map_arg(results, self._value)
        self.env[node] = tuple(values) if isinstance(values, list) else values

    def _opaque(self, node: fx.Node, args: Args) -> Argument:
        operands: list[Value] = []
        sizes: list[int] = []
        schema = node.target._schema  # type: ignore[union-attr]
        sized = {*_SIZED.findall(str(schema)), "length"}  # what may follow an input's size, istft's too

        def plain(name: str, item: Argument) -> Argument:
            return jsonable(fx.map_arg(item, self._value), operands, sizes if name in sized else None)

        given = [plain(a.name, item) for a, item in zip(schema.arguments, node.args, strict=False)]
        payload = json.dumps({"args": given, "kwargs": {name: plain(name, item) for name, item in node.kwargs.items()}})
        metas = args.meta if isinstance(args.meta, list | tuple) else [args.meta]
        outputs: list[Value] = []
        result: list[Value | None] = []
        for i, meta in enumerate(metas):
            if not isinstance(meta, torch.Tensor):
                result.append(None)
                continue
            shape = tuple(int(d) for d in meta.shape)
            outputs.append(Value(self.b.fresh(f"{node.name}.out{i}"), shape, short_name(meta.dtype)))
            result.append(outputs[-1])
        if not outputs:
            raise Unsupported(f"'{source_of(node).name}' ({source_of(node).where}): {node.target} returns no tensor.")
        attrs: dict[str, Attr] = {"kind": "torch", "target": str(node.target), "payload": payload}
        attrs |= {"sizes": tuple(sizes)} if sizes else {}
        names = tuple(v.name for v in operands)
        self.b.append(Node("opaque", names, tuple(outputs), attrs, source_of(node)))
        return tuple(result) if isinstance(args.meta, list | tuple) else result[0]


def _lacks(node: fx.Node, result: Argument) -> bool:
    """Is something read of the call's results that the rule does not give, such as where a maximum was?"""
    if not isinstance(result, list | tuple):
        return False
    missing = {i for i, value in enumerate(result) if value is None}
    return any(user.target is operator.getitem and user.args[1] in missing and user.users for user in node.users)
