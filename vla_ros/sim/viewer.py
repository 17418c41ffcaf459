"""A window on the simulated cell, for people; nothing depends on it."""

from __future__ import annotations

import copy
import os

import mujoco

from vla_ros.errors import MissingDependencyError
from vla_ros.sim.appearance import put_on
from vla_ros.sim.content import SceneContent
from vla_ros.sim.scene import Scene
from vla_ros.sim.world import Snapshot


class SceneViewer:
    """MuJoCo's own viewer, shown snapshots. It draws in a thread of its own.

    Args:
        scene: what is shown.

    Raises:
        MissingDependencyError: without a display, or without the OpenGL that windows need.
    """

    def __init__(self, scene: Scene) -> None:
        if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
            raise MissingDependencyError(
                "a display", "headless:=false", "log in to a desktop, set DISPLAY, or leave headless:=true"
            )
        try:
            import mujoco.viewer

            self._model = copy.copy(scene.model)
            self._data = mujoco.MjData(self._model)
            self._handle = mujoco.viewer.launch_passive(
                self._model, self._data, show_left_ui=False, show_right_ui=False
            )
        except Exception as error:  # GLFW, its library or the driver: each fails in its own way.
            raise MissingDependencyError(
                f"OpenGL for a window ({error})", "headless:=false", "sudo apt-get install libgl1 libgl1-mesa-dri"
            ) from error
        self._scene = scene
        self._shown: SceneContent | None = None

    @property
    def is_open(self) -> bool:
        """False once the person has closed the window."""
        return bool(self._handle.is_running())

    def show(self, snapshot: Snapshot) -> None:
        """Shows a moment."""
        with self._handle.lock():
            textures = () if snapshot.content is self._shown else put_on(self._model, self._scene, snapshot.content)
            self._shown = snapshot.content
            self._data.time = snapshot.time_s
            self._data.qpos[:] = snapshot.qpos
            mujoco.mj_forward(self._model, self._data)
        for texture in textures:
            self._handle.update_texture(texture)
        self._handle.sync()

    def close(self) -> None:
        """Closes the window."""
        self._handle.close()
