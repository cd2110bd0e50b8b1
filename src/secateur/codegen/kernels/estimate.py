"""Constants of the estimates by which alternatives are compared that nobody measured."""

from __future__ import annotations

LOAD = 12.5  # multiply-accumulates in the time that one weight takes to come from memory
WORTH = 1.6  # what promises to take this much longer than a alternative is not even measured
