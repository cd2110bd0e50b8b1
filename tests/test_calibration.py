"""Calibration data: files checked before use, and what is fitted kept apart from what judges."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import secateur
from secateur.calibration.arrays import ArrayFile
from secateur.calibration.holdout import share_of
from secateur.calibration.images import Preparation
from secateur.calibration.load import load_calibration, opened
from secateur.ir import Array, Graph, InputError
from secateur.ir.graph import Sym, Value
from secateur.passes.sweep.batches import batches
from support.nets import chain, residual

X = np.random.default_rng(0).standard_normal((26, 3, 8, 8)).astype(np.float32)
Y = np.arange(26) % 5


def parted(data: Any, graph: Graph | None = None, holdout: float | str = 0.25, seed: int = 0) -> tuple[Array, Array]:
    """The examples that are fitted, and those that judge."""
    graph = graph or chain()
    found = opened(data, graph, None, holdout, seed, True)
    assert found is not None
    rows = [[b.inputs["x"][: b.examples] for b in batches(graph, part)] for part in (found.known.data, found.judge)]
    return tuple(np.concatenate(part) if part else X[:0] for part in rows)  # type: ignore[return-value]


def test_what_was_opened_before_comes_back_as_it_is_and_takes_no_options() -> None:
    first = opened(X, chain(), None, 0.25, 0, True)
    assert opened(first, chain(), None, "25%", 0, True) is first
    for preparation, holdout in ((Preparation(), 0.25), (None, 0.5)):
        with pytest.raises(InputError, match="leave preparation and holdout out"):
            opened(first, chain(), preparation, holdout, 0, True)


def rows_of(x: Array) -> set[bytes]:
    return {row.tobytes() for row in x}


class Shuffled:
    """A loader that hands the same examples out in another order each time."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)

    def __iter__(self) -> Iterator[Any]:
        order = self.rng.permutation(len(X))
        return iter([(X[part], Y[part]) for part in np.array_split(order, 5)])


class Noisy(Shuffled):
    def __iter__(self) -> Iterator[Any]:
        return iter([X + self.rng.standard_normal(X.shape).astype(np.float32)])


FORMS: dict[str, Callable[[], Any]] = {
    "one array": lambda: X,
    "lists": lambda: [X[:7], X[7:]],
    "pairs": lambda: [(X[:7], Y[:7]), (X[7:], Y[7:])],
    "dicts": lambda: [{"x": X}],
    "dicts with labels": lambda: [({"x": X}, Y)],
    "tensors": lambda: [torch.from_numpy(X)],
    "generator": lambda: (X[i : i + 3] for i in range(0, 26, 3)),
    "shuffled": Shuffled,
    "double": lambda: [X.astype(np.float64)],
}


@pytest.mark.parametrize("form", FORMS)
def test_what_judges_was_not_fitted(form: str) -> None:
    fit, judge = parted(FORMS[form]())
    assert len(judge) == 7
    assert len(fit) == 19
    assert rows_of(fit) | rows_of(judge) == rows_of(X)
    assert not rows_of(fit) & rows_of(judge)
    if form != "double":
        assert rows_of(judge) == rows_of(parted(X)[1])  # by example, in whatever batches they come


def test_the_split_follows_the_seed_alone() -> None:
    assert rows_of(parted(X)[1]) == rows_of(parted(X[::-1])[1])
    assert rows_of(parted(X)[1]) != rows_of(parted(X, seed=1)[1])


@pytest.mark.parametrize(("examples", "holdout", "held"), [(4, 0.25, 1), (5, "90%", 4), (26, "50%", 13), (3, 0.25, 3),
                                                          (26, 0, 26)])  # fmt: skip
def test_how_many_are_held_out(examples: int, holdout: float | str, held: int) -> None:
    assert len(parted(X[:examples], holdout=holdout)[1]) == held


def test_an_example_that_is_there_twice_is_on_one_side() -> None:
    fit, judge = parted([X, X])
    assert not rows_of(fit) & rows_of(judge)
    assert 0 < len(judge) <= 13
    alike = opened([np.repeat(X[:1], 8, 0)], chain(), None, 0.25, 0, True)
    assert alike is not None
    assert not alike.held_out
    assert "8 examples cannot be parted" in alike.remarks[0]


def test_data_that_change_are_refused() -> None:
    with pytest.raises(InputError, match="others whenever they are gone through"):
        secateur.compile(chain(), "apoz", calibration=Noisy())
    assert secateur.compile(chain(), "apoz", calibration=Noisy(), holdout=0).report.quality is not None


