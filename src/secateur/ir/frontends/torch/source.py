"""Where in the user's code a captured call stands: for errors and reports."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import fx

from secateur.ir.graph import Source

_TORCH_HOME = os.path.dirname(torch.__file__)


def source_of(node: fx.Node) -> Source:
    """The innermost module path, and the last line of code outside torch."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in stack.values() if isinstance(entry, tuple)]
    path = paths[-1] if paths else ""
    for prefix in ("L['self'].", "L__self__."):
        path = path.removeprefix(prefix)
    path = "" if path in ("L['self']", "L__self__") else path.split("@")[0]
    return Source(path, _where((node.meta.get("stack_trace") or "").splitlines()))


def _where(lines: Iterable[str]) -> str:
    found = ""
    for line in lines:
        parts = line.strip().split('"')
        if len(parts) == 3 and parts[0] == "File " and not parts[1].startswith(_TORCH_HOME):
            found = f"{os.path.basename(parts[1])}:{parts[2].split(',')[1].removeprefix(' line ').strip()}"
    return found
