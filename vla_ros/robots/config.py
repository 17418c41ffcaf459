"""What `config/robots/<name>.yaml` says of an arm: joints, limits, home, frames, gripper, command interface."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from vla_ros.config import find_config, load, package_share
from vla_ros.errors import ConfigError


def _check_limit(what: str, value: float) -> None:
    """Zero is a limit; less, and what isn't a number, is none."""
    if not value >= 0.0:
        raise ValueError(f"{what} is {value}, it has to be 0 or more")


@dataclass(frozen=True)
class JointConfig:
    """One arm joint.

    Attributes:
        name: exact name in the URDF, in `joint_states` and in commands.
        home_rad: resting position.
        position_rad: lower and upper limit.
        velocity_rad_s: limit of the speed, both ways.
        acceleration_rad_s2: limit, both ways.
        jerk_rad_s3: limit, both ways.
    """

    name: str
    home_rad: float
    position_rad: tuple[float, float]
    velocity_rad_s: float
    acceleration_rad_s2: float
    jerk_rad_s3: float

    def __post_init__(self) -> None:
        lower, upper = self.position_rad
        if not lower < upper:
            raise ValueError(f"joint {self.name}: position_rad lower {lower} isn't below upper {upper}")
        if not lower <= self.home_rad <= upper:
            raise ValueError(f"joint {self.name}: home_rad {self.home_rad} is outside [{lower}, {upper}]")
        for key in ("velocity_rad_s", "acceleration_rad_s2", "jerk_rad_s3"):
            _check_limit(f"joint {self.name}: {key}", getattr(self, key))


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
        for field in fields(self):
            _check_limit(f"tool: {field.name}", getattr(self, field.name))


@dataclass(frozen=True)
class CommandConfig:
    """How joint commands reach the arm (design.md, section 5).

    Attributes:
        interface: `position` sends std_msgs/Float64MultiArray to `topic`, a point a tick.
        topic: relative topic name of the arm's controller.
    """

    interface: Literal["position"]
    topic: str


@dataclass(frozen=True)
class RobotConfig:
    """An arm with its gripper.

    Attributes:
        name: name of the robot, the file's stem.
        description: xacro or URDF file, relative to the package's share folder or absolute.
        base_frame: link in whose frame poses, targets and workspace are given.
        tcp_frame: link that is moved.
        joints: the arm's joints in the order of the controller.
        gripper: the gripper, or null for a bare flange.
        tool: limits of the tcp.
        command: the command interface.
        effort_nm: torque limit of each joint, N m, used by the simulator's joint servos.
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

    def __post_init__(self) -> None:
        names = [joint.name for joint in self.joints]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates or not names:
            raise ValueError(f"robot {self.name}: joints must be named once each, found {names}")
        if len(self.effort_nm) != len(names):
            raise ValueError(f"robot {self.name}: effort_nm has {len(self.effort_nm)} values for {len(names)} joints")
        for name, effort in zip(names, self.effort_nm, strict=True):
            _check_limit(f"robot {self.name}: effort_nm of {name}", effort)

    @property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @property
    def description_file(self) -> Path:
        path = Path(self.description)
        return path if path.is_absolute() else package_share() / path


def load_robot(name: str) -> RobotConfig:
    """The robot of that name, or of that YAML file.

    Raises:
        UnknownNameError: for a name that isn't in `config/robots`.
        ConfigError: for a file that can't be used.
    """
    path = find_config("robots", name)
    config = load(RobotConfig, path)
    if not config.description_file.is_file():
        raise ConfigError(f"{path}: description", f"no file {config.description_file}", "give a path that exists")
    return config
