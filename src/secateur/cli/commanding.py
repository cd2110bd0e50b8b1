"""A group of commands that are made when they are asked for, so that help and a typing error wait for none of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from .typos import Command, near_command, told


@dataclass(frozen=True, slots=True)
class Front:
    """Where a command's function is, a module of this package, and what the command is for."""

    module: str
    function: str
    says: str


class Commands(TyperGroup):
    """The front, whose unknown commands and options are told with what comes close."""

    fronts: ClassVar[Mapping[str, Front]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order of their table."""
        return list(self.fronts)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command with its options, or None."""
        front = self.fronts.get(cmd_name)
        if front is None:
            return None
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        function = getattr(importlib.import_module(f".{front.module}", __package__), front.function)
        alone.command(cmd_name, cls=Command, short_help=front.says)(function)
        return typer.main.get_command(alone)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Name each command and what it is for; makes none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, front.says) for name, front in self.fronts.items()])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises the usage error of ``ctx.fail``."""
        with told(ctx, self.params):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Raises the usage error of ``ctx.fail``."""
        if args and args[0] not in self.fronts:
            ctx.fail(f"no such command: {args[0]}{near_command(args[0], self.fronts)}")
        return super().resolve_command(ctx, args)
