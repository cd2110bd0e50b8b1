"""Photos of animals, buildings, landscapes, tools and toys that GCompris, a collection of games for children, carries.

    python -m bench.data.gcompris        fetch what is not there yet (43 MB), print how many photos there are

Debian's package gcompris-qt-data, of which material.py takes seven resource files of Qt. The photos are their authors'
and under several free licences (GPL, CC-BY, CC-BY-SA, public domain), which the package's copyright file lists.
"""

from __future__ import annotations

import io
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from bench.data import material
from bench.data.material import ROOT

HEADER = ">4s4I"  # magic, version, where the tree, the data and the names begin
MAGIC = b"qres"
SMALLEST = 200  # pixels of a photo's shorter side; what is smaller is a button


def photos(root: Path = ROOT, seed: int = 0) -> list[Image.Image]:
    """All photos without transparent parts, in an order drawn from the seed, so that neighbours differ in kind.

    Raises MaterialError.
    """
    found = []
    for name in material.GCOMPRIS:
        for content in members(material.path(f"gcompris_{name}.rcc", root).read_bytes()):
            if content[8:12] == b"WEBP":
                with Image.open(io.BytesIO(content)) as opened:
                    if opened.mode == "RGB" and min(opened.size) >= SMALLEST:
                        found.append(opened.copy())
    random.Random(seed).shuffle(found)
    return found


def members(resource: bytes) -> Iterator[bytes]:
    """The files in a compiled resource of Qt, which stand one after the other, each after its length (qresource.cpp).

    Raises MaterialError.
    """
    magic, _, tree, at, names = struct.unpack_from(HEADER, resource.ljust(struct.calcsize(HEADER), b"\0"))
    if magic != MAGIC:
        raise material.MaterialError("a resource file of Qt begins with 'qres', and this one does not")
    end = min(place for place in (tree, names, len(resource)) if place > at)
    while at < end:
        (size,) = struct.unpack_from(">I", resource, at)
        yield resource[at + 4 : at + 4 + size]
        at += 4 + size


def main() -> int:
    """Fetch and count."""
    print(len(photos()), "photos")
    return 0


if __name__ == "__main__":
    sys.exit(main())
