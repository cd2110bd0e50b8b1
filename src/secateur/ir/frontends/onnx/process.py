"""Running a model that nobody has run before: in ONNX Runtime, in a process of its own.

ONNX Runtime can be crashed by a file. What comes from a user runs here first, so that a crash is a sentence and not the
end of the command. One process serves a whole command: what it costs is one import of onnxruntime.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secateur.ir.errors import InputError, Unsupported
from secateur.ir.graph import Array

from .nursery import WORKER, Child, born, environment
from .worker import Head, receive, send

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto, TypeProto

COMMAND = (sys.executable, "-P", "-m", WORKER)
START = 120.0  # seconds to import onnxruntime in, on a machine that does much else
PATIENCE = 4.0  # processor seconds, of all threads together, to load a model or to run it; more for large ones
DERIVING = "deriving its shapes"
BYTES = 5e6  # that are loaded or computed with in such a second, at the very least


class Refused(Unsupported):
    """ONNX Runtime does not run the model and says why: the message is its own first line."""


class Crashed(InputError):
    """ONNX Runtime ended its process, or did not end, on the model."""


@dataclass(frozen=True)
class Loaded:
    """A model in the process: its number there, its bytes, and the names of what it takes and gives."""

    number: int
    label: str
    size: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class OnnxProcess:
    """Runs models in a process of its own, which starts with the first one and ends with this object.

    Every method raises Crashed where the process dies or does not end in time, and Refused where ONNX Runtime itself
    says no. After a crash the next model gets a new process.
    """

    def __init__(self, command: Sequence[str] = COMMAND, patience: float = PATIENCE) -> None:
        self._command, self._patience = tuple(command), patience
        self._child: subprocess.Popen[bytes] | Child | None = None
        self._ready = False
        self._finalizer: weakref.finalize[[subprocess.Popen[bytes] | Child], OnnxProcess] | None = None

    def __enter__(self) -> OnnxProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to start the process, without waiting for it."""
        if self._child is not None:
            return
        self._child = born() if self._command == COMMAND else None
        self._child = self._child or subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(),
            start_new_session=True,  # Ctrl-C is for the command, which ends this one; else it looks like a crash
        )  # fmt: skip
        self._ready = False
        self._finalizer = weakref.finalize(self, _end, self._child)

    def stop(self) -> None:
        """End the process."""
        if self._finalizer is not None:
            self._finalizer()
        self._child, self._finalizer = None, None

    def open(
        self, source: str | Path | bytes, label: str = "", *, optimise: bool = True, watch: Sequence[str] = ()
    ) -> Loaded:
        """Load a file, next to which its external data lie, or a model's bytes, with the runtime's default options.

        ``label`` is what messages call it; ``optimise`` False leaves the runtime's rewriting out; ``watch`` names
        values that are given out besides the outputs.
        """
        data = [np.frombuffer(source, np.uint8)] if isinstance(source, bytes) else []
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
        path = "" if isinstance(source, bytes) else str(Path(source).absolute())
        label = label or (f"'{path}'" if path else "the model")
        head = {"do": "open", "path": path, "optimise": optimise, "watch": list(watch)}
        answer, _ = self._ask(label, "loading it", head, data, self._patience + size / BYTES)
        names = tuple(name for name, _, _ in answer["inputs"])
        return Loaded(answer["session"], label, size, names, tuple(answer["outputs"]))

    def run(
        self, model: Loaded, feeds: Mapping[str, Array], names: Sequence[str] = (), more: float = 0.0
    ) -> list[Array]:
        """The outputs in order, or those in ``names``; ``more``: processor seconds that are due beyond the usual."""
        return self._run(model, feeds, names, False, more)[1]

    def shapes(self, model: Loaded, feeds: Mapping[str, Array]) -> dict[str, tuple[tuple[int, ...], str]]:
        """The shape and the type (NumPy's name, or "str") of every output that is a tensor."""
        head, _ = self._run(model, feeds, (), True, 0.0)
        return {name: (tuple(shape), kind) for name, shape, kind in head["seen"]}

    def infer(
        self, node: NodeProto, opset: int, imports: Mapping[str, int], types: Mapping[str, TypeProto],
        data: Mapping[str, TensorProto],
    ) -> dict[str, TypeProto]:  # fmt: skip
        """The types that ONNX itself derives for a node's outputs, from those of its inputs and data that is known."""
        from onnx import TypeProto

        messages: list[NodeProto | TypeProto | TensorProto] = [node, *types.values(), *data.values()]
        head = {"do": "infer", "opset": opset, "imports": list(imports.items())}
        head |= {"types": list(types), "data": list(data)}
        blobs = [np.frombuffer(m.SerializeToString(), np.uint8) for m in messages]
        label = f"{node.op_type} '{node.name or next(iter(node.output), '')}'"
        answer, found = self._ask(label, DERIVING, head, blobs, self._patience)
        return {n: TypeProto.FromString(a.tobytes()) for n, a in zip(answer["names"], found, strict=True)}

    def close(self, model: Loaded) -> None:
        """Free the model's memory in the process."""
        if self._child is not None:
            self._ask(model.label, "closing it", {"do": "close", "session": model.number}, (), self._patience)

    def _run(
        self, model: Loaded, feeds: Mapping[str, Array], names: Sequence[str], shapes: bool, more: float
    ) -> tuple[Head, list[Array]]:
        head = {"do": "run", "session": model.number, "feeds": list(feeds), "names": list(names), "shapes": shapes}
        drawn = [np.asarray(array) for array in feeds.values()]
        return self._ask(model.label, "running it", head, drawn, self._patience + model.size / BYTES + more)

    def _ask(
        self, label: str, doing: str, head: Head, arrays: Sequence[Array], seconds: float
    ) -> tuple[Head, list[Array]]:
        self.start()
        child = self._child
        assert child is not None and child.stdin is not None and child.stdout is not None
        hung = threading.Event()

        def kill() -> None:
            hung.set()
            child.kill()

        # The process bounds its own processor time; the timer is for one that waits for ever.
        timer = threading.Timer(START + 10 * seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            if not self._ready:
                head_of_child, _ = receive(child.stdout)
                self._ready = True
                if isinstance(child, Child):
                    child.ready(head_of_child)
            send(child.stdin, {**head, "seconds": seconds}, arrays)
            answer, found = receive(child.stdout)
        except (EOFError, BrokenPipeError) as error:
            started, code = self._ready, child.wait()
            self.stop()
            if not started:
                raise Unsupported(
                    f"{label}: the process that runs it in ONNX Runtime does not start (exit code {code}); check that "
                    f"`{' '.join(self._command[:1])} -c 'import onnxruntime'` works"
                ) from error
            raise Crashed(_crash(label, doing, code, hung.is_set(), seconds)) from error
        except BaseException:  # interrupted between question and answer: the next answer would be the wrong one
            self.stop()
            raise
        finally:
            timer.cancel()
        if "refused" in answer:
            raise Refused(str(answer["refused"]))
        return answer, found


def _crash(label: str, doing: str, code: int, hung: bool, seconds: float) -> str:
    """One sentence on how the process ended."""
    if hung or -code == signal.SIGXCPU:
        how = f"does not end: after {seconds:.0f} seconds of {doing} it was stopped"
    elif code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        memory = ", which is also how a system that is out of memory ends a process" if name == "SIGKILL" else ""
        how = f"crashes while {doing} ({name}{memory})"
    else:
        how = f"ends its process while {doing} (exit code {code})"
    who = "ONNX's shape inference" if doing == DERIVING else "ONNX Runtime itself"
    return f"{label}: {who} {how}, so the file cannot be used; check or export it again"


def _end(child: subprocess.Popen[bytes] | Child) -> None:
    child.kill()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    child.wait()
