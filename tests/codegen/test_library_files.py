"""Files that are no library any more, or none of this network: mutations with fixed seeds, each refused or harmless."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secateur import codegen
from secateur.ir import InputError
from support.nets import CHAIN, draw

X = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
COUNT = 300
WRONG: tuple[Any, ...] = (None, "x", -1, 1 << 50, [], {}, 1.5, 7, float("nan"))
CONSTANTS = ("weights.bin", "tables.bin")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("library") / "l.so"
    codegen.build(draw(CHAIN)).save(path)
    return path.read_bytes()


def packed(good: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """The archive with other members, their checksums right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return out.getvalue()


def places(data: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """Where a number or a text lies in plain data, and what holds it."""
    if path:
        yield path
    for key in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        yield from places(data[key], *path, key)


def bytes_changed(good: bytes, rng: random.Random) -> bytes:
    data, at = bytearray(good), rng.randrange(len(good))
    kind = rng.randrange(4)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data[at : at + 4096] = bytes(len(data[at : at + 4096]))
    else:
        data[at:at] = rng.randbytes(17)
    return bytes(data)


def metadata_changed(good: bytes, rng: random.Random) -> bytes:
    def change(name: str, data: bytes) -> bytes:
        if name != "metadata.json":
            return data
        whole = json.loads(data)
        *outer, last = rng.choice(list(places(whole)))
        inner = whole
        for key in outer:
            inner = inner[key]
        if rng.random() < 0.2:
            del inner[last]
        else:
            inner[last] = rng.choice(WRONG)
        return json.dumps(whole).encode()

    return packed(good, change)


def constants_changed(good: bytes, rng: random.Random) -> bytes:
    which = rng.choice([*CONSTANTS, "code.so", "metadata.json"])
    shorter = rng.random() < 0.5 and which in CONSTANTS
    return packed(good, lambda name, data: data if name != which else data[: len(data) // 8 * 4] if shorter else None)


@pytest.mark.parametrize("mutate", [bytes_changed, metadata_changed, constants_changed])
def test_a_mutated_library_is_refused_or_the_same(
    good: bytes, tmp_path: Path, mutate: Callable[[bytes, random.Random], bytes]
) -> None:
    path = tmp_path / "l.so"
    path.write_bytes(good)
    want, refused = codegen.load_library(path)(X), 0
    for seed in range(COUNT // 3):
        path.write_bytes(mutate(good, random.Random(seed)))
        try:
            found = codegen.load_library(path)(X)
        except InputError:
            refused += 1
            continue
        np.testing.assert_array_equal(found, want, err_msg=f"seed {seed}")
    assert refused > COUNT // 6


def test_the_same_network_gives_the_same_bytes(good: bytes, tmp_path: Path) -> None:
    """Whatever the day: a file in a build cache stays the one that it was."""
    codegen.build(draw(CHAIN)).save(tmp_path / "again.so")
    assert (tmp_path / "again.so").read_bytes() == good
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {1980}


def test_code_for_another_release_of_tvm_is_refused(good: bytes, tmp_path: Path) -> None:
    def change(name: str, data: bytes) -> bytes:
        if name != "metadata.json":
            return data
        metadata = json.loads(data)
        metadata["versions"]["apache-tvm"] = "0.20.0"
        return json.dumps(metadata).encode()

    (tmp_path / "old.so").write_bytes(packed(good, change))
    with pytest.raises(
        InputError, match=r"was built with apache-tvm 0\.20\.0, and here is .* pip install apache-tvm==0"
    ):
        codegen.load_library(tmp_path / "old.so")
