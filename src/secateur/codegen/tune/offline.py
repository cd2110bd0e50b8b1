"""Tuning a machine that no network reaches: candidates are written to a folder, measured there, and read back.

The folder holds libraries of kernels (``portable``), ``arrays.npz`` with what they run on, ``manifest.json``, and
``measure.py``, which needs TVM's runtime and NumPy. It leaves ``results.json``, which names the manifest by its digest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from secateur.codegen.kernels.arrays import DRAWN, random_floats
from secateur.codegen.plan.family import Kernel, Workload
from secateur.codegen.records import BAD, Origin, key_of, stored
from secateur.codegen.targets import Target
from secateur.ir import InputError
from secateur.ir.progress import Progress, quiet

from .board import Facts, reference, wrong
from .portable import Inputs, export, for_here
from .timing import MEMORY, steady
from .tuner import Outcome, Tuner, candidates, contests, versions

FORMAT = 1
SCRIPT = Path(__file__).with_name("measure.py")
DATA = np.ndarray[Any, np.dtype[Any]]


def write(
    tuner: Tuner, specs: Sequence[Workload], folder: Path, memory: int = MEMORY, progress: Progress = quiet
) -> int:
    """Fill a new folder with candidates for the workloads that the records lack; how many workloads there are.

    Raises InputError where the folder holds something, cannot be written to, or the cross compiler is missing.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"'{folder}' holds something else: name an empty or a new folder for the candidates")
    todo = tuner.lacking(specs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, DATA] = {"random": random_floats(DRAWN)}
        jobs = []
        for number, contest in enumerate(contests(todo)):
            progress(number, None, contest[0].title)
            jobs += _job(f"{number}.so", contest, tuner.target, folder, arrays, memory)
        np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
        shutil.copyfile(SCRIPT, folder / SCRIPT.name)
        manifest = {"format": FORMAT, "target": tuner.target.name, "versions": versions(), "jobs": jobs}
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write candidates to '{folder}': {error.strerror or error}; name another") from error
    return len(todo)


def _job(name: str, specs: Sequence[Workload], target: Target, folder: Path, arrays: dict[str, DATA],
         memory: int) -> list[dict[str, Any]]:  # fmt: skip
    """Write one library; its entry in the manifest, none where TVM compiles no choice.

    ``arrays`` gets what is neither drawn nor zero.
    """
    every = [(spec, choice) for spec in specs for choice in candidates(spec, target)]
    kernels = export(dict(enumerate(every)), target, folder / name, memory)
    if not kernels:
        return []
    want = _wanted(kernels, target, folder / name, memory)
    described = []
    for s, spec in enumerate(specs):
        inputs = Inputs.of(spec, target, memory)
        entries = [_array(array, f"{name}-{s}-{k}", arrays) for k, array in enumerate(inputs.arrays)]
        for k, entry in enumerate(entries):
            entry["stride"] = inputs.moving.get(k, 0)
        _, kind, workload = key_of(target.name, spec)
        described.append({"kind": kind, "workload": workload, "copies": inputs.copies, "arrays": entries})
    return [{
        "library": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(), "specs": described,
        "kernels": [
            {"id": i, "spec": specs.index(spec), "choice": stored(choice), "sums": want[i].tolist()}
            for i, (spec, choice) in kernels.items() if i in want
        ],
    }]  # fmt: skip


def _wanted(kernels: Mapping[int, Kernel], target: Target, library: Path, memory: int) -> dict[int, Any]:
    mine = for_here(target)
    if mine is target:
        return dict(reference(kernels, target, library, memory, lambda i: None))
    with tempfile.TemporaryDirectory(prefix="secateur-") as place:  # a path of its own, or the last one is loaded again
        own = Path(place) / library.name
        return dict(reference(export(kernels, mine, own, memory), mine, own, memory, lambda i: None))


def _array(array: DATA, name: str, arrays: dict[str, DATA]) -> dict[str, Any]:
    """How ``measure.py`` makes it: drawn, zeros, or as stored under a name."""
    values = name
    if array.dtype == np.float32 and np.array_equal(array, np.resize(arrays["random"], array.size)):
        values = "random"
    elif not array.any():
        values = "zeros"
    else:
        arrays[name] = array
    return {"dtype": array.dtype.name, "size": int(array.size), "values": values}


