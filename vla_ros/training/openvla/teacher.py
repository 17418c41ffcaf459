"""A teacher for a fine-tuning of OpenVLA: another checkpoint in the hub's layout, compared token by token."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vla_ros.errors import ConfigError
from vla_ros.policies.normalisation import Statistics
from vla_ros.policies.openvla.checkpoint import Checkpoint, load_model, read_checkpoint
from vla_ros.training.distillation import TokenDistilledLearner
from vla_ros.training.learner import Learner
from vla_ros.training.openvla.learner import OpenVLALearner
from vla_ros.training.openvla.losses import ActionSpeaker
from vla_ros.training.options import Distillation

_WHERE = "distillation"


def with_teacher(learner: OpenVLALearner, config: Distillation | None) -> Learner:
    """The learner with a teacher of its action tokens, or itself without one.

    Args:
        learner: the student.
        config: whose `by` is `logits`, and whose `teacher` is a folder of OpenVLA: a base with an adapter merged.

    Raises:
        ConfigError: for a teacher that can't be loaded, or whose images, tokens or ranges of actions are others.
    """
    if config is None:
        return learner
    if config.by != "logits":
        raise ConfigError(f"{_WHERE}.by", f"is {config.by}, and OpenVLA says tokens", "take logits")
    checkpoint = read_checkpoint(Path(config.teacher).expanduser())
    own = learner.model.config
    for name in ("action_vocabulary", "patches"):
        found, wanted = getattr(checkpoint.config, name), getattr(own, name)
        if found != wanted:
            raise ConfigError(
                f"{_WHERE}.teacher", f"has {name} {found}, the student {wanted}", "take one of its family"
            )
    if not _has_ranges(checkpoint, learner.normaliser.statistics):
        problem = "its actions were normalised with other ranges, so that its tokens mean other actions"
        raise ConfigError(f"{_WHERE}.teacher", problem, "fine-tune it on the same data and merge the adapter")
    teacher = load_model(checkpoint, learner.settings.dtype, str(learner.model.device)).eval().requires_grad_(False)
    return TokenDistilledLearner(learner, ActionSpeaker(learner.model), ActionSpeaker(teacher), config)


def _has_ranges(checkpoint: Checkpoint, statistics: Statistics | None) -> bool:
    """Whether one of a checkpoint's datasets has the same percentiles of actions."""
    if statistics is None or statistics.q01 is None or statistics.q99 is None:
        return False
    for dataset in checkpoint.norm_stats.values():
        action = dataset.get("action", {})
        low, high = (np.asarray(action.get(key, ()), dtype=np.float64) for key in ("q01", "q99"))
        if low.shape == statistics.q01.shape and np.allclose(low, statistics.q01) and np.allclose(high, statistics.q99):
            return True
    return False
