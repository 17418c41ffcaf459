"""Parameters of a learned policy, and the choice of what runs its network."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

from vla_ros.policies.checkpoint import Checkpoint
from vla_ros.policies.model_runtime import ModelRuntime
from vla_ros.policies.packages import packages_for

WHERE = "policy learned: parameters"


@dataclass(frozen=True)
class LearnedParameters:
    """Parameters in the YAML of a learned policy.

    Attributes:
        checkpoint: its folder, absolute or relative to the YAML's folder.
        runtime: `onnx` needs an exported model and no torch; `auto` takes it where there is one, else `torch`.
        threads: of the CPU, for one inference; 0 for the library's own choice.
        device: torch's name of where the network runs, such as `cuda`; an exported one runs on the `cpu`.
        steps: of a sampler that takes several, in the place of the checkpoint's; null to keep those. An exported model
            has those that it was exported with.
        prefix: how an answer continues the chunk that is being executed (real-time chunking): `trained` into the
            network; `guided` as it samples, by torch; `auto` in the way that it can, the first before the second;
            `none` not at all, as one that can't.
        added_words: behind every instruction, such as the word for what goes well where training told it.
    """

    checkpoint: str
    runtime: Literal["auto", "onnx", "torch"] = "auto"
    threads: int = 1
    device: str = "cpu"
    steps: int | None = None
    prefix: Literal["auto", "trained", "guided", "none"] = "auto"
    added_words: str = ""

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ValueError(f"threads {self.threads} is negative")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps {self.steps} is below 1")
        if self.runtime == "onnx" and self.device != "cpu":
            raise ValueError(f"device {self.device!r} with runtime onnx, which runs on the cpu; use runtime torch")
        if self.runtime == "onnx" and self.prefix == "guided":
            raise ValueError("prefix guided with runtime onnx, which can't differentiate; use runtime torch")
        if self.runtime == "onnx" and self.steps is not None:
            raise ValueError("steps with runtime onnx, where they are those it was exported with; leave steps out")


def runs_onnx(checkpoint: Checkpoint, settings: LearnedParameters) -> bool:
    """Whether ONNX Runtime is to run it: where that is asked for, or nothing speaks against it."""
    if settings.runtime != "auto":
        return settings.runtime == "onnx"
    is_free = settings.device == "cpu" and settings.steps is None and settings.prefix != "guided"
    return checkpoint.onnx is not None and is_free and importlib.util.find_spec("onnxruntime") is not None


def load_runtime(checkpoint: Checkpoint, settings: LearnedParameters) -> ModelRuntime:
    """Loads the network.

    Raises:
        ConfigError: if weights or export don't fit the checkpoint, or can't do what the parameters ask for.
        MissingDependencyError: if what is to run it isn't installed.
    """
    # Imported here, so that each runs where the other isn't installed.
    if runs_onnx(checkpoint, settings):
        with packages_for("learned policies that are exported"):
            from vla_ros.policies.onnx_model import OnnxModel
        return OnnxModel.of_checkpoint(checkpoint, settings.threads, settings.prefix)
    with packages_for(f"checkpoint {checkpoint.folder}, unless it is exported and onnxruntime is installed"):
        from vla_ros.policies.torch_model import TorchModel, load_model
    return TorchModel(load_model(checkpoint, settings.steps), settings.device, settings.threads, settings.prefix)
