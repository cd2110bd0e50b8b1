"""A planned program as kernels for a GPU: a function for each distinct kernel, and the launches in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from secateur.codegen.devices.code import ARENA, TABLES, WEIGHTS, Code, Kernel, Launch
from secateur.codegen.emit.assemble import Tables, ports
from secateur.codegen.emit.types import Function
from secateur.codegen.plan.family import Template
from secateur.codegen.plan.program import OUTPUT, Argument, Choice, Port, Program, Spec, Table, TensorSpec, Weight
from secateur.codegen.targets import Target
from secateur.ir import Graph, Unsupported

from .builder import LAUNCH
from .source import source

MOST = (1 << 31) - 1  # elements of a memory: kernels count in 32 bits
THEN = "_then"  # ends the name of a kernel that a call launches after its first


def assemble(program: Program, graph: Graph, target: Target, templates: Mapping[type, Template],
             identity: Callable[[TensorSpec, None, Target], Function]) -> Code:  # fmt: skip
    """Give buffers their places, write all functions, make their text.

    ``identity`` writes the copy of a value to the caller's memory. Raises ValueError for a spec without a template,
    and Unsupported where a memory is larger than a kernel can count.
    """
    words = program.arena.place()
    tables, functions = Tables(), dict[str, Function]()
    names: dict[tuple[Spec, Choice | None], list[str]] = {}
    blob = program.lay_out()
    launches: list[Launch] = []
    for call in program.calls:
        key = (call.spec, call.choice)
        if key not in names:
            written = _functions(call.spec, call.choice, target, templates, identity)
            names[key] = [f"k{len(names)}{THEN * i}" for i in range(len(written))]
            functions.update(zip(names[key], written, strict=True))
        operands = tuple(_place(a, tables) for a in call.arguments)
        launches += [Launch(name, operands, call.label) for name in names[key]]
    for what, size in (("arena", words), ("weights", blob.size), ("tables", tables.size)):
        if size > MOST:
            raise Unsupported(f"'{graph.name}': the {what} would have {size} numbers, a kernel counts up to {MOST}")
    inputs, outputs = ports(graph)
    kernels = {name: _shape(function) for name, function in functions.items()}
    given, made = ([port(v.name) for v in values] for values in (inputs, outputs))
    return Code(source(functions, target), kernels, launches, given, made, blob, tables.array(), words)  # fmt: skip


def _functions(spec: Spec, choice: Choice | None, target: Target, templates: Mapping[type, Template],
               identity: Callable[[TensorSpec, None, Target], Function]) -> list[Function]:  # fmt: skip
    """The kernels of a call."""
    if isinstance(spec, TensorSpec):
        return [identity(spec, None, target)]
    if type(spec) not in templates:
        raise ValueError(f"no template writes a {type(spec).__name__}: its family has no row for it")
    template = templates[type(spec)]
    more = None if template.then is None else template.then(spec, choice, target)
    return [template.build(spec, choice, target), *([] if more is None else [more])]


def _shape(function: Function) -> Kernel:
    x, y, z, items = (int(i) for i in function.attrs[LAUNCH])
    return Kernel((x, y, z), items)


def port(name: str) -> str:
    """The memory of an input or output; no input is called like another memory."""
    return name if name.startswith(OUTPUT) else f"input:{name}"


def _place(argument: Argument, tables: Tables) -> tuple[str, int]:
    """The memory of an operand, and the element in it where the operand begins."""
    if isinstance(argument, Port):
        return port(argument.name), 0
    if isinstance(argument, Table):
        return TABLES, tables.index(argument)
    if isinstance(argument, Weight):
        return WEIGHTS, argument.offset // 4
    return ARENA, argument.offset
