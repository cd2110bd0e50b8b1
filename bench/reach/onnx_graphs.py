"""Small ONNX graphs after public bug reports, through every command, judged by ONNX Runtime alone.

    python -m bench.reach.onnx_graphs                         all graphs of onnx_tables*.py, all four legs
    python -m bench.reach.onnx_graphs --only 'pad*' --legs none,macs
    python -m bench.reach.onnx_graphs --cases FILE.py      another file's: CASES = {name: (make, feeds, source, budget)}
    python -m bench.reach.onnx_graphs --trust               without secateur's own runs of each file, which take longest
    python -m bench.reach.onnx_graphs --summary               the table alone, from the rows there are

Legs: `none` (compile --policy none) and `macs` (compile --macs 60%) write a file, which answers as the original at
every size that is fed, the pruned one as the original masked from its recipe; `build` and `run` make a library and
run it. **right** is that; **refused** an error in a sentence; **fixed** a file that takes one size only, as its report
said. The others are faults: **wrong**, **crash** (a foreign exception, or the process died), **unexpected**, **slow**,
**unnamed** (the recipe names what the file does not have). **moot** is a graph that ONNX Runtime itself does not run.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib.util
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from bench.lib import common
from bench.reach import onnx_reference
from bench.reach.onnx_reference import Array, Unnamed

if TYPE_CHECKING:
    from secateur.codegen import Library

Feeds = Mapping[str, Array]
LEGS = ("none", "macs", "build", "run")
FAULTS = ("wrong", "crash", "unexpected", "slow", "unnamed")
LIMIT = 180.0  # seconds for one leg of one graph


@dataclass(frozen=True)
class Case:
    """A graph, what it is fed at each size, and the budget it is pruned to."""

    name: str
    make: Callable[[], onnx.ModelProto]
    feeds: Callable[[], Sequence[Feeds]] | None = None
    budget: str = "60%"
    trust: bool = False

    def inputs(self, model: onnx.ModelProto) -> Sequence[Feeds]:
        """What it is fed; drawn where it does not say, and then twice."""
        return self.feeds() if self.feeds is not None else [drawn(model, 1), drawn(model, 2)]


def drawn(model: onnx.ModelProto, seed: int) -> dict[str, Array]:
    """Standard normal floats, small integers for the rest; open dimensions are 1."""
    rng, weights = np.random.default_rng(seed), {t.name for t in model.graph.initializer}
    feeds = {}
    for info in model.graph.input:
        if info.name not in weights:
            tensor = info.type.tensor_type
            shape = [max(d.dim_value, 1) for d in tensor.shape.dim]
            kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            feeds[info.name] = np.asarray(
                rng.standard_normal(shape) if kind.kind == "f" else rng.integers(0, 3, shape)
            ).astype(kind)
    return feeds


# --- one leg of one graph, in a process of its own -----------------------------------------------------------


def leg(case: Case, which: str) -> common.Row:
    """The verdict on one leg."""
    from secateur.ir import Error

    model = case.make()
    feeds = case.inputs(model)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "given.onnx")
        onnx.save(model, path)
        try:
            return (compiled if which in ("none", "macs") else library)(case, which, path, feeds)
        except Error as error:
            text = f"{type(error).__name__}: {error}"
            internal = type(error).__name__ in ("LawError", "PassError", "VerifyError")
            fault = internal or "nexpected" in text or "fault in secateur" in text
            return {"verdict": "unexpected" if fault else "refused", "detail": text[:400]}


def compiled(case: Case, which: str, path: str, feeds: Sequence[Feeds]) -> common.Row:
    """Compile, write, and ask ONNX Runtime about what was written."""
    import secateur

    out = str(Path(path).with_name("written.onnx"))
    budget: dict[str, Any] = {"policy": "none"} if which == "none" else {"macs": case.budget}
    slim = secateur.compile(path, trust=case.trust, **budget)
    slim.save(out)
    original = onnx.load(path)
    if which == "macs":
        recipe = json.loads(slim.recipe.to_json())
        try:
            original = onnx_reference.masked(original, recipe)
        except Unnamed as error:
            statistics = any(m["statistics"] for m in recipe["mixing"])
            return {"verdict": "refused" if statistics else "unnamed", "detail": str(error)}
    worst, text = 0.0, ""
    for feed in feeds:
        try:
            want = onnx_reference.answer(original, feed)
        except Exception as error:
            return {"verdict": "moot", "detail": f"ONNX Runtime: {error}"[:300]}
        try:
            have = onnx_reference.answer(out, feed)
        except Exception as error:
            told = any("is fixed at" in remark for remark in slim.report.remarks)
            fixed = told and "Got invalid dimensions for input" in str(error)
            return {"verdict": "fixed" if fixed else "wrong", "detail": f"{_sizes(feed)}: {error}"[:400]}
        found, why = onnx_reference.difference(want, have)
        if found > tolerance(original):
            return {"verdict": "wrong", "detail": f"{_sizes(feed)}: {why}"}
        worst, text = max(worst, found), why or text
    return {"verdict": "right", "detail": text, "error": worst}


def library(case: Case, which: str, path: str, feeds: Sequence[Feeds]) -> common.Row:
    """Build a library at the first size that is fed; for `run` also ask it, as loaded from its file."""
    from secateur.capture import load
    from secateur.deploy import build

    feed = feeds[0]
    made = build(load(path, shapes={name: array.shape for name, array in feed.items() if array.ndim}))
    if which == "build":
        return {"verdict": "right", "detail": "; ".join(made.metadata.notes)}
    return run(made, path, feed) | {"built": "; ".join(made.metadata.notes)}


def run(made: Library, path: str, feed: Feeds) -> common.Row:
    """Save the library, load it, and ask it next to ONNX Runtime."""
    from secateur.deploy import load_library

    file = str(Path(path).with_name("library.so"))
    made.save(file)
    loaded = load_library(file)
    try:
        want = onnx_reference.answer(path, feed)
    except Exception as error:
        return {"verdict": "moot", "detail": f"ONNX Runtime: {error}"[:300]}
    found = loaded(**feed)
    outputs = found if isinstance(found, tuple) else (found,)
    have = {port.name: np.asarray(array) for port, array in zip(loaded.metadata.outputs, outputs, strict=True)}
    gap, why = onnx_reference.difference(want, {name: have[name] for name in want if name in have})
    wrong = gap > tolerance(onnx.load(path))
    return {"verdict": "wrong" if wrong else "right", "detail": why, "error": gap}


def tolerance(model: onnx.ModelProto) -> float:
    """What rounding may do to the largest output: a step where something is quantised, more in half precision."""
    kinds = {i.type.tensor_type.elem_type for i in model.graph.input} | {t.data_type for t in model.graph.initializer}
    kinds |= {a.i for n in model.graph.node if n.op_type == "Cast" for a in n.attribute if a.name == "to"}
    if any("Quantize" in n.op_type or "QLinear" in n.op_type for n in model.graph.node):
        return 3e-2
    if onnx.TensorProto.BFLOAT16 in kinds:
        return 5e-2
    return 1e-2 if onnx.TensorProto.FLOAT16 in kinds else 1e-4


def _sizes(feed: Feeds) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())


# --- all of them ---------------------------------------------------------------------------------------------


def original(case: Case, which: str) -> common.Row:
    """Whether ONNX Runtime runs the graph at all; some end its process."""
    model = case.make()
    for feed in case.inputs(model):
        onnx_reference.answer(model, feed)
    return {"verdict": "right"}


def apart(work: Callable[[Case, str], common.Row], case: Case, which: str) -> common.Row:
    """The row of a leg from a process of its own, ended at the limit."""
    start = time.monotonic()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            row = work(case, which)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            row = {"verdict": "crash", "detail": f"{type(error).__name__}: {error} @{place}"[:400]}
        with os.fdopen(writing, "w") as pipe:
            pipe.write(json.dumps(row, default=str))
        os._exit(0)
    os.close(writing)
    text = b""
    with os.fdopen(reading, "rb") as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, LIMIT - (time.monotonic() - start)))
            if not ready:
                os.kill(child, signal.SIGKILL)
            part = os.read(pipe.fileno(), 1 << 16)
            if not part:
                break
            text += part
    _, status = os.waitpid(child, 0)
    seconds = round(time.monotonic() - start, 2)
    if text:
        found: common.Row = json.loads(text)
    elif seconds >= LIMIT:
        found = {"verdict": "slow", "detail": f"not finished after {LIMIT:g} s"}
    else:
        found = {"verdict": "crash", "detail": f"the process ended with status {status}"}
    return {"graph": case.name, "leg": which, **found, "seconds": seconds}


def rows_of(case: Case, legs: Sequence[str]) -> list[common.Row]:
    """All legs of a graph; one that ends ONNX Runtime is compiled and built, and nothing is compared."""
    if apart(original, case, "original")["verdict"] == "crash":
        case = dataclasses.replace(case, feeds=lambda: [])
        legs = [which for which in legs if which in ("none", "macs")]
        rows = [apart(leg, case, which) for which in legs]
        return [r | ({"verdict": "moot"} if r["verdict"] == "right" else {}) for r in rows]
    if "run" not in legs or "build" not in legs:
        return [apart(leg, case, which) for which in legs]
    rows = [apart(leg, case, which) for which in legs if which != "build"]
    ran = next(r for r in rows if r["leg"] == "run")
    built = ran.pop("built", None)  # one library serves both legs, unless it was never finished
    if built is None:
        return [*rows, apart(leg, case, "build")]
    return [*rows, {"graph": case.name, "leg": "build", "verdict": "right", "detail": built}]


def load_cases(file: Path | None, trust: bool) -> list[Case]:
    """The graphs of the tables, or those of another file."""
    if file is None:
        from bench.reach import onnx_tables, onnx_tables_whole

        listed = onnx_tables_whole.extend(onnx_tables.tables()).cases
        return [Case(name, make, feeds, budget, trust) for name, (make, feeds, budget) in listed.items()]
    sys.path.insert(0, str(file.resolve().parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [Case(name, make, feeds, budget, trust) for name, (make, feeds, _, budget) in module.CASES.items()]


def summary(rows: Sequence[common.Row]) -> str:
    """Verdicts by leg, and every row that is neither right nor moot."""
    verdicts = ("right", "refused", "fixed", "moot", *FAULTS)
    counts = {which: Counter(r["verdict"] for r in rows if r["leg"] == which) for which in LEGS}
    lines = [[which, sum(found.values()), *(found[v] for v in verdicts)] for which, found in counts.items() if found]
    text = common.table(["leg", "graphs", *verdicts], lines)
    other = [r for r in rows if r["verdict"] not in ("right", "moot")]
    order = sorted(other, key=lambda r: (r["verdict"] not in FAULTS, r["verdict"], r["graph"]))
    return text + "\n" + "\n".join(f"{r['graph']} {r['leg']}: {r['verdict']}: {r['detail'][:160]}" for r in order)


def main() -> int:
    """Run the graphs that are asked for, append their rows, print the summary."""
    parser = common.parser(__doc__, "onnx_graphs.jsonl")
    parser.add_argument("--only", default="*", metavar="GLOB", help="graphs such as 'pad*'")
    parser.add_argument("--legs", default=",".join(LEGS), help=f"which of {', '.join(LEGS)}")
    parser.add_argument("--cases", type=Path, metavar="FILE.py", help="graphs of another file")
    parser.add_argument("--trust", action="store_true", help="compile with trust=True")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    here = common.circumstances(arguments.seed)
    if not arguments.summary:
        import secateur.api
        import secateur.deploy
        import secateur.ir.exporters.onnx.write
        import secateur.ir.frontends.onnx.load  # noqa: F401  # once, before the processes part

        if {"build", "run"} & set(arguments.legs.split(",")):
            from secateur.codegen.emit.loading import load_tvm

            load_tvm()

        for case in load_cases(arguments.cases, arguments.trust):
            if fnmatch.fnmatch(case.name, arguments.only):
                for row in rows_of(case, arguments.legs.split(",")):
                    common.append(arguments.output, [row | here])
    rows = list({(r["graph"], r["leg"]): r for r in common.read(arguments.output)}.values())
    print(summary(rows))
    return int(any(r["verdict"] in FAULTS for r in rows))


if __name__ == "__main__":
    sys.exit(main())
