"""``secateur passes [NAME]``: every pass by what it is for, or one with all that it says of itself. On stdout."""

from __future__ import annotations

import inspect as reflect
import re
import textwrap
from collections.abc import Iterable, Mapping

import typer

from secateur.ir import InputError
from secateur.ir.near import did_you_mean
from secateur.passes import ALLOCATORS, COMPENSATION, CRITERIA, PASSES, REWRITES, SPARSITY
from secateur.passes.pipeline import Pass, options_of, print_value

WIDTH = 100
KINDS: Mapping[str, Iterable[str]] = {
    "rewrites, which come first": REWRITES,
    "criteria: what is worth keeping": CRITERIA,
    "allocation: how much goes where, under a budget": ALLOCATORS,
    "compensation, after the cut": COMPENSATION,
    "zeros in weights, after the cut": SPARSITY,
    "analyses, and the cut itself": PASSES,
}


def list_passes(name: str | None) -> None:
    """All passes with their first sentence, or one whole. Raises InputError for a name that no pass has."""
    if name is not None and name not in PASSES:
        raise InputError(f"there is no pass '{name}'{did_you_mean(name, PASSES)}; `secateur passes` lists them")
    if name is not None:
        typer.echo(_spec(PASSES[name]))
        for line in (reflect.getdoc(PASSES[name]) or "").splitlines():
            typer.echo(f"    {line}".rstrip())
        return
    left = dict(PASSES)
    for number, (kind, names) in enumerate(KINDS.items()):
        typer.echo(("\n" if number else "") + f"# {kind}")
        for made in [left.pop(each) for each in names if each in left]:
            typer.echo(_spec(made))
            typer.echo(textwrap.indent(textwrap.fill(first_sentence(reflect.getdoc(made) or ""), WIDTH - 4), "    "))


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends one; that of "et al." does not."""
    first = " ".join(text.partition("\n\n")[0].split())
    found = re.match(r".*?[.!?](?<!al\.)(?=\s|$)", first)
    return found.group() if found else first


def _spec(made: type[Pass]) -> str:
    options = [f"{f.name}={print_value(f.default)}" for f in options_of(made)]
    return made.name + (f"{{{', '.join(options)}}}" if options else "")
