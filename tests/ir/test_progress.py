"""One way to be told what runs: by name alone, or with what is done of how much."""

import numpy as np

import secateur
from secateur.ir.progress import listening, quiet
from support.nets import chain

X = np.random.default_rng(0).standard_normal((12, 3, 8, 8)).astype(np.float32)


def test_who_takes_a_name_alone_gets_each_stage_once() -> None:
    assert listening(None) is quiet
    told: list[object] = []
    for listener in (told.append, lambda stage: told.append(stage), lambda *said: told.extend(said)):
        tell = listening(listener)
        for done in range(3):
            tell(done, 3, "calibrate")
        tell(3, 3, "")  # the same stage goes on
        tell(0, None, "slim")
        assert told == ["calibrate", "slim"]
        told.clear()


def test_who_takes_numbers_gets_them() -> None:
    told: list[tuple[int, int | None, str]] = []

    def tell(done: int, total: int | None, what: str) -> None:
        told.append((done, total, what))

    assert listening(tell) is tell
    secateur.compile(chain(), "taylor,sensitivity{macs=70%}", calibration=[(X, np.arange(12) % 5)], progress=tell)
    assert (0, None, "read the model") in told and (0, None, "slim") in told
    fitted = max(done for done, _, what in told if what == "calibrate")
    assert (fitted, fitted, "calibrate") in told  # of all that is not held out
    orbits = [(done, total) for done, total, what in told if what == "measure sensitivity"]
    assert orbits == [(i, len(orbits)) for i in range(len(orbits))] and len(orbits) > 1
