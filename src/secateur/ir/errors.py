"""Errors a user can act on: each message says what, where, why and what to do."""

from __future__ import annotations

from .plain import printable


class Error(Exception):
    """Base of every error that secateur raises on purpose. Its text is fit for a terminal, whatever names are in it."""

    def __str__(self) -> str:
        return printable(super().__str__())


class Unsupported(Error):
    """The input is outside what secateur can read, rewrite or write."""


class InputError(Error):
    """A file, option or value given by the user cannot be used."""


class VerifyError(Error):
    """A graph breaks a rule of the IR; the message shows the IR around the culprit."""


class PassError(Error):
    """A pass failed; the message names the passes that ran before it."""


class BudgetError(Error):
    """A budget cannot be met; the message states the least that can be reached."""


class LawError(Error):
    """The slim network does not equal the masked original."""


class SlowerError(Error):
    """The slim network is slower than the original where it is to run."""
