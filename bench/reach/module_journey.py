"""One module's way through secateur, leg by leg, each judged against the original in torch or the masked original."""

from __future__ import annotations

import copy
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from bench.lib import common
from bench.nets.modules.kind import Arguments, Kind
from bench.reach.module_masks import Inapplicable, masked_run

if TYPE_CHECKING:
    from secateur import Compiled

LIMITS: Mapping[torch.dtype, float] = {torch.float16: 2e-2, torch.bfloat16: 1e-1}
NEEDED = ("graph output", "single output channel", "protected")  # reasons with which channels stay by their nature


class Wrong(Exception):
    """Two results differ."""


class Inapt(Exception):
    """The leg says nothing of this kind; its text: why."""


@dataclass
class Journey:
    """What the legs hand on: the module, its pruned form, and what else the row shall hold."""

    kind: Kind
    seed: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.module = self.kind.make().eval()
        self.inputs = self.kind.inputs()
        self.slim: Compiled | None = None
        self.file = b""

    # Legs.

    def prune(self) -> None:
        """Read it, and leave half of the MACs, under the product's own law."""
        import secateur

        self.slim = secateur.compile(self.module, "l1", example_inputs=self.inputs, macs=self.kind.macs)
        report = self.slim.report
        self.facts |= {
            "macs": [report.before.macs, report.after.macs if report.after else None],
            "law": report.verification.law if report.verification else None,
            "remarks": list(report.remarks), **frozen_share(report),
        }  # fmt: skip

    def alone(self) -> None:
        """The recipe alone, laid over the module in torch: zeros where it says, and the same result."""
        slim = self._slim()
        recipe = json.loads(slim.recipe.to_json())
        try:
            wanted = masked_run(self.module, self.inputs, recipe)
        except Inapplicable as why:
            raise Inapt(str(why)) from None
        self._same(wanted, slim.module().eval()(*self.inputs), "the masked original")

    def train(self) -> None:
        """One step in train mode: gradients for all parameters that the original's step moves."""
        module = self._slim().module()
        before = copy.deepcopy(module.state_dict())
        own = {name for name, _ in module.named_parameters()}
        touched = self._grads(self._again())
        have = self._grads(module)
        lost = sorted(n for n in touched if n in own and n not in have)
        if lost:
            raise Wrong(f"no gradient for {', '.join(lost[:4])}")
        named = dict(self.module.named_parameters())
        self.facts["foreign_parameters"] = sorted(own - set(named))
        with torch.no_grad():
            for p in module.parameters():
                if p.grad is not None:
                    p.sub_(1e-3 * p.grad / (p.grad.norm() + 1e-6))
        module.eval()
        self._finite(module(*self.inputs))
        module.load_state_dict(before)

    def onnx(self) -> None:
        """Write it and run the file in ONNX Runtime."""
        self._file(self.inputs)

    def sizes(self) -> None:
        """At another size, where the original takes one."""
        if self.kind.other is None:
            raise Inapt("the original takes this size alone")
        self._elsewhere(self.kind.other())

    def batch(self) -> None:
        """With more examples at once, where the original takes them."""
        if not self.kind.batch:
            raise Inapt("the original takes no other batch")
        self._elsewhere(tuple(pytree.tree_map(grown, self.inputs)))

    def build(self) -> None:
        """A library of the shipped records, next to the module."""
        slim = self._slim()
        wanted = slim.module().eval()(*self.inputs)
        library = slim.build()
        given = [leaf for leaf in pytree.tree_leaves(self.inputs) if isinstance(leaf, Tensor)]
        found = library(*(leaf.numpy() if leaf.dtype != torch.bfloat16 else leaf for leaf in given))
        self._same(tensors(wanted), list(found) if isinstance(found, tuple) else [found], "the slim module")

    # What they share.

    def _again(self) -> torch.nn.Module:
        """The original once more: some modules cannot be copied."""
        torch.manual_seed(self.seed)
        return self.kind.make()

    def _slim(self) -> Compiled:
        if self.slim is None:
            raise Inapt("it was not pruned")
        return self.slim

    def _grads(self, module: torch.nn.Module) -> set[str]:
        torch.manual_seed(self.seed)
        module.train()
        module.zero_grad()
        parts = [leaf for leaf in tensors(module(*self.inputs)) if leaf.dtype.is_floating_point and leaf.requires_grad]
        if not parts:
            raise Inapt("no result depends on a parameter by a gradient")
        sum((leaf.float().square().mean() for leaf in parts), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        found = {name for name, p in module.named_parameters() if p.grad is not None}
        bad = [n for n, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        if bad:
            raise Wrong(f"the gradient of {bad[0]} is not finite")
        module.eval()
        return found

    def _elsewhere(self, arguments: Arguments) -> None:
        """The original against what was read, the masked reading against what is slim, and the file."""
        from secateur.ir.exporters.torch.module import to_module
        from secateur.passes.masked import masked

        slim = self._slim()
        with torch.no_grad():
            wanted = self.module.eval()(*arguments)
            self._same(wanted, to_module(slim.dense).eval()(*arguments), "the original")
            masks = to_module(masked(slim.dense, slim.recipe)).eval()
            self._same(masks(*arguments), slim.module().eval()(*arguments), "the masked original")
        if not any("fixed" in remark for remark in slim.report.remarks):
            self._file(arguments)

    def _file(self, arguments: Arguments) -> None:
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented

        wanted = tensors(self._slim().module().eval()(*arguments))
        try:
            session = onnxruntime.InferenceSession(self._written(), providers=["CPUExecutionProvider"])
        except NotImplemented as error:  # convolutions of float64, say: the file is right
            raise Inapt(f"ONNX Runtime lacks it: {error}") from None
        given = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
        if any(leaf.dtype == torch.bfloat16 for leaf in [*given, *wanted]):
            raise Inapt("ONNX Runtime's Python takes no bfloat16")
        names = [one.name for one in session.get_inputs()]
        found = session.run(None, dict(zip(names, (leaf.numpy() for leaf in given), strict=True)))
        self._same(wanted, found, "the slim module")

    def _inside(self) -> set[torch.dtype]:
        """The half precisions that the network computes in, which a region of autocast may choose."""
        values = () if self.slim is None else self.slim.dense.values.values()
        return {{"f16": torch.float16, "bf16": torch.bfloat16}.get(v.dtype, torch.float32) for v in values}

    def _written(self) -> bytes:
        """The file, written once: each time it is checked by a run in a process of its own."""
        if not self.file:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "slim.onnx"
                self._slim().save(str(path))
                self.file = path.read_bytes()
        return self.file

    def _finite(self, result: Any) -> None:
        if any(leaf.dtype.is_floating_point and not leaf.isfinite().all() for leaf in tensors(result)):
            raise Wrong("not finite after a step")

    def _same(self, wanted: Any, found: Any, reference: str) -> None:
        left, right = tensors(wanted), tensors(found)
        if len(left) != len(right):
            raise Wrong(f"{len(right)} results, {reference} has {len(left)}")
        for i, (a, b) in enumerate(zip(left, right, strict=True)):
            if a.shape != b.shape:
                raise Wrong(f"result {i} is {list(b.shape)}, that of {reference} {list(a.shape)}")
            gap = relative(a, b)
            kinds = {a.dtype, b.dtype, *(p.dtype for p in self.module.parameters()), *self._inside()}
            limit = max(LIMITS.get(kind, 2e-4) for kind in kinds)
            self.facts["worst"] = max(self.facts.get("worst", 0.0), gap)
            if not gap <= limit:
                raise Wrong(f"result {i} differs from {reference} by {gap:.1e} of its largest value")


LEGS: Mapping[str, Callable[[Journey], None]] = {
    name: getattr(Journey, name) for name in ("prune", "alone", "train", "onnx", "sizes", "batch", "build")
}


def tensors(result: Any) -> list[Tensor]:
    """The tensors of a result in order; arrays become tensors."""
    leaves = pytree.tree_leaves(result)
    made = [torch.from_numpy(np.array(x)) if isinstance(x, np.ndarray) else x for x in leaves]
    return [leaf.detach() if not leaf.requires_grad else leaf for leaf in made if isinstance(leaf, Tensor)]


def grown(leaf: Any) -> Any:
    """A tensor with its first row three times more."""
    return torch.cat([leaf, *[leaf[:1]] * 3]) if isinstance(leaf, Tensor) and leaf.ndim else leaf


def relative(a: Tensor, b: Tensor) -> float:
    """The largest difference over the largest value of the first; infinite where one alone is finite."""
    if a.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
    x, y = a.detach().double(), b.detach().double()
    fine = x.isfinite()
    if not torch.equal(fine, y.isfinite()):
        return float("inf")
    if not fine.any():
        return 0.0
    gap, size = float((x[fine] - y[fine]).abs().max()), float(x[fine].abs().max())
    return gap / size if size > 0 else gap


def frozen_share(report: Any) -> common.Row:
    """The share of the MACs in layers that are frozen without need, and the reasons by their share."""
    shares: dict[str, int] = defaultdict(int)
    whole = max(1, report.before.macs)
    for layer in report.layers:
        reason = layer.reason or ""
        if layer.state == "frozen" and not any(words in reason for words in NEEDED):
            shares[reason] += int(layer.macs[0] or 0)
    ordered: Sequence[tuple[str, int]] = sorted(shares.items(), key=lambda item: -item[1])
    return {"frozen": round(sum(shares.values()) / whole, 4), "frozen_by": {k: round(v / whole, 4) for k, v in ordered}}
