"""Rollouts through the stack: any policy can be handed to nodes as a file, and what the mode can't do is refused."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("vla_ros.sim.world")  # Not "mujoco": MUJOCO_GL is chosen first.

from vla_ros.contract import load_rig
from vla_ros.errors import VlaRosError
from vla_ros.evaluation.rollout_settings import RolloutSettings
from vla_ros.nodes.stack_episode import _refusal
from vla_ros.nodes.stack_rollouts import run_in_stack, write_policy
from vla_ros.policies.registry import PolicyConfig, load_policy_config
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.stopping import stop_signals

SETTINGS = RolloutSettings("panda", "panda_table", load_policy_config("scripted_visual"))


@pytest.mark.parametrize(
    "config",
    [
        load_policy_config("scripted_visual"),
        PolicyConfig("step_000100", "learned", "tool_delta_visual", 8.0, 3, {"checkpoint": "/somewhere/step-000100"}),
    ],
)
def test_a_policy_written_for_nodes_is_read_as_it_was(config: PolicyConfig, tmp_path: Path) -> None:
    assert load_policy_config(str(write_policy(config, tmp_path))) == config


@pytest.mark.parametrize("changes", [{"is_blind": True}, {"camera_offset_m": 0.08}])
def test_what_only_one_process_can_do_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(VlaRosError, match="--mode process"):
        run_in_stack(replace(SETTINGS, **changes), [], 1, None, [], lambda _share: None)  # type: ignore[arg-type]


def test_what_has_no_simulated_cell_is_refused_by_name() -> None:
    pytest.importorskip("rclpy")
    from vla_ros.nodes.rollout import RolloutClient

    model, rig = RobotModel.from_config(load_robot("ur5e")), load_rig("ur5e_table")
    with pytest.raises(VlaRosError, match="hardware with a simulated cell 'real'; known: mock, sim"):
        RolloutClient(model, rig, "scripted_visual", hardware="real")


def test_an_interrupt_is_told_where_it_does_no_harm_and_a_second_one_at_once() -> None:
    shell = signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell may have it ignored.
    with stop_signals() as is_wished:
        assert not is_wished()
        os.kill(os.getpid(), signal.SIGINT)
        assert is_wished()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.signal(signal.SIGINT, shell) is signal.default_int_handler


def test_a_task_that_the_policy_refused_is_told_with_its_reason() -> None:
    events = [{"event": "start"}, {"event": "task_refused", "task": "juggle", "reason": "'juggle' isn't a verb"}]
    assert _refusal(events) == "; the policy refused the task: 'juggle' isn't a verb"
    assert _refusal(events[:1]) == ""
