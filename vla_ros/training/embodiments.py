"""Several arms in one training: states and actions padded to the widest, the padding masked, and which arm it is, said.

A state is padded with 0, which is its mean once normalised, and followed by a one-hot number of the arm. Actions that
an arm doesn't have are masked out of the loss, and a network that denoises doesn't see them (`Inputs.has_action`).

Source: pi0, arXiv 2410.24164, section V (zero padding to the largest robot; there the padding is learned as zeros).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vla_ros.errors import ConfigError
from vla_ros.policies.architectures.base import Architecture, Batch, Inputs
from vla_ros.policies.architectures.spec import ModelSpec
from vla_ros.training.learner import Batches

# Of a batch, for a part that doesn't say where things are while another does.
_OPTIONAL = ("target_xy", "target_visible", "target_pose", "target_pose_valid", "weight", "index")


@dataclass(frozen=True)
class Embodiment:
    """One arm among several.

    Attributes:
        name: of it.
        spec: of a network for this arm alone.
    """

    name: str
    spec: ModelSpec


def common_spec(embodiments: Sequence[Embodiment]) -> ModelSpec:
    """Of a network for all of them: the widest action, and the widest state with a number for each arm behind it.

    Raises:
        ConfigError: if they differ in more than their widths and words.
    """
    first = embodiments[0].spec
    for each in embodiments[1:]:
        for name in ("images", "image_size", "horizon", "takes_language"):
            if getattr(each.spec, name) != getattr(first, name):
                problem = f"{name} is {getattr(each.spec, name)}, of {embodiments[0].name} {getattr(first, name)}"
                raise ConfigError(f"embodiment {each.name}", problem, "give both contracts the same")
    specs = [each.spec for each in embodiments]
    return dataclasses.replace(
        first,
        state_width=max(spec.state_width for spec in specs) + len(specs),
        action_width=max(spec.action_width for spec in specs),
        vocabulary=tuple(dict.fromkeys(word for spec in specs for word in spec.vocabulary)),
        max_words=max(spec.max_words for spec in specs),
    )


def pad_inputs(inputs: Inputs, place: int, embodiments: Sequence[Embodiment], common: ModelSpec) -> Inputs:
    """What one arm's network would see, as the common network sees it.

    Args:
        inputs: of the arm.
        place: of it among the embodiments.
        embodiments: all of them.
        common: `common_spec` of them.
    """
    own, count = embodiments[place].spec, len(inputs.state)
    state = F.pad(inputs.state, (0, common.state_width - len(embodiments) - own.state_width))
    is_arm = torch.arange(len(embodiments), device=state.device) == place
    state = torch.cat([state, is_arm.to(state.dtype).expand(count, -1)], dim=1)
    number = {word: index + 1 for index, word in enumerate(common.vocabulary)}
    table = torch.tensor([0, *(number[word] for word in own.vocabulary)], device=inputs.words.device)
    words = F.pad(table[inputs.words], (0, common.max_words - own.max_words))
    has_action = torch.arange(common.action_width, device=state.device) < own.action_width
    return Inputs(inputs.images, state, words, has_action.expand(count, -1))


def pad_batch(batch: Batch, place: int, embodiments: Sequence[Embodiment], common: ModelSpec) -> Batch:
    """One arm's batch as the common network learns from it; see `pad_inputs`."""
    actions = F.pad(batch.actions, (0, common.action_width - embodiments[place].spec.action_width))
    inputs = pad_inputs(batch.inputs, place, embodiments, common)
    return dataclasses.replace(batch, inputs=inputs, actions=actions)


