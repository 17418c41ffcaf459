"""What every external suite is to us: it resets, it steps, it says what was seen and whether the task is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vla_ros.contract import Contract
from vla_ros.types import FloatArray, ImageArray


@dataclass(frozen=True, eq=False)
class Moment:
    """What an environment says of a moment.

    Attributes:
        images: by the rig camera that stands for the environment's, as it gives them, rows in its own order.
        T_base_tcp: (4, 4) pose of the tool in the frame in which actions are meant.
        gripper_opening: 0 closed .. 1 open.
        is_success: whether the task is done.
        is_over: whether the environment takes no further steps.
    """

    images: Mapping[str, ImageArray]
    T_base_tcp: FloatArray
    gripper_opening: float
    is_success: bool = False
    is_over: bool = False


class ExternalSuite(Protocol):
    """Tasks in an environment that is stepped by actions, each of which lasts as long as the contract's period."""

    @property
    def contract(self) -> Contract:
        """What `step` takes: its action, in the environment's own units."""

    @property
    def instructions(self) -> Sequence[str]:
        """What is asked in each task."""

    def reset(self, task: int, seed: int) -> Moment:
        """Begins a task.

        Args:
            task: its number.
            seed: the same gives the same beginning.
        """

    def step(self, action: FloatArray) -> Moment:
        """Carries out one action of the contract's form."""

    def close(self) -> None:
        """Lets go of the environment."""
