"""What damaged and hostile calibration data end in: one clear error, or exactly the numbers that NumPy and Pillow read.

``write(number, folder)`` is a function of its number alone: a valid .npz, .npy or folder of images, in which one to
three things were changed: bytes lost, flipped, moved or doubled; what a header says of shape, kind and size; members of
the archive; labels; values; names of folders. Each is opened and gone through as ``compile`` does, and, where it is
accepted and ``--compiled``, scored and fitted on. Accepted arrays must be what NumPy reads from the same file, and a
folder must give as many finite inputs as it holds images.

    python -m bench.reach.mutate_calibration --count 1000
"""

from __future__ import annotations

import io
import random
import shutil
import signal
import struct
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

import secateur
from bench.lib.common import Row, append, circumstances, parser, table
from secateur.calibration.images import ENDINGS
from secateur.calibration.load import LABELS, opened
from secateur.ir import Array, Graph, parse_graph, reinfer
from secateur.passes.sweep.batches import batches

SLOW = 10  # seconds
EXAMPLES, CLASSES = 9, 5
POLICY = "taylor,uniform{params=60%,round_to=1},slim,refit"
NET = """graph small
  in  %x : f32[N:1, 3, 6, 6]
  %a = conv(%x, @a.weight) dilation=[1,1] pad=[1,1,1,1] stride=[1,1] groups=1 : f32[N:1, 8, 6, 6]
  %r = relu(%a) : f32[N:1, 8, 6, 6]
  %p = reduce_mean(%r) axes=[2,3] keepdims=False : f32[N:1, 8]
  %y = linear(%p, @y.weight) transposed=False : f32[N:1, 5]
  out %y
weights
  @a.weight f32[8, 3, 3, 3]
  @y.weight f32[5, 8]
"""
NAMES = ("x.npy", "y.npy", "labels.npy", "z.npy", "x", "../x.npy", "x.npy\x00", "\u202e.npy", "a/b.npy", "x.NPY")
DESCRS = ("<f4", "<f8", "<f2", ">f4", "<i4", "<i8", "|u1", "|b1", "<c8", "|O", "<U4", "|S3", "<M8[s]", "|V4", "<f16",
          "f", "x", "", "<f4, <f4", "<f3", "<U99999999999", "|V0", "(2,)<f4")  # fmt: skip
SIZES = (0, 1, -1, 2, 6, 7, 1 << 31, 1 << 62, 1 << 70, -(1 << 63), True, 2.0)


@cache
def network() -> Graph:
    """A small classifier of five classes."""
    graph = parse_graph(NET)
    rng = np.random.default_rng(0)
    drawn = {n: rng.standard_normal(w.shape).astype(np.float32) for n, w in graph.weights.items()}
    return reinfer(graph.rewrite(weights=drawn))


@cache
def data() -> tuple[Array, Array]:
    """Inputs f32[9, 3, 6, 6] and labels."""
    x = np.random.default_rng(1).standard_normal((EXAMPLES, 3, 6, 6)).astype(np.float32)
    return x, np.arange(EXAMPLES) % CLASSES


def write(number: int, folder: Path) -> Path:
    """Write mutant ``number`` into the folder: the path to calibrate on."""
    rng = random.Random(number)
    kind = rng.choice(("npz", "npz", "npz", "npz", "npz", "npy", "npy", "images"))
    if kind == "images":
        return _images(rng, folder / "images")
    path = folder / f"data.{kind}"
    if kind == "npy":
        content = _npy(rng, _values(rng, data()[0]))
    else:
        content = _archive(rng)
    for _ in range(rng.choice((0, 1, 1, 2))):
        content = _spoiled(rng, content)
    path.write_bytes(content)
    return path


def _values(rng: random.Random, x: Array) -> Array:
    """The array, at times with other numbers, another kind or another shape."""
    x = x.copy()
    change = rng.randrange(12)
    if change == 0:
        x.flat[rng.randrange(x.size)] = rng.choice((np.nan, np.inf, -np.inf, 3e38)) if x.dtype.kind == "f" else -1
    elif change == 1:
        x = x.astype(rng.choice(("f2", "f8", ">f4", "i4", "u1", "b1", "c8", "U3", "i8")))
    elif change == 2:
        x = rng.choice(
            (x[: rng.randrange(len(x))], x[0], x[None], x.reshape(-1), x.T, x[..., :1], np.asfortranarray(x))
        )
    elif change == 3:
        x = np.concatenate([x, x[: rng.randrange(len(x))]])
    return x


