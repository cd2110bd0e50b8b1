"""Commands and options that nobody knows: one message, with what was probably meant."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from typer.core import TyperCommand

COMMANDS = {
    **dict.fromkeys(("prune", "slim", "shrink", "optimize", "optimise", "compress", "simplify"), "compile"),
    **dict.fromkeys(("show", "info", "print", "summary", "analyze", "analyse", "groups"), "inspect"),
    **dict.fromkeys(("check", "compare", "prove", "diff"), "verify"),
    **dict.fromkeys(("replay", "restore", "recipe"), "apply"),
    **dict.fromkeys(("benchmark", "time", "latency", "profile"), "bench"),
    **dict.fromkeys(("export", "library", "lower"), "build"),
    **dict.fromkeys(("autotune", "search"), "tune"),
    **dict.fromkeys(("infer", "execute", "predict"), "run"),
    **dict.fromkeys(("list", "criteria", "policies", "methods"), "passes"),
    "help": "secateur --help",
    "version": "secateur --version",
}  # what other tools call them
OPTIONS = {
    **dict.fromkeys(("--verbose", "--traceback"), "--debug"),
    **dict.fromkeys(("--ratio", "--pruning-ratio", "--flops", "--budget"), "--macs"),
    **dict.fromkeys(("--shapes", "--input-shape", "--input-shapes"), "--shape"),
    **dict.fromkeys(("--force", "--yes"), "--overwrite"),
    **dict.fromkeys(("--html", "--page"), "--report"),
    **dict.fromkeys(("--ignore", "--exclude", "--freeze"), "--protect"),
    **dict.fromkeys(("--criterion", "--method", "--preset"), "--policy"),
    **dict.fromkeys(("--data", "--images"), "--calibration"),
    **dict.fromkeys(("--latency", "--ms"), "--latency-ms"),
}


class Command(TyperCommand):
    """A command whose unknown options are told with what comes close."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises the usage error of ``ctx.fail``."""
        with told(ctx, self.params):
            return super().parse_args(ctx, args)


@contextlib.contextmanager
def told(ctx: Any, parameters: Iterable[Any]) -> Iterator[None]:
    """Say click's own error in our words. Typer has that class to itself, so that it is known by what it holds."""
    try:
        yield
    except Exception as error:
        name = getattr(error, "option_name", None)
        if name is None or not hasattr(error, "possibilities"):
            raise
        known = [text for parameter in parameters for text in parameter.opts if text.startswith("--")]
        meant = {said: option for said, option in OPTIONS.items() if option in known}
        ctx.fail(f"no such option: {name}{_near(name, known, meant)}")


def near_command(word: str, known: Iterable[str]) -> str:
    """What was probably meant by a command that nobody knows, in brackets; or nothing."""
    return _near(word, known, COMMANDS)


def _near(word: str, known: Iterable[str], synonyms: Mapping[str, str]) -> str:
    from secateur.ir.near import did_you_mean  # loads NumPy, which help does without

    return did_you_mean(word, known, synonyms)
