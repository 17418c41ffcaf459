"""How fast is learned at which step."""

from __future__ import annotations

import math


def learning_rate_share(step: int, done: float, warm_up_steps: int, floor: float) -> float:
    """Share of the highest learning rate: a line up from 0, then half a cosine down to the floor.

    Source: Loshchilov & Hutter 2016, arXiv 1608.03983, equation 5, without restarts.

    Args:
        step: the one that is taken, from 0.
        done: share of the whole training before it, by steps or by the clock, whichever is further.
        warm_up_steps: length of the line.
        floor: share that is left at the end.
    """
    cosine = floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return cosine * min(1.0, (step + 1) / (warm_up_steps + 1))
