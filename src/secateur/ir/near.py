"""Did you mean: what comes close to a name that nobody knows. The one place where that is decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

CUTOFF = 0.5  # of difflib's ratio: half of the letters agree
FEW = 3


def near(word: str, known: Iterable[str], synonyms: Mapping[str, str] | None = None) -> list[str]:
    """At most three of the known names, the nearest first; a synonym comes alone."""
    meant = (synonyms or {}).get(word.lower())
    if meant is not None:
        return [meant]
    names = {_bare(name): name for name in known}
    import difflib  # only where something was misspelt

    return [names[name] for name in difflib.get_close_matches(_bare(word), names, n=FEW, cutoff=CUTOFF)]


def did_you_mean(word: str, known: Iterable[str], synonyms: Mapping[str, str] | None = None) -> str:
    """`` (did you mean macs?)``, to follow the name in a sentence; nothing where nothing comes close."""
    found = near(word, known, synonyms)
    return f" (did you mean {', '.join(found)}?)" if found else ""


def _bare(name: str) -> str:
    """The name without what makes it a glob or an option, and in small letters."""
    return name.replace("*", "").lstrip("-").lower()
