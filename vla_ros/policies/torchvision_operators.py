"""torchvision beside a torch that it wasn't built for: its own operators don't load then, and with them all of it."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import torch

_DETECTION_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# A library's operators are there as long as it is.
_kept: list[Any] = []


def import_torchvision() -> None:
    """Imports torchvision, also where its compiled operators don't fit this torch.

    A torchvision for CUDA with a torch for the CPU has no `torchvision::nms`, and its import ends there. Networks and
    transforms, which are what policies take of it, don't use it; so it is declared, and who calls it gets torch's own
    error that it isn't implemented.

    Raises:
        ImportError: if torchvision isn't installed.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        make: Any = torch.library.Library
        library = make("torchvision", "FRAGMENT")
        for schema in _DETECTION_OPERATORS:
            library.define(schema)
        _kept.append(library)
        importlib.import_module("torchvision")
