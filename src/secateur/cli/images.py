"""How images become inputs, as said on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from secateur.ir import InputError

if TYPE_CHECKING:
    from secateur.calibration.images import Preparation


@dataclass(frozen=True)
class ImageOptions:
    """``--mean --std --bgr --scale --size``, as they were written."""

    mean: str | None = None
    std: str | None = None
    bgr: bool = False
    scale: str | None = None
    size: int | None = None

    def parsed(self) -> Preparation | None:
        """None where none of them was given. Raises InputError for what makes no sense."""
        if self == ImageOptions():
            return None
        from secateur.calibration.images import Preparation

        mean, std, scale = (
            _numbers(option, text) for option, text in (("mean", self.mean), ("std", self.std), ("scale", self.scale))
        )
        if scale is not None and len(scale) != 1:
            raise InputError(f"--scale {self.scale}: give one number, such as 1/255")
        return Preparation(mean, std, self.bgr, None if scale is None else scale[0], self.size)


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """``"104,117,123"`` or ``"1/255"`` as numbers. Raises InputError."""
    if text is None:
        return None
    try:
        return tuple(float(Fraction(part.strip())) for part in text.split(","))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise InputError(f"--{option} {text}: give numbers with commas between them, such as 0.485,0.456,0.406, or "
                         "fractions such as 1/255") from None  # fmt: skip
