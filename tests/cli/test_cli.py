"""The command line: results, exit codes, messages, and no half-written files."""

import io
import json
import os
import re
import subprocess
import sys
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import rich.progress
import torch
from rich.console import Console
from typer.testing import CliRunner

import secateur
from secateur import api
from secateur.cli import terminal
from secateur.cli.app import app
from secateur.cli.passes import first_sentence
from secateur.ir.exporters.onnx.write import save
from support.command import Call, listing
from support.nets import chain


def test_compile_writes_all_and_keeps_stdout_for_json(call: Call, model: Path) -> None:
    out, recipe, page = (model.with_name(n) for n in ("out put.onnx", "r.json", "r.html"))
    done = call("compile", model, out, "--macs", "50%", "--recipe", recipe, "--report", page, "--json", "-")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["after"]["macs"] <= report["before"]["macs"] / 2
    assert report["model"] == "in put.onnx"
    assert "law: holds" in done.err
    assert "\x1b" not in done.err
    table, wrote = (
        [line for line in done.err.splitlines() if line.startswith("wrote ") == written] for written in (False, True)
    )
    assert max(map(len, table)) <= 80
    assert [line.partition(",")[0] for line in wrote] == [f"wrote {path}" for path in (out, recipe, page)]
    assert f"{out.stat().st_size / 1000:.3g} kB" in wrote[0]
    assert listing(model) == {"in put.onnx", "out put.onnx", "r.json", "r.html"}
    assert call("verify", model, out, "--recipe", recipe).code == 0
    again = model.with_name("again.onnx")
    assert call("apply", recipe, model, again).code == 0
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (["prune", "a.onnx"], "no such command: prune (did you mean compile?)"),
        (["bnch"], "no such command: bnch (did you mean bench?)"),
        (["compile", "--verbose", "a", "b"], "no such option: --verbose (did you mean --debug?)"),
        (["inspect", "--shap", "x:1", "a"], "no such option: --shap (did you mean --shape?)"),
        (["--versoin"], "no such option: --versoin (did you mean --version?)"),
        (["run", "--xyzzy"], "no such option: --xyzzy\n"),
    ],
)
def test_what_was_probably_meant(call: Call, said: list[str], meant: str) -> None:
    done = call(*said)
    assert done.code == 2
    assert meant in done.err


def test_widths_that_follow_this_machine_are_told(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "lanes_of", lambda target: 8)
    monkeypatch.setattr(api, "_timed", lambda *_: (None, ()))
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    save(chain(), source)
    command = ("compile", source, out, "--target", "native", "--macs", "40%")
    assert "widths are multiples of 8, as many as a vector of this machine holds; --round-to 8 " in call(*command).err
    assert "widths are multiples of 4, as with 8 the budget" in call(*command[:-1], "60%").err
    assert "widths are multiples" not in call(*command, "--round-to", "8").err
    for target in ((), ("--target", "x86-avx2")):
        assert "widths are multiples" not in call("compile", source, out, "--overwrite", "--macs", "40%", *target).err
    assert "widths are multiples" not in call("compile", source, out, "--policy", "none").err


def test_what_is_piped_is_not_wrapped(call: Call, tmp_path: Path) -> None:
    source = tmp_path / f"{'a_long_name_of_a_file_' * 6}.onnx"
    save(chain(), source)
    done = call("bench", source, "--repeats", "1")
    assert any(line.startswith(source.name) for line in done.err.splitlines())


def test_layers_of_the_table(call: Call, model: Path) -> None:
    shown = call("inspect", model, "--layers", "2").err
    assert "and 3 lighter layers: " in shown and "--layers all" in shown
    assert "lighter" not in call("inspect", model, "--layers", "all").err
    for wrong in ("0", "few"):
        done = call("compile", model, model.with_name("o.onnx"), "--layers", wrong)
        assert done.code == 2
        assert f"--layers {wrong}: give all, or a whole number" in done.err


def test_every_command_lists_what_it_writes(call: Call, model: Path) -> None:
    out, recipe, again, page = (model.with_name(n) for n in ("o.onnx", "r.json", "again.onnx", "i.json"))
    assert call("compile", model, out, "--recipe", recipe).code == 0
    said = call("apply", recipe, model, again).err
    assert f"wrote {again}, {again.stat().st_size / 1000:.3g} kB" in said
    assert f"wrote {page}, " in call("inspect", model, "--json", page).err


