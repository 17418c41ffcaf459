"""What every network is to training, to the policy that runs it and to its export.

Everything here is in the network's own numbers: actions and state are normalised, images float in [0, 1].
"""

from __future__ import annotations

import dataclasses
import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from vla_ros.errors import UnknownNameError
from vla_ros.policies.architectures.spec import ARCHITECTURES, ModelSpec

# Names of an exported network's inputs, in order; all of them have a batch of 1.
EXPORT_INPUTS = ("images", "state", "words", "noise", "prefix_actions", "prefix_count")
EXPORT_OUTPUTS = ("actions",)


T = TypeVar("T", bound="_Tensors")


class _Tensors:
    """A dataclass of tensors and of other such dataclasses."""

    def to(self: T, device: torch.device | str) -> T:
        """The same on another device."""
        moved = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return type(self)(**{name: value if value is None else value.to(device) for name, value in moved.items()})


@dataclass(frozen=True)
class Inputs(_Tensors):
    """What a network sees.

    Attributes:
        images: (B, cameras, 3, h, w) float in [0, 1], cameras as in `ModelSpec.images`; zeros for an absent one.
        state: (B, state_width) normalised.
        words: (B, max_words) int64 of `ModelSpec.word_ids`.
        has_action: (B, d) bool, which numbers of an action the arm at hand has, where arms of several widths are
            padded to the widest; None where all have all.
    """

    images: Tensor
    state: Tensor
    words: Tensor
    has_action: Tensor | None = None


@dataclass(frozen=True)
class Batch(_Tensors):
    """Examples to learn from.

    Attributes:
        inputs: what was seen.
        actions: (B, H, d) what was done, normalised.
        is_valid: (B, H) bool, False where an episode ended before the chunk did; those actions count for nothing
            and may be NaN.
        target_xy: (B, cameras, things, 2) where in each image the things meant are, from (0, 0), upper left corner, to
            (1, 1), lower right: what the instruction names first, then where that is to go, if anywhere. None where
            nobody knows; networks without an auxiliary loss ignore it.
        target_visible: (B, cameras, things) bool, where `target_xy` counts; None if everywhere.
        target_pose: (B, things, k) where these things are relative to the tool, of size 1; None where nobody knows.
        target_pose_valid: (B, things) bool, where `target_pose` counts; None if everywhere.
        weight: (B,) how much each example's actions count, at least 0; None for the same.
        index: (B,) int64, rows of their set of examples; None where nobody says.
    """

    inputs: Inputs
    actions: Tensor
    is_valid: Tensor
    target_xy: Tensor | None = None
    target_visible: Tensor | None = None
    target_pose: Tensor | None = None
    target_pose_valid: Tensor | None = None
    weight: Tensor | None = None
    index: Tensor | None = None


@dataclass(frozen=True)
class ActionPrefix(_Tensors):
    """The beginning of a chunk, already decided.

    Attributes:
        actions: (B, H, d) normalised; past `count` it doesn't matter.
        count: (B,) int64, how many steps are decided, 0 for none.
    """

    actions: Tensor
    count: Tensor


