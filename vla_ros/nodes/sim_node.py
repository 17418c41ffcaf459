"""sim_node: the MuJoCo cell behind the topics of a real one, in real time."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import Future

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from vla_ros.errors import VlaRosError
from vla_ros.instruction import Instruction, parse_instruction
from vla_ros.nodes import image_messages, messages
from vla_ros.nodes.loop import TickLoop
from vla_ros.nodes.runtime import (
    IMAGES,
    RELIABLE,
    SENSOR,
    newest_only,
    now_ns,
    parameter,
    raise_priority,
    run,
)
from vla_ros.nodes.settings import command_setting, rig_setting, robot_setting
from vla_ros.nodes.sim_arm import SimArm
from vla_ros.nodes.sim_board import board_setting
from vla_ros.sim.cameras import CameraRenderer, simulated_camera
from vla_ros.sim.scene import TIMESTEP_S
from vla_ros.sim.viewer import SceneViewer
from vla_ros.sim.world import World
from vla_ros.types import ImageArray

_RATE_HZ = 250.0
_GRIPPER_EVERY = 5
_TRUTH_EVERY = 10


class SimNode(Node):
    """Steps the world in one thread, draws in another, and talks ROS like an arm driver and its cameras."""

    def __init__(self) -> None:
        super().__init__("sim_node")
        robot = robot_setting(self)
        self._rig = rig_setting(self)
        with_cameras = bool(parameter(self, "cameras", True, "draw and publish the rig's cameras"))
        self._robot = robot
        seed = parameter(self, "seed", 0, "seed of the next sim/reset", is_fixed=False, least=0)
        setting = parameter(self, "setting", "blocks", "which scenes: blocks, varied or single")
        parameter(self, "needed", "", "instruction that the scene of the next sim/reset must allow", is_fixed=False)
        self._world = World(robot, self._rig, int(seed), setting, board_setting(self, robot, self._rig))
        self._world.reset(int(seed), self._needed())
        self._lock = threading.Lock()
        self._gripper_command: float | None = None
        self._tick = 0
        self._served: dict[str, int] = {}
        self._frames: dict[str, int] = dict.fromkeys(self._rig.cameras, 0)
        self._drawing: Future[dict[str, ImageArray]] | None = None

        self._joint_states = self.create_publisher(JointState, "joint_states", RELIABLE)
        self._gripper_states = self.create_publisher(JointState, "gripper/state", RELIABLE)
        self._truth = self.create_publisher(TFMessage, "sim/ground_truth", RELIABLE)
        self._cameras = {
            name: (
                self.create_publisher(Image, camera.topic, IMAGES),
                self.create_publisher(CameraInfo, camera.info_topic, RELIABLE),
                simulated_camera(camera),
                camera.mount.frame,
            )
            for name, camera in self._rig.cameras.items()
        }
        self._renderer = CameraRenderer(self._world.scene) if with_cameras and self._rig.cameras else None
        self._image_every = self._ticks_between_images()
        is_headless = bool(parameter(self, "headless", True, "false: open the simulator's viewer on the display"))
        self._viewer = None if is_headless else SceneViewer(self._world.scene)
        if self._viewer is not None:
            self.create_timer(1.0 / 30.0, self._show)
        self._arm = SimArm(self, robot, command_setting(self, robot), self._world)
        if robot.gripper is not None:
            self.create_subscription(Float64, "gripper/command", self._on_gripper, newest_only(SENSOR))
        self.create_service(Trigger, "sim/reset", self._on_reset)
        self._loop = TickLoop(_RATE_HZ, self._step, lambda: now_ns(self), lambda _jump_ns: None, lambda _stall_s: None)
        self._loop.start()
        self.create_timer(1.0, self._loop.check)

    def _ticks_between_images(self) -> int:
        rates = {camera.rate_hz for camera in self._rig.cameras.values()}
        return max(1, int(_RATE_HZ / max(rates))) if rates else 0

    def _on_gripper(self, message: Float64) -> None:
        with self._lock:
            self._gripper_command = float(message.data)

    def _needed(self) -> Instruction | None:
        """What the next scene must allow. Raises InstructionError if it can't be read."""
        text = str(self.get_parameter("needed").value).strip()
        return parse_instruction(text) if text else None

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        seed = int(self.get_parameter("seed").value)
        try:
            needed = self._needed()
            with self._lock:
                self._world.reset(seed, needed)
                self._arm.clear()
                self._gripper_command = None
        except VlaRosError as error:
            response.success, response.message = False, str(error)
            return response
        response.success, response.message = True, f"reset to seed {seed}"
        return response

    def _step(self, stamp_ns: int, is_newest: bool) -> None:
        with self._lock:
            self._arm.apply(stamp_ns, self._loop.period_ns)
            opening, self._gripper_command = self._gripper_command, None
            try:
                if opening is not None:
                    self._world.set_gripper_command(opening)
            except VlaRosError as error:
                self.get_logger().error(str(error), throttle_duration_sec=2.0)
            self._world.step(round(1.0 / _RATE_HZ / TIMESTEP_S))
            self._tick += 1
            if not is_newest:
                return
            state = self._world.robot_state(stamp_ns)
            is_image_due = self._is_due("images", self._image_every) if self._image_every else False
            snapshot = self._world.snapshot() if self._renderer and is_image_due else None
            truth = None
            if self._is_due("truth", _TRUTH_EVERY):
                truth = self._world.truth()
        names = self._robot.joint_names
        self._joint_states.publish(messages.to_joint_state(stamp_ns, names, state.positions, state.velocities))
        if self._robot.gripper and state.gripper_opening is not None and self._is_due("gripper", _GRIPPER_EVERY):
            gripper = JointState(header=messages.header(stamp_ns), name=[self._robot.gripper.joints[0]])
            gripper.position = [float(state.gripper_opening)]
            self._gripper_states.publish(gripper)
        if truth is not None:
            base = self._robot.base_frame
            edges = [messages.to_transform_stamped(T, base, name, stamp_ns) for name, T in truth.items()]
            self._truth.publish(TFMessage(transforms=edges))
        if snapshot is not None and self._renderer and (self._drawing is None or self._drawing.done()):
            self._drawing = self._renderer.submit(snapshot)
            self._drawing.add_done_callback(lambda future: self._publish_images(future, stamp_ns))

    def _show(self) -> None:
        if self._viewer is not None and self._viewer.is_open:
            with self._lock:
                snapshot = self._world.snapshot()
            self._viewer.show(snapshot)

    def _is_due(self, what: str, every: int) -> bool:
        """Whether a tick of this division of time has come since the last that was served; none is served twice."""
        number = self._tick // every
        is_due = number != self._served.get(what)
        self._served[what] = number
        return is_due

    def _publish_images(self, future: Future[dict[str, ImageArray]], stamp_ns: int) -> None:
        if self._loop.is_over:
            return
        for name, image in future.result().items():
            images, infos, camera, frame = self._cameras[name]
            infos.publish(image_messages.to_camera_info(camera, stamp_ns, frame))
            images.publish(image_messages.to_image(image, stamp_ns, frame))

    def close(self) -> None:
        """Ends physics and drawing."""
        self._loop.stop()
        if self._renderer:
            self._renderer.close()
        if self._viewer is not None:
            self._viewer.close()


def main() -> int:
    """Runs sim_node."""
    raise_priority()
    return run(lambda: [SimNode()])


if __name__ == "__main__":
    sys.exit(main())
