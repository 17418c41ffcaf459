"""What has to hold before an arm is led, and what a driver's words mean."""

from __future__ import annotations

import json
import math

import pytest

from vla_ros.errors import SensorError
from vla_ros.hardware.faults import RECOVERABLE, franka_reason, ur_reason
from vla_ros.hardware.readiness import NOT_LOOKED_AT, Check, HardwareState, Readiness
from vla_ros.robots.driver import WrenchLimit


class Cell:
    """Problems by name that a test sets, and what was looked at."""

    def __init__(self) -> None:
        self.problems = {"driver": "", "arm": "", "states": "", "cameras": ""}
        self.looked: list[str] = []
        self.readiness = Readiness(
            (
                Check("driver", lambda: self.look("driver"), is_latched=True),
                Check("arm", lambda: self.look("arm"), is_latched=True),
                Check("states", lambda: self.look("states")),
                Check("cameras", lambda: self.look("cameras"), is_for_start=True),
            )
        )

    def look(self, name: str) -> str:
        self.looked.append(name)
        return self.problems[name]

    def reason(self) -> str:
        self.readiness.look()
        return self.readiness.reason


def test_arm_is_led_only_when_all_checks_hold_and_the_first_that_does_not_is_the_reason() -> None:
    cell = Cell()
    cell.problems |= {"arm": "switched off", "states": "none", "cameras": "silent"}
    assert cell.reason() == "arm: switched off"
    assert cell.readiness.results["states"] == cell.readiness.results["cameras"] == NOT_LOOKED_AT
    assert cell.looked == ["driver", "arm"]
    cell.problems["arm"] = ""
    assert cell.reason() == "states: none"
    cell.problems["states"] = ""
    assert cell.reason() == "cameras: silent"
    assert not cell.readiness.has_started
    cell.problems["cameras"] = ""
    assert cell.reason() == ""
    assert cell.readiness.has_started


def test_before_the_start_nothing_is_latched() -> None:
    cell = Cell()
    cell.problems["arm"] = "switched off"
    assert cell.reason()
    cell.problems["arm"] = ""
    assert cell.reason() == ""


def test_what_is_asked_of_the_start_alone_is_told_afterwards_and_keeps_nothing() -> None:
    cell = Cell()
    assert cell.reason() == ""
    cell.problems["cameras"] = "silent"
    assert cell.reason() == ""
    assert cell.readiness.warnings == "cameras: silent"


def test_passing_problem_passes_by_itself() -> None:
    cell = Cell()
    assert cell.reason() == ""
    cell.problems["states"] = "none for 0.3 s"
    assert cell.reason() == "states: none for 0.3 s"
    cell.problems["states"] = ""
    assert cell.reason() == ""


def test_fault_lasts_until_it_is_recovered_from_though_it_has_passed_and_the_first_one_is_named() -> None:
    cell = Cell()
    assert cell.reason() == ""
    cell.problems["arm"] = "protective stop"
    assert cell.reason() == "arm: protective stop"
    cell.problems |= {"arm": "", "driver": "silent"}
    assert cell.reason() == "arm: protective stop"
    cell.problems["driver"] = ""
    assert cell.reason() == "arm: protective stop"
    cell.readiness.recover()
    assert cell.reason() == ""


def test_after_a_recovery_everything_has_to_hold_again() -> None:
    cell = Cell()
    assert cell.reason() == ""
    cell.readiness.fault("force of 30 N")
    cell.problems["cameras"] = "silent"
    assert cell.reason() == "force of 30 N"
    cell.readiness.recover()
    assert cell.reason() == "cameras: silent"


def test_state_survives_the_wire() -> None:
    state = HardwareState(False, "arm: off", 0.3, 17, {"driver": "", "arm": "off"})
    assert HardwareState.from_json(state.to_json()) == state


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"is_ready": true}', json.dumps({"is_ready": 1, "checks": 3})])
def test_words_of_somebody_else_are_refused(text: str) -> None:
    with pytest.raises(SensorError, match="isn't of hardware_node"):
        HardwareState.from_json(text)


@pytest.mark.parametrize("mode", [1, 2])
def test_franka_that_idles_or_moves_without_an_error_can_be_led(mode: int) -> None:
    assert franka_reason(mode, []) == ""


@pytest.mark.parametrize("mode", [1, 2, 4])
def test_reflex_is_named_as_franka_names_it_and_can_be_recovered_from(mode: int) -> None:
    reason = franka_reason(mode, ["joint_motion_generator_velocity_discontinuity", "joint_reflex"])
    assert "joint_motion_generator_velocity_discontinuity, joint_reflex" in reason
    assert reason.endswith(RECOVERABLE)


@pytest.mark.parametrize(("mode", "words"), [(0, "Desk"), (3, "guided by hand"), (5, "user stop"), (6, "recovers")])
def test_franka_in_another_mode_says_which_and_is_no_case_for_a_recovery(mode: int, words: str) -> None:
    reason = franka_reason(mode, [])
    assert words in reason
    assert RECOVERABLE not in reason


@pytest.mark.parametrize("safety_mode", [1, 2])
def test_ur_that_runs_the_program_in_a_normal_or_reduced_mode_can_be_led(safety_mode: int) -> None:
    assert ur_reason(safety_mode, 7, True) == ""


@pytest.mark.parametrize("safety_mode", range(3, 14))
def test_ur_in_every_other_safety_mode_says_which_and_only_a_protective_stop_is_ours_to_end(safety_mode: int) -> None:
    reason = ur_reason(safety_mode, 7, True)
    assert reason
    assert f"safety mode {safety_mode}" not in reason
    assert reason.endswith(RECOVERABLE) == (safety_mode == 3)


@pytest.mark.parametrize("robot_mode", [-1, 0, 1, 2, 3, 4, 5, 6, 8])
def test_ur_that_is_not_running_says_what_it_does(robot_mode: int) -> None:
    reason = ur_reason(1, robot_mode, True)
    assert reason.endswith("see the teach pendant")
    assert "in mode" not in reason


def test_ur_without_its_program_says_who_starts_it() -> None:
    assert "Play" in ur_reason(1, 7, False)


@pytest.mark.parametrize(
    ("force_n", "torque_nm", "reason"),
    [
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), ""),
        # 3, 4, 12: 13; exactly the limit is allowed.
        ((3.0, 4.0, 12.0), (0.0, 0.0, 0.0), ""),
        ((3.0, 4.0, 12.1), (0.0, 0.0, 0.0), "force of 13.1 N at the tool (limit 13)"),
        ((0.0, 0.0, 0.0), (0.0, -2.5, 0.0), "torque of 2.5 N m at the tool (limit 2)"),
        ((20.0, 0.0, 0.0), (5.0, 0.0, 0.0), "force of 20.0 N"),
        ((math.nan, 0.0, 0.0), (0.0, 0.0, 0.0), "force of nan N"),
        ((0.0, 0.0, 0.0), (0.0, math.inf, 0.0), "torque of inf N m"),
    ],
)
def test_a_wrench_is_judged_by_its_norms(force_n, torque_nm, reason) -> None:
    problem = WrenchLimit("wrench", 13.0, 2.0).problem(force_n, torque_nm)
    assert problem.startswith(reason)
    assert bool(problem) == bool(reason)
