"""The settings of a fine-tuning of OpenVLA: `config/training/openvla.yaml`, or a file of one's own."""

from __future__ import annotations

from dataclasses import dataclass, field

from vla_ros.policies.openvla.adapters import LoraShape
from vla_ros.training.config import LoopConfig
from vla_ros.training.openvla.augmentation import ImageVariation
from vla_ros.training.options import Distillation
from vla_ros.training.selection import Selection


@dataclass(frozen=True)
class FineTuning:
    """How OpenVLA is fine-tuned.

    Attributes:
        checkpoint: folder of the base, in the hub's layout; the command's `--checkpoint`.
        adapter: name of the adapter that is trained; a new one, unless it is among `adapters`.
        adapters: folders of adapters by name: one to go on with, or others that stay as they are.
        lora: shape of a new adapter.
        dataset: name under which the actions' statistics are kept (`unnorm_key`); empty for the dataset's own.
        image: the contract's image that is shown; empty for the reference.
        quantisation: of the base's weights meanwhile (QLoRA): `none` or a name of `quantisation.SCHEMES`.
        dtype: of the base's weights; empty for the checkpoint's own.
        checkpointing: whether activations are computed once more in the backward pass instead of kept.
        learn_stop: whether the end after an action is learned, too.
        variation: of images; null for none. What it cuts off, the policy cuts off evenly.
        questions: folder of pictures with questions and answers that are learned beside; empty for none.
        share: of actions among the examples, where there are questions.
    """

    checkpoint: str = ""
    adapter: str = "mine"
    adapters: dict[str, str] = field(default_factory=dict)
    lora: LoraShape = field(default_factory=LoraShape)
    dataset: str = ""
    image: str = ""
    quantisation: str = "none"
    dtype: str = ""
    checkpointing: bool = False
    learn_stop: bool = False
    variation: ImageVariation | None = field(default_factory=ImageVariation)
    questions: str = ""
    share: float = 0.7

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"share {self.share} of actions isn't in (0, 1]")
        if not self.adapter or "." in self.adapter:
            raise ValueError(f"adapter {self.adapter!r} is empty or has a dot")

    @property
    def area(self) -> float:
        """Part of an image's area that the model sees."""
        return self.variation.area if self.variation else 1.0


@dataclass(frozen=True)
class OpenVLATraining:
    """A training run.

    Attributes:
        policy: `openvla`.
        contract: name or YAML file of what it sees and does; null for the datasets' own.
        datasets: folders; the command's `--dataset` come in their place.
        weights: how often each dataset is drawn from, relative to the others; null for all examples alike.
        openvla: what is fine-tuned, and how.
        selection: which frames are learned from.
        columns: of datasets that aren't ours: the contract's image or state item -> the dataset's column.
        held_out: share of the episodes that are examined and never trained on; 0 for none.
        held_out_examples: at most so many of their frames are examined each time.
        is_cached: whether prepared images are kept in files, else in memory.
        cache: folder of these; null for one in each dataset's.
        loop: how it is trained.
        distillation: from a teacher, by logits; null for none.
    """

    policy: str
    contract: str | None = None
    datasets: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None
    openvla: FineTuning = field(default_factory=FineTuning)
    selection: Selection = field(default_factory=Selection)
    columns: dict[str, str] = field(default_factory=dict)
    held_out: float = 0.05
    held_out_examples: int = 64
    is_cached: bool = True
    cache: str | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)
    distillation: Distillation | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.held_out < 1.0:
            raise ValueError(f"held_out {self.held_out} isn't in [0, 1)")
        if self.held_out_examples < 1:
            raise ValueError(f"held_out_examples {self.held_out_examples} is below 1")
        if self.weights is not None and self.datasets and len(self.weights) != len(self.datasets):
            raise ValueError(f"{len(self.weights)} weights of {len(self.datasets)} datasets; give one for each")
