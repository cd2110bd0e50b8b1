"""Fast algorithms in tests: taken wherever they fit, and which kernels a graph's convolutions got."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from secateur.codegen.backends import backend_for
from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.kernels.strassen.spec import StrassenSpec
from secateur.codegen.kernels.winograd.spec import WinogradSpec
from secateur.codegen.plan.lower import lower
from secateur.codegen.records import Records
from secateur.codegen.targets import native
from secateur.codegen.tune.tuner import Tuner, candidates
from secateur.ir import Graph


@contextmanager
def always(kind: type, which: int = 0) -> Iterator[list[Any]]:
    """Specs of this kind wherever they fit, with a choice of their space; yields those taken."""
    taken: list[Any] = []
    usual = Tuner.choose

    def choose(self: Tuner, spec: Any, *alternatives: Any) -> Any:
        found = [r for r in alternatives if isinstance(r, kind)]
        if not found:
            return usual(self, spec)
        choices = candidates(found[0].workload(), self.target)
        taken.append(choices[which % len(choices)])
        return taken[-1]

    with patch.object(Tuner, "choose", choose), patch.object(ConvSpec, "estimate", lambda spec, target: 1e30):
        yield taken


def kernels(graph: Graph, choose: Callable[..., Any] | None = None) -> list[type]:
    """What computes each convolution of a graph on this machine."""
    target = native()
    calls = lower(graph, target, 1, choose or Tuner(target, 1, Records()).choose, backend_for(target)).calls
    return [type(c.spec) for c in calls if isinstance(c.spec, ConvSpec | WinogradSpec | StrassenSpec)]