@pytest.mark.parametrize(
    ("policy", "examples", "holdout", "quality", "said"),
    [
        ("apoz", 26, 0.25, (7, True), "7 of 26 examples were held out"),
        ("l1,refit", 26, "50%", (13, True), "13 of 26 examples were held out"),
        ("apoz", 26, 0, (26, False), "quality is measured on the examples that were fitted"),
        ("apoz", 3, 0.25, (3, False), "3 examples are too few to part: quality is measured on the examples that were"),
        ("l1", 26, 0.25, (26, True), ""),  # weights alone were looked at
    ],
)
def test_the_report_says_what_judged(
    policy: str, examples: int, holdout: Any, quality: tuple[int, bool], said: str
) -> None:
    report = secateur.compile(chain(), policy, calibration=[X[:examples]], holdout=holdout).report
    assert report.quality is not None
    assert (report.quality["examples"], report.quality["held_out"]) == quality
    assert report.quality["top1"] is None
    assert 0 <= report.quality["agreement"] <= 1
    assert said in " ".join(report.remarks)
    assert ("held out" if quality[1] else "that were fitted") in next(
        line for line in str(report).splitlines() if line.startswith("quality: no labels, agreement")
    )


def test_without_scores_by_class_all_is_fitted_and_nothing_judged() -> None:
    report = secateur.compile(residual(), "apoz", calibration=[X]).report
    assert report.quality is None
    assert "calibrated on 26 examples" in report.remarks


