"""What `config/robots/<name>.yaml` says of an arm: joints, limits, home, frames, gripper, command interface."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from vla_ros.config import build, find_config, load_yaml, package_share
from vla_ros.errors import ConfigError
from vla_ros.robots.capsules import SelfCollisionConfig
from vla_ros.robots.driver import DriverConfig
from vla_ros.robots.prefix import prefixed
from vla_ros.robots.velocity_limits import VelocityByPosition


def _check_limit(what: str, value: float) -> None:
    """Zero is a limit; less, and what isn't a number, is none."""
    if not value >= 0.0:
        raise ValueError(f"{what} is {value}, it has to be 0 or more")


@dataclass(frozen=True)
class JointConfig:
    """One arm joint.

    Attributes:
        name: exact name in the URDF, in `joint_states` and in commands.
        home_rad: resting position. This and the limits are in m instead of rad for a prismatic joint.
        position_rad: lower and upper limit; of a continuous joint too, which counts its turns.
        velocity_rad_s: limit of the speed, both ways.
        acceleration_rad_s2: limit, both ways.
        jerk_rad_s3: limit, both ways.
        velocity_by_position: where the speed is limited further, or null.
    """

    name: str
    home_rad: float
    position_rad: tuple[float, float]
    velocity_rad_s: float
    acceleration_rad_s2: float
    jerk_rad_s3: float
    velocity_by_position: VelocityByPosition | None = None

    def __post_init__(self) -> None:
        lower, upper = self.position_rad
        if not (math.isfinite(lower) and math.isfinite(upper)):
            problem = f"position_rad [{lower}, {upper}] isn't finite"
            raise ValueError(f"joint {self.name}: {problem}; a continuous joint too has turns that its cables allow")
        if not lower < upper:
            raise ValueError(f"joint {self.name}: position_rad lower {lower} isn't below upper {upper}")
        if not lower <= self.home_rad <= upper:
            raise ValueError(f"joint {self.name}: home_rad {self.home_rad} is outside [{lower}, {upper}]")
        for key in ("velocity_rad_s", "acceleration_rad_s2", "jerk_rad_s3"):
            _check_limit(f"joint {self.name}: {key}", getattr(self, key))
        if self.velocity_by_position is not None and min(self.velocity_by_position.speeds(self.home_rad)) == 0.0:
            problem = f"velocity_by_position leaves no speed at home_rad {self.home_rad}"
            raise ValueError(f"joint {self.name}: {problem}; mind the signs of zero_rad")


@dataclass(frozen=True)
class GripperConfig:
    """The gripper, seen as one opening in [0, 1] (0 closed, 1 open).

    Attributes:
        joints: finger joints in the URDF that move together; the first is the one that `gripper/state` names.
        closed: position of each finger joint (m or rad) at opening 0.
        open: the same at opening 1.
        max_width_m: distance between the finger pads at opening 1.
        speed_per_s: openings per second that the gripper can do.
        force_n: most force between the fingers.
    """

    joints: tuple[str, ...]
    closed: tuple[float, ...]
    open: tuple[float, ...]
    max_width_m: float
    speed_per_s: float
    force_n: float

    def __post_init__(self) -> None:
        if not len(self.joints) == len(self.closed) == len(self.open) > 0:
            raise ValueError(
                f"gripper: joints, closed and open have lengths {len(self.joints)}, {len(self.closed)}, "
                f"{len(self.open)}; they must be equal and at least 1"
            )
        for name, closed, opened in zip(self.joints, self.closed, self.open, strict=True):
            if not abs(opened - closed) > 0.0:
                raise ValueError(f"gripper: joint {name} has the same position open and closed, {closed}")
        if len(set(self.joints)) != len(self.joints):
            raise ValueError(f"gripper: joints must be named once each, found {list(self.joints)}")
        for key in ("max_width_m", "speed_per_s", "force_n"):
            _check_limit(f"gripper: {key}", getattr(self, key))

    def positions(self, opening: float) -> tuple[float, ...]:
        """Positions of the finger joints (m or rad) at an opening."""
        return tuple(a + opening * (b - a) for a, b in zip(self.closed, self.open, strict=True))

    def opening(self, position: float) -> float:
        """The opening at which the first finger joint has a position (m or rad)."""
        return (position - self.closed[0]) / (self.open[0] - self.closed[0])


