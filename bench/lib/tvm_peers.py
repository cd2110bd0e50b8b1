"""Networks in TVM as its own users compile them: read from ONNX into Relax, and built with MetaSchedule's database.

The database of a network lies in its folder under `metaschedule`; metaschedule.py makes it. What is built runs on
as many threads as TVM's pool is given.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tvm
from tvm import relax
from tvm.relax import transform

from secateur.codegen import get_target


def target() -> Any:
    """This machine with all its cores; the processor is named from its features, as for our own libraries."""
    native = get_target("native")
    return tvm.target.Target({"kind": "llvm", "mtriple": native.triple, "mcpu": native.mcpu, "num-cores": native.cores})


def read(onnx_file: Path) -> Any:
    """The network as a Relax module with its weights as constants."""
    import onnx
    from tvm.relax.frontend.onnx import from_onnx

    return from_onnx(onnx.load(onnx_file), keep_params_in_input=False)


def fused(onnx_file: Path) -> Any:
    """The network in the form whose functions are tuned: TVM's pipeline for static shapes up to the tuning."""
    passes = [
        transform.DecomposeOpsForInference(), transform.CanonicalizeBindings(), relax.get_pipeline("zero"),
        transform.AttachAttrLayoutFreeBuffers(),
    ]  # fmt: skip
    with target():
        return tvm.transform.Sequential(passes)(read(onnx_file))


def work_folder(folder: Path) -> Path:
    """Where MetaSchedule keeps what it measured."""
    return folder / "metaschedule"


def database(folder: Path) -> tuple[Path, Path]:
    """The files of the database. Raises FileNotFoundError with what to do."""
    work = work_folder(folder)
    files = work / "database_workload.json", work / "database_tuning_record.json"
    if not all(file.exists() and file.stat().st_size for file in files):
        raise FileNotFoundError("not tuned by MetaSchedule; run bench/speed/metaschedule.py on this network first")
    return files


def spent(folder: Path) -> dict[str, Any]:
    """The seconds and trials that went into the database so far."""
    file = work_folder(folder) / "spent.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"seconds": 0.0, "trials": 0}
    return found


def apply(onnx_file: Path, folder: Path) -> Any:
    """The network built with the best schedules of the database, its weights packed for them when it is built."""
    module = fused(onnx_file)
    with target():  # the passes are made for the target as well as run for it
        passes = [
            transform.MetaScheduleApplyDatabase(str(work_folder(folder))),
            transform.SplitLayoutRewritePreproc(), transform.LiftTransformParams(), transform.FoldConstant(),
        ]  # fmt: skip
        module = tvm.transform.Sequential(passes)(module)
    return relax.build(module, target())
