"""What networks that listen are judged by, and what they read."""

from __future__ import annotations

import numpy as np
import pytest

from bench.accuracy.voices import area
from bench.nets import voice_nets


def test_area_by_hand() -> None:
    """Of four pairs three are in order and one is equal."""
    assert area(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == pytest.approx(3.5 / 4)


def test_a_tone_lies_in_its_mel_band() -> None:
    """440 Hz is 6.6 on Slaney's scale, whose 40 bands up to 8 kHz (45.2 mel) are 1.1 apart: the sixth is at 6.62."""
    time = np.arange(voice_nets.RATE, dtype=np.float32) / voice_nets.RATE
    found = voice_nets.mels(np.sin(2 * np.pi * 440 * time).astype(np.float32))
    assert found.shape == (101, 40)
    assert np.all(found[10:-10].argmax(1) == 5)
