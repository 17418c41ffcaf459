"""What is asked of rollouts: who moves which arm, among what, under which disturbances."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from vla_ros.policies.registry import PolicyConfig
from vla_ros.sim.content import Setting

TIME_LIMIT_S = 30.0


@dataclass(frozen=True)
class Latency:
    """How much later than the world a policy and its answers are, as the whole stack on one machine measures it.

    Attributes:
        camera_s: from an exposure until a policy can look at the image: drawing, and its way over DDS.
        answer_s: from asking a policy until its answer is in the filter: observation, inference, decoding, DDS.
        extra_s: added to the answer; the next question waits for it, as with a slow network or a policy far away.
    """

    camera_s: float = 0.025
    answer_s: float = 0.02
    extra_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("camera_s", "answer_s", "extra_s"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} {value} isn't a duration")

    def expected_s(self, image_period_s: float) -> float:
        """Usual time from an exposure to the answer's first effect: an image waits for half a period on the average."""
        return self.camera_s + 0.5 * image_period_s + self.answer_s + self.extra_s


@dataclass(frozen=True)
class RolloutSettings:
    """One cell, one policy, one way of being disturbed; what differs between episodes is an `Attempt`.

    Attributes:
        robot: name of the arm, or its YAML file.
        rig: name of the rig, or its YAML file.
        policy: what its YAML says.
        setting: of the simulated scene.
        interface: how commands reach the arm; empty as its YAML says.
        time_limit_s: after which an attempt has failed.
        latency: of images and answers.
        is_blind: the policy sees black images.
        camera_offset_m: how far the base camera stands from where the rig says, in a direction of the seed.
        hardware: what moves in the whole stack: `sim`, or `mock`, which judges as the arm's driver does.
    """

    robot: str
    rig: str
    policy: PolicyConfig
    setting: Setting = "blocks"
    interface: str = ""
    time_limit_s: float = TIME_LIMIT_S
    latency: Latency = field(default_factory=Latency)
    is_blind: bool = False
    camera_offset_m: float = 0.0
    hardware: str = "sim"


@dataclass(frozen=True)
class Attempt:
    """One episode to be.

    Attributes:
        suite: that asks for it.
        seed: of the scene.
        task: the instruction, as the policy is told.
        needed: the instruction that the scene is drawn for; another one than `task` where the words were changed.
        variant: tells attempts of one suite and seed apart; empty for the plain one.
        other: an instruction that would be wrong here, to see whether it is carried out instead; empty for none.
    """

    suite: str
    seed: int
    task: str
    needed: str
    variant: str = ""
    other: str = ""

    @property
    def name(self) -> str:
        """For files: `pick-0003`, `pick-0003-swapped`."""
        return f"{self.suite}-{self.seed:04d}" + (f"-{self.variant}" if self.variant else "")
