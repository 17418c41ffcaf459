"""The scripted policy: reads verb and colour, finds the block in the images, and moves there by rules.

It sees what a learned policy sees and answers in the same chunks, so it is the baseline that a learned one must beat
and the teacher that demonstrations come from. Perception is in `vla_ros.observation`, the rules in
`scripted_behaviours`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vla_ros.config import build
from vla_ros.contract import Contract
from vla_ros.errors import ContractError, InstructionError
from vla_ros.geometry.rotations import matrix_to_rotvec
from vla_ros.geometry.se3 import relative_base
from vla_ros.instruction import Instruction, parse_instruction
from vla_ros.observation.block_tracker import BlockTracker
from vla_ros.observation.colour_blobs import HUES
from vla_ros.policies.base import InferenceContext
from vla_ros.policies.scripted_behaviours import SCRIPTED_VERBS, start_script
from vla_ros.policies.scripted_moves import Goal, Script, Situation
from vla_ros.policies.scripted_parameters import ScriptedVisualParameters
from vla_ros.policies.tool_plan import MotionLimits, ToolPlan
from vla_ros.types import ActionChunk, FloatArray, Observation

_NS_PER_S = 1_000_000_000
# What this policy emits; a contract that says otherwise would make the arm do something else.
_EMITTED: dict[str, Any] = {
    "space": "tool",
    "composition": "base",
    "rotation": "rotvec",
    "relative_to": "observation",
    "gripper": "opening",
    "position_scale_m": 1.0,
    "rotation_scale_rad": 1.0,
    "timing": "absolute",
}
# A goal that moved by less than this leaves the plan alone.
_SAME_M, _SAME_RAD = 0.0015, 0.015
# The arm rests at a goal when it is this near, or when the plan has been over for so long that it won't come nearer.
_ARRIVED_M, _PATIENCE_S = 0.004, 0.8
# Past this distance from where the plan was in the last while, the arm was held up, and the plan starts anew.
_LOST_M, _LAG_S = 0.04, 0.3


class ScriptedVisualPolicy:
    """See the module. Works for any arm whose tool points down, since it speaks of the tcp only.

    Args:
        contract: what it is asked to see and emit.
        parameters: sizes, heights and speeds.

    Raises:
        ContractError: if the contract isn't what this policy emits, or gives it no image with geometry.
    """

    def __init__(self, contract: Contract, parameters: ScriptedVisualParameters | None = None) -> None:
        _check(contract)
        self.contract = contract
        self._parameters = parameters or ScriptedVisualParameters()
        self._instruction: Instruction | None = None
        self._script: Script | None = None
        self._plan: ToolPlan | None = None
        self._goal: Goal | None = None
        self._tracker = self._new_tracker()

    @classmethod
    def from_parameters(cls, contract: Contract, parameters: dict[str, Any]) -> ScriptedVisualPolicy:
        """Made from the parameters of a policy's YAML. Raises ConfigError for one that isn't known."""
        return cls(contract, build(ScriptedVisualParameters, parameters, "policy scripted_visual: parameters"))

    def reset(self, task: str, seed: int) -> None:
        """See `Policy.reset`. The seed changes nothing: there is no chance in this policy."""
        self._instruction, self._script, self._plan, self._goal = None, None, None, None
        self._tracker = self._new_tracker()
        instruction = parse_instruction(task)
        _refuse_what_it_cannot(task, instruction)
        self._instruction = instruction

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        """See `Policy.infer`. The actions are (horizon_steps, 7): position m, rotation vector rad, opening."""
        if self._instruction is None:
            return _idle("no task")
        if self._plan is not None and observation.stamp_ns < self._plan.begin_ns:
            self._plan = None  # The clock jumped back.
        self._tracker.update(observation.images, observation.T_base_tcp[:3, 3])
        goal, note = self._decide(self._instruction, observation)
        if goal is None:
            self._plan, self._goal = None, None
            return _idle(note)
        self._plan, self._goal = self._follow(goal, observation, context), goal
        return ActionChunk(self._sample(self._plan, goal.opening, observation), note=note)

    def _new_tracker(self) -> BlockTracker:
        return BlockTracker(tuple(HUES), self._parameters.block_side_m, self._parameters.table_height_m)

    def _decide(self, instruction: Instruction, observation: Observation) -> tuple[Goal | None, str]:
        situation = Situation(
            observation.stamp_ns,
            observation.T_base_tcp,
            observation.gripper_opening,
            self._tracker.estimates,
            self._is_settled(observation),
        )
        if self._script is None:
            self._script = start_script(instruction, self._parameters, situation)
            decision = next(self._script)
        else:
            decision = self._script.send(situation)
        return decision.goal, decision.note

    def _is_settled(self, observation: Observation) -> bool:
        if self._plan is None or self._goal is None:
            return False
        over_s = (observation.stamp_ns - self._plan.end_ns) / _NS_PER_S
        distance_m = np.linalg.norm(observation.T_base_tcp[:3, 3] - self._goal.T_base_tcp[:3, 3])
        return over_s >= 0.0 and bool(distance_m <= _ARRIVED_M or over_s > _PATIENCE_S)

    def _follow(self, goal: Goal, observation: Observation, context: InferenceContext) -> ToolPlan:
        """The plan in force: the old one if its goal stands, else re-aimed from when this answer takes effect."""
        plan = self._plan
        if plan is not None:
            past = [observation.stamp_ns - round(lag_s * _NS_PER_S) for lag_s in np.linspace(0.0, _LAG_S, 7)]
            if plan.distance_to(observation.T_base_tcp, past) > _LOST_M:
                plan = None
        if plan is None:
            plan = ToolPlan.at_rest(observation.T_base_tcp, observation.stamp_ns)
        elif plan.is_aimed_at(goal.T_base_tcp, _SAME_M, _SAME_RAD):
            return plan
        sizes = self._parameters
        limits = MotionLimits(
            goal.speed_m_s, sizes.acceleration_m_s2, sizes.angular_speed_rad_s, sizes.angular_acceleration_rad_s2
        )
        effect_ns = observation.stamp_ns + round(context.expected_delay_s * _NS_PER_S)
        return plan.aim(goal.T_base_tcp, effect_ns, limits)

    def _sample(self, plan: ToolPlan, opening: float, observation: Observation) -> FloatArray:
        spec = self.contract.action
        steps = spec.first_action_offset_steps + np.arange(self._parameters.horizon_steps)
        stamps = [observation.stamp_ns + round(float(step) * spec.period_s * _NS_PER_S) for step in steps]
        deltas = relative_base(observation.T_base_tcp, np.stack([plan.sample(stamp) for stamp in stamps]))
        openings = np.full((len(stamps), 1), opening)
        return np.concatenate([deltas[:, :3, 3], matrix_to_rotvec(deltas[:, :3, :3]), openings], axis=1)


def _refuse_what_it_cannot(task: str, instruction: Instruction) -> None:
    thing, colours = instruction.thing, ", ".join(HUES)
    if instruction.verb not in SCRIPTED_VERBS:
        problem = f"scripted_visual does {', '.join(SCRIPTED_VERBS)}, not {instruction.verb!r}"
    elif thing.shape != "block" or thing.colour not in HUES:
        problem = f"scripted_visual knows blocks ({colours}), no {thing}"
    else:
        return
    raise InstructionError(task, problem, "say for example 'pick up the red block', or choose a learned policy")


def _idle(note: str) -> ActionChunk:
    return ActionChunk(np.zeros((0, 7)), is_idle=True, note=note)


def _check(contract: Contract) -> None:
    wrong = [
        f"action.{key} is {getattr(contract.action, key)!r}, needs {wanted!r}"
        for key, wanted in _EMITTED.items()
        if getattr(contract.action, key) != wanted
    ]
    if not any(image.with_geometry for image in contract.observation.images.values()):
        wrong.append("observation.images has none with_geometry, needs one at least")
    if wrong:
        raise ContractError(f"contract {contract.name} doesn't fit policy scripted_visual: {'; '.join(wrong)}")
