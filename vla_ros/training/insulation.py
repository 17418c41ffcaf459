"""Weights that aren't trained, or not by the loss of the actions: freezing, and knowledge insulation.

What is frozen stays as it is. What is insulated still learns from the other terms (where things are in the image, for
one), but what the actions' noisy loss says doesn't reach it, so that a backbone keeps what it knows.

Source: Driess et al., "Knowledge Insulating Vision-Language-Action Models", arXiv 2505.23705, where the
backbone learns from tokens and the gradient of the action expert stops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from vla_ros.errors import ConfigError
from vla_ros.training.learner import Learner
from vla_ros.training.step import kept_dropout
from vla_ros.training.wrapping import WrappedLearner


def find_weights(module: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    """The weights whose names one of the patterns matches.

    Args:
        module: that has them.
        patterns: with `*` and `?`; one that ends before a dot means all below it, so `context` is `context.*`, too.

    Raises:
        ConfigError: for a pattern that nothing matches.
    """
    named, found = dict(module.named_parameters()), {}
    for pattern in patterns:
        matched = [name for name in named if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]
        if not matched:
            parts = ", ".join(sorted({name.split(".")[0] for name in named}))
            raise ConfigError(f"pattern {pattern!r}", "no weight has such a name", f"the network's parts are: {parts}")
        found.update({name: named[name] for name in matched})
    return found


def freeze(module: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Weights matching the patterns are trained no more; to be called before training begins.

    Returns:
        Their names, sorted.

    Raises:
        ConfigError: for a pattern that nothing matches.
    """
    found = find_weights(module, patterns)
    for weight in found.values():
        weight.requires_grad_(False)
    return sorted(found)


class InsulatedLearner(WrappedLearner):
    """A learner some of whose weights the loss of the actions doesn't reach; the loss itself is the same.

    Each batch goes through the network twice, once with the insulated weights held and once for the other terms.

    Args:
        inner: whose "total" is the sum of `terms` and of others, each with whatever weight.
        patterns: of the insulated weights, see `find_weights`.
        terms: names of the losses that stop, which "total" counts once.

    Raises:
        ConfigError: for a pattern that nothing matches.
    """

    def __init__(self, inner: Learner, patterns: Sequence[str], terms: Sequence[str]) -> None:
        super().__init__(inner)
        self._weights = [weight for weight in find_weights(inner.module, patterns).values() if weight.requires_grad]
        self._terms = tuple(terms)

    def losses(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Learner.losses`."""
        # The same noise and dropout in both passes, so that they are of one loss.
        noise = generator.get_state()
        with kept_dropout(), _held(self._weights):
            outer = self.inner.losses(batch, generator)
        stopped = self._sum(outer)
        generator.set_state(noise)
        losses = self.inner.losses(batch, generator)
        return {**losses, "total": stopped + (losses["total"] - self._sum(losses))}

    def _sum(self, losses: dict[str, Tensor]) -> Tensor:
        missing = [name for name in self._terms if name not in losses]
        if missing or not self._terms:
            known = ", ".join(name for name in losses if name != "total")
            raise ConfigError(f"insulation.terms {missing}", "the network has no such loss", f"take some of: {known}")
        return torch.stack([losses[name] for name in self._terms]).sum()


@contextmanager
def _held(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
