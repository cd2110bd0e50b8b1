"""What a run of passes leaves behind, and the report that is made of it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from secateur import __version__
from secateur.ir import Graph
from secateur.ir.progress import Progress
from secateur.passes.allocate import Allocation
from secateur.passes.analysis.cost import cost
from secateur.passes.context import context_of
from secateur.passes.law import Verification
from secateur.passes.notes import Coupling, KeepMask
from secateur.passes.pipeline import Pass, Ran, print_pass
from secateur.passes.rewrite.layers import Rewritten
from secateur.passes.sweep.needs import Statistics

from .parts import Budget, Deviation, Latency, PassRun, Quality, Totals, Trial
from .report import Report, versions
from .rows import group_rows, keep_of, layer_rows

if TYPE_CHECKING:
    from secateur.checks.comparison import Reading


NAMED = 4  # nodes of a kind
WHOLE = MappingProxyType(
    {"expand": "zeros stand in for channels that are gone before", "pick": "channels are picked from a full operand at"}
)


class Collector:
    """Watches a pipeline: what ran, how long, and the last graph that still had its analyses."""

    def __init__(self, tell: Progress) -> None:
        self.ran: list[PassRun] = []
        self.coupled: Graph | None = None
        self.tell = tell

    def start(self, step: Pass) -> None:
        """Tell what runs from now on."""
        self.tell(0, None, step.name)

    def see(self, ran: Ran) -> None:
        self.ran.append(PassRun(print_pass(ran.step), round(ran.seconds, 4)))
        if ran.after.note(Coupling) is not None:
            self.coupled = ran.after
        elif ran.before.note(Coupling) is not None:
            self.coupled = ran.before


def remarks_of(idle: bool, collector: Collector) -> tuple[str, ...]:
    """What the sweep says of itself, or that the data were not needed (``idle``: they gave no quality either)."""
    found = collector.coupled.note(Statistics) if collector.coupled is not None else None
    whole = whole_readers(collector.coupled)
    if found is None:
        return (
            ("calibration was given and not needed: the criterion reads the weights alone", *whole) if idle else whole
        )
    loss = f"; loss: {found.loss}" if found.loss else ""
    return (f"calibrated on {found.examples} examples{loss}", *whole)


def whole_readers(coupled: Graph | None) -> tuple[str, ...]:
    """The nodes that read all channels, where some are gone: zeros go in before them, or channels are picked."""
    coupling, mask = (coupled.note(Coupling), coupled.note(KeepMask)) if coupled is not None else (None, None)
    if coupled is None or coupling is None or mask is None:
        return ()
    remarks = []
    for mode, what in WHOLE.items():
        cut = (m for m in coupling.mixing if m.mode == mode and not coupling.live(m.units, mask.mask).all())
        nodes = [coupled.producer[name] for name in dict.fromkeys(m.node for m in cut)]
        named = [f"{n.attrs.get('target', n.op)} '{n.label}'" for n in nodes[:NAMED]]
        more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
        remarks += [f"{what} {', '.join(named)}{more}"] if nodes else []
    return tuple(remarks)


def capture_remarks(graph: Graph) -> tuple[str, ...]:
    """What a frontend could not keep of the original, in words."""
    return tuple(remark for note in graph.notes.values() for remark in getattr(note, "capture_remarks", ()))


def make_report(
    title: str,
    dense: Graph,
    slim: Graph | None,
    collector: Collector,
    policy: str,
    seed: int,
    verification: Verification | None,
    remarks: tuple[str, ...],
    quality: Quality | None = None,
    deviation: Deviation | None = None,
    latency: Latency | None = None,
    reading: Reading | None = None,
) -> Report:
    """Put together what the passes found and did."""
    coupling = collector.coupled.note(Coupling) if collector.coupled is not None else None
    keep = keep_of(collector.coupled) if collector.coupled is not None else None
    done = slim.note(Allocation) if slim is not None else None
    changed = (slim.note(Rewritten) if slim is not None else None) or Rewritten()
    budget = None
    if done is not None and done.amount is not None:
        tried = tuple(Trial(t.share, t.ms, t.original_ms, t.taken, t.off, t.widths) for t in done.tried)
        budget = Budget(done.amount.kind, done.amount.value, done.achieved, done.gap, tried)
    before = context_of(dense).baseline or cost(dense)
    after = cost(slim) if slim is not None else None
    return Report(
        model=title,
        policy=policy,
        seed=seed,
        versions=versions(),
        before=Totals(**before.totals()),
        after=Totals(**after.totals()) if after is not None else None,
        budget=budget,
        verification=verification,
        groups=tuple(group_rows(coupling, keep)) if coupling else (),
        layers=tuple(layer_rows(before, collector.coupled, after, changed)),
        passes=tuple(collector.ran),
        rewrites=changed.rows,
        remarks=(*capture_remarks(dense), *remarks),
        quality=quality,
        deviation=deviation,
        latency_ms=latency,
        reading=reading,
        secateur=__version__,
    )
