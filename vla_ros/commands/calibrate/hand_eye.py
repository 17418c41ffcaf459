"""`vla-ros calibrate hand-eye`: where a camera is mounted, from poses in which the arm stood still."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vla_ros.calibration.boards import Board, find_board, parse_board
from vla_ros.calibration.hand_eye import (
    MIN_SAMPLES,
    STILL_S,
    HandEyeSample,
    Mount,
    calibrate_mount,
    is_new,
    is_still,
    missing,
    setup_of,
)
from vla_ros.calibration.verdict import is_good
from vla_ros.commands.calibrate.options import (
    add_board,
    add_camera,
    add_stack,
    add_writing,
    chosen_camera,
    new_parser,
    node_module,
    rig_of,
    rig_word,
)
from vla_ros.commands.calibrate.telling import Guide, ask, say, tell
from vla_ros.commands.calibrate.writing import destination, rounded, write
from vla_ros.commands.stack_options import stack_words
from vla_ros.config import build, load
from vla_ros.contract import Rig, RigCamera
from vla_ros.errors import SensorError, VlaRosError
from vla_ros.files import whole_file
from vla_ros.geometry import rotations, se3
from vla_ros.geometry.cameras import calibrated_camera
from vla_ros.geometry.hand_eye import CalibrationError, Setup, locate_target
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.stopping import stop_signals
from vla_ros.teleop.script import ScriptStep
from vla_ros.types import CameraModel, FloatArray, ImageArray

_REPROJECTION_PX = 1.0
_KEPT_STATES = 2000
_WAIT_NS = 2e9
_REST_S, _SETTLE_S = 4.0, 0.6
_TURN_RAD_S = 0.4
_EPILOG = f"""\
A camera on the arm: fix the board to the table. A camera in the room: fix the board to the gripper. Lead the arm from
pose to pose (vla-ros teleop in another terminal, or by hand where the arm can be guided), so that the tool is turned
about two of its axes by 30 degrees and more; where it stands still, a pose is taken by itself: {MIN_SAMPLES} and more.
With --poses the arm goes by itself to poses from a file: `poses: [[x, y, z, roll, pitch, yaw], ...]`, m and rad in
base, which --save-poses writes. Calibrate the camera's intrinsics first.

example:
  vla-ros calibrate hand-eye --robot ur5e --rig my_cell.yaml --camera wrist --save-poses poses.yaml
  vla-ros calibrate hand-eye --robot ur5e --rig my_cell.yaml --camera wrist --poses poses.yaml
"""


@dataclass(frozen=True)
class PoseList:
    """Poses to go to: x, y, z (m), roll, pitch, yaw (rad) of the tcp in base."""

    poses: tuple[tuple[float, float, float, float, float, float], ...]


def add_parser(subjects: Any) -> None:
    """Adds the subcommand."""
    parser = new_parser(subjects, "hand-eye", "find where a camera is mounted", _EPILOG)
    add_camera(parser)
    add_board(parser)
    parser.add_argument("--poses", type=Path, metavar="FILE", help="go by itself to the poses in a file")
    parser.add_argument("--save-poses", type=Path, metavar="FILE", help="write the poses that were taken")
    parser.add_argument("--speed", type=float, default=0.1, metavar="X", help="m/s, with --poses (default %(default)g)")
    parser.add_argument("--samples", type=int, default=MIN_SAMPLES, metavar="N", help="at least (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=900.0, metavar="S", help="at most (default %(default)g)")
    add_stack(parser, is_moving=True)
    add_writing(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrates; 0 if the verdict is good.

    Raises:
        VlaRosError: if it can't be done.
    """
    if not 0.0 < args.speed <= 0.25:
        raise VlaRosError(f"--speed {args.speed}: in (0, 0.25] m/s")
    robot, rig, board = load_robot(args.robot, args.prefix), rig_of(args), parse_board(args.board)
    name, camera = chosen_camera(rig, args.camera)
    to = destination("rigs", rig_word(args), args.out, args.write)
    poses = load(PoseList, args.poses).poses if args.poses is not None else ()
    nodes = node_module("hand-eye")
    with (
        nodes.calibration_session(
            robot,
            camera,
            robot_name=args.robot,
            words=stack_words(args),
            interface=args.interface,
            safety=args.safety,
            is_led=bool(poses),
        ) as session,
        stop_signals() as is_over,
    ):
        model = session.model
        setup = setup_of(model, camera.mount.parent)
        session.newest_state(args.timeout)
        session.wait_for(lambda: session.node.image is not None, args.timeout, f"image on {camera.topic}")
        taker = _Taker(session, model, camera, setup, board)
        say(f"{name}: {setup.replace('_', ' ')}; board {board}, fixed to the {_holder(setup)}")
        if poses:
            _go_through(taker, poses, args, is_over)
        else:
            _follow(taker, args, is_over)
    if args.save_poses is not None:
        _save(args.save_poses, taker.tool_poses)
    T_base_parent = model.link_pose(model.home, camera.mount.parent)
    mount = calibrate_mount(taker.samples, setup, T_base_parent)
    values: dict[tuple[str, ...], Any] = {}
    if is_good(mount.checks):
        p, rpy = mount.T_parent_cam[:3, 3], rotations.matrix_to_rpy(mount.T_parent_cam[:3, :3])
        values[("cameras", name, "mount", "position_m")] = rounded(p, 5)
        values[("cameras", name, "mount", "rpy_rad")] = rounded(rpy, 6)
    written = [write(to, values, lambda data, where: build(Rig, data, where))] if values else []
    figures = _figures(mount, camera)
    if not args.is_json:
        _print_residuals(mount, figures)
    return tell(args, f"hand-eye {name}", mount.checks, figures, written)


