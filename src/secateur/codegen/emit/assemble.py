"""A planned program as machine code: a private function per distinct kernel, and ``main``, which calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import tirx

from secateur.codegen.plan.backend import Compiled
from secateur.codegen.plan.family import Template
from secateur.codegen.plan.program import OUTPUT, Argument, Call, Choice, Port, Program, Spec, Table, TensorSpec, Weight
from secateur.codegen.plan.tensors import Address
from secateur.codegen.targets import Target
from secateur.ir import Graph
from secateur.ir.graph import NUMPY_NAMES, Value

from .builder import const
from .machine_code import compile_module
from .threads import Step, together
from .topi import build_tensor_op
from .types import Buffer, Expr, Function


def kernel(spec: Spec, choice: Choice | None, target: Target, templates: Mapping[type, Template]) -> Function:
    """The function of a spec: its template's, or TVM's own. Raises ValueError for a spec without a template."""
    if isinstance(spec, TensorSpec):
        return build_tensor_op(spec)
    if type(spec) not in templates:
        raise ValueError(f"no template writes a {type(spec).__name__}: its family has no row for it")
    return templates[type(spec)].build(spec, choice, target)


def compile_program(
    program: Program, graph: Graph, target: Target, templates: Mapping[type, Template], stamped: bool = False
) -> Compiled:
    """Give buffers their places, write all functions, compile them.

    ``templates`` say by kind of spec how its kernel is written. ``stamped``: ``main`` takes one more array, int64, and
    writes the cycle counter to it before and after every step.
    """
    words = program.arena.place()
    tables = Tables()
    functions: dict[tvm.ir.GlobalVar, Function] = {}
    names: dict[tuple[Spec, Choice | None], tvm.ir.GlobalVar] = {}
    calls = []
    for call in program.calls:
        key = (call.spec, call.choice)
        if key not in names:
            names[key] = tvm.ir.GlobalVar(f"k{len(names)}")
            functions[names[key]] = kernel(call.spec, call.choice, target, templates)
        places = [tables.index(a) if isinstance(a, Table) else 0 for a in call.arguments]
        calls.append((functions[names[key]], names[key], call, places))
    blob = program.lay_out()
    main = _main(calls, graph, words, blob.size, tables.size, stamped)
    functions[tvm.ir.GlobalVar("main")] = main
    module = compile_module(functions, target)
    return Compiled(module, blob, tables.array(), words)


class Tables:
    """All tables one after another; equal ones are stored once."""

    def __init__(self) -> None:
        self.parts: list[NDArray[np.int32]] = []
        self.size = 16
        self.seen: dict[bytes, int] = {}

    def index(self, table: Table) -> int:
        """Where this table begins."""
        numbers = table.resolve()
        key = numbers.tobytes()
        if key not in self.seen:
            self.seen[key] = self.size
            self.parts.append(numbers)
            self.size += len(numbers)
        return self.seen[key]

    def array(self) -> NDArray[np.int32]:
        """The tables, after an unused first line."""
        return np.concatenate([np.zeros(16, np.int32), *self.parts])


def ports(graph: Graph) -> tuple[list[Value], list[Value]]:
    """Inputs and outputs in the order in which ``main`` takes them."""
    outs = [graph.value(name) for name in graph.outputs]
    return list(graph.inputs), [Value(f"{OUTPUT}{i}", v.shape, v.dtype) for i, v in enumerate(outs)]


def storage(dtype: str) -> str:
    """TVM's name of an IR type in memory; booleans are bytes."""
    return "bool" if dtype == "b1" else NUMPY_NAMES[dtype]


def _main(calls: Sequence[tuple[Function, tvm.ir.GlobalVar, Call, list[int]]], graph: Graph, words: int,
          weights: int, tables: int, stamped: bool) -> Function:  # fmt: skip
    def port(value: Value) -> Buffer:
        shape = [const(int(d)) for d in value.shape]
        return tirx.decl_buffer(shape, storage(value.dtype), "p", data_alignment=4)

    inputs, outputs = ports(graph)
    memory = {value.name: port(value) for value in (*inputs, *outputs)}
    arena = tirx.decl_buffer((const(words),), "float32", "arena", data_alignment=64)
    constants = tirx.decl_buffer((const(weights),), "float32", "weights", data_alignment=64)
    offsets = tirx.decl_buffer((const(tables),), "int32", "tables", data_alignment=4)

    def pointer(argument: Argument, table: int) -> Expr:
        if isinstance(argument, Port):
            buffer = memory[argument.name]
            return tirx.address_of(tirx.BufferLoad(buffer, [const(0)] * len(buffer.shape)))
        if isinstance(argument, Table):
            return tirx.address_of(tirx.BufferLoad(offsets, [const(table)]))
        if isinstance(argument, Weight):
            return tirx.address_of(tirx.BufferLoad(constants, [const(argument.offset // 4)]))
        assert isinstance(argument, Address)
        return tirx.address_of(tirx.BufferLoad(arena, [const(argument.offset)]))

    steps: dict[int, Step] = {}
    for function, name, call, tables_at in calls:
        arguments = [pointer(a, t) for a, t in zip(call.arguments, tables_at, strict=True)]
        steps.setdefault(call.step, Step()).add(function, name, arguments, call.worker)
    parameters = [arena, constants, offsets, *(memory[v.name] for v in (*inputs, *outputs))]
    stamps = tirx.decl_buffer((const(len(steps) + 1),), "int64", "stamps")
    parameters += [stamps] if stamped else []
    function = tirx.PrimFunc(parameters, together(list(steps.values()), stamps if stamped else None))
    return function.with_attr("global_symbol", "main")
