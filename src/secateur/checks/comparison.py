"""One original as the user gave it, run next to one graph: how far apart they are, and from which node on.

The graph's run goes on while the original's does in its process. What differs is looked at again with a little noise on
the weights, so that an unstable network is not called misread, and then node by node.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from secateur.ir import Array, Error, Graph, InputError, LawError, Sym
from secateur.ir.alone import agrees
from secateur.ir.fields import Fields, Json
from secateur.ir.frontends.onnx.original import OnnxOriginal
from secateur.ir.frontends.onnx.process import Refused
from secateur.ir.numeric import NOISE, difference, doubtful, moved, random_inputs, worst_slice
from secateur.ir.precision import tolerance
from secateur.run import Runner

from .sizes import Resizing, Shapes

CHUNK = 1 << 26  # elements of inner values that are looked at in one go


Feed = Mapping[str, Array]


class RandomError(InputError):
    """The original answers differently each time, so nothing can be compared with it."""


class Original(Protocol):
    """What the user gave, as it is; see ``OnnxOriginal`` and ``TorchOriginal``."""

    reference: str

    def run(self, feed: Feed, more: float = 0.0) -> list[Array]:
        """The outputs in order. Raises Refused where it does not take these inputs."""

    def inside(self, feed: Feed, names: Sequence[str]) -> dict[str, Array]:
        """Those of these values of the graph that can be seen in the original."""

    def close(self) -> None:
        """Free what it holds."""


@dataclass(frozen=True, eq=False)
class Reading(Fields):
    """The outcome, as the report prints it. ``passed`` is None where nothing could be run, and ``note`` says why.

    ``max_rel_err``: the largest difference over the largest value of the reference; ``runs``: inputs compared.
    ``taken``: the shapes that the original took besides the captured ones, by kind of size, None where it took none; no
    part of the JSON. The same network as a file is asked for these first.
    """

    passed: bool | None
    max_rel_err: float | None
    runs: int
    reference: str
    note: str | None = None
    taken: tuple[Shapes | None, ...] = ()

    def to_dict(self) -> dict[str, Json]:
        """The fields of the report's JSON; the note where there is one."""
        found = {k: v for k, v in super().to_dict().items() if k != "taken"}
        return found if self.note is not None else {k: v for k, v in found.items() if k != "note"}


def unread(note: str, reference: str = OnnxOriginal.reference) -> Reading:
    """The outcome where nothing could be compared."""
    return Reading(None, None, 0, reference, note)


READ = (
    "{name} is misread: {where} the network that was read from it differs {by} from {reference}{at}; nothing was "
    "written. This is a fault in secateur: please report it with the model. To go on all the same say --trust (in "
    "Python trust=True)"
)


