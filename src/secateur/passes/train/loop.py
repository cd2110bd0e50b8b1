"""A fine-tuning loop: hooks, distillation, early stop, checkpoints, and several processes that compute what one
does.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from secateur.ir import InputError
from secateur.ir.progress import Progress, quiet
from secateur.passes.sweep.objective import mean_square, right
from secateur.passes.sweep.parallel import world

from .checkpoint import resumed, save_checkpoint
from .hook import Hook, State, attach
from .parallel import Copies, joint_mean_square, joint_norms, rows, sum_gradients, summed
from .settings import Epoch, Settings, Tuned
from .statistics import Batch, reestimate

Weights = dict[str, Tensor]


class Loop:
    """Train ``module`` on ``data``, batches that can be gone through more than once.

    ``teacher`` gives the outputs to follow for a batch's inputs. Data that are drawn anew in each pass must draw from
    torch's generator: then training that was killed repeats them.
    """

    def __init__(
        self,
        module: nn.Module,
        data: Iterable[Batch],
        settings: Settings,
        teacher: Callable[..., Sequence[Tensor]] | None = None,
        validation: Iterable[Batch] | None = None,
        hooks: Sequence[Hook] = (),
        checkpoint: str | Path | None = None,
        progress: Progress = quiet,
    ) -> None:
        self.module, self.data, self.settings, self.validation = module, data, settings, validation
        self.teacher = teacher if settings.objective.distill > 0 or teacher is None else None
        self.hooks, self.checkpoint, self.progress = tuple(hooks), checkpoint, progress
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise InputError("fine-tuning: the module has no parameter that takes gradients")
        self.optimiser = _optimiser(self.parameters, settings)
        self.copies = Copies()
        self.history: list[Epoch] = []
        self.epoch = self.done = 0  # epochs done, and batches of the one that runs
        self.sums = [0.0, 0.0]  # loss and examples of the epoch that runs
        self.kept, self.best, self.score = _weights(module), 0, -math.inf
        self.epoch_random = self.random = torch.get_rng_state()
        self.stopped, self.saved = "", time.monotonic()
        try:
            self.batches: int | None = len(data)  # type: ignore[arg-type]
        except TypeError:
            self.batches = None

    def run(self) -> Tuned:
        """Train, or go on with what the checkpoint holds. The module is in eval mode afterwards, with the best weights.

        Where the loss is not finite training ends, with the weights of the best epoch before. Raises InputError where
        there was none, for data that cannot be used, and for a checkpoint that is damaged or of another run.
        """
        with (
            torch.random.fork_rng(devices=[]),
            joint_norms(self.module) as self.copies,
            attach(self.optimiser, *self.hooks),
        ):
            torch.manual_seed(self.settings.seed)
            self.epoch_random = self.random = torch.get_rng_state()
            self._resume()
            try:
                while not self.stopped and self.epoch < self.settings.epochs:
                    self._pass()
            except NotFinite as error:
                if not self.history:
                    _load(self.module, self.kept)
                    self.module.eval()
                    raise InputError(
                        f"fine-tuning: {error} before an epoch was through; the weights are what they were. Lower the "
                        "rate, or check the data and how they are scaled"
                    ) from None
                self.stopped = f"stopped: {error} in epoch {self.epoch + 1}; the weights of epoch {self.best} are kept"
            self.stopped = self.stopped or f"all {self.settings.epochs} epochs are through"
            _load(self.module, self.kept)
            self.module.eval()
            self._save(force=True)
        return Tuned(tuple(self.history), self.best, self.stopped, world()[0] == 0)

    def _pass(self) -> None:
        """What is left of one epoch, and its end."""
        self.module.train()
        if self.done == 0:
            self.epoch_random = torch.get_rng_state()
        else:
            torch.set_rng_state(self.epoch_random)  # the same order of the data as before
        done, number, what = self.done, 0, f"fine-tune, epoch {self.epoch + 1} of {self.settings.epochs}"
        for number, (inputs, labels, examples) in enumerate(self.data, 1):
            if number <= done:
                continue
            if number == done + 1 and done:
                torch.set_rng_state(self.random)
            self._set_rate(number)
            self._step(inputs, labels, examples)
            self.done = number
            self.progress(number, self.batches, what)
            self._save()
        if number == 0:
            raise InputError(
                "fine-tuning: the data hold no batch"
                + (" the second time: give a list or a loader, which can be gone through again" if self.epoch else "")
            )
        self.batches = number
        self._end()

    def _step(self, inputs: tuple[Tensor, ...], labels: Tensor | None, examples: int) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        total, count = self._loss(inputs, labels, examples)
        total.div(count).backward()  # type: ignore[no-untyped-call]
        loss = summed([float(total.detach())])[0]
        if not math.isfinite(loss):
            raise NotFinite(f"the loss became {loss:g} at batch {self.done + 1}")
        sum_gradients(self.parameters)
        self.optimiser.step()
        self.sums = [self.sums[0] + loss, self.sums[1] + count]

    def _loss(self, inputs: tuple[Tensor, ...], labels: Tensor | None, examples: int) -> tuple[Tensor, int]:
        """(the sum of the losses of this process's examples, how many examples all processes have)."""
        part, count = rows(examples)
        self.copies.number = count // examples
        if world()[1] > 1:
            inputs, labels = tuple(x[part] for x in inputs), None if labels is None else labels[part]
        with self._cast():
            outputs = _outputs(self.module(*inputs))
            wanted = None
            if self.teacher is not None:
                with torch.no_grad():
                    wanted = _outputs(self.teacher(*inputs))
        square = joint_mean_square if world()[1] > 1 else mean_square
        found = self.settings.objective.losses(outputs, labels, wanted, square)
        return found[:examples].sum(), count

    def _cast(self) -> contextlib.AbstractContextManager[object]:
        low = self.settings.precision == "bf16"
        return torch.autocast("cpu", torch.bfloat16) if low else contextlib.nullcontext()

    def _set_rate(self, number: int) -> None:
        at = self.epoch + ((number - 1) / self.batches if self.batches else 0.0)
        rate = self.settings.rate * (1 + math.cos(math.pi * min(at / self.settings.epochs, 1.0))) / 2
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _end(self) -> None:
        """Estimate, validate, keep what is best, and stop where nothing gets better."""
        self.epoch, self.done = self.epoch + 1, 0
        if self.settings.statistics:
            reestimate(self.module, itertools.islice(self.data, self.settings.statistics), self._cast, self.copies)
        loss = self.sums[0] / self.sums[1]
        found, top1 = (None, None) if self.validation is None else self.validate(self.validation)
        if not math.isfinite(loss if found is None else found):
            raise NotFinite("the validation loss is not finite")
        self.history.append(Epoch(self.epoch, loss, found, top1))
        score = (
            math.inf if found is None else top1 if top1 is not None else -found
        )  # without validation the last is kept
        if found is None or score > self.score:
            self.kept, self.best, self.score = _weights(self.module), self.epoch, score
        elif self.settings.patience is not None and self.epoch - self.best >= self.settings.patience:
            self.stopped = f"stopped after epoch {self.epoch}: nothing better since epoch {self.best}, which is kept"
        self.sums = [0.0, 0.0]
        self._save(force=True)

    @torch.no_grad()
    def validate(self, data: Iterable[Batch]) -> tuple[float, float | None]:
        """(mean loss, share of right classes or None) over the data, each process taking its batches."""
        self.module.eval()
        rank, size = world()
        sums = [0.0, 0.0, 0.0, 0.0]
        for inputs, labels, examples in itertools.islice(data, rank, None, size):
            outputs = _outputs(self.module(*inputs))
            wanted = None if self.teacher is None else _outputs(self.teacher(*inputs))
            losses = self.settings.objective.losses(outputs, labels, wanted)[:examples]
            hits = right(outputs, labels, wanted)
            known = [0.0, 0.0] if hits is None else [float(hits[:examples].sum()), float(examples)]
            sums = [a + b for a, b in zip(sums, [float(losses.sum()), float(examples), *known], strict=True)]
        loss, count, hit, judged = summed(sums)
        if not count:
            raise InputError("fine-tuning: the validation data hold no example")
        return loss / count, hit / judged if judged else None

    def _save(self, force: bool = False) -> None:
        """Write the checkpoint: at the end of each epoch, and every so many seconds; the first process alone."""
        late = time.monotonic() - self.saved >= self.settings.every
        if self.checkpoint is None or world()[0] or not (force or late):
            return
        save_checkpoint(self.checkpoint, self.state_dict())
        self.saved = time.monotonic()

    def _resume(self) -> None:
        """Go on from the checkpoint if there is one; the first process reads it for all."""
        if self.checkpoint is None:
            return
        state = resumed(self.checkpoint)
        if state is not None:
            self.load_state_dict(state)

    @property
    def fingerprint(self) -> str:
        """What must be the same to go on: settings, and the names and shapes of what is trained."""
        shapes = {name: list(x.shape) for name, x in self.module.state_dict().items()}
        return f"{self.settings} {shapes} {[type(hook).__name__ for hook in self.hooks]}"

    def state_dict(self) -> State:
        """Everything that is needed to go on as if nothing had been."""
        return {
            "fingerprint": self.fingerprint, "epoch": self.epoch, "done": self.done, "sums": self.sums,
            "module": self.module.state_dict(), "optimiser": self.optimiser.state_dict(),
            "hooks": [hook.state_dict() for hook in self.hooks], "kept": self.kept, "best": self.best,
            "score": self.score, "epoch_random": self.epoch_random, "random": torch.get_rng_state(),
            "history": [[e.number, e.loss, e.validation, e.top1] for e in self.history], "stopped": self.stopped,
            "batches": self.batches,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on from there. Raises InputError for the state of another run."""
        if state.get("fingerprint") != self.fingerprint:
            raise InputError(
                f"checkpoint '{self.checkpoint}' is of another run: other settings, hooks or another network; name "
                "another file, or delete it to begin anew"
            )
        _load(self.module, cast(Weights, state["module"]))
        self.optimiser.load_state_dict(cast("dict[str, object]", state["optimiser"]))
        for hook, known in zip(self.hooks, cast("list[State]", state["hooks"]), strict=True):
            hook.load_state_dict(known)
        self.epoch, self.done, self.best = (cast(int, state[name]) for name in ("epoch", "done", "best"))
        self.sums, self.score = cast("list[float]", state["sums"]), cast(float, state["score"])
        self.kept, self.stopped = cast(Weights, state["kept"]), cast(str, state["stopped"])
        self.epoch_random, self.random = cast(Tensor, state["epoch_random"]), cast(Tensor, state["random"])
        self.batches = cast("int | None", state["batches"])
        history = cast("list[tuple[int, float, float | None, float | None]]", state["history"])
        self.history = [Epoch(*row) for row in history]
        torch.set_rng_state(self.random)


class NotFinite(ArithmeticError):
    """A loss that is NaN or infinite."""


def _optimiser(parameters: list[nn.Parameter], settings: Settings) -> Optimizer:
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(parameters, settings.rate, weight_decay=settings.decay)
    return torch.optim.SGD(
        parameters, settings.rate, settings.momentum, weight_decay=settings.decay, nesterov=settings.momentum > 0
    )


def _weights(module: nn.Module) -> Weights:
    return {name: x.detach().clone() for name, x in module.state_dict().items()}


def _load(module: nn.Module, weights: Weights) -> None:
    module.load_state_dict({name: x.clone() for name, x in weights.items()})


def _outputs(found: object) -> list[Tensor]:
    """The tensors that a module returned, in order."""
    if isinstance(found, Tensor):
        return [found]
    parts = found.values() if isinstance(found, Mapping) else found if isinstance(found, list | tuple) else ()
    return [x for part in parts for x in _outputs(part)]