class _Taker:
    """Takes a sample whenever the arm stood still around an image that shows the board."""

    def __init__(self, session: Any, model: RobotModel, camera: RigCamera, setup: Setup, board: Board) -> None:
        self.session, self.samples = session, list[HandEyeSample]()
        self.tool_poses: list[FloatArray] = []
        self._model, self._camera, self._setup, self._board = model, camera, setup, board
        self._pending: tuple[int, ImageArray] | None = None
        self.word = ""
        """What became of the last image."""

    def tool_pose(self) -> FloatArray:
        """(4, 4) where the tool is measured now."""
        return self._model.forward_kinematics(self.session.newest_state().positions)

    def turn(self) -> bool:
        """A turn; whether a sample was taken."""
        self.session.turn()
        node = self.session.node
        if self._pending is None:
            self._pending = node.take_image()
        if self._pending is None:
            return False
        stamp_ns, image = self._pending
        track = node.state_track()
        still = is_still(track.stamps_ns, track.positions, stamp_ns)
        node.forget(kept=_KEPT_STATES)
        if still is None and track.stamps_ns and 0.0 < stamp_ns + 5e8 * STILL_S - track.stamps_ns[-1] < _WAIT_NS:
            return False  # What the arm did after the exposure is on its way.
        self._pending = None
        if not still:
            self.word = "the arm moves" if still is False else "no joint states around the image's stamp: one clock?"
            return False
        return self._take(stamp_ns, image)

    def _take(self, stamp_ns: int, image: ImageArray) -> bool:
        sighting = find_board(self._board, image)
        if sighting is None:
            self.word = "no board is seen"
            return False
        if 2 * len(sighting.ids) < self._board.points:
            self.word = f"only {len(sighting.ids)} of the board's {self._board.points} points are seen (limit half)"
            return False
        try:
            positions = self.session.node.state_at(stamp_ns).positions
            T_cam_board, rms_px = locate_target(self._intrinsics(), sighting.points_m, sighting.pixels)
        except (CalibrationError, SensorError) as error:
            self.word = str(error)
            return False
        if rms_px > _REPROJECTION_PX:
            self.word = f"the board's points miss it by {rms_px:.1f} px (limit {_REPROJECTION_PX:g}): intrinsics, size?"
            return False
        T_base_tcp = self._model.forward_kinematics(positions)
        on_arm = self._setup == "eye_in_hand"
        T_base_link = self._model.link_pose(positions, self._camera.mount.parent) if on_arm else T_base_tcp
        sample = HandEyeSample(stamp_ns, T_base_link, T_cam_board, rms_px)
        if not is_new(sample, self.samples):
            self.word = "taken; move on"
            return False
        self.samples.append(sample)
        self.tool_poses.append(np.asarray(T_base_tcp))
        return True

    def _intrinsics(self) -> CameraModel:
        camera = self._camera
        info: CameraModel | None = self.session.node.info
        return info or calibrated_camera(camera.width, camera.height, camera.fovy_rad, camera.K, camera.distortion)


def _holder(setup: Setup) -> str:
    return "table" if setup == "eye_in_hand" else "gripper"


