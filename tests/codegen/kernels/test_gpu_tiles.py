"""How layers are shared among the groups of a GPU: by counting, worked by hand."""

from __future__ import annotations

import pytest

from secateur.codegen.kernels.gpu.conv.tiles import PARTS, GpuConvChoice, in_parts, tile_time, tiles
from secateur.codegen.targets import GPUS

H200 = GPUS["cuda:sm_90"]
SMALL = GpuConvChoice("tile", 32, 32, 16, 2, 4)


def test_time_is_rounds_times_the_work_of_a_tile() -> None:
    """Two rounds of groups of 128 work items hide all latency; one round hides half of it."""
    tile = 128 * (4 * (1 + 4)) + 8 * (32 + 32)  # of a work item: 8 products, 4 outputs in one read and 4 pixels
    assert tile_time(SMALL, 32 * 200, 32, 1, H200, 9) == 2 * tile * 16 * 10
    assert tile_time(SMALL, 32 * 132, 32, 1, H200, 9) == 1 * tile * 16 * 10 * 2
    half = GpuConvChoice("tile", 32, 32, 16, 2, 4, parts=2)
    added = H200.sharing + 8 * 2 * 2 * (32 * 32) / 132
    assert tile_time(half, 32, 32, 1, H200, 9) == pytest.approx(1 * tile * 16 * 6 * 2 + added)


@pytest.mark.parametrize(
    ("outputs", "pixels", "depth", "shared"),
    [
        (512, 49, 4608, True),  # the last 3x3 of ResNet-18
        (256, 3136, 64, False),  # the first expansion of ResNet-50: enough tiles
        (512, 49, 16, False),  # few tiles, and too little in each for another kernel
    ],
)
def test_reductions_are_shared_where_tiles_are_few_and_deep(
    outputs: int, pixels: int, depth: int, shared: bool
) -> None:
    best = tiles(outputs, pixels, 1, H200, lambda d: -(-depth // d), PARTS)[0]
    assert (best.parts > 1) is shared
    if shared:
        groups = -(-outputs // best.outputs) * -(-pixels // best.pixels)
        assert groups < H200.cores <= 2 * groups * best.parts


def test_no_part_is_empty() -> None:
    for count in range(1, 70):
        for choice in in_parts(SMALL, count, PARTS):
            own = -(-count // choice.parts)
            assert 0 < count - (choice.parts - 1) * own <= own
