"""Lines of text as pictures, with what they say: what PP-OCR's recogniser is calibrated on and judged by.

Words and numbers in Pillow's own font, thin or bold, upright or slanted, dark on light or light on dark, of random size
and place, with some noise, at the height of 48 that the network wants; a line that is shorter than 320 is padded as
PP-OCR pads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from bench.data import material
from secateur.ir import Array

FILE = "ppocr_rec.onnx"
HEIGHT, WIDTH = 48, 320
WORDS = """
the paper station red Monday invoice total number street market price open closed blue window garden river North
engine summer letter table music coffee bread water light winter yellow doctor school bridge travel ticket account
January October hotel museum kitchen orange silver morning evening customer address payment delivery quality product
village mountain picture question answer journey weather Friday quick brown fox jumps lazy dog
"""


def lines(count: int, seed: int) -> tuple[Array, list[str]]:
    """(f32[count, 3, 48, 320] in [-1, 1], what each says)."""
    rng = np.random.default_rng(seed)
    said = [_text(rng) for _ in range(count)]
    return np.stack([_picture(text, rng) for text in said]), said


def error_rate(scores: Array, said: Sequence[str]) -> float:
    """Wrong characters (edits) over all characters, of the network's scores f32[n, steps, classes]."""
    alphabet = _alphabet()
    read = [decoded(of, alphabet) for of in scores.argmax(2)]
    return sum(map(edits, read, said)) / sum(map(len, said))


def decoded(classes: Array, alphabet: Sequence[str]) -> str:
    """Connectionist temporal classification: repeats count once, and class 0 is nothing; spaces around are left out."""
    new = np.concatenate([[True], classes[1:] != classes[:-1]])
    return "".join(alphabet[c] for c in classes[new] if c).strip()


def _alphabet() -> list[str]:
    """The character of each class, as the file itself lists them."""
    model = onnx.load(material.path(FILE), load_external_data=False)
    (listed,) = [p.value for p in model.metadata_props if p.key == "character"]
    return ["", *listed.split("\n"), " "]


def _text(rng: np.random.Generator) -> str:
    """One to three words or numbers."""
    number = rng.integers(1, 4)
    return " ".join(
        str(rng.integers(10, 100_000)) if rng.random() < 0.25 else str(rng.choice(WORDS.split())) for _ in range(number)
    )


def _picture(text: str, rng: np.random.Generator) -> Array:
    from PIL import Image, ImageDraw, ImageFont

    font, bold = ImageFont.load_default(int(rng.integers(24, 34))), int(rng.random() < 0.4)
    box = font.getbbox(text, stroke_width=bold)
    wide, slant = round(box[2]) + int(rng.integers(16, 32)), float(rng.uniform(-0.2, 0.2))
    ground, ink = rng.integers(190, 256, 3), rng.integers(0, 90, 3)
    if rng.random() < 0.3:
        ground, ink = ink, ground
    colours = [tuple(map(int, c)) for c in (ground, ink)]
    drawn = Image.new("RGB", (wide, HEIGHT), colours[0])
    at = (int(rng.integers(6, 12)), (HEIGHT - round(box[1] + box[3])) // 2 + int(rng.integers(-3, 4)))
    ImageDraw.Draw(drawn).text(at, text, colours[1], font, stroke_width=bold)
    sheared = (1, slant, -slant * HEIGHT / 2, 0, 1, 0)
    drawn = drawn.transform(
        drawn.size, Image.Transform.AFFINE, sheared, Image.Resampling.BILINEAR, fillcolor=colours[0]
    )
    if wide > WIDTH:
        drawn = drawn.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    pixels = np.asarray(drawn, np.float32) + rng.normal(0, rng.uniform(0, 12), (HEIGHT, drawn.width, 3))
    whole = np.zeros((3, HEIGHT, WIDTH), np.float32)
    whole[:, :, : drawn.width] = (np.clip(pixels, 0, 255) / 127.5 - 1).transpose(2, 0, 1)
    return whole


def edits(read: str, said: str) -> int:
    """Levenshtein's distance: characters put in, left out or changed."""
    before = list(range(len(said) + 1))
    for i, mine in enumerate(read, 1):
        now = [i]
        for j, theirs in enumerate(said, 1):
            now.append(min(before[j] + 1, now[j - 1] + 1, before[j - 1] + (mine != theirs)))
        before = now
    return before[-1]
