"""Knowledge distillation: a small network learns what a large one says, besides what the demonstrations say.

By `actions` the student's own loss is taken on chunks that the teacher draws, whatever the two networks are. By `chunk`
the student's answer is compared with the teacher's to the same noise. By `logits` the distributions of tokens are
compared, softened by a temperature.

Source: Hinton et al., arXiv 1503.02531 (logits); Kim and Rush, arXiv 1606.07947, section 3.2 (sequences that the
teacher draws, here chunks).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vla_ros.errors import ConfigError
from vla_ros.policies.architectures.base import Architecture, Batch, draw_normal
from vla_ros.policies.architectures.losses import chunk_error, distillation_kl
from vla_ros.policies.checkpoint import read_checkpoint
from vla_ros.policies.torch_model import load_model
from vla_ros.training.architecture_learner import ArchitectureLearner
from vla_ros.training.learner import Learner
from vla_ros.training.options import Distillation
from vla_ros.training.wrapping import WrappedLearner


class TokenModel(Protocol):
    """What says tokens: a learner, or its teacher."""

    def logits(self, batch: Any) -> tuple[Tensor, Tensor]:
        """(B, n, V) logits of the tokens, and (B, n) which of them count, given the right ones before each."""


class DistilledLearner(WrappedLearner):
    """A learner with a teacher that answers with chunks.

    "total" is (1 - weight) of its own loss and weight of the teacher's, which is `distillation`.

    Args:
        inner: the student; its module is one of `architectures`.
        teacher: in evaluation mode from now on, without gradient, and no part of the student's module.
        config: how.
    """

    def __init__(self, inner: Learner, teacher: Architecture, config: Distillation) -> None:
        super().__init__(inner)
        self._network: Any = inner.module
        self._teacher = teacher.eval().requires_grad_(False)
        self._config = config

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Learner.losses`."""
        losses = self.inner.losses(batch, generator)
        noise = draw_normal(batch.actions, generator)
        self._teacher.to(batch.actions.device)
        with torch.no_grad():
            answer = self._teacher.sample(batch.inputs, noise).to(batch.actions.dtype)
        # The teacher knows how to go on where the episode ended.
        taught = dataclasses.replace(batch, actions=answer, is_valid=torch.ones_like(batch.is_valid))
        if self._config.by == "actions":
            distance = self.inner.losses(taught, generator)["total"]
        else:
            said = self._network.sample(batch.inputs, noise)
            counts = torch.ones_like(answer)
            if batch.inputs.has_action is not None:
                counts = counts * batch.inputs.has_action[:, None]
            distance = chunk_error(said, answer, counts, "mse")
        return mix(losses, distance, self._config.weight)


class TokenDistilledLearner(WrappedLearner):
    """A learner of tokens with a teacher of the same tokens.

    Args:
        inner: the student.
        student: its logits.
        teacher: likewise, of the same vocabulary; nothing of it is trained.
        config: how.
    """

    def __init__(self, inner: Learner, student: TokenModel, teacher: TokenModel, config: Distillation) -> None:
        super().__init__(inner)
        self._student, self._teacher, self._config = student, teacher, config

    def losses(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Learner.losses`."""
        losses = self.inner.losses(batch, generator)
        with torch.no_grad():
            wanted, _ = self._teacher.logits(batch)
        said, counts = self._student.logits(batch)
        return mix(losses, distillation_kl(said, wanted, counts, self._config.temperature), self._config.weight)


def mix(losses: dict[str, Tensor], distance: Tensor, weight: float) -> dict[str, Tensor]:
    """Losses with the term `distillation`, of which "total" has that share."""
    total = (1.0 - weight) * losses["total"] + weight * distance
    return {**losses, "distillation": distance, "total": total}


def read_teacher(folder: Path, student: ArchitectureLearner) -> Architecture:
    """The network of a checkpoint, as a teacher.

    Raises:
        ConfigError: if the checkpoint isn't whole, or sees or says something else than the student.
    """
    checkpoint = read_checkpoint(folder.expanduser())
    where = f"options.distillation.teacher {folder}"
    mend = "train both on the same data under the same contract"
    if checkpoint.contract.interface_hash != student.contract.interface_hash:
        raise ConfigError(where, f"is of contract {checkpoint.contract.name}, not {student.contract.name}", mend)
    if checkpoint.statistics.stats_hash != student.statistics.stats_hash:
        raise ConfigError(where, "normalises with other statistics than the student", mend)
    if checkpoint.card.spec != student.module.spec:
        fields = [field.name for field in dataclasses.fields(checkpoint.card.spec)]
        wrong = [name for name in fields if getattr(checkpoint.card.spec, name) != getattr(student.module.spec, name)]
        raise ConfigError(where, f"has another {', '.join(wrong)} than the student", mend)
    return load_model(checkpoint)