WRITTEN = (
    "{name} would be wrong: {where} the network that it was to be written from differs {by} from {reference}{at}; "
    "nothing was written. This is a fault in secateur: please report it with the model"
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """One original and one graph."""

    original: Original
    graph: Graph
    name: str
    message: str
    _run: Runner = dataclasses.field(default_factory=lambda: Runner(keep=2))
    _sizes: Resizing = dataclasses.field(init=False)
    _beside: ThreadPoolExecutor = dataclasses.field(default_factory=lambda: ThreadPoolExecutor(1))

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sizes", Resizing(self.graph))

    def on(self, given: Sequence[Feed], seed: int, known: Sequence[Shapes | None] = ()) -> Reading:
        """Compare on these inputs, on random ones and at other sizes, those that are ``known`` to be taken first."""
        worst, runs, notes, refusal = 0.0, 0, list[str](), ""
        taken: list[Shapes | None] = []
        for choices, other in self._feeds(given, seed, known):
            taken += [None] if other else []
            for feed, at in choices:
                mine = self._begun(feed)
                try:
                    wants = self.original.run(feed, self._sizes.seconds_of(feed))
                except Refused as error:  # a size that the original does not take says nothing
                    refusal = refusal or str(error)
                    continue
                off, note = self._compare(feed, wants, at, mine)
                worst, runs = max(worst, off), runs + 1
                notes += [note] if note else []
                if other:
                    taken[-1] = {name: tuple(map(int, array.shape)) for name, array in feed.items()}
                break
        if not runs:
            return unread(f"not run: {refusal}", self.original.reference)
        return Reading(True, worst, runs, self.original.reference, notes[0] if notes else None, tuple(taken))

    def _feeds(
        self, given: Sequence[Feed], seed: int, known: Sequence[Shapes | None]
    ) -> Iterator[tuple[Iterator[tuple[Feed, str]], bool]]:
        """Inputs and their sizes in words, and whether these are others than the captured ones.

        Of each group the first that the original takes counts.
        """
        for feed in given:
            yield iter([(feed, "")]), False
        captured = (random_inputs(self.graph, seed), "")
        kinds = enumerate(self._sizes.others(), seed + 1)
        firsts = itertools.chain(([first] if first is not None else [] for first in known), itertools.repeat([]))
        others = [
            self._drawn(itertools.chain(first, choices), drawn)
            for (drawn, choices), first in zip(kinds, firsts, strict=False)
        ]
        if self._sizes.is_costly() and others:  # the captured size only where the last of the others is refused
            others[-1] = itertools.chain(others[-1], [captured])
        else:
            yield iter([captured]), False
        yield from ((choices, True) for choices in others)

    def _drawn(self, choices: Iterable[Shapes], seed: int) -> Iterator[tuple[Feed, str]]:
        return ((random_inputs(self.graph, seed, shapes), _said(self.graph, shapes)) for shapes in choices)

    def _begun(self, feed: Feed) -> Future[list[Array]] | None:
        """The graph's run, begun while the original's goes on in its process; opaque nodes wait for its end."""
        if self.original.reference != OnnxOriginal.reference or any(n.op == "opaque" for n in self.graph.nodes):
            return None
        return self._beside.submit(self._run, self.graph, feed)

    def _compare(
        self, feed: Feed, wants: Sequence[Array], at: str, mine: Future[list[Array]] | None
    ) -> tuple[float, str]:
        """How far the graph is off, and a remark. Raises LawError, and InputError for random networks."""
        limit = tolerance(self.graph)
        try:
            haves = self._run(self.graph, feed) if mine is None else mine.result()
        except Error as refusal:
            raise LawError(self._wrong("", f"in that it cannot be run at all ({refusal})", at)) from refusal
        error = max((difference(a, b) for a, b in zip(wants, haves, strict=True)), default=0.0)
        if error <= limit and not doubtful(wants, haves, limit):
            return error, ""
        self._repeats(feed, wants)
        noisy = self._run(*moved(self.graph, feed))
        wrong = any(_wrong(*three, limit) for three in zip(wants, haves, noisy, strict=True))
        if error <= limit and not wrong:
            return error, ""
        remark = self._located(feed, wants, haves, at, wrong)
        swing = max((difference(a, b) for a, b in zip(haves, noisy, strict=True)), default=0.0)
        return error, remark or f"unstable: {NOISE:g} of noise moves its outputs by {swing:.1e}"

    def _repeats(self, feed: Feed, wants: Sequence[Array]) -> None:
        """Raise InputError where the original answers differently when it is run again."""
        again = self.original.run(feed, self._sizes.seconds_of(feed))
        by = max((difference(a, b) for a, b in zip(wants, again, strict=True)), default=0.0)
        if by <= tolerance(self.graph):
            return
        names = [v.name for node in self.graph.nodes for v in node.outputs]
        watched = self.graph.rewrite(outputs=names)
        one, other = (dict(zip(names, self._run(watched, feed), strict=True)) for _ in range(2))
        first = next((n for n in names if difference(one[n], other[n]) > 0), None)
        node = self.graph.producer[first] if first is not None else None
        what = f"; the first random node is {node.attrs.get('target', node.op)} '{node.label}'" if node else ""
        raise RandomError(
            f"{self.name} is random: on the same input it answers differently each time, by {by:.1e} of its largest "
            f"value, so nothing can be compared{what}. Take that out, or say in Python that nothing shall be checked: "
            "verify=False"
        )

    def _located(self, feed: Feed, wants: Sequence[Array], haves: Sequence[Array], at: str, wrong: bool) -> str:
        """Raise LawError with the first node where the two part; a remark where ONNX Runtime parts from itself.

        ``wrong``: are the outputs off by more than noise? Else nothing need be found: the network is unstable.
        """
        limit = tolerance(self.graph)
        seen, decided = set[str](), ""
        known = dict(feed)
        for names in _chunks(self.graph):
            try:
                inside = self.original.inside(feed, names)
            except Refused:
                break
            known |= inside
            shared = [n for n in names if n in inside]
            mine = self._run(self.graph.rewrite(outputs=shared), feed) if shared else []
            noisy: list[Array] | None = None
            for i, (name, have) in enumerate(zip(shared, mine, strict=True)):
                seen.add(name)
                want = inside[name]
                if difference(want, have) <= limit and worst_slice(want, have, limit) is None:
                    continue
                if noisy is None:
                    changed, fed = moved(self.graph, feed)
                    noisy = self._run(changed.rewrite(outputs=shared), fed)
                if _wrong(want, have, noisy[i], limit):
                    if not agrees(self.graph, self.graph.producer[name], known, self._run, limit):
                        raise LawError(self._wrong(_place(self.graph, name), _by(want, have), at))
                    decided = decided or _place(self.graph, name)
        ends = {n for n in self.graph.outputs if n in self.graph.producer}
        if decided and ends <= seen:
            return f"roundings decide what it gives {decided}; each node by itself agrees on the file's own values"
        if not wrong:
            return ""
        if (
            ends & seen
            and self.original.reference == OnnxOriginal.reference
            and len(ends) == len(set(self.graph.outputs))
        ):
            by = max(difference(a, b) for a, b in zip(wants, haves, strict=True))
            return f"ONNX Runtime's own optimisations move the outputs by {by:.1e}; without them the two agree"
        pair = max(zip(wants, haves, strict=True), key=lambda p: difference(*p))
        name = self.graph.outputs[
            [difference(a, b) for a, b in zip(wants, haves, strict=True)].index(difference(*pair))
        ]
        raise LawError(self._wrong(f"in output '{name}'", _by(*pair), at))

    def _wrong(self, where: str, by: str, at: str) -> str:
        place = f"{where}," if where else "there"
        return self.message.format(name=self.name, where=place, by=by, reference=self.original.reference, at=at)


def _wrong(want: Array, have: Array, noisy: Array, limit: float) -> bool:
    """Is the difference more than rounding, or than what noise does to this value?"""
    error, swing = difference(want, have), difference(have, noisy)
    if error > limit:
        return swing < error / 10
    return worst_slice(want, have, limit, noisy) is not None


def _by(want: Array, have: Array) -> str:
    if want.shape != have.shape:
        return f"in its shape ({list(have.shape)} instead of {list(want.shape)})"
    error = difference(want, have)
    return "in what is infinite or no number" if error == float("inf") else f"by {error:.1e} (relative)"


def _place(graph: Graph, name: str) -> str:
    node = graph.producer[name]
    return f"from {node.attrs.get('target', node.op)} '{node.label}' on"


def _chunks(graph: Graph) -> Iterator[list[str]]:
    """The values of the graph in order, in groups that fit into memory."""
    group: list[str] = []
    size = 0
    for node in graph.nodes:
        for value in node.outputs:
            elements = 1
            for d in value.shape:
                elements *= max(1, int(d))
            if group and size + elements > CHUNK:
                yield group
                group, size = [], 0
            group.append(value.name)
            size += elements
    if group:
        yield group


def _said(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> str:
    sizes = {
        d.name: shapes[v.name][i] for v in graph.inputs for i, d in enumerate(v.shape) if isinstance(d, Sym)
    }  # fmt: skip
    return " at " + ", ".join(f"{name}={size}" for name, size in sizes.items())
