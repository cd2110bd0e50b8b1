"""Calibration data: opened from what users have, checked as a whole, parted into what is fitted and what judges."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.ir import Array, Graph, InputError
from secateur.passes.context import Calibration
from secateur.passes.sweep.batches import batches, classes_of

from .arrays import ArrayFile
from .holdout import FEWEST, SHARE, Fold, held_out, share_of, survey
from .images import Images, Preparation

LABELS = ("y", "labels", "label", "targets")


@dataclass(frozen=True, eq=False)
class Parted:
    """``known`` is what scores, fits and tuning see, ``judge`` what the quality is measured on.

    ``held_out``: nothing of ``judge`` is in ``known``, or nothing was fitted.
    """

    known: Calibration
    judge: Iterable[object]
    held_out: bool
    remarks: tuple[str, ...]


# What ``compile`` takes. ``Parted`` is what it opened itself for a search and hands to each trial.
Given = Iterable[object] | str | Path | Parted | None


def opened(
    given: Given, graph: Graph, preparation: Preparation | None, holdout: float | str, seed: int, fitted: bool
) -> Parted | None:
    """The data for this network; None without any. ``fitted``: does anything score, fit or tune on them?

    What was opened before comes back as it is, so that several runs share it and what its first sweep found.

    All of it is gone through once. ``preparation`` is for a folder of images, ``holdout`` the share (0.25, "25%") that
    is held out. Raises InputError that names what cannot be used.
    """
    share = share_of(holdout)
    if isinstance(given, Parted):
        if preparation is not None or share != SHARE:
            raise InputError(
                "calibration: data that were opened before are prepared and parted; leave preparation and holdout out"
            )
        return given
    data, remarks = (None, ()) if given is None else _source(given, graph, preparation)
    if preparation is not None and not isinstance(data, Images):
        raise InputError(
            "calibration: mean, std, bgr, scale and size say how images become inputs, but there is no folder of them; "
            "prepare the arrays yourself, or give a folder"
        )
    if data is None:
        return None
    found = survey(graph, data, seed)
    total = len(found)
    if not fitted:
        return Parted(Calibration(data, seed, total), data, True, remarks)
    if classes_of(graph) is None:  # no quality is measured, so all may be fitted
        return Parted(Calibration(data, seed, total), data, False, remarks)
    held = held_out(found, share)
    if not held:
        alike = f"{total} examples cannot be parted" if total >= FEWEST else f"{total} examples are too few to part"
        why = alike if share else "nothing was held out, as was asked for"
        said = f"{why}: quality is measured on the examples that were fitted"
        return Parted(Calibration(data, seed, total), data, False, (*remarks, said))
    count = sum(digest in held for digest in found)
    said = f"{count} of {total} examples were held out: nothing was scored, fitted or tuned on them"
    rest, judge = (Fold(graph, data, held, inside, n, seed) for inside, n in ((False, total - count), (True, count)))
    return Parted(Calibration(rest, seed, total - count), judge, True, (*remarks, said))


def feeds(graph: Graph, given: Iterable[object], source: str = "given inputs") -> list[Mapping[str, Array]]:
    """Inputs by name, checked and in the sizes that the network takes, of arrays as in calibration or files of them.

    Raises InputError.
    """
    data = [arrays_of(Path(each), graph, "--input")[0] if isinstance(each, str | Path) else each for each in given]
    return [batch.inputs for batch in batches(graph, data, source=source)]


def _source(
    given: Iterable[object] | str | Path, graph: Graph, preparation: Preparation | None
) -> tuple[Iterable[object], tuple[str, ...]]:
    """Batches that can be gone through more than once, and what is to be said of them. Raises InputError."""
    if isinstance(given, str | Path):
        return load_calibration(Path(given), graph, preparation)
    if isinstance(given, Mapping) or hasattr(given, "shape"):  # one batch, alone
        return [given], ()
    if isinstance(given, Iterator):  # can be gone through once: kept
        return list(given), ()
    with contextlib.suppress(TypeError):
        iter(given)
        return given, ()
    raise InputError(
        f"calibration is a {type(given).__name__}; give batches x, (x, y) or dicts by input name, an .npz file or a "
        "folder of images"
    )


def load_calibration(
    path: Path, graph: Graph, preparation: Preparation | None = None
) -> tuple[Iterable[object], tuple[str, ...]]:
    """Batches for this network, and remarks on them. Raises InputError where there is nothing of use.

    An .npz file holds arrays by input name, or one array, and labels (``y``) if there are any. A folder holds images;
    folders in it are classes: see ``folder_labels``.
    """
    if not path.exists():
        raise InputError(f"--calibration: there is no '{path}'; check the path")
    if path.is_dir():
        images = Images.open(path, graph, preparation or Preparation())
        return images, images.remarks
    if path.suffix.lower() not in {".npz", ".npy"}:
        raise InputError(f"--calibration '{path}': give a .npz file of arrays by input name, or a folder of images")
    batch, unused = arrays_of(path, graph, "--calibration")
    return [batch], (f"not used of '{path.name}': {', '.join(map(repr, unused))}",) if unused else ()


def arrays_of(path: Path, graph: Graph, option: str) -> tuple[Any, tuple[str, ...]]:
    """What a file that was given to ``option`` holds for this network, and the names of what it holds besides.

    The former are inputs by name, with labels if there are any. Raises InputError.
    """
    file = ArrayFile.open(path, option)
    names = [v.name for v in graph.inputs]
    others = [n for n in file.names if n not in LABELS]
    if set(names) <= set(file.names):
        inputs = file.read_all(names)
    elif len(names) == 1 and len(others) == 1:
        inputs = {names[0]: file.read(others[0])}
    else:
        raise InputError(f"{option} '{path}' holds {sorted(file.names)}; '{graph.name}' takes the inputs {names}")
    label = next((n for n in LABELS if n in file.names and n not in inputs), None)
    used = {*(names if set(names) <= set(file.names) else others), label}
    batch = inputs if label is None else (inputs, file.read(label))
    return batch, tuple(name for name in file.names if name not in used)
