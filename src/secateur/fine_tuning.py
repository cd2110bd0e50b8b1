"""``finetune``: train what ``compile`` gives, following labels, the original's outputs, or both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from secateur.ir import Graph, InputError, Sym
from secateur.ir.progress import Listener, listening

from .compiled import Compiled
from .distributed import launched, together

if TYPE_CHECKING:
    from secateur.passes.train import Hook, Tuned
    from secateur.passes.train.statistics import Batch

ALL = 1 << 30  # examples of a batch: it is trained on as it was given


def finetune(
    slim: Compiled,
    data: Iterable[object],
    *,
    validation: Iterable[object] | None = None,
    epochs: int = 3,
    rate: float = 0.01,
    optimiser: Literal["sgd", "adamw"] = "sgd",
    momentum: float = 0.9,
    decay: float = 5e-4,
    distill: float = 0.5,
    temperature: float = 2.0,
    precision: Literal["f32", "bf16"] = "f32",
    patience: int | None = None,
    checkpoint: str | Path | None = None,
    every: float = 60.0,
    hooks: Sequence[Hook] = (),
    seed: int = 0,
    progress: Listener | None = None,
) -> Tuned:
    """Train ``slim.module()`` in place: ``slim.save`` and ``slim.build`` see the result.

    ``data``, ``validation``: batches ``x``, ``(x, y)`` or by input name as calibration takes them, trained on in the
    size that they have, gone through once an epoch. ``distill`` of the loss follows the original network's outputs (at
    this ``temperature`` where they are scores by class), the rest the labels; without labels all of it. The learning
    rate falls along a cosine. After each epoch batch norms are estimated anew, ``validation`` is judged (by classes
    where there are some, else by the loss), and the best weights are kept; ``patience`` ends training after so many
    epochs without a better one. ``precision`` "bf16" multiplies in bfloat16. ``hooks``: of ``secateur.passes.train``,
    made for ``slim.module()``.

    ``checkpoint``: a file that is written at the end of each epoch and ``every`` so many seconds; the same call goes on
    from it, and gives what it would have given at once, if data that are shuffled draw from torch's generator. A loss
    that is not finite ends training with the weights of the best epoch before, which the result says.

    Under ``torchrun`` the processes share each batch, and end with the same weights as one process, up to rounding
    (dropout aside); ``tuned.first`` says which of them should write. Raises InputError for arguments, data and
    checkpoints that cannot be used, and PassError where another process ended.
    """
    from secateur.ir.exporters.torch.module import to_module
    from secateur.passes.sweep.parallel import world
    from secateur.passes.train import Loop, Objective, Settings

    settings = Settings(
        epochs, rate, momentum, decay, optimiser, Objective(distill, temperature), precision, patience, seed=seed,
        every=every,
    )  # fmt: skip
    graph = slim.graph
    with _team():
        if world()[1] > 1 and any(v.shape and not isinstance(v.shape[0], Sym) for v in graph.inputs):
            raise InputError(
                f"'{graph.name}' is fixed to batches of one size, which {world()[1]} processes cannot share; export it "
                "with a dynamic batch, or train in one process"
            )
        return Loop(
            slim.module(), Batches(graph, data, "fine-tuning"), settings, to_module(slim.dense, copy=False),
            None if validation is None else Batches(graph, validation, "validation"), hooks, checkpoint,
            listening(progress),
        ).run()  # fmt: skip


@contextlib.contextmanager
def _team() -> Iterator[None]:
    """The processes that the launcher started, unless they found each other before."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        yield
        return
    with together(launched()):
        yield


@dataclass(frozen=True)
class Batches:
    """The user's batches as tensors, checked each time they are gone through; ``len`` where the data have one."""

    graph: Graph
    data: Iterable[object]
    source: str

    def __len__(self) -> int:
        """Raises TypeError where nobody knows, and where a network of fixed batch cuts them."""
        if any(v.shape and not isinstance(v.shape[0], Sym) for v in self.graph.inputs):
            raise TypeError("a network of fixed batch cuts batches")
        return len(self.data)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        import torch

        from secateur.ir.frontends.torch.arrays import to_torch
        from secateur.passes.sweep.batches import batches

        for batch in batches(self.graph, self.data, ALL, self.source):
            labels = None if batch.labels is None else torch.from_numpy(batch.labels)
            if labels is not None:
                size = next(iter(batch.inputs.values())).shape[0]
                labels = torch.cat([labels, labels[-1:].expand(size - len(labels))])
            yield tuple(to_torch(x) for x in batch.inputs.values()), labels, batch.examples
