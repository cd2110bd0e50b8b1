"""The arguments of a call of torch that stays opaque in the IR."""

from __future__ import annotations

import json
from typing import Any

from secateur.ir.graph import Node


def arguments(node: Node, *names: str) -> dict[str, Any]:
    """The arguments of the call by these names, those by position first; what the call leaves out is missing.

    Tensors are their positions among the inputs; sizes are numbers, or symbols where they follow an input.
    """
    payload = json.loads(node.attrs["payload"])
    sizes = node.attrs.get("sizes", ())
    given = {**dict(zip(names, payload["args"], strict=False)), **payload["kwargs"]}
    return {name: _plain(item, sizes) for name, item in given.items()}


def _plain(item: Any, sizes: tuple[int, ...]) -> Any:
    if isinstance(item, list):
        return [_plain(i, sizes) for i in item]
    if isinstance(item, dict):
        return item["$"] if "$" in item else sizes[item["#"]] if "#" in item else item
    return item