def read(tuner: Tuner, specs: Sequence[Workload], folder: Path) -> Outcome:
    """Add what was measured in a folder to the tuner's records.

    Raises InputError where results are missing, damaged, of other candidates, of another network, target or version, or
    where the machine computed other numbers than this one.
    """
    manifest, results = _load(folder, "manifest.json"), _load(folder, "results.json")
    try:
        return _read(tuner, specs, manifest, results, folder)
    except BAD as error:
        raise InputError(f"the results in '{folder}' are damaged ({error}): run its measure.py again") from error


def _load(folder: Path, name: str) -> dict[str, Any]:
    try:
        text = (folder / name).read_bytes()
        found = json.loads(text)
    except FileNotFoundError as error:
        remedy = "run its measure.py on the device and bring it back" if name == "results.json" else "name one that "
        remedy += "" if name == "results.json" else "secateur tune --candidates has written"
        raise InputError(f"'{folder}' holds no {name}: {remedy}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"'{folder / name}' is damaged ({error}): measure again") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"'{folder / name}' is not of this version of secateur: write the candidates again")
    return {**found, "digest": hashlib.sha256(text).hexdigest()}


def _read(tuner: Tuner, specs: Sequence[Workload], manifest: Mapping[str, Any], results: Mapping[str, Any],
          folder: Path) -> Outcome:  # fmt: skip
    if results["manifest"] != manifest["digest"]:
        raise InputError(f"the results in '{folder}' are of other candidates than its manifest.json: measure again")
    if manifest["target"] != tuner.target.name or manifest["versions"] != versions():
        made = f"{manifest['target']} by {manifest['versions']}"
        raise InputError(
            f"the candidates in '{folder}' are for {made}, not for {tuner.target.name} by {versions()}: write them anew"
        )
    known = {key_of(tuner.target.name, spec): spec for spec in specs}
    found, remarks, off, ran = [], list[str](), 0, 0
    for number, job in enumerate(manifest["jobs"]):
        keys = [(tuner.target.name, spec["kind"], spec["workload"]) for spec in job["specs"]]
        done = results["jobs"].get(str(number))
        if done is None or any(key not in known for key in keys):
            continue
        contest = [known[key] for key in keys]
        _same_choices(job, contest, tuner.target, folder)
        right, bad = _right(job, done)
        off, ran = off + bad, ran + len(right) + bad
        facts = Facts.parse(done.get("machine", ""))
        found.append((contest, steady(right) if right else {}, Origin(facts.family, facts.node)))
    if not found:
        raise InputError(f"the results in '{folder}' are of another network: nothing of it is in this model")
    if off > ran // 2:
        raise InputError(
            f"the device of '{folder}' computed other numbers than this machine in {off} of {ran} choices: nothing of "
            "it counts; check the device"
        )
    tuner.records.check_writable()
    kept = [ok for contest, times, origin in found for ok in tuner.keep(contest, times, origin)]
    if off:
        remarks.append(f"{off} choices computed other numbers than this machine, and do not count")
    left = sum(len(job["specs"]) for job in manifest["jobs"]) - len(kept)
    return Outcome(sum(kept), len(kept) - sum(kept), left, remarks=tuple(remarks))


def _same_choices(job: Mapping[str, Any], contest: Sequence[Workload], target: Target, folder: Path) -> None:
    every = [stored(choice) for spec in contest for choice in candidates(spec, target)]
    if any(every[kernel["id"]] != tuple(kernel["choice"]) for kernel in job["kernels"]):
        raise InputError(f"the candidates in '{folder}' are those of another secateur: write them again")


def _right(job: Mapping[str, Any], done: Mapping[str, Any]) -> tuple[dict[int, list[float]], int]:
    """The samples of the choices whose results are right, and how many are not."""
    samples, sums, bad = done.get("samples", {}), done.get("sums", {}), 0
    right: dict[int, list[float]] = {}
    for kernel in job["kernels"]:
        name = str(kernel["id"])
        if name not in samples:
            continue
        if wrong(np.asarray(sums[name], float), np.asarray(kernel["sums"], float)):
            bad += 1
        else:
            right[kernel["id"]] = [float(seconds) for seconds in samples[name]]
            if not right[kernel["id"]] or not all(0 < s < np.inf for s in right[kernel["id"]]):
                raise ValueError(f"a choice has the seconds {samples[name]}")
    return right, bad
