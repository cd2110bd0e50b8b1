"""A process that runs ONNX models for another one: whatever crashes or hangs ONNX Runtime ends this process alone.

Started by ``process``, or forked in a ``nursery``. Requests come on standard input (or a pipe) and answers go to
standard output, one message each: eight bytes with the length of a JSON head, the head, and the bytes of the arrays
that it lists. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from secateur.ir.graph import Array

FOLDER = "session.model_external_initializers_file_folder_path"
SPINNING = "session.intra_op.allow_spinning"
LEAST = 4 << 30  # bytes of address space; libraries map far more than they use
Head = dict[str, Any]


def send(stream: IO[bytes], head: Head, arrays: Sequence[Array] = ()) -> None:
    """Write one message. Raises BrokenPipeError where nobody reads."""
    listed, blobs = [], []
    for array in arrays:
        entry: Head = {"dtype": array.dtype.name, "shape": list(array.shape)}
        if array.dtype.kind in "OSU":
            entry = {"dtype": "str", "shape": list(array.shape), "text": [str(x) for x in array.ravel().tolist()]}
        else:
            blobs.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        listed.append(entry)
    text = json.dumps({**head, "arrays": listed}).encode()
    stream.write(len(text).to_bytes(8, "little") + text)
    for blob in blobs:
        stream.write(blob.data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[Head, list[Array]]:
    """Read one message. Raises EOFError where the other side has ended."""
    head: Head = json.loads(_exactly(stream, int.from_bytes(_exactly(stream, 8), "little")))
    arrays = []
    for entry in head.pop("arrays"):
        shape = tuple(entry["shape"])
        if entry["dtype"] == "str":
            arrays.append(np.array(entry["text"], object).reshape(shape))
            continue
        kind = _dtype(entry["dtype"])
        data = _exactly(stream, kind.itemsize * int(np.prod(shape, dtype=np.int64)))
        arrays.append(np.frombuffer(data, kind).reshape(shape))
    return head, arrays


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        got = stream.readinto(view[at:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        at += got
    return data


def _dtype(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return found


class Worker:
    """Answers requests; keeps the sessions that are open by number."""

    def __init__(self) -> None:
        import onnx  # noqa: F401  here, where the time of requests does not count
        import onnxruntime

        self._runtime = onnxruntime
        self._sessions: dict[int, Any] = {}
        self._opened = 0

    def open(self, head: Head, arrays: list[Array]) -> tuple[Head, list[Array]]:
        """A session of a file (``path``) or of a model's bytes, the one array; ``watch``: more values to give out."""
        options = self._runtime.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry(SPINNING, "0")  # the other process computes at the same time
        if not head["optimise"]:
            options.graph_optimization_level = self._runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        model: str | bytes = arrays[0].tobytes() if arrays else head["path"]
        if head["watch"]:
            if not arrays:
                options.add_session_config_entry(FOLDER, str(Path(head["path"]).resolve().parent))
            model = _watched(model, head["watch"])
        session = self._runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._opened += 1
        self._sessions[self._opened] = session
        inputs = [[i.name, i.type, list(i.shape or ())] for i in session.get_inputs()]
        return {"session": self._opened, "inputs": inputs, "outputs": [o.name for o in session.get_outputs()]}, []

    def run(self, head: Head, arrays: list[Array]) -> tuple[Head, list[Array]]:
        """Outputs by name; ``shapes``: only their shapes and types, of all that are tensors."""
        session = self._sessions[head["session"]]
        feeds = dict(zip(head["feeds"], arrays, strict=True))
        names = head["names"] or [o.name for o in session.get_outputs()]
        found = list(zip(names, session.run(names, feeds), strict=True))  # a file may give one value twice
        tensors = [(name, array) for name, array in found if isinstance(array, np.ndarray)]
        if head["shapes"]:
            seen = [[n, list(a.shape), "str" if a.dtype.kind in "OSU" else a.dtype.name] for n, a in tensors]
            return {"seen": seen}, []
        if len(tensors) != len(found):
            raise TypeError(f"output '{next(n for n, a in found if not isinstance(a, np.ndarray))}' is not a tensor")
        return {}, [array for _, array in tensors]

    def infer(self, head: Head, arrays: list[Array]) -> tuple[Head, list[Array]]:
        """Types of a node's outputs by ONNX's shape inference, which crashes on some attributes, too.

        Arrays are messages: the node, the types of its inputs (``types`` has their names) and what is known of their
        data (``data``); the answer's are types, of the outputs in ``names``.
        """
        import onnx

        node, *rest = (array.tobytes() for array in arrays)
        types = {n: onnx.TypeProto.FromString(b) for n, b in zip(head["types"], rest, strict=False)}
        data = {n: onnx.TensorProto.FromString(b) for n, b in zip(head["data"], rest[len(types) :], strict=True)}
        proto = onnx.NodeProto.FromString(node)
        imports = [onnx.helper.make_opsetid(domain, version) for domain, version in head["imports"]]
        schema = onnx.defs.get_schema(proto.op_type, head["opset"], proto.domain)
        found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=imports)
        return {"names": list(found)}, [np.frombuffer(t.SerializeToString(), np.uint8) for t in found.values()]

    def close(self, head: Head, arrays: list[Array]) -> tuple[Head, list[Array]]:
        """Free a session."""
        self._sessions.pop(head["session"], None)
        return {}, []


def _watched(model: str | bytes, names: Sequence[str]) -> bytes:
    """The model's bytes with those of these values that it makes among its outputs; data next to it stay there."""
    import onnx

    proto = onnx.ModelProto()
    proto.ParseFromString(model if isinstance(model, bytes) else Path(model).read_bytes())
    have, made = {o.name for o in proto.graph.output}, {o for node in proto.graph.node for o in node.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name in made - have)
    data: bytes = proto.SerializeToString()
    return data


def _bound(seconds: float) -> None:
    """Let the system end this process (SIGXCPU) when its threads together have computed for so much longer."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 1
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def _bound_memory(share: float = 0.75) -> None:
    """Let an allocation fail here before the machine runs out of memory, where the system keeps such a limit."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash that is expected need not leave a file
        size = max(LEAST, int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * share))
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    _bound_memory()
    worker = Worker()
    send(answers, {"pid": os.getpid()})
    while True:
        try:
            head, arrays = receive(requests)
        except EOFError:
            return
        try:
            _bound(head["seconds"])
            answer = getattr(worker, head["do"])(head, arrays)
        except Exception as error:  # the runtime's types share no base of their own
            lines = str(error).strip().splitlines()
            answer = ({"refused": lines[0] if lines else type(error).__name__}, [])
        send(answers, *answer)


def breed(control: socket.socket) -> None:
    """Fork a process that serves for each pair of pipes that comes; tell how one ended when its number comes."""
    import onnx  # noqa: F401  what children need, in memory that they share
    import onnxruntime  # noqa: F401

    while True:
        text, handles, _, _ = socket.recv_fds(control, 32, 2)
        if not text:
            return
        if not handles:
            _, status = os.waitpid(int(text), 0)
            control.send(str(os.waitstatus_to_exitcode(status)).encode())
        elif os.fork():
            for handle in handles:
                os.close(handle)
        else:
            control.close()
            os.setsid()
            with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
                serve(os.fdopen(handles[0], "rb"), os.fdopen(handles[1], "wb"))
            os._exit(0)


def main() -> None:
    """Serve on the standard streams; what libraries print goes to standard error. With a socket's number: ``breed``."""
    if len(sys.argv) > 1:
        breed(socket.socket(fileno=int(sys.argv[1])))
        return
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
