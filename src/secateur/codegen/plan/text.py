"""A planned program as text, one line a call: what a network became.

    3  winograd{m=4,nb=2,columns=6,strip=12}  64>64 3x3 56x56  +add +relu  # layer1.0.conv2

Calls of one step have the same number. ``lookup`` says that the kernel finds its input's blocks or channels in a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from .family import Family, family_of
from .program import Call, Program, Spec, TensorSpec


def show(program: Program, families: Iterable[Family]) -> str:
    """The text, with the sizes of memory in the last line."""
    known = tuple(families)
    rows = [
        (str(call.step), _kernel(call, known), _shape(call.spec), _more(call), call.label) for call in program.calls
    ]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    lines = []
    for step, kernel, shape, more, label in rows:
        text = f"{step:>{widths[0]}}  {kernel:{widths[1]}}  {shape:{widths[2]}}  {more}".rstrip()
        lines.append(f"{text}  # {label}" if label else text)
    lines.append(f"{len(program.calls)} calls in {program.step} steps, weights {program.weight_bytes:,} bytes")
    return "\n".join(lines) + "\n"


def _kernel(call: Call, families: tuple[Family, ...]) -> str:
    family = family_of(call.spec, families)
    name = call.spec.op if isinstance(call.spec, TensorSpec) else type(call.spec).__name__.removesuffix("Spec").lower()
    title = f"tvm.{name}" if family is None else family.name if len(family.choices) == 1 else f"{family.name}.{name}"
    worker = "" if call.worker is None else f"@{call.worker}"
    if call.choice is None:
        return title + worker
    options = ",".join(f"{key}={value}" for key, value in asdict(call.choice).items())
    return f"{title}{{{options}}}{worker}"


def _shape(spec: Spec) -> str:
    """Channels, kernel and extent, of specs that nobody tunes from the fields they have."""
    if isinstance(spec, TensorSpec):
        return ", ".join(f"{dtype}{list(shape)}" for shape, dtype in spec.outputs)
    n: int = getattr(spec, "n", 1)
    batch = f"{n}x " if n > 1 else ""
    if hasattr(spec, "title"):
        return f"{batch}{spec.title}"
    blocks, lanes = getattr(spec, "blocks", None), getattr(spec, "lanes", 1)
    width = getattr(spec, "channels", "") if blocks is None else blocks * lanes
    kind = f"{spec.kind} " if hasattr(spec, "kind") else ""
    extent = f" {spec.h}x{spec.w}" if hasattr(spec, "h") and hasattr(spec, "w") else ""
    return f"{batch}{kind}{width}{extent}".strip()


def _more(call: Call) -> str:
    """Post-ops, each with a plus, and whether the input is looked up."""
    post_ops = [f"+{post_op.op}" for post_op in getattr(call.spec, "post_ops", ())]
    return " ".join([*(["lookup"] if getattr(call.spec, "table", False) else []), *post_ops])