@dataclass(frozen=True)
class ToolLimits:
    """Limits of the tcp's motion in the base frame (norms)."""

    velocity_m_s: float
    acceleration_m_s2: float
    jerk_m_s3: float
    angular_velocity_rad_s: float
    angular_acceleration_rad_s2: float
    angular_jerk_rad_s3: float

    def __post_init__(self) -> None:
        for limit in fields(self):
            _check_limit(f"tool: {limit.name}", getattr(self, limit.name))


Interface = Literal["position", "trajectory", "velocity", "cartesian", "twist"]
INTERFACES: tuple[Interface, ...] = get_args(Interface)


@dataclass(frozen=True)
class CommandConfig:
    """How joint commands reach the arm (design.md, section 5).

    Attributes:
        interface: what the arm's controller takes. `position`: std_msgs/Float64MultiArray, a point a tick.
            `trajectory`: trajectory_msgs/JointTrajectory, a short one that ends at rest, some 50 times a second.
            `velocity`: std_msgs/Float64MultiArray, for a controller that stops by itself when commands end.
            `cartesian`: geometry_msgs/PoseStamped of the tcp in base, for a controller that solves joints by itself.
            `twist`: geometry_msgs/TwistStamped of the tcp in base axes, for a servo that stops when twists end.
        topic: relative topic name of the arm's controller.
        alternatives: topics of the arm's other controllers by interface, for who asks for another one.
        trajectory_rate_hz: trajectories per second.
        trajectory_lead_s: how long after its tick the arm carries out a command of a trajectory. Trajectories have to
            follow each other and arrive within it.
        velocity_watchdog_s: silence after which the arm's own velocity controller stops; null where it doesn't.
        latency_s: by interface, how much later the arm is there than it is told to (`vla-ros calibrate latency`).
    """

    interface: Interface
    topic: str
    alternatives: dict[str, str] = field(default_factory=dict, hash=False)
    trajectory_rate_hz: float = 50.0
    trajectory_lead_s: float = 0.06
    velocity_watchdog_s: float | None = None
    latency_s: dict[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for key in ("alternatives", "latency_s"):
            unknown = sorted(set(getattr(self, key)) - set(INTERFACES))
            if unknown:
                raise ValueError(f"command: {key} {unknown} aren't interfaces; there are {', '.join(INTERFACES)}")
        for interface, latency_s in self.latency_s.items():
            if not 0.0 <= latency_s < 1.0:
                raise ValueError(f"command: latency_s of {interface} {latency_s} isn't in [0, 1)")
        if not 1.0 <= self.trajectory_rate_hz <= 250.0:
            raise ValueError(f"command: trajectory_rate_hz {self.trajectory_rate_hz} isn't in [1, 250]")
        if not 0.0 < self.trajectory_lead_s <= 1.0:
            raise ValueError(f"command: trajectory_lead_s {self.trajectory_lead_s} isn't in (0, 1]")
        if self.velocity_watchdog_s is not None and not 0.0 < self.velocity_watchdog_s <= 1.0:
            raise ValueError(f"command: velocity_watchdog_s {self.velocity_watchdog_s} isn't in (0, 1]")

    @property
    def lead_s(self) -> float:
        """How long after its tick the arm is told to carry out a command."""
        return self.trajectory_lead_s if self.interface == "trajectory" else 0.0

    @property
    def delay_s(self) -> float:
        """How long after its tick the arm is where a command says, as far as it was measured."""
        return self.lead_s + self.latency_s.get(self.interface, 0.0)

    def using(self, interface: str) -> CommandConfig:
        """The same with another interface; an empty name leaves it as it is.

        Raises:
            ConfigError: if the arm has no topic for it.
        """
        if interface in ("", self.interface):
            return self
        topics = {self.interface: self.topic, **self.alternatives}
        if interface not in topics:
            mend = f"choose from: {', '.join(topics)}; or give its topic in the robot's YAML, command.alternatives"
            raise ConfigError("interface", f"{interface!r} isn't one of this robot's", mend)
        chosen: Interface = next(name for name in INTERFACES if name == interface)
        return replace(self, interface=chosen, topic=topics[chosen], alternatives=topics)


@dataclass(frozen=True)
class RobotConfig:
    """An arm with its gripper.

    Attributes:
        name: name of the robot, the file's stem.
        description: xacro or URDF file, absolute or relative to the YAML's or the package's share folder.
        base_frame: link in whose frame poses, targets and workspace are given.
        tcp_frame: link that is moved.
        joints: the arm's joints in the order of the controller.
        gripper: the gripper, or null for a bare flange.
        tool: limits of the tcp.
        command: the command interface.
        effort_nm: torque limit of each joint, N m, used by the simulator's joint servos.
        self_collision: what stands for the links in the check of self-collision.
        driver: the real arm's driver, or null for an arm that has none here.
        prefix: what stands before every link and joint, for several arms in one tree; a YAML names them without it.
    """

    name: str
    description: str
    base_frame: str
    tcp_frame: str
    joints: tuple[JointConfig, ...]
    gripper: GripperConfig | None
    tool: ToolLimits
    command: CommandConfig
    effort_nm: tuple[float, ...]
    self_collision: SelfCollisionConfig = field(default_factory=SelfCollisionConfig)
    driver: DriverConfig | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        names = [joint.name for joint in self.joints]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates or not names:
            raise ValueError(f"robot {self.name}: joints must be named once each, found {names}")
        if len(self.effort_nm) != len(names):
            raise ValueError(f"robot {self.name}: effort_nm has {len(self.effort_nm)} values for {len(names)} joints")
        if self.driver is not None:
            self.command.using(self.driver.interface)
        for name, effort in zip(names, self.effort_nm, strict=True):
            _check_limit(f"robot {self.name}: effort_nm of {name}", effort)

    @property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @property
    def description_file(self) -> Path:
        path = Path(self.description).expanduser()
        return path if path.is_absolute() else package_share() / path


def load_robot(name: str, prefix: str = "") -> RobotConfig:
    """The robot of that name, or of that YAML file.

    Args:
        name: of a robot, or path of its YAML.
        prefix: before every link and joint; empty for the YAML's own, which is mostly none.

    Raises:
        UnknownNameError: for a name that isn't in `config/robots`.
        ConfigError: for a file that can't be used.
    """
    path = find_config("robots", name)
    data = load_yaml(path)
    _check_joint_keys(data, path)
    config = build_robot(data, str(path), prefix)
    beside = path.parent / config.description
    if beside.is_file():
        config = replace(config, description=str(beside.resolve()))
    if not config.description_file.is_file():
        raise ConfigError(f"{path}: description", f"no file {config.description_file}", "give a path that exists")
    return config


def build_robot(data: dict[str, Any], where: str, prefix: str = "") -> RobotConfig:
    """The robot that a YAML's content describes; see `load_robot`.

    Raises:
        ConfigError: naming `where`, for what can't be used.
    """
    config = build(RobotConfig, data, where)
    return prefixed(config, prefix or config.prefix)


def _check_joint_keys(data: dict[str, Any], path: Path) -> None:
    """Names the joint and the mend where a limit is missing, which is what a new arm's YAML lacks first."""
    keys = fields(JointConfig)
    joints = data.get("joints")
    for entry in joints if isinstance(joints, list) else ():
        # A misspelt key is the loader's to name.
        if isinstance(entry, dict) and "name" in entry and entry.keys() <= {key.name for key in keys}:
            missing = [key.name for key in keys if key.default is MISSING and key.name not in entry]
            if missing:
                mend = "add it; a URDF has no acceleration or jerk, the arm's data sheet or driver may"
                raise ConfigError(f"{path}: joint {entry['name']}", f"key {missing[0]!r} is missing", mend)