def _follow(taker: _Taker, args: argparse.Namespace, is_over: Callable[[], bool]) -> None:
    """A person moves the arm."""
    say("lead the arm from pose to pose and let it stand still in each; Ctrl-C ends")
    guide, end_s = Guide(), time.monotonic() + args.seconds
    while not is_over() and time.monotonic() < end_s and (left := missing(taker.samples, args.samples)):
        if taker.turn():
            left = missing(taker.samples, args.samples)
            say(f"pose {len(taker.samples)} taken; missing: {'; '.join(left) or 'nothing'}")
        elif taker.word:
            guide(f"{taker.word}; {len(taker.samples)} poses, missing: {'; '.join(left)}")


def _go_through(
    taker: _Taker, poses: tuple[tuple[float, ...], ...], args: argparse.Namespace, is_over: Callable[[], bool]
) -> None:
    """The arm goes from pose to pose by itself."""
    question = f"the arm goes to {len(poses)} poses at up to {args.speed:g} m/s; is its way clear?"
    if not ask(question, args.yes):
        raise VlaRosError("nothing was moved; --yes answers for scripts")
    for number, pose in enumerate(poses, 1):
        if is_over():
            return
        taker.session.lead([_way_to(taker, pose, args.speed)])
        taker.session.turn_for(_SETTLE_S)
        end_s = time.monotonic() + _REST_S
        while not (is_taken := taker.turn()) and time.monotonic() < end_s and not is_over():
            pass
        say(f"pose {number} of {len(poses)}: {'taken' if is_taken else f'not taken: {taker.word}'}")


def _way_to(taker: _Taker, pose: tuple[float, ...], speed_m_s: float) -> ScriptStep:
    here = taker.tool_pose()
    there = se3.make_pose(np.array(pose[:3]), rotations.rpy_to_matrix(np.array(pose[3:])))
    gap = se3.pose_error(here, there)
    # Peak over mean speed of the script's way from rest to rest is 1.875.
    way_s = 1.875 * max(np.linalg.norm(gap[:3]) / speed_m_s, np.linalg.norm(gap[3:]) / _TURN_RAD_S)
    x, y, z, roll, pitch, yaw = pose
    return ScriptStep(duration_s=max(0.5, float(way_s)) + 0.5, pose=(x, y, z, roll, pitch, yaw))


def _save(path: Path, tool_poses: list[FloatArray]) -> None:
    rows = [rounded([*T[:3, 3], *rotations.matrix_to_rpy(T[:3, :3])], 5) for T in tool_poses]
    with whole_file(path) as partial:
        partial.write_text(yaml.safe_dump({"poses": rows}, default_flow_style=None), encoding="utf-8")


def _figures(mount: Mount, camera: RigCamera) -> dict[str, Any]:
    before = se3.make_pose(np.array(camera.mount.position_m), rotations.rpy_to_matrix(np.array(camera.mount.rpy_rad)))
    moved = se3.pose_error(before, mount.T_parent_cam)
    return {
        "setup": mount.setup,
        "parent": camera.mount.parent,
        "position_m": mount.T_parent_cam[:3, 3].tolist(),
        "rpy_rad": rotations.matrix_to_rpy(mount.T_parent_cam[:3, :3]).tolist(),
        "std_mm": mount.std_mm,
        "std_deg": mount.std_deg,
        "moved_mm": 1e3 * float(np.linalg.norm(moved[:3])),
        "moved_deg": float(np.degrees(np.linalg.norm(moved[3:]))),
        "residuals_mm": mount.fit.translation_residuals_mm.tolist(),
        "residuals_deg": mount.fit.rotation_residuals_deg.tolist(),
        "left_out_mm": mount.left_out_mm.tolist(),
        "left_out_deg": mount.left_out_deg.tolist(),
    }


def _print_residuals(mount: Mount, figures: dict[str, Any]) -> None:
    fit = mount.fit
    for index, (mm, deg) in enumerate(zip(fit.translation_residuals_mm, fit.rotation_residuals_deg, strict=True)):
        left_out = f"left out {mount.left_out_mm[index]:.2f} mm, {mount.left_out_deg[index]:.3f} deg"
        print(f"    pose {index + 1}: {mm:.2f} mm, {deg:.3f} deg; {left_out}")
    print(f"    {figures['moved_mm']:.1f} mm and {figures['moved_deg']:.2f} deg from the mount that the rig had")
