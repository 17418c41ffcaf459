"""What the rig's cameras see of the simulated cell, drawn in a thread of its own."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import mujoco

from vla_ros.contract import RigCamera
from vla_ros.errors import MissingDependencyError, UnknownNameError
from vla_ros.geometry.cameras import camera_from_fov
from vla_ros.sim.appearance import put_on
from vla_ros.sim.content import SceneContent
from vla_ros.sim.gl import DISABLED, INSTALL_COMMAND
from vla_ros.sim.scene import Scene
from vla_ros.sim.world import Snapshot
from vla_ros.types import CameraModel, ImageArray


def simulated_camera(camera: RigCamera) -> CameraModel:
    """Intrinsics of a rig camera as it is simulated: ideal, whatever its calibration says."""
    return camera_from_fov(camera.width, camera.height, camera.fovy_rad)


class CameraRenderer:
    """Draws images from snapshots. OpenGL contexts belong to a thread, so one thread makes and uses them all.

    Use it as a context manager, or call `close`.
    """

    def __init__(self, scene: Scene) -> None:
        """Opens the OpenGL backend.

        Raises:
            MissingDependencyError: if none works; physics does without.
        """
        self._scene = scene
        # Its own model, since the world writes to the scene's while this one is drawn.
        self._model = copy.copy(scene.model)
        self._data = mujoco.MjData(self._model)
        self._shown: SceneContent | None = None
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="camera_renderer")
        try:
            self._thread.submit(self._open).result()
        except Exception as error:  # Each backend fails in its own way: ImportError, AttributeError, FatalError.
            self._thread.shutdown()
            raise MissingDependencyError(
                f"a working OpenGL backend (MUJOCO_GL={os.environ.get('MUJOCO_GL', '')}: {error})",
                "the simulated cameras",
                f"install libosmesa6: {INSTALL_COMMAND}; if it is there, unset MUJOCO_GL and import vla_ros.sim before "
                "mujoco; or run without cameras",
            ) from error

    def submit(self, snapshot: Snapshot, names: Iterable[str] | None = None) -> Future[dict[str, ImageArray]]:
        """As `render`, without waiting; frames are drawn in the order of submission.

        Raises:
            UnknownNameError: for a camera that the rig doesn't have.
        """
        cameras = self._scene.rig.cameras
        wanted = tuple(cameras if names is None else names)
        for name in wanted:
            if name not in cameras:
                raise UnknownNameError("camera", name, cameras)
        return self._thread.submit(self._render, snapshot, wanted)

    def render(self, snapshot: Snapshot, names: Iterable[str] | None = None) -> dict[str, ImageArray]:
        """Draws a moment.

        Args:
            snapshot: from `World.snapshot` of the same scene.
            names: cameras of the rig, None for all.

        Returns:
            name -> (height, width, 3) uint8, rgb; a new array each time.

        Raises:
            UnknownNameError: for a camera that the rig doesn't have.
        """
        return self.submit(snapshot, names).result()

    def close(self) -> None:
        """Waits for what was submitted and frees the OpenGL contexts."""
        self._thread.submit(self._free).result()
        self._thread.shutdown()

    def __enter__(self) -> CameraRenderer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self) -> None:
        if os.environ.get("MUJOCO_GL") == DISABLED:
            raise ImportError("none of OSMesa and EGL could be loaded")
        for camera in self._scene.rig.cameras.values():
            size = camera.height, camera.width
            if size not in self._renderers:
                renderer = mujoco.Renderer(self._model, *size)
                renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self._scene.setting != "blocks"
                renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
                self._renderers[size] = renderer

    def _render(self, snapshot: Snapshot, names: tuple[str, ...]) -> dict[str, ImageArray]:
        if snapshot.content is not self._shown:
            self._put_on(snapshot.content)
        self._data.qpos[:] = snapshot.qpos
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        images = {}
        for name in names:
            camera = self._scene.rig.cameras[name]
            renderer = self._renderers[camera.height, camera.width]
            renderer.update_scene(self._data, camera=name)
            images[name] = renderer.render()
        return images

    def _put_on(self, content: SceneContent) -> None:
        textures = put_on(self._model, self._scene, content)
        for renderer in self._renderers.values() if textures else ():
            renderer._gl_context.make_current()
            for texture in textures:
                mujoco.mjr_uploadTexture(self._model, renderer._mjr_context, texture)
        self._shown = content

    def _free(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
