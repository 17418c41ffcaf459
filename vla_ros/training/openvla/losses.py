"""The loss of a model that says tokens: cross-entropy where a token counts, actions and answers apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vla_ros.policies.architectures.base import masked_mean
from vla_ros.policies.architectures.losses import token_cross_entropy
from vla_ros.policies.openvla.model import OpenVLA
from vla_ros.training.openvla.tokens import IGNORED, TokenBatch


@dataclass(frozen=True)
class SpokenTokens:
    """Every token of a batch that counts.

    Attributes:
        logits: (N, vocabulary) float32, from what went before it.
        labels: (N,) what it is.
        rows: (N,) the example that it belongs to.
    """

    logits: Tensor
    labels: Tensor
    rows: Tensor

    @property
    def is_right(self) -> Tensor:
        """(N,) whether it is the likeliest."""
        return self.logits.argmax(dim=-1) == self.labels


def speak(model: OpenVLA, batch: TokenBatch) -> SpokenTokens:
    """What the model says at the tokens that count; logits are made there alone.

    The model puts the patches after the first token, so id j > 0 of the input stands at j + patches, and is told from
    the place before.
    """
    hidden = model.hidden(batch.pixel_values, batch.input_ids)[:, model.config.patches : -1]
    labels = batch.labels[:, 1:]
    rows, places = torch.nonzero(labels != IGNORED, as_tuple=True)
    logits = model.language_model.lm_head(hidden[rows, places])
    return SpokenTokens(logits.float(), labels[rows, places], rows)


@dataclass(frozen=True)
class ActionSpeaker:
    """A model as a teacher or its student: a `vla_ros.training.distillation.TokenModel` of action tokens.

    Attributes:
        model: of which every batch asks the same tokens.
    """

    model: OpenVLA

    def logits(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """(1, N, vocabulary) logits and (1, N) whether each is of an action."""
        spoken = speak(self.model, batch)
        return spoken.logits[None], batch.is_action[spoken.rows][None]


def token_losses(spoken: SpokenTokens, is_action: Tensor) -> dict[str, Tensor]:
    """Terms of the loss, each a scalar.

    `total` is the mean of `action` and `answer`, each weighted with its part of the batch's examples, so that a long
    answer counts no more than a short one. A part that the batch lacks is 0 and has no weight.

    Args:
        spoken: of a batch.
        is_action: (B,) bool.

    Returns:
        `total`, `action` and `answer` (mean cross-entropy of a token, nats), and `action_accuracy` (part of the action
        tokens that are the likeliest).
    """
    of_action = is_action[spoken.rows]
    action, answer = (
        token_cross_entropy(spoken.logits[None], spoken.labels[None], counts[None])
        for counts in (of_action, ~of_action)
    )
    share = is_action.float().mean()
    accuracy = masked_mean(spoken.is_right.float()[None, :, None], of_action[None])
    total = share * action + (1.0 - share) * answer
    return {"total": total, "action": action, "answer": answer, "action_accuracy": accuracy}
