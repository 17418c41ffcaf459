"""LIBERO's suites through its own interface: `libero.benchmark` and `OffScreenRenderEnv`.

Source: LIBERO (arXiv 2306.03310), libero/libero/envs/env_wrapper.py and benchmark/__init__.py. Its wheels hold no
meshes and fetch them when they are first used, so it was run here on its interface alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vla_ros.errors import MissingDependencyError
from vla_ros.evaluation.suites.protocol import Moment
from vla_ros.evaluation.suites.robosuite_form import check_action, native_contract, read_moment
from vla_ros.types import FloatArray

SETTLE_STEPS = 10
"""Steps at rest with an open gripper at the beginning, in which objects fall into place (OpenVLA's evaluation)."""

_REST = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])


class LiberoSuite:
    """Tasks of one of LIBERO's suites.

    Args:
        benchmark: as `libero.benchmark.get_benchmark_dict()[name]()` gives it: `n_tasks`, `get_task`,
            `get_task_init_states`.
        make_env: a task of the benchmark -> its environment.
    """

    def __init__(self, benchmark: Any, make_env: Callable[[Any], Any]) -> None:
        self.contract = native_contract()
        self._benchmark, self._make_env = benchmark, make_env
        self._env: Any = None
        self._task = -1

    @classmethod
    def from_name(cls, name: str, size: int = 256) -> LiberoSuite:
        """One of `libero_spatial`, `libero_object`, `libero_goal`, `libero_90`, `libero_10`.

        Args:
            name: of the suite.
            size: pixels of the square images.

        Raises:
            MissingDependencyError: if LIBERO isn't installed.
        """
        try:
            from libero.libero import benchmark, get_libero_path
            from libero.libero.envs import OffScreenRenderEnv
        except ImportError as error:
            raise MissingDependencyError("LIBERO", f"suite libero:{name}", "pip install libero") from error

        def make_env(task: Any) -> Any:
            file = f"{get_libero_path('bddl_files')}/{task.problem_folder}/{task.bddl_file}"
            return OffScreenRenderEnv(bddl_file_name=file, camera_heights=size, camera_widths=size)

        return cls(benchmark.get_benchmark_dict()[name](), make_env)

    @property
    def instructions(self) -> Sequence[str]:
        """See `ExternalSuite.instructions`."""
        return [str(self._benchmark.get_task(task).language) for task in range(self._benchmark.n_tasks)]

    def reset(self, task: int, seed: int) -> Moment:
        """See `ExternalSuite.reset`: the task's recorded initial states, by turns."""
        if task != self._task:
            self.close()
            self._env, self._task = self._make_env(self._benchmark.get_task(task)), task
        self._env.seed(seed)
        self._env.reset()
        states = self._benchmark.get_task_init_states(task)
        observation = self._env.set_init_state(states[seed % len(states)])
        for _ in range(SETTLE_STEPS):
            observation, _, _, _ = self._env.step(_REST.tolist())
        return read_moment(observation, self.contract, False, False)

    def step(self, action: FloatArray) -> Moment:
        """See `ExternalSuite.step`. LIBERO's `done` is success."""
        observation, _, is_done, _ = self._env.step(check_action(action).tolist())
        return read_moment(observation, self.contract, bool(is_done), bool(is_done))

    def close(self) -> None:
        """See `ExternalSuite.close`."""
        if self._env is not None:
            self._env.close()
        self._env, self._task = None, -1
