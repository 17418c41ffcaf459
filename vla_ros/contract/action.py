"""What a policy's action means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vla_ros.contract.forms import ROTATION_WIDTH, RotationForm


@dataclass(frozen=True)
class ActionSpec:
    """What a policy's action means.

    An entry of the arm's part is bounded, then multiplied by its scales, then by `period_s` if it is a velocity.

    Attributes:
        space: `tool` moves the tcp, `joint` the joints.
        composition: `tcp` or `base` (design.md); `base_euler` adds Euler angles componentwise.
        rotation: how the rotation of a tool action is written.
        relative_to: `observation`, the tcp pose or joint positions at its stamp; `previous_step`, each to the one
            before; `nothing`.
        period_s: time between two steps of a chunk.
        first_action_offset_steps: step at which the first action is due, 0 or 1.
        gripper: `opening` (1 open), `closing` (1 closed), `signed_opening` (-1 closed, 1 open),
            `signed_closing` or `none`.
        position_scale_m: metres per unit of a position entry.
        rotation_scale_rad: rad per unit of a rotvec or rpy entry.
        timing: `absolute` or `on_arrival` (design.md).
        max_age_s: oldest chunk, by its observation's stamp, that is still begun.
        joint_scale_rad: rad per unit of a joint entry.
        scales: besides, a factor for each entry of the arm's part (position and rotvec or rpy; position; or joints),
            which may be negative; empty for none.
        quantity: `position`, or a `velocity` in units a second that is held for a period, from the step before on.
        bound: `componentwise` clips each entry to [-1, 1]; `norm` shortens position and rotation to length 1, each as
            a vector; `largest` divides all joint entries by the largest where that is past 1.
        gripper_range: the gripper entry's lowest and highest value; null for [0, 1], of the signed senses [-1, 1].
        label: what counts as a recorded step's action: where the arm was sent (`executed_target`), or where it was
            measured a step later (`measured_next`).
    """

    space: Literal["tool", "joint"]
    relative_to: Literal["observation", "previous_step", "nothing"]
    period_s: float
    composition: Literal["tcp", "base", "base_euler"] = "base"
    rotation: RotationForm = "quat_xyzw"
    first_action_offset_steps: Literal[0, 1] = 1
    gripper: Literal["opening", "closing", "signed_opening", "signed_closing", "none"] = "opening"
    position_scale_m: float = 1.0
    rotation_scale_rad: float = 1.0
    timing: Literal["absolute", "on_arrival"] = "absolute"
    max_age_s: float = 1.0
    joint_scale_rad: float = 1.0
    scales: tuple[float, ...] = ()
    quantity: Literal["position", "velocity"] = "position"
    bound: Literal["none", "componentwise", "norm", "largest"] = "none"
    gripper_range: tuple[float, float] | None = None
    label: Literal["executed_target", "measured_next"] = "executed_target"

    def __post_init__(self) -> None:
        if not (self.period_s > 0.0 and math.isfinite(self.period_s)):
            raise ValueError(f"period_s {self.period_s} isn't positive and finite")
        if not (self.max_age_s > 0.0 and math.isfinite(self.max_age_s)):
            raise ValueError(f"max_age_s {self.max_age_s} isn't positive and finite")
        self._check_scales()
        self._check_form()
        if self.gripper_range is not None:
            low, high = self.gripper_range
            if self.gripper == "none":
                raise ValueError("gripper_range is given, gripper is none")
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"gripper_range [{low}, {high}]: the first has to be below the second, both finite")

    @property
    def has_gripper(self) -> bool:
        """Whether the last entry is the gripper's."""
        return self.gripper != "none"

    @property
    def gripper_ends(self) -> tuple[float, float]:
        """Values of the gripper entry closed and open."""
        low, high = self.gripper_range or ((-1.0, 1.0) if self.gripper.startswith("signed") else (0.0, 1.0))
        return (high, low) if self.gripper.endswith("closing") else (low, high)

    @property
    def has_scaled_rotation(self) -> bool:
        """Whether rotation entries are angles, which scales, bounds and velocities are made for."""
        return self.rotation in ("rotvec", "rpy")

    def steps_within(self, duration_s: float) -> int:
        """Steps of a chunk that pass in a time, at least one."""
        return max(1, round(duration_s / self.period_s))

    def _check_scales(self) -> None:
        for key in ("position_scale_m", "rotation_scale_rad", "joint_scale_rad"):
            value = getattr(self, key)
            if not (value > 0.0 and math.isfinite(value)):
                raise ValueError(f"{key} {value} isn't positive and finite; the sign of one axis belongs into `scales`")
            if value != 1.0 and (key == "joint_scale_rad") != (self.space == "joint"):
                raise ValueError(f"{key} {value} means nothing in {self.space} space; leave it out")
        if self.rotation_scale_rad != 1.0 and not self.has_scaled_rotation:
            raise ValueError(f"rotation_scale_rad {self.rotation_scale_rad} scales rotvec or rpy, not {self.rotation}")
        for entry, value in enumerate(self.scales):
            if value == 0.0 or not math.isfinite(value):
                raise ValueError(f"scales[{entry}] is {value}: an entry can't be undone that is not finite or times 0")
        wanted = 6 if self.has_scaled_rotation else 3
        if self.space == "tool" and self.scales and len(self.scales) != wanted:
            raise ValueError(f"scales has {len(self.scales)} entries, a tool action in {self.rotation} takes {wanted}")

    def _check_form(self) -> None:
        is_tool = self.space == "tool"
        if is_tool and self.composition == "base_euler" and (self.rotation != "rpy" or self.relative_to == "nothing"):
            raise ValueError("composition base_euler adds Euler angles: it needs rotation rpy and a relative action")
        if self.quantity == "velocity" and self.relative_to != "previous_step":
            raise ValueError(f"a velocity goes on from the step before: relative_to is {self.relative_to!r}")
        if is_tool and self.quantity == "velocity" and not self.has_scaled_rotation:
            raise ValueError(f"a tool velocity turns by rotvec or rpy, rotation is {self.rotation!r}")
        if self.bound == "largest" and is_tool:
            raise ValueError("bound largest is for joints; a tool action has componentwise or norm")
        if self.bound == "norm" and not is_tool:
            raise ValueError("bound norm is for tool actions; joints have componentwise or largest")


def action_layout(spec: ActionSpec, joints: int) -> dict[str, slice]:
    """Where each part lies in an action for an arm with that many joints."""
    widths = {"joints": joints} if spec.space == "joint" else {"position": 3, "rotation": ROTATION_WIDTH[spec.rotation]}
    if spec.has_gripper:
        widths["gripper"] = 1
    layout, start = {}, 0
    for name, width in widths.items():
        layout[name] = slice(start, start + width)
        start += width
    return layout


def action_width(spec: ActionSpec, joints: int) -> int:
    """Length of an action for an arm with that many joints."""
    return max(part.stop for part in action_layout(spec, joints).values())
