"""What a library's file holds of kernels for a GPU."""

from __future__ import annotations

import json

import numpy as np
import pytest

from secateur.codegen.devices.code import Code, Kernel, Launch, Resources, read

CODE = Code(
    "text", {"k0": Kernel((2, 1, 1), 64)}, [Launch("k0", (("input:x", 0), ("output:0", 4)), "layer")], ["input:x"],
    ["output:0"], np.zeros(16, np.float32), np.zeros(16, np.int32), 64, b"", {"k0": Resources(32, 0, 128)},
)  # fmt: skip


def test_it_is_read_as_it_was_written() -> None:
    found = read("text", b"", CODE.plan(), CODE.weights, CODE.tables)
    assert (found.kernels, found.launches, found.resources) == (CODE.kernels, CODE.launches, CODE.resources)
    assert (found.inputs, found.outputs, found.arena_words) == (CODE.inputs, CODE.outputs, 64)


@pytest.mark.parametrize("launch", [["k1", [["arena", 0]], ""], ["k0", [["x", 0]], ""], ["k0", [["arena", -1]], ""]])
def test_a_launch_of_what_is_not_there_is_refused(launch: list[object]) -> None:
    data = json.loads(CODE.plan()) | {"launches": [launch]}
    with pytest.raises(ValueError, match="names what is not there"):
        read("text", b"", json.dumps(data), CODE.weights, CODE.tables)
