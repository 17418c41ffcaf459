"""What a policy sees in a rollout within one process: by the rules of online, of frames drawn when looked at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vla_ros.contract import Contract, Rig, RigCamera
from vla_ros.errors import SensorError
from vla_ros.geometry.rotations import rpy_to_matrix
from vla_ros.geometry.se3 import make_pose
from vla_ros.observation.assembly import (
    STATE_TOLERANCE_NS,
    Ingredients,
    assemble,
    choose_history,
    with_history,
)
from vla_ros.robots.model import RobotModel
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.sim.cameras import CameraRenderer, simulated_camera
from vla_ros.sim.world import Snapshot
from vla_ros.types import CameraFrame, FloatArray, ImageArray, Observation

_DRAWN_KEPT = 32


class RolloutObservations:
    """Keeps the moments at which the cameras exposed, and makes observations of them under a contract.

    All cameras expose together, as the simulator's do.

    Args:
        contract: what is observed.
        rig: the cell; its mounts are what a policy believes of its cameras, wherever they really stand.
        model: of the arm.
        states: measured joint states.
        renderer: draws.
        is_blind: the images are black.
    """

    def __init__(
        self,
        contract: Contract,
        rig: Rig,
        model: RobotModel,
        states: JointStateBuffer,
        renderer: CameraRenderer | None,
        is_blind: bool = False,
    ) -> None:
        self._spec, self._rig, self._model, self._states = contract.observation, rig, model, states
        self._renderer, self._is_blind = renderer, is_blind
        self._cameras = sorted({image.camera for image in self._spec.images.values()} & rig.cameras.keys())
        self._models = {name: simulated_camera(rig.cameras[name]) for name in self._cameras}
        self._moments: dict[int, Snapshot] = {}
        self._drawn: dict[int, dict[str, ImageArray]] = {}
        self._commands: list[tuple[int, float]] = []

    def begin(self, opening: float | None) -> None:
        """Forgets an episode; the gripper has been told an opening since before the next."""
        self._moments.clear()
        self._drawn.clear()
        self._commands = [] if opening is None else [(0, opening)]

    def expose(self, stamp_ns: int, snapshot: Snapshot) -> None:
        """The cameras see a moment, later than the last."""
        self._moments[stamp_ns] = snapshot

    def add_gripper_command(self, stamp_ns: int, opening: float) -> None:
        """The gripper is told an opening."""
        if not self._commands or self._commands[-1][1] != opening:
            self._commands.append((stamp_ns, opening))

    def newest_ns(self, until_ns: int) -> int | None:
        """The newest exposure up to a time."""
        return next((stamp_ns for stamp_ns in reversed(self._moments) if stamp_ns <= until_ns), None)

    def build(self, stamp_ns: int, task: str) -> Observation:
        """The observation as of an exposure, with its history.

        Raises:
            SensorError: if something is missing that the contract can't do without.
        """
        present = self._observe(stamp_ns, task)
        if self._spec.history_steps == 1:
            return present
        stamps = list(self._moments)
        first_ns = min(max(stamps[0], self._first_state_ns()), stamp_ns)
        chosen = choose_history(self._spec, stamps, first_ns, stamp_ns)
        return with_history(present, [present if each == stamp_ns else self._observe(each, task) for each in chosen])

    def drawn(self, stamp_ns: int) -> dict[str, ImageArray]:
        """What the cameras saw at an exposure that was looked at, by camera."""
        return self._drawn.get(stamp_ns, {})

    def _observe(self, stamp_ns: int, task: str) -> Observation:
        images = self._images(stamp_ns)
        states = self._states.around(stamp_ns, STATE_TOLERANCE_NS)
        frames: dict[str, CameraFrame | None] = {}
        sizes = {}
        reference = self._rig.cameras[self._spec.images[self._spec.reference].camera]
        for name, spec in self._spec.images.items():
            camera = self._rig.cameras.get(spec.camera)
            sizes[name] = _size(camera or reference)
            if camera is None:
                frames[name] = None
                continue
            pose = self._camera_pose(camera, stamp_ns) if spec.with_geometry else None
            image = images[spec.camera]
            shown = np.zeros_like(image) if self._is_blind else image
            frames[name] = CameraFrame(stamp_ns, shown, self._models[spec.camera], pose)
        told = [opening for since_ns, opening in self._commands if since_ns <= stamp_ns]
        parts = Ingredients(stamp_ns, frames, sizes, states, told[-1] if told else None)
        forward: Callable[[FloatArray], FloatArray] = self._model.forward_kinematics
        return assemble(self._spec, parts, forward, task)

    def _images(self, stamp_ns: int) -> dict[str, ImageArray]:
        if self._renderer is None:
            raise SensorError("no camera is simulated; does the rig have any?")
        if stamp_ns not in self._drawn:
            self._drawn[stamp_ns] = self._renderer.render(self._moments[stamp_ns], self._cameras)
            while len(self._drawn) > _DRAWN_KEPT:
                del self._drawn[next(iter(self._drawn))]
        return self._drawn[stamp_ns]

    def _camera_pose(self, camera: RigCamera, stamp_ns: int) -> FloatArray:
        positions = self._states.at(stamp_ns, STATE_TOLERANCE_NS).positions
        mount = camera.mount
        T_parent_cam = make_pose(np.array(mount.position_m), rpy_to_matrix(np.array(mount.rpy_rad)))
        return np.asarray(self._model.link_pose(positions, mount.parent) @ T_parent_cam)

    def _first_state_ns(self) -> int:
        oldest = self._states.oldest()
        return 0 if oldest is None else oldest.stamp_ns


def _size(camera: RigCamera) -> tuple[int, int]:
    return camera.height, camera.width
