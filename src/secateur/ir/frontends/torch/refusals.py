"""Modules that cannot be captured: which line of the user's code stops it, and what to do."""

from __future__ import annotations

import os
import traceback

import torch
from torch import fx, nn

from secateur.ir.errors import Unsupported

from .source import source_of

_TORCH_HOME = os.path.dirname(torch.__file__)
_OWN = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def check_capturable(module: nn.Module) -> None:
    """Raise Unsupported for scripted modules and for lazy ones that were never run."""
    for path, child in module.named_modules():
        place = f"'{path}'" if path else type(module).__name__
        if isinstance(child, torch.jit.ScriptModule):
            raise Unsupported(
                f"{place} is a torch.jit module, which holds a program and no layers. Give the module that it was made "
                "from; if that is lost, write the file with torch.onnx.export(module, example_inputs, 'model.onnx', "
                "dynamo=False) and load that"
            )
        if any(nn.parameter.is_lazy(p) for p in child.parameters(recurse=False)):
            raise Unsupported(
                f"{place} is a lazy layer whose weights have no shape yet. Run the module once, as in "
                "module(*example_inputs), and compile it then"
            )


def check_known(node: fx.Node) -> None:
    """Raise Unsupported for a call whose result has a size that only its data tell."""
    found = node.meta.get("val")
    tensors = [t for t in (found if isinstance(found, list | tuple) else [found]) if isinstance(t, torch.Tensor)]
    sizes: list[object] = [d for t in tensors for d in t.shape]
    if any(isinstance(d, torch.SymInt) and not d.node.has_hint() for d in sizes):
        place = source_of(node)
        raise Unsupported(
            f"'{place.name}' ({place.where}): how much {node.target} gives depends on numbers in its tensors, as in "
            "suppression of boxes or where a mask selects. Compile the network up to there, and call this on what it "
            "gives"
        )


def cannot(module: nn.Module, exported: Exception, traced: Exception) -> Unsupported:
    """What to say where neither torch.export nor torch.fx captures a module."""
    place = _users_line(exported) or _users_line(traced)
    where = f" at {place}" if place else ""
    return Unsupported(
        f"{type(module).__name__} cannot be captured{where}. torch.export: {_line(exported)} | torch.fx: "
        f"{_line(traced)}. Check that module(*example_inputs) runs in eval mode. Control flow that depends on numbers "
        "in a tensor cannot be recorded: write it with torch.where, or compile the parts before and after it by "
        "themselves; or export it to ONNX and load that file"
    )


def _users_line(error: BaseException | None) -> str:
    """The innermost line of code that is neither torch's nor ours, with what it says."""
    while error is not None:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            home = os.path.abspath(frame.filename)
            if os.path.exists(home) and not home.startswith((_TORCH_HOME, _OWN, os.path.dirname(os.__file__))):
                return f"{os.path.basename(home)}:{frame.lineno} ({(frame.line or '').strip()})"
        error = error.__cause__ or error.__context__
    return ""


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
