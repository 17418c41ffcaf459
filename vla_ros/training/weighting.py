"""Learning more from what went well: examples weighted by a critic's scores, or told apart by a word.

Source: weights: Peng et al., arXiv 1910.00177; the word: pi*0.6 (Recap), arXiv 2511.14759, where a text says whether
the advantage is positive, is left out at times, and is always positive when the policy runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_ros.errors import ConfigError
from vla_ros.policies.architectures.base import Batch
from vla_ros.policies.architectures.spec import ModelSpec
from vla_ros.training.learner import Learner
from vla_ros.training.options import Weighting
from vla_ros.training.wrapping import WrappedLearner

_NEW = "score the datasets again, in the same order, with vla-ros critic"


@dataclass(frozen=True, eq=False)
class Scores:
    """What a critic found about every row of some examples.

    Attributes:
        value: (n,) of each row; NaN where nobody knows, as in the next one.
        advantage: (n,).
        weight: (n,) at least 0.
        is_good: (n,).
        failing_row: (episodes,) the row at which each failed, -1 if it didn't.
    """

    value: NDArray[np.float32]
    advantage: NDArray[np.float32]
    weight: NDArray[np.float32]
    is_good: NDArray[np.bool_]
    failing_row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.weight)

    def save(self, path: Path) -> None:
        """Writes them as NumPy's npz."""
        with path.open("wb") as stream:
            np.savez_compressed(stream, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Scores:
        """Reads what `save` wrote.

        Raises:
            ConfigError: for a file that is missing or isn't one of scores.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                scores = cls(**{name: arrays[name] for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(str(path), f"isn't a file of scores ({error})", _NEW) from error
        if not (np.isfinite(scores.weight).all() and (scores.weight >= 0.0).all()):
            raise ConfigError(str(path), "holds weights that are negative or not finite", _NEW)
        return scores


class WeightedLearner(WrappedLearner):
    """A learner whose examples count as much as their weights say.

    Args:
        inner: of batches that say which examples they hold (`Batch.index`).
        weight: (n,) of every example, at least 0.
    """

    def __init__(self, inner: Learner, weight: NDArray[np.float32]) -> None:
        super().__init__(inner)
        self._weight = torch.from_numpy(np.asarray(weight, dtype=np.float32))

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Learner.losses`."""
        weight = look_up(self._weight, batch)
        weight = weight if batch.weight is None else weight * batch.weight
        return self.inner.losses(replace(batch, weight=weight), generator)


class ToldLearner(WrappedLearner):
    """A learner that is told in the instruction whether an example is a good one.

    Args:
        inner: of batches that say which examples they hold.
        spec: of its network, whose vocabulary has both words, with room for one more word.
        is_good: (n,) of every example.
        config: which words, and how often.

    Raises:
        ConfigError: if the network doesn't know a word.
    """

    def __init__(self, inner: Learner, spec: ModelSpec, is_good: NDArray[np.bool_], config: Weighting) -> None:
        super().__init__(inner)
        for word in (config.good, config.bad):
            if word not in spec.vocabulary:
                problem = f"the network doesn't know the word {word!r}"
                raise ConfigError("options.weighting", problem, "add it to the network's vocabulary, or use by: weight")
        self._words = torch.tensor([spec.vocabulary.index(word) + 1 for word in (config.bad, config.good)])
        self._is_good = torch.from_numpy(np.asarray(is_good, dtype=np.bool_))
        self._silent = config.silent

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Learner.losses`."""
        said = self._words.to(batch.actions.device)[look_up(self._is_good, batch).long()]
        is_silent = torch.rand(len(said), generator=generator, device=generator.device) < self._silent
        words = add_word(batch.inputs.words, torch.where(is_silent.to(said.device), 0, said))
        return self.inner.losses(replace(batch, inputs=replace(batch.inputs, words=words)), generator)


def look_up(of_all: Tensor, batch: Batch) -> Tensor:
    """(B,) entries of a batch's examples, on its device.

    Raises:
        ConfigError: if the batch doesn't say which examples it holds, or there are fewer entries.
    """
    if batch.index is None:
        raise ConfigError("options.weighting", "the batches don't say which examples they hold", "leave it out here")
    if int(batch.index.max()) >= len(of_all):
        problem = f"scores are of {len(of_all)} rows, an example is of row {int(batch.index.max())}"
        raise ConfigError("options.weighting.scores", problem, _NEW)
    return of_all.to(batch.actions.device)[batch.index.to(batch.actions.device)]


def add_word(words: Tensor, word: Tensor) -> Tensor:
    """(B, max_words) instructions with a word (B,) after their last one; 0 adds none.

    Raises:
        ConfigError: if there is no room in one of them.
    """
    count = (words > 0).sum(dim=1)
    is_full = (count == words.shape[1]) & (word > 0)
    if bool(is_full.any()):
        problem = f"an instruction has {words.shape[1]} words already, the network's max_words"
        raise ConfigError("options.weighting", problem, "give the network a larger max_words")
    place = torch.arange(words.shape[1], device=words.device) == count[:, None]
    return torch.where(place, word[:, None].to(words.dtype), words)
