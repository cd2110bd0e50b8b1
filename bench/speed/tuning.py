"""What tuning costs, and what more of it would bring.

    python -m bench.speed.tuning                                          ResNet-50, then SE-ResNet-50; MobileNetV2
    python -m bench.speed.tuning tv/mobilenet_v2=120 --times 3        one network, at most 120 s; three tunings, not ten

Everything goes through the commands that a user has, each in a process of its own, so seconds are those that pass
between typing and the prompt. NETWORK=SECONDS is tuned from an empty file of records within so many seconds, and built
from the full file. The same network is then tuned again from empty files, ten times in all, and each kernel gets the
choice with the best median over the ten: ten times the measuring. Both libraries, and the one that is built without a
file, run by turns as in latency.py. A NETWORK after a plus starts from the records of the one before it: it should
measure only what it does not share.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.lib import common
from bench.lib.turns import Worker, summary, take_turns

NETWORKS = ("ref/resnet50=90", "+ref/se_resnet50=90", "tv/mobilenet_v2=120")
MATERIAL = common.MATERIAL / "tuning"


def command(*arguments: str | Path) -> common.Finished:
    """Run one of secateur's commands. Raises SystemExit where it fails."""
    done = common.run(common.secateur(*arguments))
    if done.code != 0:
        raise SystemExit(f"secateur {' '.join(map(str, arguments))} ended with {done.code}:\n{done.stderr[-2000:]}")
    return done


def tune(model: Path, records: Path, seconds: float, threads: int) -> float:
    """Tune and return the wall seconds of the command."""
    return command("tune", model, "--records", records, "--time", f"{seconds:g}s", "--threads", str(threads)).seconds


def build(model: Path, folder: Path, records: Path | None, threads: int) -> float:
    """Build a library into a folder from which a worker loads it, next to an input; the wall seconds of the command."""
    folder.mkdir(exist_ok=True)
    (folder / "input.npy").write_bytes((model.parent / "input.npy").read_bytes())
    from_records: list[str | Path] = [] if records is None else ["--records", records]
    out = folder / f"secateur-{threads}.so"
    return command("build", model, out, "--threads", str(threads), *from_records).seconds


def lines(records: Path) -> list[dict[str, Any]]:
    """The records of a file."""
    return [json.loads(line) for line in records.read_text().splitlines()] if records.exists() else []


def merge(files: Iterable[Path], merged: Path) -> None:
    """Write the records of several tunings as one: each choice judged by the median of its medians."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        for line in lines(file):
            found.setdefault(json.dumps([line["target"], line.get("kind"), line["workload"]]), []).append(line)
    with merged.open("w") as out:
        for of in found.values():
            timings: dict[str, list[float]] = {}
            for line in of:
                for choice, seconds in line["timings"]:
                    timings.setdefault(json.dumps(choice), []).append(seconds)
            judged = {choice: statistics.median(seconds) for choice, seconds in timings.items()}
            best = min(judged, key=lambda choice: judged[choice])
            pairs = [[json.loads(choice), seconds] for choice, seconds in judged.items()]
            line = {**of[-1], "choice": json.loads(best), "seconds": judged[best], "timings": pairs}
            out.write(json.dumps(line) + "\n")


def compare(folders: dict[str, Path], threads: int, rounds: int, seed: int) -> dict[str, Any]:
    """The libraries in the folders by turns: milliseconds, and each one's time over the first one's."""
    workers = {name: Worker("secateur", folder, threads) for name, folder in folders.items()}
    try:
        for worker in workers.values():
            worker.ready()
        samples = take_turns(workers, rounds, seed)
    finally:
        for worker in workers.values():
            worker.stop()
    return summary(samples, next(iter(folders)))


def first_tuning(name: str, limit: float, options: Any) -> dict[str, Any]:
    """From an empty file once and ``--times`` times; the libraries next to each other."""
    folder = MATERIAL / name.replace("/", "-")
    model = prepared(name, folder, options.seed)
    files = [folder / f"records-{i}.jsonl" for i in range(options.times)]
    for file in files:
        file.unlink(missing_ok=True)
    seconds = [tune(model, file, limit, options.threads) for file in files]
    merge(files, folder / "records-all.jsonl")
    chosen = {"once": files[0], "tenfold": folder / "records-all.jsonl", "no file": None}
    built = {what: build(model, folder / what, records, options.threads) for what, records in chosen.items()}
    return {
        "kernels": len(lines(files[0])), "tune_s": seconds[0], "all_tune_s": seconds, "build_s": built["once"],
        **compare({what: folder / what for what in chosen}, options.threads, options.rounds, options.seed),
    }  # fmt: skip


def second_tuning(name: str, after: str, limit: float, options: Any) -> dict[str, Any]:
    """From the records of another network, and from an empty file: kernels measured and seconds of both."""
    folder = MATERIAL / name.replace("/", "-")
    model = prepared(name, folder, options.seed)
    shared, alone = folder / "records-shared.jsonl", folder / "records-alone.jsonl"
    alone.unlink(missing_ok=True)
    shared.write_bytes((MATERIAL / after.replace("/", "-") / "records-0.jsonl").read_bytes())
    before = len(lines(shared))
    seconds = tune(model, shared, limit, options.threads)
    alone_s = tune(model, alone, limit, options.threads)
    return {
        "after": after, "kernels": len(lines(alone)), "measured": len(lines(shared)) - before, "tune_s": seconds,
        "alone_tune_s": alone_s,
    }  # fmt: skip


def prepared(name: str, folder: Path, seed: int) -> Path:
    """The network's ONNX file."""
    done = common.run([sys.executable, "-m", "bench.lib.prepare", name, str(folder), "--threads", "--seed", str(seed)])
    if done.code != 0:
        raise SystemExit(f"prepare.py {name} ended with {done.code}:\n{done.stderr[-2000:]}")
    return folder / "model.onnx"


def show(row: dict[str, Any]) -> None:
    """A row for people."""
    if "after" in row:
        print(
            f"{row['network']} after {row['after']}: {row['measured']} of {row['kernels']} kernels in "
            f"{row['tune_s']:.1f} s; alone {row['alone_tune_s']:.1f} s", flush=True,
        )  # fmt: skip
        return
    print(
        f"{row['network']}: {row['kernels']} kernels in {row['tune_s']:.1f} s, built in {row['build_s']:.1f} s; "
        f"{row['ms']['once']['median']:.2f} ms, {row['ratio']['tenfold']:.3f} of that with {row['times']} times the "
        f"measuring, {row['ratio']['no file']:.3f} without a file", flush=True,
    )  # fmt: skip


def main() -> int:
    """Measure the networks given, print, append JSON lines."""
    parser = common.parser(__doc__, "tuning.jsonl")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="[+]NETWORK=SECONDS")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--times", type=int, default=10, help="tunings from empty files, all of which are merged")
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    around = common.circumstances(options.seed)
    after = ""
    for text in options.networks:
        found = re.fullmatch(r"(\+?)([^=]+)=(\d+)", text)
        if found is None or (found[1] and not after):
            parser.error(f"'{text}': write NETWORK=SECONDS, with a plus before it if it shares the records before it")
        name, limit = found[2], float(found[3])
        MATERIAL.mkdir(parents=True, exist_ok=True)
        if found[1]:
            row = second_tuning(name, after, limit, options)
        else:
            row, after = first_tuning(name, limit, options), name
        row = {**around, "network": name, "threads": options.threads, "limit_s": limit, "times": options.times, **row}
        common.append(options.output, [row])
        show(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
