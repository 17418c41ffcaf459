"""Contracts and rigs: what the hash covers, what is refused, and whether a rig fits."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import Any

import pytest
import yaml

from vla_ros.config import build, package_share
from vla_ros.contract import Contract, ImageSpec, Rig, describe, find_mismatches, load_contract
from vla_ros.errors import ConfigError, UnknownNameError

TEXT = """
name: example
observation:
  images:
    front: {camera: base, width: 224, height: 224}
    hand: {camera: wrist, if_absent: black}
  state: [{kind: tcp_pose, rotation: rot6d}, {kind: gripper}]
  reference: front
action:
  space: tool
  relative_to: observation
  period_s: 0.1
"""


def make(data: dict[str, Any]) -> Contract:
    return build(Contract, data, "test")


def example() -> dict[str, Any]:
    return yaml.safe_load(TEXT)


def reverse_keys(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: reverse_keys(item[key]) for key in reversed(item)}
    return [reverse_keys(entry) for entry in item] if isinstance(item, list) else item


def rig(cameras: list[str]) -> Rig:
    camera = {
        "topic": "camera/x/image", "width": 8, "height": 8, "fovy_rad": 1.0, "rate_hz": 10.0,
        "mount": {"parent": "link", "frame": "optical", "position_m": [0, 0, 0], "rpy_rad": [0, 0, 0]},
    }  # fmt: skip
    return build(Rig, {"name": "cell", "robot": "panda", "cameras": dict.fromkeys(cameras, camera)}, "test")


def test_hash_ignores_the_order_of_keys() -> None:
    assert make(reverse_keys(example())).interface_hash == make(example()).interface_hash


def test_hash_ignores_the_name_and_defaults_written_out() -> None:
    renamed = {**example(), "name": "other"}
    renamed["action"]["timing"] = "absolute"
    assert make(renamed).interface_hash == make(example()).interface_hash


def test_hash_is_the_same_in_another_process() -> None:
    code = (
        "import sys, yaml; from vla_ros.config import build; from vla_ros.contract import Contract;"
        "print(build(Contract, yaml.safe_load(sys.stdin.read()), 'test').interface_hash)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    reply = subprocess.run(
        [sys.executable, "-c", code], input=TEXT, capture_output=True, text=True, check=True, env=environment,
        cwd=package_share(),
    )  # fmt: skip
    assert reply.stdout.strip() == make(example()).interface_hash


def test_hash_stays_what_checkpoints_carry() -> None:
    # Written down once: a change of the canonical form would orphan every dataset and checkpoint.
    assert make(example()).interface_hash == "144b0a909060c565"


# One other value for every field; a field without one fails the test below.
OTHER: dict[str, Any] = {
    "camera": "side", "width": 7, "height": 7, "resize": "pad", "interpolation": "cubic", "flip": "half_turn",
    "with_geometry": True, "if_absent": "black",
    "kind": "joint_positions", "rotation": "rpy",
    "state": (), "reference": "hand", "max_age_s": 0.7, "max_skew_s": 0.7,
    "space": "joint", "relative_to": "nothing", "period_s": 0.7, "composition": "tcp",
    "first_action_offset_steps": 0, "gripper": "closing", "position_scale_m": 0.7, "rotation_scale_rad": 0.7,
    "timing": "on_arrival",
}  # fmt: skip


def variants(contract: Contract) -> dict[str, Contract]:
    """The contract with one field changed, for every field of every part."""
    observation, action = contract.observation, contract.action
    found = {}
    for field in dataclasses.fields(action):
        changed = dataclasses.replace(action, **{field.name: OTHER[field.name]})
        found[f"action.{field.name}"] = dataclasses.replace(contract, action=changed)
    changes: dict[str, dict[str, Any]] = {"images": {"images": {**observation.images, "third": ImageSpec("x")}}}
    for field in dataclasses.fields(observation):
        if field.name != "images":
            changes[field.name] = {field.name: OTHER[field.name]}
    for field in dataclasses.fields(ImageSpec):
        image = dataclasses.replace(observation.images["front"], **{field.name: OTHER[field.name]})
        changes[f"images.{field.name}"] = {"images": {**observation.images, "front": image}}
    for field in dataclasses.fields(observation.state[0]):
        item = dataclasses.replace(observation.state[0], **{field.name: OTHER[field.name]})
        changes[f"state.{field.name}"] = {"state": (item, *observation.state[1:])}
    for name, change in changes.items():
        changed_observation = dataclasses.replace(observation, **change)
        found[f"observation.{name}"] = dataclasses.replace(contract, observation=changed_observation)
    return found


@pytest.mark.parametrize("field", sorted(variants(make(example()))))
def test_hash_changes_with_every_field(field: str) -> None:
    contract = make(example())
    assert variants(contract)[field].interface_hash != contract.interface_hash


def test_hash_changes_with_the_order_of_state_items() -> None:
    swapped = example()
    swapped["observation"]["state"].reverse()
    assert make(swapped).interface_hash != make(example()).interface_hash


@pytest.mark.parametrize("path", [(), ("observation",), ("observation", "images", "front"), ("action",)])
def test_unknown_key_is_refused_with_its_place_and_the_nearest(path: tuple[str, ...]) -> None:
    data = example()
    part = data
    for key in path:
        part = part[key]
    known = next(iter(part))
    part[known + "x"] = 1
    with pytest.raises(ConfigError, match=f"unknown key '{known}x'; did you mean '{known}'"):
        make(data)


def test_a_choice_that_is_none_is_refused_with_the_choices() -> None:
    data = example()
    data["action"]["composition"] = "tool"
    with pytest.raises(ConfigError, match=r"action: composition: 'tool' isn't a choice; choose from: tcp, base"):
        make(data)


def test_reference_has_to_be_an_image() -> None:
    data = example()
    data["observation"]["reference"] = "fornt"
    with pytest.raises(ConfigError, match=r"reference 'fornt' isn't one of the images \['front', 'hand'\]"):
        make(data)


@pytest.mark.parametrize("period_s", [0.0, -0.1, float("nan")])
def test_period_has_to_be_positive(period_s: float) -> None:
    data = example()
    data["action"]["period_s"] = period_s
    with pytest.raises(ConfigError, match="period_s"):
        make(data)


def test_rig_that_has_the_cameras_fits() -> None:
    assert find_mismatches(rig(["base", "wrist", "side"]), make(example())) == []


def test_rig_without_a_camera_is_told_which_image_lacks_it() -> None:
    assert find_mismatches(rig(["side"]), make(example())) == [
        "contract example: image 'front' comes from camera 'base', rig cell has ['side']"
    ]


def test_description_differs_in_the_line_of_the_changed_field() -> None:
    contract = make(example())
    other = variants(contract)["action.composition"]
    difference = set(describe(contract).splitlines()) ^ set(describe(other).splitlines())
    assert difference == {"action.composition: base", "action.composition: tcp"}


def test_unknown_contract_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown contract 'tool_delta'; .*tool_delta_visual"):
        load_contract("tool_delta")
