"""What a network chooses among nearly equal scores: one program's choices, taken by another one.

Two right programs part where a TopK decides between scores that differ by a rounding. Here torch is given what the
other program chose, after its own scores at those places were found to be as high as those that it would have chosen
itself; everything after the choice must then agree as everything else does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

Array = NDArray[Any]
CHOICES = (torch.ops.aten.topk.default, torch.ops.aten.sort.default)


class Chosen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets torch choose what another program did, in the order of its choices: scores and places of each.

    Raises AssertionError where the scores are not those that torch has, by more than ``near`` of the largest, and where
    what was chosen scores lower by more than that than what torch would choose. ``done`` says how many were made.
    """

    def __init__(self, choices: Sequence[tuple[Array, Array]], near: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.choices, self.near, self.done = choices, near, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if func not in CHOICES:
            return found
        assert self.done < len(self.choices), "it chooses more often than the other program"
        scores, places = (torch.from_numpy(np.array(a)) for a in self.choices[self.done])
        values, _ = found
        assert places.shape == values.shape, f"{list(places.shape)} are chosen instead of {list(values.shape)}"
        at = 2 if func is CHOICES[0] else 1  # where the axis stands
        axis = args[at] if len(args) > at else kwargs.get("dim", -1)
        taken = args[0].gather(axis, places)
        limit = self.near * float(values.abs().max())
        for what, have in (("its scores are", scores), ("what it chose scores", taken)):
            apart = float((have - values).abs().max())
            assert apart <= limit, f"choice {self.done}: {what} off by {apart:.1e}, of at most {limit:.1e}"
        self.done += 1
        return taken, places


def run_file(path: Path, x: Array) -> tuple[list[Array], list[tuple[Array, Array]]]:
    """The outputs of an ONNX file of one input in ONNX Runtime, and scores and places of each of its TopK nodes."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    count = len(model.graph.output)
    for node in model.graph.node:
        if node.op_type == "TopK":
            unnamed = f"{node.name or node.output[1]}.chosen"  # scores that nothing in the file reads
            node.output[:] = [node.output[0] or f"{unnamed}.0", node.output[1] or f"{unnamed}.1"]
            model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x})
    return list(found[:count]), list(zip(found[count::2], found[count + 1 :: 2], strict=True))


def outputs(module: torch.nn.Module, x: torch.Tensor, choices: Sequence[tuple[Array, Array]], near: float) -> Any:
    """What the module gives with these choices in place of its own. Raises AssertionError as ``Chosen`` does."""
    with torch.no_grad(), Chosen(choices, near) as chosen:
        found = module(x)
    assert chosen.done == len(choices), f"it chooses {chosen.done} times, the other program {len(choices)} times"
    return found
