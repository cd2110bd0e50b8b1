"""What ``accuracy.pretrained`` found, as a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.lib import common

ROWS = common.RESULTS / "pretrained.jsonl"
PHOTOS = 20
DENSE = "none"  # the policy that prunes nothing
FEW = "scikit-image"  # whose photos rows without a name of photos are of


def pretrained(where: Callable[..., str], path: Path = ROWS) -> str:
    """Each network next to itself as it came, policy by policy."""
    found = {key(r): r for r in common.read(path)}
    if not found:
        return ""
    lines = [
        "**Networks that come without data**, mended without labels: MobileNetV2 (ImageNet) and open_nsfw on twenty",
        "photos, calibrated on crops of others, of scikit-image's ten or of GCompris's 259; PP-OCR's recogniser on 200",
        "rendered lines, calibrated on others.",
        "Twenty photos are twenty photos, and no accuracy on ImageNet.",
        "",
        "| network | MACs left | policy | examples | on what it never saw | CPU s |",
        "|---|--:|---|--:|---|--:|",
    ]
    for r in sorted(found.values(), key=lambda r: (r["network"], -r["left"])):
        policy = "as it came" if r["policy"] == DENSE else f"`{r['policy']}`"
        lines.append(
            f"| {r['network']} | {r['macs_left']:.0%} | {policy} | {_examples(r)} | {_said(r)} | {r['cpu_s']:.0f} |"
        )
    return "\n".join([*lines, "", f"`python -m bench.accuracy.pretrained`; {where(*found.values())}."])


def key(r: common.Row) -> tuple[object, ...]:
    """What a row answers: a network, the share that is left, a policy, and the photos that it was mended by."""
    return r["network"], r["left"], r["policy"], "" if r["policy"] == DENSE else r.get("photos", FEW)


def _examples(r: common.Row) -> str:
    """How many there were, and what of."""
    if r["policy"] == DENSE:
        return "–"
    return f"{r['examples']} lines" if "character_error" in r else f"{r['examples']}, {r.get('photos', FEW)}"


def _said(r: common.Row) -> str:
    parts = []
    if "right" in r:
        parts.append(f"{round(PHOTOS * r['right'])} right, {round(PHOTOS * r['agreement'])} answers kept")
    if "logit_error" in r:
        parts.append(f"logits {100 * r['logit_error']:.1f} % off")
    if "character_error" in r:
        parts.append(f"{100 * r['character_error']:.2f} % of characters wrong")
    return ", ".join(parts)
