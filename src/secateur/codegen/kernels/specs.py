"""All kinds of spec, and which of them are tuned."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .conv.spec import ConvChoice, ConvSpec
from .copies.spec import CopySpec, FillSpec, MoveSpec, TableCopySpec
from .elementwise.spec import MapSpec, MeanSpec
from .grouped.spec import GroupedChoice, GroupedSpec
from .matmul.spec import MatmulSpec
from .norms.spec import GroupSpec, MomentSpec
from .recurrent.spec import RecurrentSpec
from .resize.spec import ResizeSpec
from .rows.spec import RowSpec
from .strassen.spec import StrassenChoice, StrassenSpec
from .window.spec import WindowChoice, WindowSpec
from .winograd.spec import WinogradChoice, WinogradSpec

Fixed = ResizeSpec | RowSpec | MomentSpec | GroupSpec | MatmulSpec | RecurrentSpec | TableCopySpec

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