class Architecture(nn.Module, ABC):
    """A network from images, state and words to a chunk of actions.

    A new one sets the class attributes, writes `losses` and `sample`, and is named in `spec.ARCHITECTURES`.

    Attributes:
        name: as in `spec.ARCHITECTURES`.
        config_class: frozen dataclass of its settings; its `__post_init__` raises ValueError for what can't be.
        supports_prefix: whether `sample` continues a given prefix.
        uses_noise: whether `sample` depends on the noise.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[Any]]
    supports_prefix: ClassVar[bool] = False
    uses_noise: ClassVar[bool] = True

    def __init__(self, spec: ModelSpec, config: Any) -> None:
        super().__init__()
        self.spec = spec
        self.config = config

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(H, d): shape of one sample's noise, standard normal."""
        return (self.spec.horizon, self.spec.action_width)

    @abstractmethod
    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms of the training loss, each a scalar; "total" is to be minimised.

        Args:
            batch: examples; steps that aren't valid have no influence.
            generator: source of all noise drawn here. (Dropout draws from torch's own; `training.step` seeds that.)
        """

    @abstractmethod
    def sample(self, inputs: Inputs, noise: Tensor, prefix: ActionPrefix | None = None) -> Tensor:
        """Answers with a chunk; the same for the same noise.

        Args:
            inputs: what is seen.
            noise: (B, H, d) standard normal, any if `uses_noise` is False.
            prefix: steps that the answer must begin with, where `supports_prefix` is True; otherwise only None.

        Returns:
            (B, H, d) normalised actions.
        """


class SampleModule(nn.Module):
    """`Architecture.sample` with tensors for arguments. No prefix is a prefix of 0 steps."""

    def __init__(self, model: Architecture) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, images: Tensor, state: Tensor, words: Tensor, noise: Tensor, prefix_actions: Tensor, prefix_count: Tensor
    ) -> Tensor:
        """Answers (1, H, d); shapes of the arguments are those of `export_inputs`."""
        prefix = ActionPrefix(prefix_actions, prefix_count) if self.model.supports_prefix else None
        return self.model.sample(Inputs(images, state, words), noise, prefix)


def export_inputs(model: Architecture) -> dict[str, Tensor]:
    """An example of every input of `SampleModule`, by the names and in the order of `EXPORT_INPUTS`."""
    spec, device = model.spec, next(model.parameters()).device
    chunk = (1, spec.horizon, spec.action_width)
    return {
        "images": torch.zeros((1, len(spec.images), 3, *spec.image_size), device=device),
        "state": torch.zeros((1, spec.state_width), device=device),
        "words": torch.zeros((1, spec.max_words), dtype=torch.int64, device=device),
        "noise": torch.zeros(chunk, device=device),
        "prefix_actions": torch.zeros(chunk, device=device),
        "prefix_count": torch.zeros(1, dtype=torch.int64, device=device),
    }


def masked_mean(values: Tensor, counts: Tensor) -> Tensor:
    """Mean of (B, H, d), weighted; 0 if nothing counts.

    Args:
        values: where nothing counts, anything finite.
        counts: (B, H) or (B, H, d), how much each counts: bool, or numbers from 0 on.
    """
    weight = counts.to(values.dtype)
    weight = (weight if weight.ndim == values.ndim else weight[..., None]).expand_as(values)
    total = weight.sum()
    return (values * weight).sum() / torch.where(total > 0.0, total, 1.0)


def action_counts(batch: Batch) -> Tensor:
    """(B, H, d) how much each number of the actions counts: valid, of the arm at hand, and of how much weight."""
    counts = batch.is_valid[..., None].expand_as(batch.actions).to(batch.actions.dtype)
    if batch.inputs.has_action is not None:
        counts = counts * batch.inputs.has_action[:, None]
    return counts if batch.weight is None else counts * batch.weight[:, None, None]


def clean_actions(batch: Batch) -> Tensor:
    """(B, H, d) actions without NaN: the last valid one goes on, and what the arm at hand doesn't have is 0."""
    held = hold_last_valid(batch.actions, batch.is_valid)
    has_action = batch.inputs.has_action
    return held if has_action is None else torch.where(has_action[:, None], held, 0.0)


def counted_mean(values: Tensor, is_counted: Tensor | None) -> Tensor:
    """Mean over the elements that count (all if None), 0 if none does; those that don't may be anything, NaN too."""
    if is_counted is None:
        return values.mean()
    return torch.where(is_counted, values, 0.0).sum() / is_counted.sum().clamp(min=1)


def refuse_prefix(model: Architecture, prefix: ActionPrefix | None) -> None:
    """For `sample` of a network without prefix: raises ValueError if one is given all the same."""
    if prefix is not None:
        raise ValueError(f"{model.name} can't continue a prefix; ask supports_prefix first")


def hold_last_valid(actions: Tensor, is_valid: Tensor) -> Tensor:
    """Actions (B, H, d) in which the last valid one goes on where (B, H) says there is none; zeros before the first.

    What the padding holds, NaN too, must show neither in the loss nor in the steps that count.
    """
    steps = torch.arange(actions.shape[1], device=actions.device)
    last = torch.where(is_valid, steps, -1).cummax(dim=1).values[..., None]
    held = actions.gather(1, last.clamp(min=0).expand_as(actions))
    return torch.where(last < 0, 0.0, held)


def draw_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of a tensor's shape, on its device, the same for a generator's state on every device."""
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like)


def no_prefix(actions: Tensor) -> ActionPrefix:
    """A prefix of 0 steps, for actions of that shape."""
    return ActionPrefix(actions, torch.zeros(len(actions), dtype=torch.int64, device=actions.device))


def architecture_class(name: str) -> type[Architecture]:
    """The network of that name; its module is imported now.

    Raises:
        UnknownNameError: for a name that isn't in `spec.ARCHITECTURES`.
    """
    if name not in ARCHITECTURES:
        raise UnknownNameError("architecture", name, ARCHITECTURES)
    module, _, attribute = ARCHITECTURES[name].partition(":")
    found: type[Architecture] = getattr(importlib.import_module(module), attribute)
    return found
