"""Gets an ATen graph out of a module: torch.export, and torch.fx where export fails."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import config as fx_config
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from secateur.ir.errors import Unsupported

from .refusals import cannot, check_capturable
from .state import Stateful, check_held, check_state, held_tensors, mutates_views
from .untouched import untouched


@dataclass(frozen=True)
class Capture:
    """A traced network. ``bound`` maps placeholders to (name, tensor, kind: parameter, buffer, constant).

    ``results`` are the leaves of the user's result: fx nodes, or 1-tuples with constants.
    """

    module: fx.GraphModule
    bound: Mapping[str, tuple[str, torch.Tensor, str]]
    results: tuple[Any, ...]
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch logs what fails under fake tensors; whether that matters is for us to say."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


@contextmanager
def _without_places() -> Iterator[None]:
    """Torch notes the lines of code behind each call, which takes it a sixth of a capture."""
    before, fx_config.do_not_emit_stack_traces = fx_config.do_not_emit_stack_traces, True
    try:
        yield
    finally:
        fx_config.do_not_emit_stack_traces = before


class _Apart(TorchFunctionMode):
    """Keeps what goes into a dropout that rests apart from what comes out: one tensor now, two in train mode."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        named, name = kwargs or {}, getattr(func, "__name__", "")
        if "dropout" not in name:
            return func(*args, **named)
        in_place = name.endswith("_") or named.get("inplace") or (len(args) > 3 and args[3])
        if not in_place and args and isinstance(args[0], torch.Tensor):
            args = (torch.ops.aten.alias(args[0]), *args[1:])
        return func(*args, **named)


def capture(module: nn.Module, example_inputs: tuple[object, ...], places: bool = True) -> Capture:
    """Trace a module in eval mode and leave it as it was; without ``places`` its calls do not say where they stand.

    A module that keeps tensors of its last run (anchors, masks) may skip what makes them at that size, and would be
    captured for no other: it runs at another batch first.
    Raises Unsupported with both reasons if neither way works, and for a network that keeps state between its calls.
    """
    if not places:
        with _without_places():
            return capture(module, example_inputs)
    check_capturable(module)
    if held_tensors(module):
        try:
            return _capture(module, example_inputs, _tripled(example_inputs))
        except Exception:  # it takes no other batch, or keeps state: said below
            pass
    return _capture(module, example_inputs)


def _tripled(example_inputs: tuple[object, ...]) -> tuple[object, ...]:
    """The inputs with three times their batch: neither the example's nor that of the trace that frees the batch."""

    def thrice(x: object) -> object:
        return torch.cat([x] * 3) if isinstance(x, torch.Tensor) and x.ndim else x

    found: tuple[object, ...] = pytree.tree_map(thrice, example_inputs)
    return found


def _capture(module: nn.Module, example_inputs: tuple[object, ...], before: tuple[object, ...] = ()) -> Capture:
    """The trace, after a run on ``before`` if there is any."""
    with untouched(module), warnings.catch_warnings(), _quiet(), _Apart():
        module.eval()
        if before:
            with torch.no_grad():
                module(*before)
        warnings.simplefilter("ignore")  # torch's own deprecations; where they are errors, capture would fail
        held = held_tensors(module)
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                program = torch.export.export(module, example_inputs, strict=False)
            found = from_exported(program)
            check_held(module, held, found.bound, " ".join(str(w.message) for w in said))
            return found
        except Stateful:
            raise
        except Exception as export_error:  # torch raises many kinds; the fallback decides
            try:
                found = _symbolic(module, example_inputs)
                check_held(module, held, found.bound, "")
                return found
            except Stateful:
                raise
            except Exception as fx_error:
                raise cannot(module, export_error, fx_error) from export_error


def from_exported(program: torch.export.ExportedProgram) -> Capture:
    """Read an exported program; writes through views are made functional first."""
    bound = _bound(program)
    check_state(program.graph, bound)
    if mutates_views(program.graph):
        program = program.run_decompositions({})
        bound = _bound(program)
    nodes = {n.name: n for n in program.graph.nodes}
    user = [out.arg for out in program.graph_signature.output_specs if out.kind is OutputKind.USER_OUTPUT]
    results = [(arg.value,) if hasattr(arg, "value") else nodes[arg.name] for arg in user]
    spec = program.call_spec
    return Capture(program.graph_module, bound, tuple(results), spec.in_spec, spec.out_spec)


def _bound(program: torch.export.ExportedProgram) -> dict[str, tuple[str, torch.Tensor, str]]:
    bound: dict[str, tuple[str, torch.Tensor, str]] = {}
    kinds = {InputKind.PARAMETER: "parameter", InputKind.BUFFER: "buffer", InputKind.CONSTANT_TENSOR: "constant"}
    for spec in program.graph_signature.input_specs:
        kind = kinds.get(spec.kind)
        if kind is None:
            continue
        name = str(spec.target)
        tensor = program.constants[name] if name in program.constants else program.state_dict[name]
        bound[spec.arg.name] = (name, tensor, kind)
    return bound


def _symbolic(module: nn.Module, example_inputs: tuple[object, ...]) -> Capture:
    """torch.fx's symbolic trace, run on the example to give ATen calls with shapes.

    Where the symbolic trace fails too, the module itself is run: that fixes the control flow to
    what the example takes, which is what every capture does with sizes.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        traced: nn.Module = fx.symbolic_trace(module)
    except Exception:  # control flow on values: follow the example instead
        traced = module
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    flat, in_spec = pytree.tree_flatten((example_inputs, {}))
    spec: list[pytree.TreeSpec] = []

    def run(state: dict[str, torch.Tensor], *leaves: object) -> list[object]:
        args, kwargs = pytree.tree_unflatten(list(leaves), in_spec)
        out, out_spec = pytree.tree_flatten(torch.func.functional_call(traced, state, args, kwargs))
        spec.append(out_spec)
        return out

    buffers = dict(module.named_buffers())
    detached = {name: t.detach().clone() if name in buffers else t.detach() for name, t in state.items()}
    gm = make_fx(run, tracing_mode="real", pre_dispatch=True, record_module_stack=True)(detached, *flat)
    if mutates_views(gm.graph):
        raise Unsupported("the module writes in place through a view, which only torch.export can make functional")
    params = dict(module.named_parameters())
    holders = [n for n in gm.graph.nodes if n.op == "placeholder"]
    bound = {}
    for node, name in zip(holders, state, strict=False):
        bound[node.name] = (name, state[name], "parameter" if name in params else "buffer")
    check_state(gm.graph, bound)
    output = next(n for n in gm.graph.nodes if n.op == "output")
    results = tuple(r if isinstance(r, fx.Node) else (r,) for r in output.args[0])
    return Capture(gm, bound, results, in_spec, spec[-1])
