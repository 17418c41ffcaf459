"""The judges, on poses written by hand: what counts as done, what doesn't, and when it is over."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("vla_ros.sim.world")  # Not "mujoco": MUJOCO_GL is chosen first.

from vla_ros.errors import InstructionError
from vla_ros.geometry.se3 import make_pose
from vla_ros.instruction import Instruction, Thing
from vla_ros.sim.tasks import Judge, Task
from vla_ros.types import FloatArray

START = {"block_red": (0.45, 0.10, 0.02), "block_green": (0.45, 0.0, 0.02), "block_blue": (0.45, -0.10, 0.02)}
AWAY = (0.47, 0.0, 0.38)


def poses(**moved: tuple[float, float, float]) -> dict[str, FloatArray]:
    """All blocks at the start but those named: `red=(dx, dy, dz)`."""
    return {
        name: make_pose(np.array(p) + np.array(moved.get(name.removeprefix("block_"), (0.0, 0.0, 0.0))))
        for name, p in START.items()
    }


def tcp_at(colour: str, dx: float = 0.0, dy: float = 0.0, dz: float = 0.0) -> FloatArray:
    return make_pose(np.add(START[f"block_{colour}"], (dx, dy, dz)))


def judge_for(instruction: str, time_limit_s: float = 30.0) -> Judge:
    return Judge(Task.parse(instruction, time_limit_s), poses())


def watch(
    judge: Judge, object_poses: dict[str, FloatArray], T_base_tcp: FloatArray, until_s: float, since_s: float = 0.0
) -> str:
    """Shows the judge one picture at 20 Hz."""
    outcome = "running"
    for time_s in np.arange(since_s, until_s + 1e-6, 0.05):
        outcome = judge.update(object_poses, T_base_tcp, 1.0, float(time_s))
    return outcome


def test_task_is_read_from_its_instruction() -> None:
    assert Task.parse("grab the red cube").instruction == Instruction("pick", Thing("red"))
    with pytest.raises(InstructionError):
        Task.parse("grab the cube")


@pytest.mark.parametrize(
    ("offset", "is_reached"),
    [
        ({"dz": 0.08}, True),
        ({"dx": 0.025, "dz": 0.05}, True),
        ({"dx": 0.035, "dz": 0.05}, False),
        ({"dz": 0.11}, False),
        ({"dy": -0.06, "dz": 0.05}, False),
    ],
)
def test_reach_wants_the_tcp_over_the_block_and_low(offset: dict[str, float], is_reached: bool) -> None:
    assert watch(judge_for("reach the red block"), poses(), tcp_at("red", **offset), 1.0) == (
        "success" if is_reached else "running"
    )


def test_reach_of_the_wrong_block_is_no_success() -> None:
    assert watch(judge_for("reach the red block"), poses(), tcp_at("green", dz=0.05), 5.0) == "running"


def test_reach_with_another_block_nearer_is_no_success() -> None:
    pushed_together = poses(green=(0.0, 0.07, 0.0))  # 3 cm from the red one.
    assert watch(judge_for("reach the red block"), pushed_together, tcp_at("red", dy=-0.02, dz=0.05), 5.0) == "running"


def test_reach_has_to_last_half_a_second_without_a_break() -> None:
    judge = judge_for("reach the red block")
    assert watch(judge, poses(), tcp_at("red", dz=0.05), 0.4) == "running"
    assert watch(judge, poses(), tcp_at("red", dz=0.30), 0.45, 0.45) == "running"
    assert watch(judge, poses(), tcp_at("red", dz=0.05), 0.95, 0.5) == "running"
    assert watch(judge, poses(), tcp_at("red", dz=0.05), 1.0, 1.0) == "success"


@pytest.mark.parametrize(
    ("direction", "moved", "is_pushed"),
    [
        ("left", (0.0, 0.06, 0.0), True),
        ("left", (0.0, 0.04, 0.0), False),
        ("left", (0.0, -0.06, 0.0), False),
        ("right", (0.0, -0.06, 0.0), True),
        ("forward", (0.06, 0.0, 0.0), True),
        ("away", (0.06, 0.03, 0.0), True),
        ("backward", (-0.06, 0.0, 0.0), True),
        ("forward", (-0.06, 0.0, 0.0), False),
        ("left", (0.07, 0.06, 0.0), False),  # More forward than left.
        ("left", (0.0, 0.06, 0.10), False),  # Carried.
    ],
)
def test_push_is_judged_in_base_axes(direction: str, moved: tuple[float, float, float], is_pushed: bool) -> None:
    outcome = watch(judge_for(f"push the blue block {direction}"), poses(blue=moved), make_pose(np.array(AWAY)), 0.1)
    assert outcome == ("success" if is_pushed else "running")


def test_push_of_the_wrong_block_is_no_success() -> None:
    judge = judge_for("push the blue block left")
    assert watch(judge, poses(green=(0.0, 0.08, 0.0)), make_pose(np.array(AWAY)), 5.0) == "running"


def test_pick_wants_the_block_up_and_held_for_half_a_second() -> None:
    judge, up, tcp = judge_for("pick up the green block"), poses(green=(0.0, 0.0, 0.09)), tcp_at("green", dz=0.09)
    assert watch(judge, up, tcp, 0.45) == "running"
    assert watch(judge, up, tcp, 0.5, 0.5) == "success"


@pytest.mark.parametrize(
    ("moved", "tcp_dz"),
    [
        ({"green": (0.0, 0.0, 0.07)}, 0.07),  # Not high enough.
        ({"green": (0.0, 0.0, 0.09)}, 0.20),  # In the air without the fingers.
        ({"red": (0.0, -0.1, 0.09)}, 0.09),  # The wrong block.
        ({"green": (0.0, 0.0, 0.09), "red": (0.0, -0.04, 0.05)}, 0.09),  # Two blocks.
    ],
)
def test_pick_that_is_not_that_block_alone_is_no_success(
    moved: dict[str, tuple[float, float, float]], tcp_dz: float
) -> None:
    judge = judge_for("pick up the green block")
    assert watch(judge, poses(**moved), tcp_at("green", dz=tcp_dz), 5.0) == "running"


def test_block_that_was_dropped_again_is_no_pick() -> None:
    judge = judge_for("pick up the green block")
    assert watch(judge, poses(green=(0.0, 0.0, 0.09)), tcp_at("green", dz=0.09), 0.4) == "running"
    assert watch(judge, poses(), tcp_at("green", dz=0.09), 5.0, 0.45) == "running"


@pytest.mark.parametrize("instruction", ["reach the red block", "push the red block left", "pick up the red block"])
def test_block_off_the_table_fails_any_task_and_that_stands(instruction: str) -> None:
    judge = judge_for(instruction)
    assert watch(judge, poses(blue=(0.5, 0.0, -0.2)), tcp_at("red", dz=0.05), 0.0) == "failure"
    assert "block_blue" in judge.reason
    assert watch(judge, poses(), tcp_at("red", dz=0.05), 5.0, 0.05) == "failure"


def test_time_limit_counts_from_the_first_look() -> None:
    judge = judge_for("reach the red block", time_limit_s=2.0)
    assert watch(judge, poses(), make_pose(np.array(AWAY)), 102.0, 100.0) == "running"
    assert judge.update(poses(), make_pose(np.array(AWAY)), 1.0, 102.1) == "failure"
    assert "2 s" in judge.reason


def test_nothing_is_picked_without_a_gripper() -> None:
    judge, up = judge_for("pick up the green block"), poses(green=(0.0, 0.0, 0.09))
    for time_s in (0.0, 1.0, 2.0):
        assert judge.update(up, tcp_at("green", dz=0.09), None, time_s) == "running"


STACKED = {
    "block_red": (0.45, 0.10, 0.02),
    "cylinder_blue": (0.45, -0.10, 0.02),
    "bowl": (0.55, 0.0, 0.02),
    "distractor_0": (0.40, 0.2, 0.01),
}


def table_poses(**at: tuple[float, float, float]) -> dict[str, FloatArray]:
    """All things of a table at their places but those named."""
    return {name: make_pose(np.array(at.get(name, p))) for name, p in STACKED.items()}


def judge_table(instruction: str, end: dict[str, FloatArray], tcp: FloatArray, opening: float, until_s: float) -> str:
    judge = Judge(Task.parse(instruction), table_poses())
    outcome = "running"
    for time_s in np.arange(0.0, until_s + 1e-6, 0.05):
        outcome = judge.update(end, tcp, opening, float(time_s))
    return outcome


HIGH = make_pose(np.array([0.55, 0.0, 0.25]))
IN_BOWL, ON_BLUE = (0.56, 0.02, 0.024), (0.455, -0.09, 0.06)


@pytest.mark.parametrize(
    ("instruction", "red", "others", "tcp", "opening", "is_met"),
    [
        ("put the red block in the bowl", IN_BOWL, {}, HIGH, 1.0, True),
        # Let go, though the hand is still there; held, and away from it.
        ("put the red block in the bowl", IN_BOWL, {}, make_pose(np.array(IN_BOWL)), 0.7, True),
        ("put the red block in the bowl", IN_BOWL, {}, make_pose(np.array(IN_BOWL)), 0.48, False),
        ("put the red block in the bowl", IN_BOWL, {}, HIGH, 0.0, True),
        # On the rim; beside it; in it, but it was pushed away; in it, but another thing hangs in the air.
        ("put the red block in the bowl", (0.60, 0.02, 0.06), {}, HIGH, 1.0, False),
        ("put the red block in the bowl", (0.55, 0.10, 0.02), {}, HIGH, 1.0, False),
        ("put the red block in the bowl", (0.55, 0.1, 0.024), {"bowl": (0.55, 0.1, 0.02)}, HIGH, 1.0, False),
        ("put the red block in the bowl", IN_BOWL, {"cylinder_blue": (0.45, -0.10, 0.1)}, HIGH, 1.0, False),
        ("stack the red block on the blue cylinder", ON_BLUE, {}, HIGH, 1.0, True),
        ("stack the red block on the blue cylinder", ON_BLUE, {}, make_pose(np.array(ON_BLUE)), 0.48, False),
        # Too far out to stand; beside it at that height; on another thing that was put on it.
        ("stack the red block on the blue cylinder", (0.48, -0.10, 0.06), {}, HIGH, 1.0, False),
        ("stack the red block on the blue cylinder", (0.45, -0.15, 0.06), {}, HIGH, 1.0, False),
        ("stack the red block on the blue cylinder", (0.45, -0.10, 0.10), {}, HIGH, 1.0, False),
        # The pair the other way round isn't what was asked for.
        ("stack the blue cylinder on the red block", ON_BLUE, {}, HIGH, 1.0, False),
        # What nobody can name may fall.
        ("put the red block in the bowl", IN_BOWL, {"distractor_0": (0.4, 0.2, -0.5)}, HIGH, 1.0, True),
    ],
)
def test_placed_and_stacked_things_are_judged_where_they_end(instruction, red, others, tcp, opening, is_met) -> None:
    end = table_poses(block_red=red, **others)
    assert judge_table(instruction, end, tcp, opening, 0.4) == "running"
    assert judge_table(instruction, end, tcp, opening, 0.6) == ("success" if is_met else "running")


def test_a_bowl_that_leans_holds_nothing_for_the_judge() -> None:
    end = table_poses(block_red=IN_BOWL)
    tilt = np.radians(25.0)
    end["bowl"] = make_pose(
        end["bowl"][:3, 3], np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    )
    assert judge_table("put the red block in the bowl", end, HIGH, 1.0, 1.0) == "running"
