"""The command line: ``secateur compile | rewrite | inspect | verify | apply | build | tune | run | bench | passes``.

Only the front of it: names, options and help. The work is in ``compile``, ``commands`` and their sisters, loaded
when a command runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from secateur import __version__

from . import deploy, prune
from .options import Debug
from .typos import Command, Commands

app = typer.Typer(
    name="secateur", cls=Commands, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
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


app.command("compile", cls=Command, short_help="Prune a model under a budget, and check the result.")(
    prune.compile_command
)
app.command("rewrite", cls=Command, short_help="Structural rewrites alone: separable, grouped, low_rank, fold_bn")(
    prune.rewrite_command
)
app.command("inspect", cls=Command, short_help="Show cost, channel groups, and what is frozen and why.")(
    prune.inspect_command
)
app.command("verify", cls=Command, short_help="Check a slim model against its original.")(prune.verify_command)
app.command("apply", cls=Command, short_help="Replay a recipe on a model of the same network.")(prune.apply_command)
app.command("build", cls=Command, short_help="Compile a model to a library for this machine or another.")(
    deploy.build_command
)
app.command("tune", cls=Command, short_help="Measure kernels for a model and keep the choices.")(deploy.tune_command)
app.command("run", cls=Command, short_help="Run a library on .npy files.")(deploy.run_command)
app.command("bench", cls=Command, short_help="Time models side by side in ONNX Runtime and others.")(
    deploy.bench_command
)


@app.command("passes", cls=Command, short_help="List every pass with its options.")
def passes_command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One pass.", show_default=False)] = None,
    debug: Debug = False,
) -> None:
    """List every pass with its options and its paper."""
    from .errors import guard

    with guard(debug):
        from .passes import list_passes

        list_passes(name)


def main() -> None:
    """The console script."""
    app(prog_name="secateur")


if __name__ == "__main__":
    main()