def _npy(rng: random.Random, x: Array) -> bytes:
    """An .npy file, at times with a header that says something else."""
    out = io.BytesIO()
    header: dict[str, Any] = {"descr": x.dtype.str, "fortran_order": False, "shape": x.shape}
    while rng.random() < 0.15:
        key = rng.choice(("descr", "fortran_order", "shape", "more", "lost"))
        if key == "descr":
            header[key] = rng.choice((*DESCRS, [("a", "<f4")], 3, None))
        elif key == "shape":
            shape = list(x.shape)
            if shape:
                shape[rng.randrange(len(shape))] = rng.choice(SIZES)
            header[key] = rng.choice((tuple(shape), tuple(shape), shape, 7, (1,) * 70, ()))
        elif key == "fortran_order":
            header[key] = rng.choice((True, 1, None))
        elif key == "more":
            header["x"] = "y"
        else:
            header.pop(rng.choice(list(header) or ["x"]), None)
    said = repr(header).encode() + b"\n"
    out.write(b"\x93NUMPY" + bytes(rng.choice(((1, 0),) * 9 + ((2, 0), (3, 0), (9, 1)))))
    length = len(said) if rng.random() < 0.95 else rng.choice((0, 1, 65535, len(said) // 2))
    out.write(struct.pack("<H", length) + said + np.ascontiguousarray(x).tobytes())
    return out.getvalue()


def _archive(rng: random.Random) -> bytes:
    """An .npz file with inputs and, at times, labels; members may be lost, doubled, renamed or be something else."""
    x, y = data()
    members = [("x.npy", _npy(rng, _values(rng, x)))]
    if rng.random() < 0.6:
        labels = _values(rng, y)
        if rng.random() < 0.15:
            labels = labels + rng.choice((-1, 1, 99)) if labels.dtype.kind == "i" else labels
        members.append((rng.choice(("y.npy", "labels.npy", "targets.npy")), _npy(rng, labels)))
    while rng.random() < 0.15:
        at = rng.randrange(len(members))
        name, content = members[at]
        members[at : at + rng.choice((0, 1))] = rng.choice(
            ([(rng.choice(NAMES), content)], [], [(name, content)] * 2, [(name, b"")], [("readme.txt", b"hello")],
             [(name, b"\x80\x04cos\nsystem\n(S'true'\ntR.")], [(name, _npy(rng, np.zeros(1 << 18, np.float32)))])
        )  # fmt: skip
        members = members or [("x.npy", content)]
    out = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    content = out.getvalue()
    if rng.random() < 0.15:  # the table of contents, where sizes, flags and methods stand
        start = content.find(b"PK\x01\x02")
        at = rng.randrange(start, len(content))
        content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
    return content


def _images(rng: random.Random, folder: Path) -> Path:
    """Pictures of several formats and modes, in folders that may be classes."""
    shutil.rmtree(folder, ignore_errors=True)
    labelled = rng.random() < 0.5
    for i in range(CLASSES):
        name = rng.choice(("png", "png", "jpg", "bmp", "webp", "ppm"))
        place = folder / (str(i % CLASSES) if labelled else "") / f"{i}.{name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (rng.randrange(1, 20), rng.randrange(1, 20), 3), np.uint8)
        Image.fromarray(pixels).save(place, {"jpg": "jpeg"}.get(name, name))
    if labelled and rng.random() < 0.2:
        lines = ["0", "1", "2", "3", "4", *rng.choice(([], ["4"], ["5"], [""]))]
        (folder / "classes.txt").write_bytes(rng.choice(("\n".join(lines).encode(), b"", b"\xff\xfe", b"a\x00b")))
    for _ in range(rng.choice((0, 1, 1, 2))):
        _change_image(rng, folder, rng.choice([p for p in sorted(folder.rglob("*")) if p.is_file()]))
    return folder


def _change_image(rng: random.Random, folder: Path, path: Path) -> None:
    content = path.read_bytes()
    change = rng.randrange(8)
    if change == 0 and content.startswith(b"\x89PNG"):  # another size, with a checksum that fits
        sizes = struct.pack(">II", *(rng.choice((0, 1, 7, 60_000, (1 << 31) - 1)) for _ in "ab"))
        part = b"IHDR" + sizes + content[24:29]
        path.write_bytes(content[:12] + part + struct.pack(">I", zlib.crc32(part)) + content[33:])
    elif change == 1:
        path.rename(path.with_name(rng.choice(("notes.txt", "x.PNG", "a b.jpg", "\u202e.png"))))
    elif change == 2:
        path.unlink()
        path.mkdir()
    elif change == 3:
        (folder / f"more{path.suffix}").write_bytes(content)
    elif change == 4:
        mode = rng.choice(("L", "LA", "RGBA", "P", "1", "I;16", "CMYK", "F", "I"))
        Image.new(mode, (5, 4)).save(path, "tiff")
    elif change == 5:
        frames = [Image.new("RGB", (5, 4), (i, 0, 0)) for i in (0, 99)]
        frames[0].save(path, "png", save_all=True, append_images=frames[1:])
    else:
        path.write_bytes(_spoiled(rng, content))


def _spoiled(rng: random.Random, content: bytes) -> bytes:
    """Bytes lost, flipped, moved or doubled, or the end cut off; most near the start, where headers are."""
    if not content:
        return b"x"
    reach = rng.choice((len(content), min(len(content), 200)))
    at, end = sorted(rng.randrange(reach + 1) for _ in "ab")
    end = min(end, at + rng.choice((1, 4, 40, 4000)))
    return rng.choice(
        (
            content[:at], content[:at] + content[end:], content[:at] + rng.randbytes(end - at) + content[end:],
            content[:end] + content[at:], content[:at] + bytes(end - at) + content[end:], content + content[at:end],
            content[: len(content) - 1 - at % 60],
        )
    )  # fmt: skip


# -- judging --------------------------------------------------------------------------------------------------
class TooSlow(Exception):
    """A mutant took longer than ``SLOW``."""


@contextmanager
def _bounded() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SLOW)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(number: int, folder: Path, compiled: bool = True) -> str:
    """refused, accepted, or what went wrong with this mutant; without ``compiled`` it is only read and parted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write(number, folder)
        try:
            with _bounded():
                return _used(path, compiled)
        except (secateur.InputError, secateur.Unsupported) as error:
            known = len(str(error)) <= 1000 and "fault in secateur" not in str(error) and "unexpected" not in str(error)
            return "refused" if known else "unexpected"
        except TooSlow:
            return "slow"
        except secateur.Error:
            return "unexpected"
        except Exception:
            return "crashed"


def _used(path: Path, compiled: bool) -> str:
    found = opened(path, network(), None, 0.25, 0, True)
    assert found is not None
    rows: list[Array] = []
    labels: list[int] = []
    for part in (found.known.data, found.judge) if found.held_out else (found.known.data,):
        for batch in batches(network(), part):
            rows += list(batch.inputs["x"][: batch.examples])
            labels += [] if batch.labels is None else batch.labels.tolist()
    if not _same(path, np.stack(rows), labels):
        return "wrong"
    if compiled:
        report = secateur.compile(
            network(), "taylor,uniform{params=60%,round_to=1},slim,refit", calibration=path
        ).report
        law, quality = report.verification, report.quality
        if law is None or not law.passed or quality is None or quality.held_out != found.held_out:
            return "wrong"
    return "accepted"


def _same(path: Path, rows: Array, labels: list[int]) -> bool:
    """Is what was read what is there, in whatever order?"""
    if not np.isfinite(rows).all():
        return False
    if path.is_dir():
        return len(rows) == sum(p.suffix.lower() in ENDINGS and p.is_file() for p in path.rglob("*"))
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        x, y = loaded, np.array([])
    else:
        with loaded:
            known = next((name for name in LABELS if name in loaded.files), None)
            x = loaded["x" if "x" in loaded.files else next(name for name in loaded.files if name not in LABELS)]
            y = np.array([]) if known is None else loaded[known]
    wanted = [np.ascontiguousarray(row, np.float32).tobytes() for row in x]
    return Counter(wanted) == Counter(row.tobytes() for row in rows) and Counter(y.ravel().tolist()) == Counter(labels)


def survey(first: int, count: int, compiled: bool = True) -> tuple[Row, dict[str, list[int]]]:
    """The row of the table, and the numbers of the mutants that went wrong."""
    counts: Counter[str] = Counter()
    bad: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            found = outcome(number, Path(folder), compiled)
            counts[found] += 1
            if found not in ("refused", "accepted"):
                bad.setdefault(found, []).append(number)
    names = ("crashed", "unexpected", "slow", "wrong", "refused", "accepted")
    return {"kind": "calibration", "count": count, **{name: counts[name] for name in names}}, bad


def main() -> None:
    """Run all and append the row."""
    options = parser(__doc__, "mutations.jsonl")
    options.add_argument("--count", type=int, default=1000, help="how many mutants")
    given = options.parse_args()
    start = time.perf_counter()
    row, bad = survey(given.seed, given.count)
    for found, numbers in bad.items():
        print(found, *numbers[:40])
    row = {**row, "seconds": round(time.perf_counter() - start, 1), **circumstances(given.seed)}
    append(given.output, [row])
    head = list(row)[:8]
    print(table(head, [[row[name] for name in head]]))


if __name__ == "__main__":
    main()
