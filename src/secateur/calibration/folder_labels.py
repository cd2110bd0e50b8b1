"""Which class each image of a folder belongs to, where its sub-folders say so beyond doubt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from secateur.ir import InputError

LIST = "classes.txt"
SHOWN = 8  # classes that a remark spells out
ADVICE = f"name each folder after the number of its class, or list all classes in {LIST}, in the network's order"

Labels = tuple[tuple[int, ...] | None, tuple[str, ...]]


def labels_of(images: Sequence[Path], folder: Path, classes: int | None) -> Labels:
    """(a class index for each image or None, remarks on how it was found). ``images`` are relative to ``folder``.

    A sub-folder is a class: by ``classes.txt`` (one name a line, in the network's order) if there is one, by its number
    if all are named by numbers, else by alphabetical order, but only if there are as many as the network has
    ``classes``. What remains unclear is not guessed: the images are used without labels, and a remark says why. Raises
    InputError for a list that cannot be read or lacks a folder.
    """
    names = sorted({image.parts[0] for image in images if len(image.parts) > 1})
    if not names:
        return None, ()
    some = f"{len(names)} folder{'s' if len(names) > 1 else ''} ({_shown(names)})"
    if classes is None:
        return None, (f"{some} not taken for classes, since the network's first output is not scores by class",)
    loose = sum(len(image.parts) == 1 for image in images)
    if loose:
        return None, (f"{loose} images lie outside of the folders ({_shown(names)}), so none are labelled",)
    numbers, how = _numbers(names, folder, classes)
    if numbers is None:
        return None, (
            f"{some} are not the network's {classes} classes, so the images are used without labels; {ADVICE}",
        )
    wrong = [name for name in names if not 0 <= numbers[name] < classes]
    if wrong:
        return None, (f"folder '{wrong[0]}' names no class of the network, which knows 0 to {classes - 1}, "
                      "so the images are used without labels",)  # fmt: skip
    spelled = _shown([f"{numbers[name]} = {name}" for name in sorted(names, key=numbers.__getitem__)])
    return tuple(numbers[image.parts[0]] for image in images), (f"labels by folder, {how}: {spelled}",)


def _numbers(names: Sequence[str], folder: Path, classes: int) -> tuple[dict[str, int] | None, str]:
    """The class of each folder, and by what."""
    listed = folder / LIST
    if listed.is_file():
        order = _listed(listed)
        missing = [name for name in names if name not in order]
        if missing:
            raise InputError(
                f"--calibration: '{listed}' does not list the folder '{missing[0]}'; add it or take it away"
            )
        return {name: order[name] for name in names}, f"in the order of {LIST}"
    if all(name.isascii() and name.isdigit() for name in names) and len({int(name) for name in names}) == len(names):
        return {name: int(name) for name in names}, "by number"
    if len(names) == classes:
        return {name: i for i, name in enumerate(names)}, "in alphabetical order"
    return None, ""


def _listed(path: Path) -> dict[str, int]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--calibration: '{path}' cannot be read: {error}; it holds a class's name in each line"
        ) from error
    while lines and not lines[-1]:
        lines.pop()
    if len(set(lines)) < len(lines):
        twice = next(line for i, line in enumerate(lines) if line in lines[:i])
        raise InputError(f"--calibration: '{path}' lists {twice!r} twice; each class has one line")
    return {line: i for i, line in enumerate(lines)}


def _shown(words: Sequence[str]) -> str:
    return ", ".join([*words[:SHOWN], *([f".. {len(words)} in all"] if len(words) > SHOWN else [])])
