"""A real arm's own description, as its driver publishes it, with what it lacks of ours: gripper, tcp, camera's link.

A driver's URDF has the arm's factory calibration, which moves a UR's tool by a millimetre or two; ours has what hangs
on the flange. Where both have a link, the driver's placement of it counts.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

from vla_ros.errors import ConfigError, did_you_mean
from vla_ros.geometry.se3 import pose_error
from vla_ros.robots.config import RobotConfig
from vla_ros.robots.description import check_urdf, load_description
from vla_ros.robots.model import RobotModel

MAX_DIFFERENCE_M = 0.03
"""Between the last joint as ours and as the driver's description have it. Calibrated e-Series arms differ by a few mm
from the nominal; another size of arm with the same joint names (UR3e, UR5e, UR10e) by more than 0.1 m."""
_STEP_RAD = 0.5


@dataclass(frozen=True)
class LiveDescription:
    """What came of both. Differences are the largest over home and a step of each joint.

    Attributes:
        urdf: the driver's description, with our links that it lacks.
        published: links that the driver's own robot_state_publisher puts into TF.
        arm_m: between the places of the last joint.
        arm_rad: between its attitudes.
        tcp_m: between the places of the tcp; more than of the arm where the driver's description has its own tool.
        tcp_rad: between its attitudes.
    """

    urdf: str
    published: frozenset[str]
    arm_m: float
    arm_rad: float
    tcp_m: float
    tcp_rad: float

    def __str__(self) -> str:
        arm, tcp = (f"{1000.0 * m:.2f} mm and {1000.0 * rad:.2f} mrad" for m, rad in self.differences)
        return (
            f"the driver's kinematics count: they differ from ours by up to {arm} at the last joint, {tcp} at the tcp"
        )

    @property
    def differences(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """(m, rad) of the last joint and of the tcp."""
        return (self.arm_m, self.arm_rad), (self.tcp_m, self.tcp_rad)


def adopt(config: RobotConfig, live: str, where: str = "robot_description") -> LiveDescription:
    """Takes over a driver's description.

    Args:
        config: the arm.
        live: URDF that the driver publishes.
        where: it comes from, for error texts.

    Raises:
        ConfigError: if it isn't of this arm: a joint or the base is missing, or its last joint is elsewhere.
    """
    ours = load_description(config)
    urdf, theirs = merge(ours, live, config, where)
    arm_m, arm_rad = _difference(
        config, (ours, _moved_by_last_joint(ours, config)), (urdf, _moved_by_last_joint(urdf, config))
    )
    tcp_m, tcp_rad = _difference(config, (ours, config.tcp_frame), (urdf, config.tcp_frame))
    if not arm_m <= MAX_DIFFERENCE_M:
        problem = f"has {config.joint_names[-1]} up to {1000.0 * arm_m:.0f} mm from where {config.description} has it"
        mend = (
            f"robot {config.name} isn't the arm that this driver moves; name the one it is (limit {MAX_DIFFERENCE_M} m)"
        )
        raise ConfigError(where, problem, mend)
    return LiveDescription(urdf, theirs, arm_m, arm_rad, tcp_m, tcp_rad)


def merge(ours: str, live: str, config: RobotConfig, where: str = "robot_description") -> tuple[str, frozenset[str]]:
    """The driver's URDF with each of our links that it lacks, on our joint, where it has or has got the parent.

    Args:
        ours: our URDF.
        live: the driver's.
        config: the arm; its joints and its base have to be the driver's too.
        where: the driver's comes from, for error texts.

    Returns:
        The URDF, and the names of the driver's own links.

    Raises:
        ConfigError: for what the driver's lacks, and for a joint of ours whose name it uses elsewhere.
    """
    check_urdf(live, where)
    root, own = ElementTree.fromstring(live), ElementTree.fromstring(ours)
    links, joints = _names(root, "link"), _names(root, "joint")
    movable = {item.get("name", "") for item in root.findall("joint") if item.get("type") != "fixed"}
    for kind, name, known in [
        *(("joint", name, movable) for name in config.joint_names),
        ("link", config.base_frame, links),
    ]:
        if name not in known:
            problem = f"the driver's description has no {kind} {name!r}, which robot {config.name} has"
            raise ConfigError(
                where, problem, f"is `robot` (or its `prefix`) another arm's? {did_you_mean(name, known)}"
            )
    theirs = frozenset(links)
    materials = _names(root, "material")
    root.extend(copy.deepcopy(item) for item in own.findall("material") if item.get("name") not in materials)
    by_name = {item.get("name", ""): item for item in own.findall("link")}
    waiting = [joint for joint in own.findall("joint") if _end(joint, "child") not in links]
    while ready := [joint for joint in waiting if _end(joint, "parent") in links]:
        for joint in ready:
            if joint.get("name") in joints:
                problem = f"joint {joint.get('name')!r} is one in the driver's description and another in ours"
                raise ConfigError(where, problem, f"rename ours ({config.description})")
            root.append(copy.deepcopy(by_name[_end(joint, "child")]))
            root.append(copy.deepcopy(joint))
            links.add(_end(joint, "child"))
        waiting = [joint for joint in waiting if joint not in ready]
    return ElementTree.tostring(root, encoding="unicode"), theirs


def _names(root: ElementTree.Element, kind: str) -> set[str]:
    return {element.get("name", "") for element in root.findall(kind)}


def _end(joint: ElementTree.Element, which: str) -> str:
    element = joint.find(which)
    return "" if element is None else element.get("link", "")


def _moved_by_last_joint(urdf: str, config: RobotConfig) -> str:
    """The link that the arm's last joint moves."""
    joints = ElementTree.fromstring(urdf).findall("joint")
    return next(_end(joint, "child") for joint in joints if joint.get("name") == config.joint_names[-1])


def _difference(config: RobotConfig, first: tuple[str, str], second: tuple[str, str]) -> tuple[float, float]:
    """Largest distance, m, and angle, rad, between links of two URDFs, each given as (URDF, link)."""
    models = [RobotModel(config, urdf) for urdf, _ in (first, second)]
    home = models[0].home
    errors = np.array(
        [
            pose_error(models[0].link_pose(q, first[1]), models[1].link_pose(q, second[1]))
            for q in (home, *(home + _STEP_RAD * np.eye(len(home))))
        ]
    )
    return float(np.linalg.norm(errors[:, :3], axis=1).max()), float(np.linalg.norm(errors[:, 3:], axis=1).max())
