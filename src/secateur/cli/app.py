"""The command line: ``secateur compile | rewrite | inspect | verify | apply | build | tune | run | bench | passes``.

Only the front of it: names and what each command is for, in one line. A command's options load when it is asked for,
and what it does when it runs.
"""

from __future__ import annotations

import gc
from typing import Annotated

import typer

from secateur import __version__

from .commanding import Commands, Front

COMMANDS = {
    "compile": Front("prune", "compile_command", "Prune a model under a budget, and check the result."),
    "rewrite": Front("prune", "rewrite_command", "Structural rewrites alone: separable, grouped, low_rank, fold_bn"),
    "inspect": Front("prune", "inspect_command", "Show cost, channel groups, and what is frozen and why."),
    "verify": Front("prune", "verify_command", "Check a slim model against its original."),
    "apply": Front("prune", "apply_command", "Replay a recipe on a model of the same network."),
    "build": Front("deploy", "build_command", "Compile a model to a library for this machine or another."),
    "tune": Front("deploy", "tune_command", "Measure kernels for a model and keep the choices."),
    "run": Front("deploy", "run_command", "Run a library on .npy files."),
    "bench": Front("deploy", "bench_command", "Time models side by side in ONNX Runtime and others."),
    "passes": Front("prune", "passes_command", "List every pass with its options."),
}


class Secateur(Commands):
    """The group of the commands above."""

    fronts = COMMANDS


app = typer.Typer(
    name="secateur", cls=Secateur, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.callback(invoke_without_command=True)
def front(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.")] = False,
) -> None:
    """Make trained networks smaller, and prove that they still compute the same."""
    if version:
        typer.echo(f"secateur {__version__}")
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


COLLECT_AFTER = 20_000, 10, 10  # objects: short commands spent their time on collections of what imports leave


def main() -> None:
    """The console script."""
    gc.set_threshold(*COLLECT_AFTER)
    app(prog_name="secateur")


if __name__ == "__main__":
    main()
