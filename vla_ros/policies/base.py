"""What every policy is to the rest of the stack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from vla_ros.contract import Contract
from vla_ros.types import ActionChunk, JointChunk, Observation, ToolChunk


@dataclass(frozen=True)
class InferenceContext:
    """What a policy may know of its own past and of the delay that its answer will meet.

    Attributes:
        expected_delay_s: usual time from the observation's stamp to the answer's first effect.
        execution_horizon_steps: steps of the answer that will be executed before the next one arrives.
        committed: the chunk being executed, as it was sent; None after a reset.
    """

    expected_delay_s: float = 0.0
    execution_horizon_steps: int = 1
    committed: ToolChunk | JointChunk | None = None


@runtime_checkable
class Policy(Protocol):
    """An instruction and observations in, action chunks out.

    Any thread may call it, not only the one that made it. Calls never overlap: `make_policy` puts a lock around every
    policy, so that one called while another runs waits for it, and each answers as if it had come alone. Who makes a
    policy in another way keeps to one call at a time.
    """

    @property
    def contract(self) -> Contract:
        """What it observes and does."""

    def reset(self, task: str, seed: int) -> None:
        """Starts on a task and forgets everything of the last one.

        Raises:
            InstructionError: if the task is empty or can't be read; the arm holds.
        """

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        """Answers one observation.

        Args:
            observation: as `contract.observation` asks for.
            context: delay and committed prefix, for policies that inpaint.

        Returns:
            The chunk in the form of `contract.action`.
        """
