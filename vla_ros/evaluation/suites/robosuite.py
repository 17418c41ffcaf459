"""robosuite's own tasks with a Panda under OSC_POSE at 20 Hz, which is the contract `libero`, too."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vla_ros.errors import MissingDependencyError, UnknownNameError
from vla_ros.evaluation.suites.protocol import Moment
from vla_ros.evaluation.suites.robosuite_form import CAMERAS, check_action, native_contract, read_moment
from vla_ros.types import FloatArray

TASKS = {
    "Lift": "lift the red cube",
    "Stack": "stack the red cube on the green cube",
    "Door": "open the door",
    "NutAssemblySquare": "put the square nut on the square peg",
    "PickPlaceCan": "put the can in its bin",
}
"""robosuite's environments -> what they ask for; robosuite itself has no words."""


class RobosuiteSuite:
    """Some of robosuite's environments.

    Args:
        names: of the environments.
        make_env: a name -> its environment.
    """

    def __init__(self, names: Sequence[str], make_env: Callable[[str], Any]) -> None:
        for name in names:
            if name not in TASKS:
                raise UnknownNameError("task of robosuite", name, TASKS)
        self.contract = native_contract()
        self._names, self._make_env = tuple(names), make_env
        self._env: Any = None
        self._task = -1

    @classmethod
    def from_name(cls, name: str, size: int = 256) -> RobosuiteSuite:
        """One environment by its name, or `all`.

        Raises:
            MissingDependencyError: if robosuite isn't installed.
            UnknownNameError: for a task that isn't known.
        """
        try:
            import robosuite
        except ImportError as error:
            mend = "pip install robosuite==1.5.2 mujoco==3.3.7, in an environment of its own"
            raise MissingDependencyError("robosuite", f"suite robosuite:{name}", mend) from error

        def make_env(task: str) -> Any:
            return robosuite.make(
                task,
                robots="Panda",
                has_renderer=False,
                has_offscreen_renderer=True,
                use_camera_obs=True,
                camera_names=list(CAMERAS.values()),
                camera_heights=size,
                camera_widths=size,
                control_freq=20,
                ignore_done=True,
            )

        return cls(tuple(TASKS) if name == "all" else (name,), make_env)

    @property
    def instructions(self) -> Sequence[str]:
        """See `ExternalSuite.instructions`."""
        return [TASKS[name] for name in self._names]

    def reset(self, task: int, seed: int) -> Moment:
        """See `ExternalSuite.reset`."""
        if task != self._task:
            self.close()
            self._env, self._task = self._make_env(self._names[task]), task
        # Where its objects and the arm's posture are drawn from, in 1.5 and before it.
        if hasattr(self._env, "rng"):
            self._env.rng = np.random.default_rng(seed)
        np.random.seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read_moment(self._env.reset(), self.contract, False, False)

    def step(self, action: FloatArray) -> Moment:
        """See `ExternalSuite.step`."""
        observation, _, is_over, _ = self._env.step(check_action(action))
        is_success = bool(self._env._check_success())
        return read_moment(observation, self.contract, is_success, is_success or bool(is_over))

    def close(self) -> None:
        """See `ExternalSuite.close`."""
        if self._env is not None:
            self._env.close()
        self._env, self._task = None, -1
