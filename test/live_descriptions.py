"""Descriptions as drivers publish them, made of ours."""

from __future__ import annotations

from xml.etree import ElementTree

from vla_ros.robots.config import load_robot
from vla_ros.robots.description import load_description

# As a calibration would move it: 2 mm along the elbow's axis and 1.5 mm up.
CALIBRATED = {"shoulder_pan_joint": "0 0 0.164", "elbow_joint": "-0.425 0 0.002"}


def ur_driver(name: str, changes: dict[str, str], prefix: str = "") -> str:
    """A UR's description as its driver has it: a world before the base, no gripper, origins changed by joint."""
    root = ElementTree.fromstring(load_description(load_robot(name, prefix)))
    gripper = {item.get("name") for item in root.findall("link") if "gripper" in str(item.get("name"))}
    gripper |= {f"{prefix}wrist_camera_link", f"{prefix}camera_wrist_optical_frame"}
    for item in root.findall("link"):
        if item.get("name") in gripper:
            root.remove(item)
    for item in root.findall("joint"):
        child = item.find("child")
        assert child is not None
        if child.get("link") in gripper:
            root.remove(item)
        origin = item.find("origin")
        if origin is not None and item.get("name") in changes:
            origin.set("xyz", changes[str(item.get("name"))])
    # The driver's own files have materials of their own names; ours are ours.
    for item in root.findall("material"):
        root.remove(item)
    for visual in [*root.iter("visual")]:
        for material in visual.findall("material"):
            visual.remove(material)
    ElementTree.SubElement(root, "link", name="world")
    joint = ElementTree.SubElement(root, "joint", name="base_joint", type="fixed")
    ElementTree.SubElement(joint, "parent", link="world")
    ElementTree.SubElement(joint, "child", link=f"{prefix}base_link")
    return ElementTree.tostring(root, encoding="unicode")
