"""`vla-ros calibrate latency`: how late the arm follows, and how late images are stamped."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vla_ros.calibration.boards import parse_board
from vla_ros.calibration.hand_eye import setup_of
from vla_ros.calibration.latency import Latency, arm_latency, camera_latency
from vla_ros.calibration.picture_motion import board_motion, flow_motion
from vla_ros.calibration.verdict import CalibrateError, Check, is_good
from vla_ros.commands.calibrate.options import (
    add_camera,
    add_stack,
    add_writing,
    chosen_camera,
    new_parser,
    node_module,
    rig_of,
    rig_word,
)
from vla_ros.commands.calibrate.telling import ask, say, tell
from vla_ros.commands.calibrate.writing import Destination, Written, destination, with_description, write
from vla_ros.commands.stack_options import stack_words
from vla_ros.config import build, load, package_share
from vla_ros.contract import Rig, RigCamera
from vla_ros.errors import VlaRosError
from vla_ros.robots.config import RobotConfig, load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.safety.config import SafetyConfig
from vla_ros.teleop.script import ScriptStep
from vla_ros.types import FloatArray, ImageArray

# s, each there and back: no two alike, so that the motion isn't the same after a period.
_PACE_S = (0.9, 0.7, 1.1, 0.8, 1.2, 0.75, 1.0, 0.85)
_MOST_WIDTH = 640
# s, of what isn't worth a change.
_SAME_S = 0.001
# s, by which a stamp may seem to be before its exposure.
_EARLY_S = 0.005
_EPILOG = """\
The tool goes back and forth by some centimetres for some 15 s, through the safety filter and the controller. The arm's
latency is the shift between joint_command and joint_states; a camera's the one between the motion in its picture (with
--board of a board that moves in it, else of everything) and the arm's. The arm's goes into the robot's YAML
(command.latency_s), the camera's into the rig's (source.latency_s), or, where a driver publishes by itself, into the
safety YAML (observation_latency_s: launch with safety:=FILE).

example:
  vla-ros calibrate latency --robot ur5e --rig my_cell.yaml --camera base
  vla-ros calibrate latency --robot ur5e --camera none
"""


def add_parser(subjects: Any) -> None:
    """Adds the subcommand."""
    parser = new_parser(subjects, "latency", "find how late the arm follows and images are stamped", _EPILOG)
    add_camera(parser)
    parser.add_argument("--board", default="", metavar="BOARD", help="follow this board (default: the whole picture)")
    parser.add_argument("--axis", choices=("x", "y", "z"), default="y", help="of the base (default %(default)s)")
    parser.add_argument("--amplitude", type=float, default=0.03, metavar="M", help="to each side (default %(default)g)")
    parser.add_argument("--seconds", type=float, default=15.0, metavar="S", help="of motion (default %(default)g)")
    add_stack(parser, is_moving=True)
    add_writing(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrates; 0 if the verdict is good.

    Raises:
        VlaRosError: if it can't be done.
    """
    if not 0.005 <= args.amplitude <= 0.05 or not 5.0 <= args.seconds <= 120.0:
        raise VlaRosError("--amplitude has to be in [0.005, 0.05] m and --seconds in [5, 120] s")
    robot = load_robot(args.robot, args.prefix)
    name, camera = _camera(args)
    files = _destinations(args, camera)
    safety = load(SafetyConfig, files["safety"].source)
    nodes = node_module("latency")
    frames: list[tuple[int, ImageArray]] = []
    with nodes.calibration_session(
        robot,
        camera,
        robot_name=args.robot,
        words=stack_words(args),
        interface=args.interface,
        safety=args.safety,
        is_led=True,
        hears=("commands",),
    ) as session:
        session.newest_state(args.timeout)
        if camera is not None:
            session.wait_for(lambda: session.node.image is not None, args.timeout, f"image on {camera.topic}")
        way = f"{2e3 * args.amplitude:.0f} mm along {args.axis} of the base for {args.seconds:g} s"
        if not ask(f"the tool goes back and forth by {way}; is its way clear?", args.yes):
            raise VlaRosError("nothing was moved; --yes answers for scripts")
        session.node.forget()
        session.node.on_image = lambda stamp_ns, image: frames.append((stamp_ns, _gray(image)))
        session.turn_for(0.5)
        session.lead(_steps(args.axis, args.amplitude, args.seconds))
        session.turn_for(0.8)
        states, commands = session.node.state_track(), session.node.command_track()
    if not states.stamps_ns:
        raise CalibrateError("latency", "joint_states fell silent", "is the arm's driver running?")
    origin_ns = states.stamps_ns[0]
    times_s = states.times_s(origin_ns)
    arm = arm_latency(commands.times_s(origin_ns), commands.positions, times_s, states.positions)
    checks, figures = list(_named("arm", arm.checks)), {"arm": _figures(arm)}
    say(f"arm: {_told(arm)}")
    seen = None
    if camera is not None:
        positions_m = _carrier_positions(session.model, camera, states.positions)
        stamps_s = np.array([(stamp_ns - origin_ns) * 1e-9 for stamp_ns, _ in frames])
        images = [image for _, image in frames]
        motion = board_motion(images, parse_board(args.board)) if args.board else flow_motion(images)
        seen = camera_latency(stamps_s, motion, times_s, positions_m)
        checks += _named(name, seen.checks)
        figures["camera"] = {"name": name, **_figures(seen)}
        say(f"camera {name}: {_told(seen)}")
        checks += _stamp_checks(name, camera, seen)
    written = _write(args, robot, safety, name, camera, arm, seen, files) if is_good(checks) else []
    return tell(args, "latency", checks, figures, written)


