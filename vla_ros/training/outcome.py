"""What a training tells, and whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Examination:
    """What a network does on examples that it has never seen.

    Attributes:
        score: by which the best checkpoint is chosen; less is better.
        figures: for the log.
    """

    score: float
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Watch:
    """Who looks on.

    Attributes:
        progress: told what is being done, the share that is done, and how it goes.
        should_stop: asked after each step whether to end early, with a checkpoint.
        clock: seconds that only rise.
    """

    progress: Callable[[str, float, str], None] = lambda _part, _share, _note: None
    should_stop: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class TrainingReport:
    """How a training ended.

    Attributes:
        folder: of the run.
        step: steps that were taken in all.
        seconds: of training in all, those before an interruption included.
        is_complete: whether it ended by itself.
        last: the newest checkpoint.
        best: the one that did best on held-out episodes; the newest where none were examined.
        losses: of the last step.
        open_loop: of the last examination.
        samples_per_s: of the last steps.
    """

    folder: Path
    step: int
    seconds: float
    is_complete: bool
    last: Path
    best: Path
    losses: dict[str, float] = field(default_factory=dict)
    open_loop: dict[str, float] = field(default_factory=dict)
    samples_per_s: float = 0.0
