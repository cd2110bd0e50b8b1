"""Where a network's time goes: every step of its library, timed in its place while the whole network runs.

python -m bench.speed.kernel_times ref/shufflenet_v1_g3            the steps that take longest
python -m bench.speed.kernel_times tv/resnet18 --top 30 --threads 2
"""

from __future__ import annotations

from typing import Any

from bench.lib import common
from bench.nets.networks import capture
from secateur.codegen.tune.profile import profile


def row_of(name: str, options: Any) -> common.Row:
    """Microseconds of every step, in order."""
    steps = profile(capture(name, options.seed).graph, threads=options.threads, rounds=options.rounds)
    return {
        "network": name, "threads": options.threads, "total_us": sum(s.microseconds for s in steps),
        "steps": [[s.label, type(s.kernels[-1][0]).__name__, len(s.kernels), round(s.microseconds, 2)] for s in steps],
    }  # fmt: skip


def main() -> None:
    """Profile the networks given, print their longest steps, append JSON lines."""
    parser = common.parser(__doc__, "kernel_times.jsonl")
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--top", type=int, default=15, help="steps to print")
    options = parser.parse_args()
    around = common.circumstances(options.seed)
    for name in options.networks:
        row = row_of(name, options)
        common.append(options.output, [{**around, **row}])
        longest = sorted(row["steps"], key=lambda s: -s[3])[: options.top]
        print(f"{name}: {len(row['steps'])} steps, {row['total_us']:.0f} us")
        print(common.table(["step", "kind", "calls", "us"], longest), flush=True)


if __name__ == "__main__":
    main()
