"""How layers are shared among the groups of a GPU: by counting, worked by hand."""

from __future__ import annotations

import pytest

from secateur.codegen.kernels.gpu.conv.tiles import PARTS, GpuConvChoice, Products, in_parts, tile_time, tiles
from secateur.codegen.targets import GPUS

H200, ORIN = GPUS["cuda:sm_90"], GPUS["cuda:sm_87"]
SMALL = GpuConvChoice("tile", 32, 32, 16, 2, 4)


def products(outputs: int, pixels: int, depth: int, moved: int = 0) -> Products:
    return Products(outputs, pixels, 1, lambda d: -(-depth // d), moved)


def test_time_is_rounds_of_groups_each_with_slots_of_its_multipliers() -> None:
    """A slice of 16: 8 products of a work item take the slots of 5 reads, of which one takes four."""
    step = 128 * max(8 + 5, 4 * 5)
    two = tile_time(SMALL, products(32 * 200, 32, 144), H200)
    assert two == 2 * step * 16 * (9 + 1)  # two groups of 128 work items hide that they wait
    assert tile_time(SMALL, products(32 * 132, 32, 144), H200) == 1 * step * 16 * (9 + 1) * 2
    half = GpuConvChoice("tile", 32, 32, 16, 2, 4, parts=2)
    halved = max(1 * step * 16 * (5 + 1) * 2, 2 * 32 * 32 * 0.6 * H200.sharing / (2 * 128 * 2))  # or parts are written
    added = tile_time(half, products(32, 32, 144), H200) - halved
    # Another launch, and three numbers of memory for each sum, of which 4 x 256 work items read 2 at once.
    assert added == pytest.approx(H200.sharing + 3 * 32 * 32 * 0.6 * H200.sharing / (4 * 256 * 2))


def test_memory_is_waited_for_where_there_is_little_to_multiply() -> None:
    """52 multiply-accumulates of all 16 multiprocessors a number, once enough work items wait for some."""
    assert tile_time(SMALL, products(32 * 16 * 9, 32, 1, 10**8), ORIN) == pytest.approx(10**8 * 52 / 16)
    few = tile_time(SMALL, products(32, 32, 1, 10**6), H200)
    assert few == pytest.approx(10**6 * 0.6 * H200.sharing / (128 * 2))


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
    best = tiles(products(outputs, pixels, depth), H200, PARTS)[0]
    assert (best.parts > 1) is shared
    if shared:
        groups = -(-outputs // best.outputs) * -(-pixels // best.pixels)
        assert groups < H200.cores <= 2 * groups * best.parts


def test_no_part_is_empty() -> None:
    for count in range(1, 70):
        for choice in in_parts(SMALL, count, PARTS):
            own = -(-count // choice.parts)
            assert 0 < count - (choice.parts - 1) * own <= own
