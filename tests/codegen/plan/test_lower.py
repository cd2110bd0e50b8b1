"""What networks become: the plans of eight of them as golden texts, for AVX-512, one thread and untuned choices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from secateur.codegen.backends import backend_for
from secateur.codegen.kernels.families import FAMILIES
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.text import show
from secateur.codegen.records import Records
from secateur.codegen.targets import TARGETS
from secateur.codegen.tune.tuner import Tuner
from support.planned import NETWORKS

pytest.importorskip("tvm", reason="code generation needs apache-tvm")


@pytest.mark.parametrize("name", NETWORKS)
def test_plan(name: str, golden: Callable[[str, str], None]) -> None:
    target = TARGETS["x86-avx512"]
    program = lower(NETWORKS[name](), target, 1, Tuner(target, 1, Records()).choose, backend_for(target))
    golden(f"plans/{name}.txt", show(program, FAMILIES))
