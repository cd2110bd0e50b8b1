"""What is tuned: kinds of workload, and how each can be tiled. The other kernels have no choice."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .specs import (
    ConvChoice,
    ConvSpec,
    CopySpec,
    FillSpec,
    GroupedChoice,
    GroupedSpec,
    MapSpec,
    MeanSpec,
    MoveSpec,
    WindowChoice,
    WindowSpec,
)
from .specs_fast import StrassenChoice, StrassenSpec, WinogradChoice, WinogradSpec

Workload = ConvSpec | WinogradSpec | StrassenSpec | GroupedSpec | WindowSpec
CHOICES: Mapping[type, type] = MappingProxyType(
    {
        ConvSpec: ConvChoice, WinogradSpec: WinogradChoice, StrassenSpec: StrassenChoice,
        GroupedSpec: GroupedChoice, WindowSpec: WindowChoice,
    }
)  # fmt: skip
Spec = (
    ConvSpec
    | WinogradSpec
    | StrassenSpec
    | GroupedSpec
    | WindowSpec
    | MapSpec
    | MeanSpec
    | CopySpec
    | MoveSpec
    | FillSpec
)