def _camera(args: argparse.Namespace) -> tuple[str, RigCamera | None]:
    if args.camera == "none":
        return "", None
    rig = rig_of(args)
    return chosen_camera(rig, args.camera or next(iter(rig.cameras))) if rig.cameras else ("", None)


def _destinations(args: argparse.Namespace, camera: RigCamera | None) -> dict[str, Destination]:
    safety = args.safety or str(package_share() / "config" / "safety.yaml")
    files = {"robot": destination("robots", args.robot, args.out, args.write, many=True)}
    is_driver = camera is not None and camera.source.kind == "driver"
    if camera is not None and not is_driver:
        files["rig"] = destination("rigs", rig_word(args), args.out, args.write, many=True)
    if is_driver and not args.safety and args.out is None and not args.write:
        # The package's folder isn't the user's.
        files["safety"] = Destination(Path(safety), Path("safety.calibrated.yaml"))
        if files["safety"].path.exists():
            raise VlaRosError(
                f"{files['safety'].path} is there already; go on from it with --safety, or name --out DIR"
            )
    elif is_driver:
        files["safety"] = destination("", safety, args.out, args.write, many=True)
    else:
        files["safety"] = Destination(Path(safety), Path(safety))
    return files


def _steps(axis: str, amplitude_m: float, seconds: float) -> list[ScriptStep]:
    """Back and forth, from the middle to the middle."""
    index, side = "xyz".index(axis), 1.0
    steps: list[ScriptStep] = []
    now, passed_s = 0.0, 0.0

    def move(way_m: float, duration_s: float) -> ScriptStep:
        way = [0.0] * 6
        way[index] = way_m
        x, y, z, *_ = way
        return ScriptStep(duration_s=duration_s, move=(x, y, z, 0.0, 0.0, 0.0))

    while passed_s < seconds:
        duration_s = _PACE_S[len(steps) % len(_PACE_S)] * max(1.0, amplitude_m / 0.035)
        steps.append(move(side * amplitude_m - now, duration_s))
        now, side, passed_s = side * amplitude_m, -side, passed_s + duration_s
    steps.append(move(-now, 1.0))
    return steps


def _gray(image: ImageArray) -> ImageArray:
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = gray.shape
    if width > _MOST_WIDTH:
        gray = cv2.resize(gray, (_MOST_WIDTH, round(height * _MOST_WIDTH / width)), interpolation=cv2.INTER_AREA)
    return np.asarray(gray, dtype=np.uint8)


def _carrier_positions(model: RobotModel, camera: RigCamera, positions: FloatArray) -> FloatArray:
    """(n, 3) of what makes the picture move: the camera's link, or the tool before a camera that stands."""
    if setup_of(model, camera.mount.parent) == "eye_in_hand":
        return np.array([model.link_pose(q, camera.mount.parent)[:3, 3] for q in positions])
    return np.array([model.forward_kinematics(q)[:3, 3] for q in positions])


def _named(what: str, checks: tuple[Check, ...]) -> list[Check]:
    return [Check(f"{what}_{check.name}", check.is_good, f"{what}: {check.text}") for check in checks]


def _figures(found: Latency) -> dict[str, Any]:
    return {
        "latency_s": found.latency_s,
        "std_s": found.std_s,
        "explained": found.explained,
        "samples": found.samples,
    }


def _told(found: Latency) -> str:
    return f"{1e3 * found.latency_s:.1f} ms late, known to {1e3 * found.std_s:.1f} ms"


def _stamp_checks(name: str, camera: RigCamera, seen: Latency) -> list[Check]:
    """What the safety YAML has no place for: a driver that stamps before the exposure."""
    if camera.source.kind != "driver" or seen.latency_s >= -max(_EARLY_S, 3.0 * seen.std_s):
        return []
    early_ms = -1e3 * seen.latency_s
    text = f"{name}: stamped {early_ms:.0f} ms before the exposure; are both machines' clocks synchronised?"
    return [Check(f"{name}_stamps", False, text)]


def _write(
    args: argparse.Namespace,
    robot: RobotConfig,
    safety: SafetyConfig,
    name: str,
    camera: RigCamera | None,
    arm: Latency,
    seen: Latency | None,
    files: dict[str, Destination],
) -> list[Written]:
    """Writes what differs from what is in force."""
    written: list[Written] = []
    command = robot.command.using(args.interface)
    # What the filter leads by already, but for what this is about.
    known_s = command.lead_s + safety.actuation_latency_s
    latency_s = max(0.0, round(arm.latency_s - known_s, 4))
    before_s = command.latency_s.get(command.interface, 0.0)
    if abs(latency_s - before_s) > _SAME_S:
        values = with_description(files["robot"], {("command", "latency_s", command.interface): latency_s})
        written.append(write(files["robot"], values, lambda data, where: build(RobotConfig, data, where)))
    if camera is None or seen is None:
        return written
    is_driver = camera.source.kind == "driver"
    old_s = safety.observation_latency_s if is_driver else camera.source.latency_s
    new_s = round((0.0 if is_driver else old_s) + seen.latency_s, 4)
    new_s = max(0.0, new_s) if is_driver else new_s
    if abs(new_s - old_s) > _SAME_S:
        if is_driver:
            values_s: dict[tuple[str, ...], Any] = {("observation_latency_s",): new_s}
            written.append(write(files["safety"], values_s, lambda data, where: build(SafetyConfig, data, where)))
        else:
            values_s = {("cameras", name, "source", "latency_s"): new_s}
            written.append(write(files["rig"], values_s, lambda data, where: build(Rig, data, where)))
    return written
