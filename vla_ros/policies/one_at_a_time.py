"""The thread rule of `Policy`, kept for whoever writes one: calls from any thread, one at a time."""

from __future__ import annotations

import threading
from typing import Any

from vla_ros.contract import Contract
from vla_ros.policies.base import InferenceContext, Policy
from vla_ros.types import ActionChunk, Observation


class OneAtATime:
    """A policy whose overlapping calls wait for one another; all else is the policy's own.

    Args:
        policy: the policy.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._lock = threading.Lock()

    @property
    def contract(self) -> Contract:
        """The policy's."""
        return self._policy.contract

    def reset(self, task: str, seed: int) -> None:
        """See `Policy.reset`."""
        with self._lock:
            self._policy.reset(task, seed)

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        """See `Policy.infer`."""
        with self._lock:
            return self._policy.infer(observation, context)

    def __getattr__(self, name: str) -> Any:
        # Before __init__, as when it is copied, there is no policy to ask.
        if name.startswith("__") or "_policy" not in vars(self):
            raise AttributeError(name)
        return getattr(self._policy, name)