def test_verify_fails_with_1(call: Call, model: Path) -> None:
    recipe = model.with_name("r.json")
    assert call("compile", model, model.with_name("o.onnx"), "--recipe", recipe).code == 0
    done = call("verify", model, model, "--recipe", recipe)
    assert done.code == 1
    assert "FAILS" in done.err


def test_verify_takes_inputs(call: Call, model: Path) -> None:
    out, recipe, given = (model.with_name(n) for n in ("o.onnx", "r.json", "x.npz"))
    assert call("compile", model, out, "--recipe", recipe).code == 0
    np.savez(given, x=np.ones((1, 3, 8, 8), np.float32))
    assert "on 3 inputs" in call("verify", model, out, "--recipe", recipe, "--input", given).err
    given.write_text("no arrays")
    assert call("verify", model, out, "--recipe", recipe, "--input", given).code == 2


def test_policy_options(call: Call, model: Path) -> None:
    policy = model.with_name("p.toml")
    policy.write_text('[budget]\nparams = "70%"\n[score]\ncriterion = "random"\n')
    done = call("compile", model, model.with_name("o.onnx"), "--policy", policy, "--round-to", "2", "--seed", 4,
                "--protect", "b", "--json", "-")  # fmt: skip
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["policy"] == "couple{protect=[b]},random,global{params=70%,round_to=2},slim"
    assert report["seed"] == 4


@pytest.mark.parametrize("given", [True, False])
def test_sensitivity_is_measured_on_data_or_on_random_inputs(call: Call, model: Path, given: bool) -> None:
    data = model.with_name("data.npz")
    np.savez(data, x=np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32))
    done = call("compile", model, model.with_name("o.onnx"), "--policy", "l1,sensitivity{macs=60%}", "--json", "-",
                *(["--calibration", data] if given else []))  # fmt: skip
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["policy"].startswith("l1,sensitivity{macs=60%,round_to=")
    assert report["budget"]["achieved"] <= 0.6
    said = [r for r in report["remarks"] if "sensitivity measured on" in r]
    assert ("random inputs" in said[0]) != given
    assert not any("not needed" in r for r in report["remarks"])


def test_dry_run_writes_nothing(call: Call, model: Path) -> None:
    done = call("compile", model, model.with_name("o.onnx"), "--recipe", model.with_name("r.json"), "--dry-run")
    assert done.code == 0
    assert listing(model) == {"in put.onnx"}
    assert done.err.splitlines()[-1] == "nothing was written (--dry-run)"


def test_dry_run_needs_no_output_and_writes_the_report(call: Call, model: Path) -> None:
    page, report = model.with_name("r.html"), model.with_name("r.json")
    done = call("compile", model, "--dry-run", "--report", page, "--json", report)
    assert done.code == 0
    assert done.err.splitlines()[-1] == "nothing else was written (--dry-run)"
    assert listing(model) == {"in put.onnx", "r.html", "r.json"}
    assert json.loads(report.read_text())["after"]["macs"] > 0
    done = call("compile", model)
    assert (done.code, done.err) == (2, "secateur: OUT.onnx is missing: name the file to write; only --dry-run does "
                                        "without\n")  # fmt: skip


def test_the_input_is_not_overwritten_by_accident(call: Call, model: Path) -> None:
    before = model.read_bytes()
    link = model.with_name("link.onnx")
    link.symlink_to(model)
    for out in (model, link):
        done = call("compile", model, out)
        assert done.code == 2
        assert "--overwrite" in done.err
    assert model.read_bytes() == before
    assert call("compile", model, model, "--overwrite").code == 0
    assert len(model.read_bytes()) < len(before)


def test_failures_leave_the_input_alone_even_with_overwrite(call: Call, model: Path) -> None:
    before = model.read_bytes()
    done = call("compile", model, model, "--overwrite", "--macs", "10")
    assert done.code == 1
    assert "at least" in done.err
    assert model.read_bytes() == before
    assert listing(model) == {"in put.onnx"}


def test_an_absolute_budget_that_reads_like_percents(call: Call, model: Path) -> None:
    done = call("compile", model, model.with_name("o.onnx"), "--macs", "50")
    assert done.code == 1
    assert "50 means 50 multiply-accumulates; for a share write 50%" in done.err


def test_what_stood_there_is_said_to_be_replaced(call: Call, model: Path) -> None:
    out = model.with_name("o.onnx")
    assert "in place of" not in call("compile", model, out).err
    assert f"wrote {out}, 2" in (again := call("compile", model, out).err)
    assert "in place of the file that stood there" in again


