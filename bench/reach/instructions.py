"""How many instructions does arm64 code execute for one image, next to ONNX Runtime's and LiteRT's arm64 wheels?

    python -m bench.reach.instructions [--only GLOB]

Emulated times mean nothing, and instruction counts do compare programs on the same processor: qemu counts them with a
plugin (``bench/lib/count_instructions.c``, for Debian's qemu-user and gcc), each program once with some images more
than the other time, on one thread of a Neoverse N1. Ours is run by the C++ example; LiteRT (XNNPACK) runs what onnx2tf
makes of the ONNX file, in an environment that ``bench.lib.engines`` makes.
"""

from __future__ import annotations

import fnmatch
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.lib import common, emulated, engines
from bench.speed.libraries import subject

NETWORKS = ("tv/mobilenet_v2", "tv/shufflenet_v2_x1_0", "tv/resnet50")
TARGET = "aarch64:neoverse-n1"
PEERS = emulated.FOLDER / "peers"
PINNED = ("onnxruntime", "protobuf", "flatbuffers", "packaging")  # in constraints.txt
LITERT = "ai-edge-litert==2.3.0"
ENOUGH = 400_000_000  # instructions of images, against what differs from start to start: some two million
RUN = Path(__file__).parents[1] / "lib" / "emulated_peer.py"


def plugin(folder: Path) -> Path:
    """The compiled plugin. Raises CalledProcessError without a C compiler."""
    out = folder / "count.so"
    source = common.ROOT / "bench" / "lib" / "count_instructions.c"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", source, "-o", out], check=True)
    return out


def peers() -> Path:
    """A folder with the runtimes' arm64 wheels and what they import, fetched once by pip."""
    if not all((PEERS / name).exists() for name in ("onnxruntime", "ai_edge_litert")):
        pinned = {line.partition("==")[0]: line for line in (common.ROOT / "constraints.txt").read_text().split()}
        options = ["--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--target", str(PEERS)]
        platforms = ["--platform", "manylinux_2_28_aarch64", "--platform", "manylinux_2_27_aarch64"]
        command = [sys.executable, "-m", "pip", "install", "--quiet", *options, *platforms]
        subprocess.run([*command, LITERT, *(pinned[name] for name in PINNED)], check=True)
    return PEERS


def count(counter: Path, program: list[str | Path]) -> int:
    """Instructions that an arm64 program executes. Raises RuntimeError where it fails."""
    root = str(emulated.FOLDER / "root")
    command = ["qemu-aarch64", "-cpu", "neoverse-n1", "-L", root, "-plugin", str(counter), *map(str, program)]
    env = {**emulated.environment(), "PYTHONPATH": str(PEERS), "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program[0]} failed under emulation: {done.stderr[-1000:]}")
    return int(done.stderr.rpartition("instructions: ")[2])


def converted(source: Path) -> Path:
    """LiteRT's form of an ONNX file. Raises Unprepared, or CalledProcessError where onnx2tf fails."""
    engine = next(engine for engine in engines.ENGINES if engine.name == "litert")
    tool = engines.prepare(engine).with_name("onnx2tf")
    subprocess.run([tool, "-i", source, "-o", source.parent, "-n"], check=True, capture_output=True)
    return source.parent / f"{source.stem}_float32.tflite"


def measure(name: str, seed: int, folder: Path, counter: Path, example: Path) -> common.Row:
    """All programs on one network: its row."""
    from secateur.deploy import build

    graph, x, data = subject(name, seed)
    library = build(graph, TARGET)
    library.save(folder / "a.so")
    (folder / "a.onnx").write_bytes(data)
    x.tofile(folder / "x.bin")
    np.save(folder / "x.npy", x)
    python = emulated.FOLDER / "root" / "usr" / "bin" / "python3.11"
    programs: dict[str, tuple[list[str | Path], int]] = {
        "ours": ([example, folder / "a.so", folder / "x.bin", "--repeats"], 1),
        # The first image plans their memory.
        "onnxruntime": ([python, RUN, "onnxruntime", folder / "a.onnx", folder / "x.npy"], 2),
        "litert": ([python, RUN, "litert", converted(folder / "a.onnx"), folder / "x.npy"], 2),
    }

    def each(program: list[str | Path], first: int, images: int) -> int:
        """Instructions of an image, those before it left out."""
        return (count(counter, [*program, str(first + images)]) - count(counter, [*program, str(first)])) // images

    one = each(*programs["ours"], 1)
    images = -(-ENOUGH // one)
    todo = {name: program for name, program in programs.items() if name != "ours" or images > 1}
    counts = {"ours": one} | {runtime: each(program, first, images) for runtime, (program, first) in todo.items()}
    ratios = {f"over_{runtime}": counts["ours"] / counts[runtime] for runtime in ("onnxruntime", "litert")}
    return {"network": name, **counts, **ratios, "kernels": dict(library.metadata.kernels), "litert_version": LITERT}


def main() -> int:
    """Count each, print, append the rows."""
    parser = common.parser(__doc__, "instructions.jsonl")
    parser.add_argument("--only", default="*", metavar="GLOB", help="networks such as 'tv/mobile*'")
    arguments = parser.parse_args()
    emulated.require()
    peers()
    here = common.circumstances(arguments.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        counter, example = plugin(folder), folder / "run"
        build = common.ROOT / "examples" / "cpp" / "build.sh"
        subprocess.run(["bash", build, emulated.FOLDER / "python", example, "aarch64-linux-gnu-g++"], check=True)
        for name in NETWORKS:
            if fnmatch.fnmatch(name, arguments.only):
                row = measure(name, arguments.seed, folder, counter, example)
                common.append(arguments.output, [row | {"target": TARGET} | here])
                print(
                    f"{name:24} {row['ours']:15,} instructions, {row['over_onnxruntime']:.3f} of ONNX Runtime's, "
                    f"{row['over_litert']:.3f} of LiteRT's", flush=True,
                )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