@pytest.mark.parametrize("holdout", ["much", 25, 1.0, -0.1, True, "101%", "nan"])
def test_shares_that_are_none(holdout: Any) -> None:
    with pytest.raises(InputError, match="give the share of examples to hold out"):
        share_of(holdout)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "no batch": (lambda: [], "hold no example"),
    "no example": (lambda: [X[:0]], "hold no example"),
    "rank": (lambda: [X, X[0]], r"batch 1: input 'x' has shape \[3, 8, 8\]"),
    "size": (lambda: [X[:, :, :7]], r"has shape \[26, 3, 7, 8\]"),
    "objects": (lambda: [np.array([[None]])], r"has shape \[1, 1\]"),
    "objects of the right shape": (lambda: [X.astype(object)], r"holds objects \(object\)"),
    "text": (lambda: ["pictures/"], "has shape"),
    "complex": (lambda: [X.astype(np.complex64)], "holds complex numbers"),
    "ragged": (lambda: [[X[0], X[1, :2], X[2]]], "a list of 3; give x"),
    "not a number": (lambda: [X, np.where(np.arange(26)[:, None, None, None] == 9, np.nan, X)], "batch 1: input 'x' "
                     "holds NaN or infinity in example 9"),
    "too large": (lambda: [X.astype(np.float64) * 1e300], "holds NaN or infinity in example 0"),
    "names": (lambda: [{"z": X}], r"takes the inputs \['x'\]; unknown: \['z'\]"),
    "keys that are no names": (lambda: [{1: X, "x": X}], r"unknown: \['1'\]"),
    "three": (lambda: [(X, Y, Y)], "a tuple of 3; give x"),
    "lengths": (lambda: [(X, Y[:9])], r"26 inputs and labels of shape \[9\]"),
    "one-hot": (lambda: [(X, np.eye(5)[Y])], r"26 inputs and labels of shape \[26, 5\]"),
    "float labels": (lambda: [(X, Y.astype(float))], "calibration labels are float64 from 0.0 to 4.0"),
    "text labels": (lambda: [(X, np.array(["cat"] * 26))], "calibration labels are <U3; the network knows"),
    "classes": (lambda: [(X, Y + 1)], "calibration labels are int64 from 1 to 5; the network knows the classes 0 to 4"),
    "negative": (lambda: [(X, Y - 1)], "from -1 to 3"),
    "some labels": (lambda: [(X, Y), X], "batch 1: some batches have labels and others none"),
    "a number": (lambda: 3, "calibration is a int"),
    "sparse": (lambda: [torch.zeros(2, 3, 8, 8).to_sparse()], "a Tensor that is not an array of numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_data_that_do_not_fit_are_named(case: str) -> None:
    make, message = WRONG[case]
    for policy in ("l1", "apoz"):
        with pytest.raises(InputError, match=message):
            secateur.compile(chain(), policy, calibration=make())


def test_labels_need_scores_by_class() -> None:
    with pytest.raises(
        InputError, match=r"there are labels, but the first output of 'residual' is .*not scores by class"
    ):
        secateur.compile(residual(), "apoz", calibration=[(X, Y)])


def test_whole_numbers_are_not_cut() -> None:
    """f32 data for an i8 input, and i64 that i8 cannot hold."""
    ints = chain().rewrite(inputs=[Value("x", (Sym(1, "N"), 4), "i8")])
    assert next(batches(ints, [np.array([[1, 2, 3, 127]])])).inputs["x"].dtype == np.int8
    for given, message in (
        (np.ones((1, 4), np.float32), "holds floating numbers"),
        (np.full((1, 4), 128), "i8 cannot"),
    ):
        with pytest.raises(InputError, match=message):
            list(batches(ints, [given]))


# Files of arrays


def packed(**members: bytes | Array) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_npy", ".npy"), content if isinstance(content, bytes) else array(content))
    return buffer.getvalue()


def array(x: Array, **header: Any) -> bytes:
    """An .npy file; ``header`` replaces what it says of itself."""
    buffer = io.BytesIO()
    if header:
        said = {"descr": np.lib.format.dtype_to_descr(x.dtype), "fortran_order": False, "shape": x.shape, **header}
        np.lib.format.write_array_header_1_0(buffer, said)
        buffer.write(x.tobytes())
    else:
        np.lib.format.write_array(buffer, x)
    return buffer.getvalue()


BOMB = array(np.zeros(0, np.float32), shape=(1 << 30, 3, 8, 8))
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "begins like neither"),
    "text": (b"no arrays at all", "begins like neither"),
    "cut off": (array(X)[:-100], "is damaged or cut off"),
    "header cut off": (array(X)[:20], "cannot be read as NumPy arrays"),
    "more than it says": (array(X) + b"more", "it is damaged or cut off"),
    "objects": (array(np.array([None, 1])), "holds Python objects"),
    "records": (array(np.zeros(2, [("a", "f4")])), "which are not numbers"),
    "dates": (array(np.zeros(2, "M8[s]")), "which are not numbers"),
    "negative": (array(X, shape=(-26, 3, 8, 8)), "its shape is said to be"),
    "claims more than is there": (BOMB, "0 are there"),
    "header is not a dictionary": (array(X).replace(b"{'descr", b"['descr"), "Cannot parse header"),
    "version": (array(X).replace(b"NUMPY\x01", b"NUMPY\x07"), "version 7.0 of the format"),
    "archive cut off": (packed(x_npy=X)[:-50], "cannot be read as NumPy arrays"),
    "member cut off": (packed(x_npy=array(X)[:-8]), "is damaged or cut off"),
    "checksum": (packed(x_npy=X)[:300] + b"\x00\x01" + packed(x_npy=X)[302:], "cannot be read as NumPy arrays"),
    "no member": (packed(), "holds no array"),
    "other member": (packed(x_npy=X, readme=b"hello"), "holds 'readme', which is not an array"),
    "bomb": (packed(x_npy=array(np.zeros((1 << 20) * 100, np.float32))), "claim to unpack to 419"),
    "names": (packed(a_npy=X, b_npy=X), "takes the inputs"),
    "labels out of range": (packed(x_npy=X, y_npy=Y + 7), "from 7 to 11"),
    "label lengths": (packed(x_npy=X, y_npy=Y[:3]), "26 inputs and labels"),
    "not a number": (packed(x_npy=X * np.float32(np.nan)), "NaN or infinity in example 0"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_data_are_refused(case: str, tmp_path: Path) -> None:
    content, message = FILES[case]
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        opened(path, chain(), None, 0.25, 0, True)


def test_names_twice_and_places(tmp_path: Path) -> None:
    path = tmp_path / "twice.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", array(X))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", array(X + 1))
    with pytest.raises(InputError, match=r"'x\.npy' is in it twice"):
        ArrayFile.open(path, "--input")
    with pytest.raises(InputError, match="there is no"):
        ArrayFile.open(tmp_path / "none.npz", "--input")
    with pytest.raises(InputError, match="is not a file"):
        ArrayFile.open(tmp_path, "--input")
    with pytest.raises(InputError, match=r"give a \.npz file"):
        load_calibration(Path("/dev/null"), chain())


@pytest.mark.parametrize("x", [X, np.asfortranarray(X), X.astype(">f4"), X.astype(np.float16), np.arange(3), X[:0]])
@pytest.mark.parametrize("compressed", [False, True])
def test_what_numpy_writes_is_read(x: Array, compressed: bool, tmp_path: Path) -> None:
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", x=x, y=Y)
    np.save(tmp_path / "a.npy", x)
    both = ArrayFile.open(tmp_path / "a.npz", "--input").read_all()
    np.testing.assert_array_equal(both["y"], Y)
    for found in (both["x"], ArrayFile.open(tmp_path / "a.npy", "--input").read("x")):
        assert found.dtype == x.dtype
        np.testing.assert_array_equal(found, x)


def test_labels_of_an_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, labels=Y)
    report = secateur.compile(chain(), "taylor", calibration=tmp_path / "d.npz").report
    assert report.quality is not None
    assert report.quality["top1"] is not None
    assert any("cross-entropy with the labels" in r for r in report.remarks)
    assert json.loads(report.to_json())["quality"]["held_out"] is True


def test_what_is_not_used_of_a_file_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, classes=Y)
    assert "not used of 'd.npz': 'classes'" in secateur.compile(chain(), calibration=tmp_path / "d.npz").report.remarks
