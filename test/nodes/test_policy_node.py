"""policy_node behind the simulated cameras: its lifecycle, and that no old instruction moves the arm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory, MultiDOFJointTrajectory

pytestmark = [pytest.mark.ros, pytest.mark.sim]

CHUNKS = "policies/scripted_visual/action_chunk"


class Stage:
    """A simulated cell, a policy, and a person who publishes the instruction."""

    def __init__(self, peer: Any, processes: Any, wait: Any) -> None:
        self.peer, self.wait = peer, wait
        self.task = peer.speak(String, "task", is_latched=True)
        self.task.publish(String(data="reach the red block"))
        self.chunks: list[Any] = peer.hear(MultiDOFJointTrajectory, CHUNKS)
        self.joint_chunks: list[Any] = peer.hear(JointTrajectory, "policies/scripted_visual/joint_chunk")
        self.events: list[String] = peer.hear(String, "episode/event")
        self.told: list[DiagnosticArray] = peer.hear(DiagnosticArray, "/diagnostics")
        self.sim = processes.start_node("sim_node", robot="panda", rig="panda_table")
        # The policy asks TF where the cameras are.
        self.cameras = processes.start_node("camera_node", rig="panda_table")
        self.policy = processes.start_node(
            "policy_node", robot="panda", rig="panda_table", policy="scripted_visual", task="''"
        )

    def status(self) -> str:
        """What the policy said last."""
        statuses = [status for message in list(self.told) for status in message.status]
        return next((status.message for status in reversed(statuses) if "policy_node" in status.name), "")

    def next_status(self, *words: str) -> None:
        self.told.clear()
        self.wait(lambda: all(word in self.status() for word in words), f"the policy to say {words}")

    def say(self, task: str) -> None:
        self.task.publish(String(data=task))

    def change(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.peer.call(ChangeState, "policy_node/change_state", request).success)

    def state(self) -> str:
        return str(self.peer.call(GetState, "policy_node/get_state").current_state.label)


@pytest.fixture(scope="module")
def running_stage(module_processes, make_module_peer, patience) -> Iterator[Stage]:
    module_processes.close()
    stage = Stage(make_module_peer("person"), module_processes, patience)
    patience(lambda: stage.status() or stage.policy.poll() is not None, "the policy")
    assert stage.policy.poll() is None, stage.policy.text
    yield stage
    assert stage.policy.end() == 0, stage.policy.text
    assert "Traceback" not in stage.policy.text


@pytest.fixture
def stage(running_stage: Stage) -> Stage:
    for process in (running_stage.policy, running_stage.sim):
        assert process.poll() is None, process.text
    return running_stage


def test_task_that_was_latched_before_the_start_makes_no_chunks_and_the_same_one_anew_does(stage: Stage) -> None:
    stage.next_status("no task: holding")
    stage.next_status("no task: holding")
    assert not stage.chunks
    stage.peer.matched(stage.task)
    stage.say("reach the red block")
    stage.wait(lambda: len(stage.chunks) > 3, "chunks")
    chunk = stage.chunks[-1]
    assert chunk.joint_names == ["tcp_delta", "gripper"]
    assert chunk.header.frame_id == "panda_link0"
    assert not stage.joint_chunks


def test_empty_task_and_one_that_cannot_be_read_end_the_chunks_and_are_told(stage: Stage) -> None:
    for task, words in (("", ("no task: holding",)), ("make me a sandwich", ("holding", "'make'"))):
        stage.say("reach the red block")
        stage.chunks.clear()
        stage.wait(lambda: stage.chunks, "chunks")
        stage.say(task)
        stage.next_status(*words)
        stage.chunks.clear()
        stage.next_status(*words)
        assert not stage.chunks
    assert any("task_refused" in event.data and "sandwich" in event.data for event in stage.events)


def test_deactivated_policy_is_silent_and_goes_on_when_it_is_activated(stage: Stage) -> None:
    stage.say("reach the blue block")
    stage.chunks.clear()
    stage.wait(lambda: stage.chunks, "chunks")
    assert stage.state() == "active"
    assert stage.change(Transition.TRANSITION_DEACTIVATE)
    assert stage.state() == "inactive"
    stage.next_status("not active")
    stage.chunks.clear()
    stage.next_status("not active")
    assert not stage.chunks
    assert stage.change(Transition.TRANSITION_ACTIVATE)
    assert stage.state() == "active"
    stage.wait(lambda: stage.chunks, "chunks")
    assert any("policy_active" in event.data for event in stage.events)


def test_policy_configured_anew_after_cleanup_makes_chunks(stage: Stage) -> None:
    stage.say("reach the blue block")
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        assert stage.change(transition)
    assert stage.state() == "unconfigured"
    stage.wait(lambda: not stage.peer.node.count_publishers(CHUNKS), "its topic to be gone")
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert stage.change(transition)
    stage.chunks.clear()
    stage.wait(lambda: stage.chunks, "chunks")
    assert stage.peer.node.count_publishers(CHUNKS) == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"policy": "scripted_visul"}, "unknown policy 'scripted_visul'; did you mean 'scripted_visual'?"),
        ({"robot": "pandas"}, "unknown robot 'pandas'; did you mean 'panda'?"),
        ({"task": "make a sandwich"}, "instruction 'make a sandwich'"),
        ({"rig": ""}, "parameter 'rig' is not set"),
    ],
)
def test_unusable_parameter_ends_the_node_with_code_2_and_a_line_that_names_it(processes, changes, text) -> None:
    given = {"robot": "panda", "rig": "panda_table", "policy": "scripted_visual", **changes}
    process = processes.start_node("policy_node", **{name: f"'{value}'" for name, value in given.items()})
    assert process.wait(60.0) == 2
    assert text in process.text.splitlines()[-1]
    assert "Traceback" not in process.text
