"""What can be trained by name, and what is made of its settings before the loop begins."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla_ros.errors import UnknownNameError
from vla_ros.training.config import LoopConfig
from vla_ros.training.examples import ExampleSet
from vla_ros.training.learner import Batches, Learner
from vla_ros.training.outcome import Examination
from vla_ros.training.selection import explain

# Name -> "module:function" with the arguments of `prepare`.
RECIPES = {
    "act": "vla_ros.training.own_policies:prepare",
    "bc": "vla_ros.training.own_policies:prepare",
    "diffusion": "vla_ros.training.own_policies:prepare",
    "flow_vla": "vla_ros.training.own_policies:prepare",
    "openvla": "vla_ros.training.openvla.recipe:prepare",
}

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Recipe:
    """All that the loop needs.

    Attributes:
        learner: what learns.
        batches: what from.
        loop: how.
        settings: all that are in force, as plain data; a run goes on from these.
        summary: what it is going to be, in a few lines, for a person.
        examine: see `Trainer`; None where nothing is held out.
        kind: of the policy that a checkpoint becomes.
        rate_hz: how often that is asked for a chunk.
        can_export: whether `policies.export` takes its checkpoints.
        parameters: of the policy, besides its checkpoint.
    """

    learner: Learner
    batches: Batches
    loop: LoopConfig
    settings: dict[str, Any]
    summary: str = ""
    examine: Callable[[], Examination] | None = None
    kind: str = "learned"
    rate_hz: float = 5.0
    can_export: bool = True
    parameters: dict[str, Any] = field(default_factory=dict)


def summarise(heading: str, learned: ExampleSet, held_out: ExampleSet | None) -> str:
    """What is going to be learned by what, in a few lines, for a person.

    Args:
        heading: says by what.
        learned: examples that are learned.
        held_out: those that are not.
    """
    kept = f"{len(learned)} examples, {0 if held_out is None else len(held_out)} held out"
    lines = [heading, f"{kept}, of {len(learned.episodes)} episodes with {len(learned.tasks)} instructions"]
    if learned.left_out:
        lines.append(f"left out: {explain(learned.left_out)}")
    return "\n".join(lines)


def prepare(
    settings: Mapping[str, Any], where: str, datasets: Sequence[Path] = (), progress: Progress = lambda _a, _b: None
) -> Recipe:
    """Reads the data and makes what learns from it.

    Args:
        settings: plain data with at least `policy`.
        where: they come from, for error texts.
        datasets: in the place of those in the settings; none for those.
        progress: told the part of the work and how far it is, from 0 to 1.

    Raises:
        VlaRosError: for settings or data that can't be used.
    """
    name = str(settings.get("policy", ""))
    if name not in RECIPES:
        raise UnknownNameError("policy to train", name, RECIPES)
    module, _, function = RECIPES[name].partition(":")
    recipe: Recipe = getattr(importlib.import_module(module), function)(dict(settings), where, datasets, progress)
    return recipe
