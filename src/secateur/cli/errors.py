"""How commands fail: one message on stderr and an exit code, of several processes too."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator

import typer

from secateur.distributed import Team, launched, together
from secateur.ir import BudgetError, Error, LawError, PassError, SlowerError, VerifyError
from secateur.ir.files import WHY

from .terminal import say

FAILED, UNUSABLE, INTERRUPTED = 1, 2, 130
CHECKS = (BudgetError, LawError, PassError, SlowerError, VerifyError)


@contextlib.contextmanager
def guard(debug: bool, several: bool = False) -> Iterator[Team]:
    """Turn errors into a message and an exit code: 1 a check failed, 2 unusable input, 130 interrupted.

    ``several``: the command can be shared by processes; the one that fails first says why. Others do not look at what
    a launcher left in the environment, and never wait for it.
    """
    with contextlib.ExitStack() as stack:
        team = Team()
        with _told(debug, lambda: team):
            if several:
                team = stack.enter_context(together(launched()))
            yield team
            sys.stdout.flush()


@contextlib.contextmanager
def _told(debug: bool, team: Callable[[], Team]) -> Iterator[None]:
    """Errors become messages, printed once for the whole team, and exit codes."""

    def fail(message: str, code: int, debug: bool = debug) -> None:
        _fail(message, code, debug, team())

    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        fail("interrupted; nothing was written", INTERRUPTED, debug=False)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
        raise typer.Exit(FAILED) from None
    except Error as error:
        fail(str(error), FAILED if isinstance(error, CHECKS) else UNUSABLE)
    except OSError as error:
        place = f"'{error.filename}': " if error.filename else ""
        fail(place + WHY.get(error.errno or 0, error.strerror or str(error)), UNUSABLE)
    except MemoryError:
        fail("there is not enough memory for this model; close other programs or use a larger machine", UNUSABLE)
    except RecursionError as error:
        fail(f"the model is nested too deeply ({error})", UNUSABLE)
    except Exception as error:
        hint = "" if debug else "; run it again with --debug and report what it prints"
        fail(f"unexpected {type(error).__name__}: {error}. This is a fault in secateur{hint}", UNUSABLE)


def _fail(message: str, code: int, debug: bool, team: Team) -> None:
    if team.first_to_fail():
        if debug:
            traceback.print_exc()
        say(f"secateur: {message}")
    raise typer.Exit(code)
