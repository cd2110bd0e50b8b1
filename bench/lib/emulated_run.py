"""Run every library of a folder on its inputs; the emulated interpreter does: emulated_run.py FOLDER

``N.so`` is called with the arrays of ``N.npz``, and what it gives goes to ``N.out.npz``. The arena holds NaN first, so
that a lane which is read before it is written shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from secateur.codegen.library import load_library


def main() -> None:
    """Every library, in the order of the names."""
    for path in sorted(Path(sys.argv[1]).glob("*.so")):
        library = load_library(path)
        arena = np.from_dlpack(library._fixed[0])
        arena[:] = np.nan
        with np.load(path.with_suffix(".npz")) as given:
            found = library(*(given[name] for name in given.files))
        np.savez(path.with_suffix(".out"), *(found if isinstance(found, tuple) else (found,)))


if __name__ == "__main__":
    main()
