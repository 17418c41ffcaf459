"""Batches of actions and questions for OpenVLA, in an order that is settled beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from vla_ros.errors import DatasetError, InstructionError
from vla_ros.policies.openvla.preprocessing import Float32Array, ImagePreprocessor
from vla_ros.training.examples import ExampleSet
from vla_ros.training.openvla.augmentation import NO_VARIATION, ImageVariation
from vla_ros.training.openvla.image_text import Asked
from vla_ros.training.openvla.mixture import Mixture
from vla_ros.training.openvla.tokens import TokenBatch, TokenExample, TokenMaker, put_together
from vla_ros.training.order import ExampleOrder
from vla_ros.types import ImageArray

Prepared = tuple[TokenExample, Float32Array]


class OpenVLABatches:
    """See the module. A `vla_ros.training.learner.Batches`.

    Args:
        examples: recorded frames, each with one action.
        image: the contract's image that is shown.
        maker: of tokens.
        preprocess: of images, the policy's own, without a centre crop.
        seed: of the order and of what varies.
        variation: of the images of actions; what is asked of a picture may hang on its colours and edges.
        questions: about pictures, none to learn from actions alone.
        mixture: of both.
        weights: how often each dataset is drawn from, relative to the others; None for evenly over all examples.

    Raises:
        DatasetError: for an instruction that is empty or too long.
    """

    def __init__(
        self,
        examples: ExampleSet,
        image: str,
        maker: TokenMaker,
        preprocess: ImagePreprocessor,
        seed: int = 0,
        variation: ImageVariation = NO_VARIATION,
        questions: Sequence[Asked] = (),
        mixture: Mixture | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.examples, self._image, self._maker, self._preprocess = examples, image, maker, preprocess
        self._seed, self._variation, self._questions = seed, variation, tuple(questions)
        self._mixture = (mixture or Mixture()) if questions else Mixture(1.0)
        self._actions = ExampleOrder(examples.part_of[examples.rows], seed, weights)
        self._answers = ExampleOrder(np.zeros(len(self._questions), dtype=np.int64), seed + 1)
        self._firsts = np.array([part.first for part in examples.parts], dtype=np.int64)

        for task in np.unique(examples.task_of[examples.rows]).tolist():
            try:
                maker.prompt(examples.tasks[task])
            except InstructionError as error:
                raise DatasetError(f"{examples.find_task(task)}: {error}") from error

    def __len__(self) -> int:
        """Examples in which every action comes once, and the questions between them."""
        return int(len(self.examples) / self._mixture.share)

    def batch(self, step: int, size: int) -> TokenBatch:
        """See Batches.batch."""
        return self._put_together([self._at(place) for place in range(step * size, (step + 1) * size)])

    def actions_at(self, numbers: Sequence[int]) -> TokenBatch:
        """Some of the examples, with images as the policy sees them: the middle of what is shown in training."""
        preprocess = replace(self._preprocess, centre_area=self._variation.area)
        return self._put_together([self._action(int(number), preprocess) for number in numbers])

    def prompt_at(self, number: int) -> list[int]:
        """Ids of what the policy would ask at an example."""
        return self._maker.prompt(self._task(int(self.examples.rows[number])))

    def _put_together(self, made: Sequence[Prepared]) -> TokenBatch:
        examples, pixels = zip(*made, strict=True)
        return put_together(examples, pixels, self._maker.config)

    def _at(self, place: int) -> Prepared:
        is_action, index = self._mixture.place(place)
        if not is_action:
            asked = self._questions[int(self._answers.places(index, 1)[0])]
            return self._maker.answer(asked.question, asked.answer), self._preprocess(asked.read_image())
        rng = np.random.default_rng([self._seed, place])
        number = int(self._actions.places(index, 1)[0])
        return self._action(number, lambda image: self._preprocess(self._variation(image, rng)))

    def _action(self, number: int, prepare: Callable[[ImageArray], Float32Array]) -> Prepared:
        row = int(self.examples.rows[number])
        part = self.examples.parts[int(np.searchsorted(self._firsts, row, side="right")) - 1]
        image = np.ascontiguousarray(part.images[self._image][row - part.first].transpose(1, 2, 0))
        said = self._maker.say_action(self._task(row), self.examples.actions[row, 0].astype(np.float64))
        return said, prepare(image)

    def _task(self, row: int) -> str:
        return self.examples.tasks[int(self.examples.task_of[row])]
