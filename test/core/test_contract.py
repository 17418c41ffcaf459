"""Contracts and rigs: what the hash covers, what is refused, and whether a rig fits."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from typing import Any

import pytest
import yaml

from vla_ros.config import build, package_share
from vla_ros.contract import (
    ActionSpec,
    Contract,
    ImageSpec,
    NormalisationSpec,
    Rig,
    StateItem,
    action_layout,
    action_width,
    canonical_hash,
    describe,
    find_differences,
    find_mismatches,
    load_contract,
    state_layout,
    state_width,
)
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
    # Written down once: a change of the canonical form would orphan every dataset and checkpoint. It was changed once,
    # before anything was published with it: fields equal to their defaults are left out, so that a new field changes
    # no hash that exists.
    assert make(example()).interface_hash == "c76e080fcabb7c45"


def test_a_field_that_is_added_with_a_default_changes_no_hash() -> None:
    @dataclasses.dataclass(frozen=True)
    class Before:
        period_s: float
        name: str = "x"

    @dataclasses.dataclass(frozen=True)
    class After:
        period_s: float
        name: str = "x"
        later: tuple[int, ...] = (1, 2)
        much_later: dict[str, float] = dataclasses.field(default_factory=dict)

    assert canonical_hash(Before(0.1)) == canonical_hash(After(0.1))
    assert canonical_hash(After(0.1, later=())) != canonical_hash(After(0.1))


def test_hash_is_of_the_text_that_the_form_says() -> None:
    # Worked by hand: sorted keys, no spaces, numbers as floats, defaults left out.
    text = (
        '{"action":{"period_s":0.1,"relative_to":"observation","space":"tool"},'
        '"observation":{"images":{"front":{"camera":"base","height":224.0,"width":224.0},'
        '"hand":{"camera":"wrist","if_absent":"black"}},"reference":"front",'
        '"state":[{"kind":"tcp_pose","rotation":"rot6d"},{"kind":"gripper"}]}}'
    )
    assert make(example()).interface_hash == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_hash_takes_whole_numbers_and_floats_for_the_same() -> None:
    spec = ActionSpec(space="tool", relative_to="nothing", period_s=2.0)
    whole = dataclasses.replace(spec, period_s=2)
    assert canonical_hash(whole) == canonical_hash(spec)


def test_hash_leaves_normalisation_out() -> None:
    normalised = {**example(), "normalisation": {"action": {"formula": "quantile", "mask": [True, False]}}}
    assert make(normalised).interface_hash == make(example()).interface_hash


# One other value for every field; a field without one fails the test below. Where it is only allowed with others, a
# mapping of all that has to change.
OTHER: dict[str, Any] = {
    "camera": "side", "width": 7, "height": 7, "resize": "pad",
    "region_xywh": (0.1, 0.2, 0.5, 0.4), "interpolation": "cubic", "flip": "half_turn",
    "with_geometry": True, "if_absent": "black",
    "kind": "joint_positions", "rotation": "rpy",
    "state": (), "reference": "hand", "max_age_s": 0.7, "max_skew_s": 0.7,
    "space": "joint", "relative_to": "nothing", "period_s": 0.7, "composition": "tcp",
    "first_action_offset_steps": 0, "gripper": "closing", "position_scale_m": 0.7,
    "timing": "on_arrival",
    "jpeg_quality": 95, "origin_m": (0.1, 0.0, 0.0), "gripper_entries": ((0.0, 0.04), (0.0, -0.04)),
    "near_rotvec_rad": {"near_rotvec_rad": (3.0, 0.0, 0.0), "rotation": "rotvec"},
    "history_steps": {"history_steps": 2, "history_spacing_s": 0.1},
    "history_spacing_s": {"history_steps": 2, "history_spacing_s": 0.2},
    "joint_scale_rad": {"joint_scale_rad": 0.7, "space": "joint"},
    "scales": (1.0, -1.0, 1.0), "quantity": {"quantity": "velocity", "relative_to": "previous_step", "rotation": "rpy"},
    "rotation_scale_rad": {"rotation_scale_rad": 0.7, "rotation": "rotvec"},
    "bound": "componentwise", "gripper_range": (0.0, 0.08), "label": "measured_next",
}  # fmt: skip


def change(field: str) -> dict[str, Any]:
    return OTHER[field] if isinstance(OTHER[field], dict) else {field: OTHER[field]}


def variants(contract: Contract) -> dict[str, Contract]:
    """The contract with one field changed, for every field of every part."""
    observation, action = contract.observation, contract.action
    found = {}
    for field in dataclasses.fields(action):
        changed = dataclasses.replace(action, **change(field.name))
        found[f"action.{field.name}"] = dataclasses.replace(contract, action=changed)
    changes: dict[str, dict[str, Any]] = {"images": {"images": {**observation.images, "third": ImageSpec("x")}}}
    for field in dataclasses.fields(observation):
        if field.name != "images":
            changes[field.name] = change(field.name)
    for field in dataclasses.fields(ImageSpec):
        image = dataclasses.replace(observation.images["front"], **change(field.name))
        changes[f"images.{field.name}"] = {"images": {**observation.images, "front": image}}
    for field in dataclasses.fields(observation.state[0]):
        item = dataclasses.replace(observation.state[0], **change(field.name))
        changes[f"state.{field.name}"] = {"state": (item, *observation.state[1:])}
    for name, changed_fields in changes.items():
        changed_observation = dataclasses.replace(observation, **changed_fields)
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


def test_an_absent_image_may_be_black_but_not_the_one_that_says_when() -> None:
    contract = make(example())
    observation = contract.observation
    images = {name: dataclasses.replace(image, if_absent="black") for name, image in observation.images.items()}
    contract = dataclasses.replace(contract, observation=dataclasses.replace(observation, images=images))
    assert find_mismatches(rig(["side"]), contract) == [
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


def test_differences_are_the_lines_of_the_interface_and_not_of_the_name() -> None:
    contract = make(example())
    assert find_differences(contract, make({**example(), "name": "other"})) == []
    other = dataclasses.replace(
        variants(contract)["action.composition"], observation=variants(contract)["observation.images"].observation
    )
    found = find_differences(contract, other)
    assert "action.composition: base != tcp" in found
    assert "observation.images.third.camera: absent != x" in found
    assert not any(line.startswith("name") for line in found)


@pytest.mark.parametrize("field", sorted(variants(make(example()))))
def test_contracts_that_differ_have_a_differing_line(field: str) -> None:
    contract = make(example())
    assert find_differences(contract, variants(contract)[field])


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "a zero scale": ("position_scale_m 0.0 isn't positive", {"position_scale_m": 0.0}),
    "a negative scale of all axes": ("the sign of one axis belongs into `scales`", {"position_scale_m": -0.05}),
    "a scale that is no number": ("rotation_scale_rad nan", {"rotation": "rpy", "rotation_scale_rad": float("nan")}),
    "a zero among scales": (r"scales\[1\] is 0.0", {"scales": [1.0, 0.0, 1.0]}),
    "scales of another number": ("scales has 6 entries, a tool action in quat_xyzw takes 3", {"scales": [1.0] * 6}),
    "metres in joint space": (
        "position_scale_m 0.5 means nothing in joint space", {"space": "joint", "position_scale_m": 0.5},
    ),
    "joint scale in tool space": ("joint_scale_rad 0.2 means nothing in tool space", {"joint_scale_rad": 0.2}),
    "a scaled quaternion": ("rotation_scale_rad 0.5 scales rotvec or rpy, not quat", {"rotation_scale_rad": 0.5}),
    "Euler angles added to a quaternion": ("needs rotation rpy", {"composition": "base_euler"}),
    "Euler angles added to nothing": (
        "a relative action", {"composition": "base_euler", "rotation": "rpy", "relative_to": "nothing"},
    ),
    "a velocity from the observation on": (
        "goes on from the step before: relative_to is 'observation'", {"quantity": "velocity", "rotation": "rpy"},
    ),
    "a velocity in quaternions": (
        "rotvec or rpy, rotation is 'quat_xyzw'", {"quantity": "velocity", "relative_to": "previous_step"},
    ),
    "the largest of a pose": ("bound largest is for joints", {"bound": "largest"}),
    "the norm of joints": ("bound norm is for tool actions", {"space": "joint", "bound": "norm"}),
    "a range without a gripper": ("gripper is none", {"gripper": "none", "gripper_range": [0.0, 1.0]}),
    "an age without end": ("max_age_s inf", {"max_age_s": float("inf")}),
    "a range that is empty": (r"gripper_range \[1.0, 1.0\]", {"gripper_range": [1.0, 1.0]}),
}  # fmt: skip


def test_numbers_of_the_same_value_are_no_difference_as_they_are_none_to_the_hash() -> None:
    action = dataclasses.replace(make(example()).action, space="joint", rotation="quat_xyzw", composition="base")
    written = [(0.5, -1.0, 2.0), (0.5, -1, 2)]
    a, b = (dataclasses.replace(make(example()), action=dataclasses.replace(action, scales=x)) for x in written)
    assert a.interface_hash == b.interface_hash
    assert find_differences(a, b) == []


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_action_that_makes_no_sense_is_refused_with_the_reason(case: str) -> None:
    text, changes = REFUSED[case]
    data = example()
    data["action"].update(changes)
    with pytest.raises(ConfigError, match=text):
        make(data)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"history_steps": 0}, "history_steps 0 is below 1"),
        ({"history_steps": 3}, "a past needs its spacing"),
        ({"history_spacing_s": 0.1}, "one observation alone has none"),
        ({"history_steps": 2, "history_spacing_s": -0.1}, "history_spacing_s -0.1"),
        ({"state": [{"kind": "tcp_pose", "near_rotvec_rad": [3.0, 0, 0]}]}, "rotation is 'quat_xyzw'"),
        ({"state": [{"kind": "gripper", "gripper_entries": []}]}, "gripper_entries is empty"),
        ({"images": {"front": {"camera": "base", "jpeg_quality": 101}}}, "jpeg_quality 101"),
        (
            {"images": {"front": {"camera": "base", "flip": "mirror", "with_geometry": True}}},
            "a mirrored image has no camera pose",
        ),
        ({"images": {"front": {"camera": "base", "width": -1}}}, "size -1x0 is negative"),
        ({"state": [{"kind": "gripper"}, {"kind": "gripper"}]}, r"state lists \['gripper'\] twice"),
        ({"max_age_s": float("nan")}, "max_age_s nan isn't positive and finite"),
        ({"max_age_s": 0.0}, "max_age_s 0.0 isn't positive and finite"),
        ({"max_skew_s": float("inf")}, "max_skew_s inf is negative or not finite"),
    ],
)
def test_observation_that_makes_no_sense_is_refused_with_the_reason(changes: dict[str, Any], text: str) -> None:
    data = example()
    data["observation"].update(changes)
    with pytest.raises(ConfigError, match=text):
        make(data)


@pytest.mark.parametrize("changes", [{"epsilon": -1e-6}, {"clip": 0.0}, {"clip": float("inf")}])
def test_normalisation_that_makes_no_sense_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        NormalisationSpec(**changes)


def test_layouts_follow_the_order_of_items_and_their_widths() -> None:
    items = (
        StateItem("gripper", gripper_entries=((0.0, 0.04), (0.0, -0.04))), StateItem("tcp_pose", rotation="rot6d"),
        StateItem("joint_velocities"),
    )  # fmt: skip
    spec = dataclasses.replace(make(example()).observation, state=items)
    layout = {"gripper": slice(0, 2), "tcp_pose": slice(2, 11), "joint_velocities": slice(11, 17)}
    assert state_layout(spec, joints=6) == layout
    assert state_width(spec, joints=6) == 17
    tool = ActionSpec(space="tool", relative_to="nothing", period_s=0.1)
    assert action_layout(tool, 6) == {"position": slice(0, 3), "rotation": slice(3, 7), "gripper": slice(7, 8)}
    bare = dataclasses.replace(tool, space="joint", gripper="none")
    assert action_layout(bare, 6) == {"joints": slice(0, 6)}
    assert (action_width(tool, 6), action_width(bare, 6)) == (8, 6)


def test_history_finer_than_the_camera_s_images_is_a_mismatch() -> None:
    data = example()
    data["observation"].update({"history_steps": 2, "history_spacing_s": 0.05})
    cell = rig(["base", "wrist"])  # at 10 Hz
    assert any("asks for images at 20 Hz, camera 'base' of rig cell gives 10 Hz" in line
               for line in find_mismatches(cell, make(data)))  # fmt: skip
    data["observation"]["history_spacing_s"] = 0.1
    assert find_mismatches(cell, make(data)) == []


@pytest.mark.parametrize(("duration_s", "steps"), [(0.125, 1), (0.5, 5), (0.01, 1), (0.26, 3)])
def test_steps_within_a_time_are_whole_and_at_least_one(duration_s: float, steps: int) -> None:
    assert ActionSpec(space="tool", relative_to="nothing", period_s=0.1).steps_within(duration_s) == steps