class EmbodimentBatches:
    """Batches that mix those of several arms, each with its share of every batch. A `Batches`.

    Args:
        embodiments: the arms.
        parts: batches of each, of its own spec.
        shares: of a batch, relative to each other; None for as many as each has examples.

    Raises:
        ConfigError: if arms and batches aren't as many, or the arms don't fit together.
    """

    def __init__(
        self, embodiments: Sequence[Embodiment], parts: Sequence[Batches], shares: Sequence[float] | None = None
    ) -> None:
        if len(embodiments) != len(parts) or not parts or (shares is not None and len(shares) != len(parts)):
            problem = f"{len(embodiments)} arms, {len(parts)} parts, shares {shares}"
            raise ConfigError("embodiments", problem, "give one part, and one share if any, for each arm")
        self.spec = common_spec(embodiments)
        self._embodiments, self._parts = tuple(embodiments), tuple(parts)
        self._shares = tuple(len(part) for part in parts) if shares is None else tuple(shares)

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def batch(self, step: int, size: int) -> Batch:
        """See `Batches.batch`; the examples of each arm come together, in the order of the arms.

        Raises:
            ConfigError: if the batch is too small for all arms.
        """
        counts = apportion(self._shares, size)
        if min(counts) < 1:
            raise ConfigError("loop.batch_size", f"{size} leaves {counts} for the arms", "take a larger one")
        padded = [
            pad_batch(part.batch(step, count), place, self._embodiments, self.spec)
            for place, (part, count) in enumerate(zip(self._parts, counts, strict=True))
        ]
        return join(padded)


def apportion(shares: Sequence[float], size: int) -> list[int]:
    """A batch's size in whole numbers by shares: rounded down, what is left going to the largest remainders."""
    exact = [size * share / sum(shares) for share in shares]
    counts = [int(each) for each in exact]
    order = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in order[: size - sum(counts)]:
        counts[i] += 1
    return counts


def join(batches: Sequence[Batch]) -> Batch:
    """Batches of one spec in one; where one doesn't say what another does, that counts for nothing there."""
    inputs = Inputs(
        torch.cat([batch.inputs.images for batch in batches]),
        torch.cat([batch.inputs.state for batch in batches]),
        torch.cat([batch.inputs.words for batch in batches]),
        torch.cat([_has_action(batch) for batch in batches]),
    )
    filled = [_fill(batch, batches) for batch in batches]
    actions, is_valid = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("actions", "is_valid"))
    optional = {name: _cat([each[name] for each in filled]) for name in _OPTIONAL}
    return Batch(inputs, actions, is_valid, **optional)


def _has_action(batch: Batch) -> Tensor:
    found = batch.inputs.has_action
    return torch.ones_like(batch.actions[:, 0], dtype=torch.bool) if found is None else found


def _fill(batch: Batch, others: Sequence[Batch]) -> dict[str, Tensor | None]:
    """The optional tensors of a batch, made up where only others have them."""
    found: dict[str, Tensor | None] = {}
    count = len(batch.actions)
    for name, counted in (("target_xy", "target_visible"), ("target_pose", "target_pose_valid")):
        values = next((getattr(each, name) for each in others if getattr(each, name) is not None), None)
        if values is None:
            found[name] = found[counted] = None
            continue
        own, is_known = getattr(batch, name), getattr(batch, counted)
        shape = (count, *values.shape[1:])
        found[name] = torch.zeros(shape, dtype=values.dtype, device=values.device) if own is None else own
        if own is None or is_known is None:
            is_known = torch.full(shape[:-1], own is not None, device=values.device)
        found[counted] = is_known
    has_weight = any(each.weight is not None for each in others)
    found["weight"] = torch.ones_like(batch.actions[:, 0, 0]) if has_weight and batch.weight is None else batch.weight
    # Numbers of different sets of examples would mix.
    found["index"] = None
    return found


def _cat(tensors: Sequence[Tensor | None]) -> Tensor | None:
    known = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(known) if len(known) == len(tensors) else None


def sampler_for(
    model: Architecture, place: int, embodiments: Sequence[Embodiment]
) -> Callable[[Inputs, Tensor], Tensor]:
    """A common network as one arm's: what that arm sees, and noise (B, H, d) of its own width, to its actions."""
    common, own = common_spec(embodiments), embodiments[place].spec

    def sample(inputs: Inputs, noise: Tensor) -> Any:
        padded = F.pad(noise, (0, common.action_width - own.action_width))
        return model.sample(pad_inputs(inputs, place, embodiments, common), padded)[..., : own.action_width]

    return sample
