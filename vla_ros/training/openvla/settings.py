"""The settings of a fine-tuning of OpenVLA: `config/training/openvla.yaml`, or a file of one's own."""

from __future__ import annotations

from dataclasses import dataclass, field

from vla_ros.policies.openvla.adapters import LoraShape
from vla_ros.training.config import LoopConfig
from vla_ros.training.data_config import PolicyDataConfig
from vla_ros.training.openvla.augmentation import ImageVariation
from vla_ros.training.options import Distillation


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


@dataclass(frozen=True, kw_only=True)
class OpenVLATraining(PolicyDataConfig):
    """A training run; what is learned from is said in `data_config`.

    Attributes:
        policy: `openvla`.
        openvla: what is fine-tuned, and how.
        held_out_examples: see there; an answer takes seven passes through the model.
        loop: how it is trained.
        distillation: from a teacher, by logits; null for none.
    """

    policy: str
    openvla: FineTuning = field(default_factory=FineTuning)
    held_out_examples: int = 64
    loop: LoopConfig = field(default_factory=LoopConfig)
    distillation: Distillation | None = None