def test_a_checkpoint_is_named(call: Call, tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "net.pth")
    done = call("inspect", tmp_path / "net.pth")
    assert done.code == 2
    assert "a PyTorch checkpoint and not an ONNX file: use secateur.compile(model, example_inputs=...)" in done.err


def test_progress_names_what_runs(tmp_path: Path) -> None:
    told: list[str] = []
    secateur.compile(chain(), "fold_bn,l1", progress=lambda stage: told.append(stage))
    assert told[:7] == ["read the model", "fold_bn", "canonicalize", "couple", "l1", "global", "slim"]


def test_a_terminal_shows_what_runs_and_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    screen = Console(file=stream, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(terminal, "Console", lambda **_: screen)
    drawn = partialmethod(rich.progress.Progress.update, refresh=True)  # at once, and not ten times a second
    monkeypatch.setattr(rich.progress.Progress, "update", drawn)
    steps = [
        ((0, None, "gather"), " gather 0:"), ((3, 12, "calibrate"), " calibrate  3/12 0:"),
        ((4, 12, ""), " calibrate  4/12 0:"), ((0, None, "slim"), " slim 0:"),
    ]  # fmt: skip
    with terminal.progress() as tell:
        for told, said in steps:
            tell(*told)
            assert said in stream.getvalue()


def test_inspect(call: Call, model: Path) -> None:
    done = call("inspect", model, "--json", "-")
    assert done.code == 0
    report = json.loads(done.out)
    assert report["after"] is None
    assert {row["name"] for row in report["layers"]} == {"a", "b", "c", "g", "y"}
    assert "graph output" in done.err
    target = model.with_name("i.json")
    assert call("inspect", model, "--json", target).code == 0
    assert json.loads(target.read_text())["layers"] == report["layers"]
    assert call("inspect", model, "--json", model).code == 2


def test_passes(call: Call) -> None:
    done = call("passes")
    assert done.code == 0
    for name in secateur.PASSES:
        assert any(line.split("{")[0] == name for line in done.out.splitlines())
    assert "Li et al." in call("passes", "l1").out
    assert "did you mean global" in call("passes", "globl").err
    said = done.out.splitlines()
    heads = [line for line in said if line.startswith("# ")]
    assert [re.split("[,:]", head)[0] for head in heads] == [
        "# rewrites", "# criteria", "# allocation", "# compensation", "# zeros in weights", "# analyses",
    ]  # fmt: skip
    assert said.index("l2") > said.index(heads[1]) and said.index("slim") > said.index(heads[5])
    about = re.findall(r"(?:^    .*\n)+", done.out, re.MULTILINE)
    assert len(about) == len(secateur.PASSES)
    assert all(text.endswith(".\n") and max(map(len, text.splitlines())) <= 100 for text in about)


def test_a_sentence_ends_at_its_own_full_stop() -> None:
    assert (
        first_sentence("What others\nspan (Li et al. 2017). More.\n\nEven more.")
        == "What others span (Li et al. 2017)."
    )
    assert first_sentence("Li et al. said so. More") == "Li et al. said so."
    assert first_sentence("One line of\ntwo") == "One line of two"


def test_help_and_version(call: Call) -> None:
    assert call().code == 2
    assert "compile" in call().out
    assert call("--version").out == call("-V").out == f"secateur {secateur.__version__}\n"
    assert call("compile", "--help").code == 0
    assert call("compil").code == 2


def test_module_starts_without_torch() -> None:
    """What `secateur --help` loads, in a process of its own."""
    code = (
        "import sys; from secateur.cli.app import main; sys.argv = ['secateur', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'onnx', 'numpy'} & set(sys.modules)"
    )
    here = {**os.environ, "PYTHONPATH": str(Path(secateur.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=here, check=False)
    assert done.returncode == 0, done.stderr


def test_a_net_with_batch_norm_by_its_scales(call: Call, tmp_path: Path) -> None:
    save(chain(), tmp_path / "c.onnx")
    assert call("compile", tmp_path / "c.onnx", tmp_path / "o.onnx", "--policy", "slimming", "--macs", "80%").code == 0


@pytest.mark.parametrize(("words", "found"), [("secateur ins", "inspect"), ("secateur compile --mac", "--macs")])
def test_the_shell_completes_commands_and_options(words: str, found: str) -> None:
    asked = {"_SECATEUR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = CliRunner().invoke(app, prog_name="secateur", env=asked)
    assert done.stdout.split() == [found]
