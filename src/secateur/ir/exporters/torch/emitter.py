"""Places modules, parameters and calls while a graph is written as a torch.fx graph."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from secateur.ir.frontends.torch.arrays import FLOATS, to_torch
from secateur.ir.graph import Graph, Node, dtype_of
from secateur.ir.torch_origin import TorchOrigin

# Names that generated code itself uses; an argument called so would hide them.
RESERVED = frozenset(
    {"self", "torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree", "slice", "getattr", "setattr", "len",
     "range", "tuple", "list", "dict", "set", "bool", "int", "float", "complex", "str", "bytes", "type", "object"}
)  # fmt: skip

Operand = Any  # of a call in the module that is built: an fx.Node, a number, a string, None, or a sequence of them


def identifier(name: str) -> str:
    """A dotted path whose parts are fit for attributes."""
    parts = []
    for part in unicodedata.normalize("NFKC", name).split("."):  # as Python reads names in source
        part = re.sub(r"\W", "_", part)
        if not part or keyword.iskeyword(part):
            part += "_"
        # Plain numbers are how nn.Sequential names its children; other digits in front are not allowed.
        if part[0].isdigit() and not part.isdigit():
            part = f"_{part}"
        parts.append(part)
    return ".".join(parts)


class Emitter:
    """One walk over one graph."""

    def __init__(self, graph: Graph, copy: bool) -> None:
        self.graph = graph
        self.copy = copy
        self.root = nn.Module()
        self.fx = fx.Graph()
        self.env: dict[str, fx.Node] = {}
        self.arguments: set[str] = set()
        self.tensors: dict[str, torch.Tensor] = {}
        self.paths: dict[str, str] = {}
        self.built: dict[str, tuple[Operand, ...]] = {}
        self.origin = graph.note(TorchOrigin)
        self._plan_paths()

    def _plan_paths(self) -> None:
        """A path for every weight: its own name made fit, and no path may run through another."""
        own = self.origin.parameters | self.origin.buffers if self.origin is not None else frozenset()
        taken: set[str] = set()
        inner: set[str] = set()
        for name in sorted(self.graph.weights, key=lambda weight: weight not in own):  # names of our own give way
            # torch allows more in a path than an identifier has ("block1-0"): its own names stay.
            path = name if name in own else identifier(name)
            root = path.split(".")[0]
            if hasattr(nn.Module, root) or root in ("graph", "code", "_graph"):
                path = f"w_{path}"
            if any(p in taken for p in _prefixes(path)):  # it would lie inside another weight
                path = path.replace(".", "_")
            while path in taken or path in inner:
                path += "_"
            taken.add(path)
            inner.update(_prefixes(path))
            self.paths[name] = path

    # Weights.

    def tensor(self, name: str) -> torch.Tensor:
        """The weight as a parameter or a plain tensor; the same object whenever asked."""
        found = self.tensors.get(name)
        if found is None:
            array = self.graph.weights[name]
            found = to_torch(array, self.copy)
            if self.trains(name):
                found = nn.Parameter(found)
            self.tensors[name] = found
        return found

    def trains(self, name: str) -> bool:
        """Is this weight a parameter? Without a note of its origin every floating array is."""
        array = self.graph.weights[name]
        if dtype_of(array) not in FLOATS:
            return False
        if self.origin is not None:
            named = name in self.origin.buffers or name.startswith("const.")
            return name in self.origin.parameters or not named
        return array.ndim > 0

    def train_as(self, node: Node) -> str:
        """The operator that this node is in train mode, where its origin says that it is another one."""
        return self.origin.train_as.get(node.name, "") if self.origin is not None else ""

    def place(self, path: str, item: torch.Tensor | nn.Module) -> None:
        """Put a parameter, buffer or module at a dotted path, making containers on the way."""
        *folders, last = path.split(".")
        holder = self.root
        for folder in folders:
            child = holder._modules.get(folder)
            if child is None:
                child = nn.Module()
                holder.add_module(folder, child)
            holder = child
        if isinstance(item, nn.Module):
            old = holder._modules.get(last)
            if old is not None:  # a container made for deeper weights: keep what it holds
                for name, child in old._modules.items():
                    item.add_module(name, child)
            holder.add_module(last, item)
        elif isinstance(item, nn.Parameter):
            holder.register_parameter(last, item)
        elif last not in holder._buffers:
            holder.register_buffer(last, item)

    def moved(self, places: Mapping[str, str]) -> None:
        """These weights lie in a module that is not named for them; those that were read before stay where they are."""
        for name, path in places.items():
            if not self.exists(self.paths[name]):
                self.paths[name] = path

    def exists(self, path: str) -> bool:
        """Is a module or tensor at this path already?"""
        holder: Operand = self.root
        for part in path.split("."):
            if not isinstance(holder, nn.Module):
                return False
            table = {**holder._modules, **holder._parameters, **holder._buffers}
            if part not in table:
                return False
            holder = table[part]
        return True

    # Graph.

    def argument(self, name: str) -> fx.Node:
        """An argument of the module for an input, called like it as far as Python allows, and like nothing else."""
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not plain or not plain.isidentifier() or keyword.iskeyword(plain) or plain in RESERVED:
            plain = f"input_{plain}"
        while plain in self.arguments:
            plain += "_"
        self.arguments.add(plain)
        return self.fx.placeholder(plain)

    def arg(self, name: str | None) -> fx.Node | None:
        """The fx node of a value, or one that reads a weight."""
        if name is None:
            return None
        if name in self.env:
            return self.env[name]
        path = self.paths[name]
        if not self.exists(path):
            self.place(path, self.tensor(name))
        node = self.fx.create_node("get_attr", path, name=f"w_{path.replace('.', '_')}")
        self.env[name] = node
        return node

    def args(self, node: Node) -> list[fx.Node | None]:
        """All inputs of a node."""
        return [self.arg(i) for i in node.inputs]

    def call(self, function: Callable[..., Operand], *args: Operand, **kwargs: Operand) -> fx.Node:
        """A call of a function; fx must not look into those of secateur when the module is traced or unpickled."""
        node = self.fx.call_function(function, args, kwargs)
        if function.__module__.startswith(__package__):
            node.meta["is_wrapped"] = True
        return node

    def method(self, name: str, *args: Operand, **kwargs: Operand) -> fx.Node:
        """A call of a tensor's method."""
        return self.fx.call_method(name, args, kwargs)

    def layer(self, key: tuple[Operand, ...], path: str, make: Callable[[], nn.Module], x: fx.Node | None) -> fx.Node:
        """Call the module at the path, made on first use; ``key`` says when two uses are the same module."""
        if self.built.get(path) != key:
            self.place(path, make())
            self.built[path] = key
        return self.fx.call_module(path, (x,))

    def free_path(self, wanted: str) -> str:
        """A path for a module without weights."""
        path = identifier(wanted) if wanted else "layer"
        if hasattr(nn.Module, path.split(".")[0]):
            path = f"m_{path}"
        taken = set(self.paths.values())
        while self.exists(path) or path in self.built or not taken.isdisjoint((path, *_prefixes(path))):
            path += "_"
        return path

    def home(self, node: Node, roles: Mapping[int, str], key: tuple[Operand, ...]) -> str | None:
        """The path of the module whose weights these inputs are; None if their names do not tell.

        ``roles`` gives the attribute that each input must be called, as in {1: "weight", 2: "bias"}.
        """
        prefixes = set()
        for index, role in roles.items():
            name = node.inputs[index] if index < len(node.inputs) else None
            if name is None:
                continue
            if name not in self.graph.weights:
                return None
            path = self.paths[name]
            prefix, dot, last = path.rpartition(".")
            if not dot or last != role:
                return None
            prefixes.add(prefix)
        if len(prefixes) != 1:
            return None
        (path,) = prefixes
        if path in self.built:
            return path if self.built[path] == key else None
        # Someone read a weight of it directly before: then the container is there, and place() keeps it.
        if any(self.exists(f"{path}.{role}") for role in roles.values()):
            return None
        return path


def _prefixes(path: str) -> Sequence[str]:
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]
