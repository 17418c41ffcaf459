"""A URDF's tree of links and joints as pinocchio has it, and what of a robot's YAML doesn't fit it."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

import pinocchio as pin

from vla_ros.errors import ConfigError, did_you_mean
from vla_ros.robots.config import RobotConfig
from vla_ros.robots.description import check_urdf

# Stands for "no limit" where a URDF has to have a number.
_UNLIMITED = "1e9"


@dataclass(frozen=True)
class Follower:
    """A joint that mimics another: q[index] = multiplier * q[leader] + offset."""

    index: int
    leader: int
    multiplier: float
    offset: float


def build_tree(config: RobotConfig, description: str) -> pin.Model:
    """Pinocchio's model of all of a URDF, continuous joints as revolute ones, which count their turns.

    Raises:
        ConfigError: for a URDF that can't be read.
    """
    check_urdf(description, f"URDF of robot {config.name}")
    try:
        return pin.buildModelFromXML(_unrolled(description))
    except ValueError as error:
        problem = f"pinocchio can't read it ({' '.join(str(error).split())})"
        raise ConfigError(str(config.description_file), problem, "check it with check_urdf or a viewer") from error


def find_joint(model: pin.Model, name: str, key: str, config: RobotConfig) -> pin.JointModel:
    """The movable joint of that name.

    Raises:
        ConfigError: naming the YAML's key, if there is none with one degree of freedom.
    """
    names = list(model.names)[1:]
    if name not in names:
        problem = f"no movable joint {name!r} in the URDF ({config.description})"
        raise ConfigError(f"robot {config.name}: {key}", problem, did_you_mean(name, names))
    joint = model.joints[model.getJointId(name)]
    if joint.nq != 1:
        problem = f"joint {name!r} has {joint.nv} degrees of freedom"
        raise ConfigError(f"robot {config.name}: {key}", problem, "it has to be revolute, continuous or prismatic")
    return joint


def finger_indices(model: pin.Model, config: RobotConfig) -> list[int]:
    """Where in the model's q the finger joints are.

    Raises:
        ConfigError: for a joint that isn't there or belongs to the arm.
    """
    if config.gripper is None:
        return []
    both = sorted(set(config.gripper.joints) & set(config.joint_names))
    if both:
        problem = f"{', '.join(both)} both in the arm's joints and in the gripper's"
        raise ConfigError(f"robot {config.name}: gripper.joints", problem, "keep each in one")
    return [find_joint(model, name, "gripper.joints", config).idx_q for name in config.gripper.joints]


def find_link(model: pin.Model, name: str, key: str, config: RobotConfig) -> int:
    """Number of the link's frame.

    Raises:
        ConfigError: naming the YAML's key, if there is none.
    """
    if not model.existFrame(name, pin.BODY):
        links = [frame.name for frame in model.frames if frame.type == pin.BODY]
        problem = f"no link {name!r} in the URDF ({config.description})"
        raise ConfigError(f"robot {config.name}: {key}", problem, did_you_mean(name, links))
    return int(model.getFrameId(name, pin.BODY))


def check_chain(model: pin.Model, base: int, tcp: int, config: RobotConfig) -> None:
    """Refuses what leaves no chain from base to tcp.

    Raises:
        ConfigError: for a base that the arm's joints move, or a joint that doesn't move the tcp.
    """
    base_joint = model.frames[base].parentJoint
    if base_joint != 0:
        problem = f"{config.base_frame!r} is moved by joint {model.names[base_joint]!r}"
        raise ConfigError(f"robot {config.name}: base_frame", problem, "choose a link before the arm's first joint")
    support = {model.names[joint] for joint in model.supports[model.frames[tcp].parentJoint]}
    idle = [name for name in config.joint_names if name not in support]
    if idle:
        problem = f"{config.tcp_frame!r} isn't moved by {', '.join(idle)}"
        raise ConfigError(f"robot {config.name}: tcp_frame", problem, "choose a link behind the arm's last joint")


def find_followers(model: pin.Model, description: str, config: RobotConfig) -> list[Follower]:
    """The joints that mimic others, leaders before their followers; those that the YAML moves by itself left out.

    Raises:
        ConfigError: for one between base and tcp that follows the arm, which no Jacobian of the arm's joints knows of.
    """
    where = f"robot {config.name}: joints"
    mimics = {}
    for joint in ElementTree.fromstring(description).findall("joint"):
        mimic, name = joint.find("mimic"), joint.get("name", "")
        if mimic is not None and {name, mimic.get("joint")} <= set(model.names):
            mimics[name] = mimic
    for name in config.joint_names:
        if name in mimics:
            problem = f"joint {name!r} mimics {mimics[name].get('joint')!r}"
            raise ConfigError(where, problem, "a joint of the arm has to be driven by itself")
    tcp = find_link(model, config.tcp_frame, "tcp_frame", config)
    chain = {model.names[joint] for joint in model.supports[model.frames[tcp].parentJoint]}
    following_arm = set(config.joint_names)
    followers: list[Follower] = []
    waiting = set(mimics) - set(config.gripper.joints if config.gripper else ())
    while waiting:
        ready = {name for name in waiting if mimics[name].get("joint") not in waiting}
        if not ready:
            raise ConfigError(where, f"{', '.join(sorted(waiting))} mimic each other", "one of them has to lead")
        for name in sorted(ready):
            leader = mimics[name].get("joint")
            if leader in following_arm:
                following_arm.add(name)
                if name in chain:
                    problem = f"joint {name!r} between base and tcp mimics {leader!r}"
                    raise ConfigError(where, problem, "choose a tcp_frame before it, or describe the arm without it")
            index, leading = (model.joints[model.getJointId(joint)].idx_q for joint in (name, leader))
            factor, offset = (
                float(mimics[name].get(key, default)) for key, default in (("multiplier", 1), ("offset", 0))
            )
            followers.append(Follower(index, leading, factor, offset))
        waiting -= ready
    return followers


def _unrolled(description: str) -> str:
    """The URDF with continuous joints revolute, without limits but their own of the velocity."""
    root = ElementTree.fromstring(description)
    found = [joint for joint in root.findall("joint") if joint.get("type") == "continuous"]
    for joint in found:
        joint.set("type", "revolute")
        limit = joint.find("limit")
        if limit is None:
            limit = ElementTree.SubElement(joint, "limit", velocity=_UNLIMITED, effort=_UNLIMITED)
        limit.set("lower", "-" + _UNLIMITED)
        limit.set("upper", _UNLIMITED)
    return ElementTree.tostring(root, encoding="unicode") if found else description
