"""A kernel family is a folder and one row: shown by adding one to a copy of the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from secateur.codegen.kernels.families import FAMILIES
from secateur.codegen.kernels.templates import templates
from secateur.codegen.plan.family import Family, choices, heads

pytest.importorskip("tvm", reason="code generation needs apache-tvm")

PACKAGE = Path(__file__).resolve().parents[3] / "src" / "secateur"

SPEC = """
from dataclasses import dataclass
from secateur.codegen.plan.strides import Strides

@dataclass(frozen=True)
class RunningSpec:
    lanes: int
    blocks: int
    h: int
    w: int
    x: Strides
    y: Strides
    table: bool = False
    post_ops: tuple = ()
"""

PLAN = """
from secateur.codegen.kernels.call_window import call_window
from secateur.codegen.plan.family import Head
from secateur.codegen.kernels.post_ops.plan import flows, plan_epilogue
from secateur.codegen.plan.placement import strides
from .spec import RunningSpec

def accepts(axes, node, shape):
    return len(shape) == 4 and shape[0] == 1 and node.attrs["axis"] == 3

def running(placement, chain):
    name = chain.head.inputs[0]
    x = placement.compacted(name, placement.get_blocked(name, 1))
    out = placement.new_blocked(chain.last.name, x.channels)
    epilogue = plan_epilogue(placement, flows(chain.head.name, chain.tail), out)
    spec = RunningSpec(placement.lanes, len(out.blocks), out.extent.h, out.extent.w, strides(x.extent),
                       strides(out.extent), not x.contiguous, epilogue.post_ops)
    call_window(placement, spec, x, out, [], epilogue, chain.head.label)
    return out

HEADS = {"cumsum": Head(accepts, running)}
"""

TEMPLATE = """
from secateur.codegen.emit.builder import KernelBuilder, const
from secateur.codegen.kernels.conv.template import y_index
from secateur.codegen.plan.family import Template
from secateur.codegen.kernels.post_ops.template import At, apply, block_base, operand_pointers
from .spec import RunningSpec

def build(spec, choice, target):
    k = KernelBuilder(spec.lanes)
    x = k.pointer("x")
    table = k.pointer("table", "int32") if spec.table else None
    operands = operand_pointers(k, spec.post_ops)
    y = k.pointer("y")
    (total,) = k.accumulators(1, k.splat(0.0))

    def row(block, r):
        k.set(total, k.splat(0.0))
        base = k.bind(block_base(k, table, block, spec.x.block) + r * spec.x.row, "int64")

        def pixel(c):
            k.set(total, k.get(total) + k.load(x, base + c * spec.x.column))
            at = At(block, const(0), r, c)
            k.store(y, y_index(spec, at), apply(k, k.get(total), spec.post_ops, operands, at))

        k.loop(spec.w, pixel, name="w")

    k.loop(spec.blocks, lambda b: k.loop(spec.h, lambda r: row(b, r), name="h"), name="c")
    return k.finish()

TEMPLATES = {RunningSpec: Template(build)}
"""

ROW = '    Family("running", {RunningSpec: None}, running.HEADS),\n'

USE = """
import numpy as np
from support.network import Net
from secateur import codegen

net = Net(1, 20, 3, 5)
graph = net.graph(net.relu(net.node("cumsum", net.conv("x", 20, 1), axis=3)))
library = codegen.build(graph)
x = np.random.default_rng(0).standard_normal((1, 20, 3, 5)).astype(np.float32)
w, b = (graph.weights[n] for n in graph.nodes[0].inputs[1:])
want = np.maximum(np.cumsum(np.einsum("oi,nihw->nohw", w[:, :, 0, 0], x) + b[:, None, None], axis=3), 0)
assert np.abs(library(x) - want).max() < 1e-4, np.abs(library(x) - want).max()
assert library.metadata.kernels["running"] == 1 and "tvm" not in library.metadata.kernels, library.metadata.kernels
assert library.metadata.notes == (), library.metadata.notes
print("built", codegen.__file__)
"""


def test_a_family_is_a_folder_and_one_row(tmp_path: Path) -> None:
    copy = tmp_path / "secateur"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    folder = copy / "codegen" / "kernels" / "running"
    folder.mkdir()
    for name, text in (("__init__", ""), ("spec", SPEC), ("plan", PLAN), ("template", TEMPLATE)):
        (folder / f"{name}.py").write_text(text)
    table = copy / "codegen" / "kernels" / "families.py"
    text = table.read_text(encoding="utf-8")
    text = text.replace(
        "FAMILIES: tuple",
        "from .running import plan as running\nfrom .running.spec import RunningSpec\nFAMILIES: tuple",
    )
    table.write_text(text.replace('    Family("copies"', ROW + '    Family("copies"'), encoding="utf-8")
    path = f"{tmp_path}:{Path(__file__).resolve().parents[2]}"
    done = subprocess.run([sys.executable, "-c", USE], env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["built", str(copy / "codegen" / "__init__.py")]


def test_every_spec_has_one_family_and_one_template() -> None:
    kinds = [spec for family in FAMILIES for spec in family.choices]
    assert len(kinds) == len(set(kinds))
    assert set(templates(FAMILIES)) == set(kinds)


def test_two_families_cannot_claim_an_operator() -> None:
    conv = next(f for f in FAMILIES if "conv" in f.heads)
    with pytest.raises(ValueError, match="two kernel families compute 'conv'"):
        heads((conv, Family("other", {}, {"conv": conv.heads["conv"]})))


def test_two_kinds_of_spec_cannot_share_a_kind_of_choice() -> None:
    """A plan knows the kernel by the type of the choice that was made."""
    with pytest.raises(ValueError, match="one kind of choice"):
        choices((Family("a", {int: str}), Family("b", {float: str})))
    assert len(choices(FAMILIES)) > 5


def test_a_missing_template_is_named() -> None:
    conv = next(f for f in FAMILIES if "conv" in f.heads)
    with pytest.raises(ValueError, match="kernel family 'conv'"):
        templates((Family("conv", {**conv.choices, int: None}, conv.heads),))
