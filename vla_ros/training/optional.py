"""A learner with the options of its settings."""

from __future__ import annotations

from pathlib import Path

from vla_ros.errors import ConfigError
from vla_ros.training.architecture_learner import ArchitectureLearner
from vla_ros.training.distillation import DistilledLearner, read_teacher
from vla_ros.training.insulation import InsulatedLearner, freeze
from vla_ros.training.learner import Learner
from vla_ros.training.options import Options
from vla_ros.training.smoothing import SmoothedLearner
from vla_ros.training.weighting import Scores, ToldLearner, WeightedLearner


def with_options(learner: ArchitectureLearner, options: Options, rows: int | None = None) -> Learner:
    """Wraps a network of our own in what its settings ask for; without options it is the learner itself.

    Args:
        learner: of the network; weights may be frozen in it.
        options: which.
        rows: of the examples, against which scores are held; None where nobody knows.

    Raises:
        ConfigError: for a pattern, a teacher or scores that don't fit.
    """
    freeze(learner.module, options.freeze)
    found: Learner = learner
    if options.insulation is not None:
        found = InsulatedLearner(found, options.insulation.weights, options.insulation.terms)
    if options.smoothness is not None:
        found = SmoothedLearner(found, options.smoothness)
    if options.distillation is not None:
        if options.distillation.by == "logits":
            problem = f"{learner.module.name} says no tokens, so there are no logits"
            raise ConfigError("options.distillation.by", problem, "take actions or chunk")
        teacher = read_teacher(Path(options.distillation.teacher), learner)
        found = DistilledLearner(found, teacher, options.distillation)
    if options.weighting is not None:
        scores = Scores.load(Path(options.weighting.scores).expanduser())
        if rows is not None and len(scores) != rows:
            problem = f"holds scores of {len(scores)} rows, the examples have {rows}"
            mend = "score the same datasets in the same order with vla-ros critic"
            raise ConfigError(f"options.weighting.scores {options.weighting.scores}", problem, mend)
        if options.weighting.by == "weight":
            found = WeightedLearner(found, scores.weight)
        else:
            found = ToldLearner(found, learner.module.spec, scores.is_good, options.weighting)
    return found
