"""Text that may be shown: names come from files of others, and a terminal obeys what it is shown."""

from __future__ import annotations

import re

# Control characters but tab and line feed, marks that turn the direction of text, and halves of surrogates.
UNSEEN = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSEEN = re.compile(f"[{UNSEEN}]")


def printable(text: str) -> str:
    """The text with everything that a terminal would obey spelled out, as ``\\x1b``."""
    return _UNSEEN.sub(lambda found: ascii(found.group())[1:-1], text)


def one_line(text: str) -> str:
    """``printable``, and tabs and line ends spelled out too: for a name in the middle of a sentence."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def shortened(text: str, most: int = 48, gap: str = "…") -> str:
    """At most ``most`` characters, cut in the middle: the ends of a long name tell layers apart."""
    if len(text) <= most:
        return text
    head = (most - len(gap)) // 3
    return text[:head] + gap + text[len(text) - (most - len(gap) - head) :]
