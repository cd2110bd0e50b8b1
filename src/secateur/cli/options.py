"""Options that several commands have, with their help. Loads nothing but what parses them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="f32|bf16|tf32|f16|auto",
        help="What a library multiplies in: bf16 where the target has instructions for it, auto where that is faster; "
        "tf32 or f16 on a GPU's tensor cores.",
    ),
]
Trust = Annotated[bool, typer.Option("--trust", help="Do not run the files next to what was read from them.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Let OUT be IN; it is replaced at the very end.")]
Protect = Annotated[
    list[str] | None, typer.Option(metavar="GLOB", help="Layers that keep their output channels, such as 'head.*'.")
]
Shape = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME:1,3,320,320", help="Sizes of an input to count and time at, where the file has none."),
]
Layers = Annotated[
    str | None,
    typer.Option(metavar="all|N", help="Layers in the table: all, or the N heaviest; of more than 60 the 15 heaviest."),
]
Json = Annotated[str | None, typer.Option("--json", metavar="FILE|-", help="Write the report as JSON; - is stdout.")]
Calibration = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR|FILE.npz",
        help="Data to score and fit on: arrays by input name and labels y, or images; sub-folders are classes if "
        "named by their numbers, listed in classes.txt, or as many as the network has (then in alphabetical order).",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B", help="Images: x = (pixel * scale - mean) / std, by channel as the network takes them, "
        "so B,G,R with --bgr. Without --mean, --std and --scale: ImageNet's; with one of them: 0."
    ),
]  # fmt: skip
Std = Annotated[str | None, typer.Option(metavar="R,G,B", help="Images: see --mean; 1 where that is 0.")]
Bgr = Annotated[bool, typer.Option("--bgr", help="Images: the network takes blue first.")]
Scale = Annotated[
    str | None, typer.Option(metavar="1|1/255", help="Images: what pixels, 0 to 255, are multiplied by; 1/255.")
]
Size = Annotated[
    int | None,
    typer.Option(metavar="PIXELS", help="Images: their shorter side before the middle is cut out; 256 for 224."),
]
Holdout = Annotated[
    str, typer.Option(metavar="25%", help="Share of the examples that only the report's quality is measured on.")
]
Source = Annotated[Path, typer.Argument(metavar="IN.onnx", help="The model.", show_default=False)]
Out = Annotated[
    Path | None,
    typer.Argument(metavar="OUT.onnx", help="The model to write; --dry-run needs none.", show_default=False),
]
RecipeOut = Annotated[
    Path | None, typer.Option("--recipe", metavar="OUT.json", help="Write what was kept and done, to replay it.")
]
Page = Annotated[Path | None, typer.Option("--report", metavar="OUT.html", help="Write the report as a page.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Do it all and write nothing but --report and --json.")]
Target = Annotated[str, typer.Option(metavar="T", help="native, or a name from secateur.codegen.TARGETS.")]
Batch = Annotated[int | None, typer.Option(help="Another batch than the model was exported with.", show_default=False)]
Tracker = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Measure on the boards of this TVM tracker, not here.")
]
Key = Annotated[str | None, typer.Option(metavar="KEY", help="Which of the tracker's boards.")]
Threads = Annotated[int, typer.Option(help="Threads that a run may use.")]
