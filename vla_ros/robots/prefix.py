"""The names of an arm's links and joints, and of what hangs on them, behind a prefix: for several arms in one tree."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vla_ros.robots.config import RobotConfig
    from vla_ros.robots.driver import DriverConfig


def prefixed(config: RobotConfig, prefix: str) -> RobotConfig:
    """The same arm with `prefix` before every link and joint that its YAML names, as its description has them then.

    Topics keep their names: they have the namespace. So do the finger joints of franka_gripper, which knows no prefix.

    Args:
        config: as in the YAML; its own `prefix` is replaced.
        prefix: such as `left_`; empty for none.
    """
    if not prefix:
        return config
    gripper, collision = config.gripper, config.self_collision
    return replace(
        config,
        prefix=prefix,
        base_frame=prefix + config.base_frame,
        tcp_frame=prefix + config.tcp_frame,
        joints=tuple(replace(joint, name=prefix + joint.name) for joint in config.joints),
        gripper=gripper and replace(gripper, joints=tuple(prefix + name for name in gripper.joints)),
        self_collision=replace(
            collision,
            capsules=tuple(replace(capsule, link=prefix + capsule.link) for capsule in collision.capsules),
            ignore=tuple((prefix + first, prefix + second) for first, second in collision.ignore),
        ),
        driver=config.driver and _prefixed_driver(config.driver, prefix),
    )


def _prefixed_driver(driver: DriverConfig, prefix: str) -> DriverConfig:
    gripper = driver.gripper
    if gripper is None or gripper.kind == "franka":
        return driver
    return replace(driver, gripper=replace(gripper, joint=prefix + gripper.joint))
