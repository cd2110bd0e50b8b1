"""What engines and pruners are called in tables, by the names that rows have."""

from __future__ import annotations

ENGINES = {
    "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "ncnn": "ncnn", "mnn": "MNN", "litert": "LiteRT",
    "opencv": "OpenCV", "deepsparse": "DeepSparse",
}  # fmt: skip
PRUNERS = {
    "secateur": "secateur", "torch-pruning": "Torch-Pruning", "torch-kirigami": "torch-kirigami",
    "torch-kirigami-told": "torch-kirigami (told which rows go)",
}  # fmt: skip
MODULE_FAULTS = ("refused", "wrong", "crash", "slow")
WRONG = 1e-2  # of the outputs' scale: who is further off computes something else
