"""Closed-loop episodes in one process: world, cameras, policy, filter and controller, with the stack's own latencies.

The policy's inference takes as long as it takes and counts for nothing: its answer takes effect when the latency says.
So an episode depends on its seed, the settings and the policy alone, and runs several times faster than real time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from vla_ros.actions.answer import to_wire
from vla_ros.contract import Contract, Rig, find_mismatches, load_rig
from vla_ros.errors import ChunkError, ContractError, InstructionError, LateChunkError, SensorError
from vla_ros.evaluation.displacement import draw_direction
from vla_ros.evaluation.episode_log import EpisodeOutcome, EpisodeRecorder
from vla_ros.evaluation.figures import ChunkCounts, EpisodeFigures, episode_figures
from vla_ros.evaluation.rollout_film import Film
from vla_ros.evaluation.rollout_observations import RolloutObservations
from vla_ros.evaluation.rollout_settings import Attempt, RolloutSettings
from vla_ros.evaluation.simulated_cell import START_NS, SimulatedCell
from vla_ros.instruction import parse_instruction
from vla_ros.policies.base import InferenceContext, Policy
from vla_ros.policies.registry import make_policy
from vla_ros.robots.config import load_robot
from vla_ros.sim.cameras import CameraRenderer
from vla_ros.sim.tasks import Judge, Task
from vla_ros.sim.world import World
from vla_ros.types import Intervention, JointChunk, RobotState, ToolChunk, Verdict

_NS = 1e-9
_STATE_TOLERANCE_NS = 50_000_000
# The controller takes over from the arm's own and objects come to rest before the task is given.
_WARM_UP_NS = 400_000_000
_JUDGED_EVERY, _LOGGED_EVERY = 10, 5
_TICK_HZ = 250.0


@dataclass
class _Dialogue:
    """What is asked of the policy and answered in one episode."""

    next_ns: int
    asked_ns: int = 0
    committed: ToolChunk | JointChunk | None = None
    wire: ToolChunk | JointChunk | None = None
    due_ns: int = 0
    sent: int = 0
    late: int = 0
    refused: int = 0
    unseen: int = 0
    failed: int = 0
    failure: str = ""
    ages_s: list[float] = field(default_factory=list)
    infer_s: list[float] = field(default_factory=list)

    @property
    def counts(self) -> ChunkCounts:
        return ChunkCounts(self.sent, self.late, self.refused, self.unseen, self.failed)


class Rollouts:
    """A cell and a policy, ready for one episode after the other. One thread's.

    Args:
        settings: what is asked of all of them.

    Raises:
        VlaRosError: if the policy can't be made, or the rig doesn't give what it needs.
    """

    def __init__(self, settings: RolloutSettings) -> None:
        self.settings = settings
        robot = load_robot(settings.robot)
        self._rig: Rig = load_rig(settings.rig)
        self._policy: Policy
        self._contract: Contract
        self._policy, self._contract = make_policy(settings.policy)
        mismatches = find_mismatches(self._rig, self._contract)
        if mismatches:
            raise ContractError("; ".join(mismatches))
        self.world = World(robot, self._rig, 0, settings.setting)
        self.cell = SimulatedCell(robot, self._rig, self.world, settings.interface)
        self._renderer = CameraRenderer(self.world.scene) if self._rig.cameras else None
        rates = [camera.rate_hz for camera in self._rig.cameras.values()]
        # As sim_node divides its ticks.
        self._image_every = max(1, int(_TICK_HZ / max(rates))) if rates else 0

    def close(self) -> None:
        """Lets go of policy and OpenGL."""
        if self._renderer is not None:
            self._renderer.close()
        close = getattr(self._policy, "close", None)
        if callable(close):
            close()

    def __enter__(self) -> Rollouts:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, attempt: Attempt, film: Film | None = None) -> EpisodeFigures:
        """One episode, from the reset to its outcome.

        Args:
            attempt: scene and words.
            film: takes what the policy looks at.

        Raises:
            VlaRosError: if the instruction can't be judged.
        """
        episode = _Episode(self, attempt, film)
        return episode.run()


class _Episode:
    """One attempt while it runs."""

    def __init__(self, rollouts: Rollouts, attempt: Attempt, film: Film | None) -> None:
        settings = rollouts.settings
        self._attempt, self._film, self._settings = attempt, film, settings
        self._cell, self._policy, self._contract = rollouts.cell, rollouts._policy, rollouts._contract
        self._world, self._image_every = rollouts.world, rollouts._image_every
        self._task = Task.parse(attempt.task, settings.time_limit_s)
        offset = settings.camera_offset_m * draw_direction(attempt.seed)
        x, y, z = offset.tolist()
        rollouts.world.reset(attempt.seed, parse_instruction(attempt.needed), (x, y, z))
        self._cell.begin(settings.policy.name)
        self._observations = RolloutObservations(
            self._contract,
            rollouts._rig,
            self._cell.model,
            self._cell.path.states,
            rollouts._renderer,
            settings.is_blind,
        )
        self._observations.begin(1.0 if self._cell.has_gripper else None)
        self._start_ns = START_NS + _WARM_UP_NS
        self._recorder = EpisodeRecorder(attempt.task, attempt.seed, self._cell.model.names, self._start_ns)
        self._dialogue = _Dialogue(self._start_ns)
        self._period_ns = round(1e9 / settings.policy.rate_hz)
        image_s = self._image_every * self._cell.period_ns * _NS
        self._expected_s = settings.latency.expected_s(image_s)
        self._is_understood = False
        self._last: tuple[object, ...] = ()
        self._tick = 0

    def run(self) -> EpisodeFigures:
        cell, dialogue = self._cell, self._dialogue
        while cell.now_ns < self._start_ns:
            self._step(cell.measure())
        begin_error = self._begin_task()
        judge, others = self._judges()
        outcome, did_other = "running", False
        while outcome == "running":
            measured = cell.measure()
            self._expose()
            self._converse(measured)
            self._step(measured)
            if self._tick % _JUDGED_EVERY == 0:
                time_s = (cell.now_ns - self._start_ns) * _NS
                opening = self._world.robot_state(cell.now_ns).gripper_opening
                moment = self._world.object_poses(), cell.tcp_pose(), opening, time_s
                did_other |= any(other.update(*moment) == "success" for other in others)
                outcome = judge.update(*moment)
        duration_s = (cell.now_ns - self._start_ns) * _NS
        is_late = outcome == "failure" and duration_s > self._settings.time_limit_s
        ended: EpisodeOutcome = "timeout" if is_late else ("success" if outcome == "success" else "failure")
        failure = f"; the policy failed {dialogue.failed} times: {dialogue.failure}" if dialogue.failed else ""
        log = self._recorder.finish(ended, duration_s, f"{judge.reason}{begin_error}{failure}")
        video = "" if self._film is None else self._film.finish(ended)
        return episode_figures(
            self._attempt, log, cell.model, dialogue.counts, dialogue.ages_s, dialogue.infer_s, video, did_other
        )

    def _judges(self) -> tuple[Judge, list[Judge]]:
        """Of what was asked, and of what would be wrong."""
        poses, limit_s = self._world.object_poses(), self._settings.time_limit_s
        wrong = [Task.parse(self._attempt.other, limit_s)] if self._attempt.other else []
        return Judge(self._task, poses), [Judge(task, poses) for task in wrong]

    def _begin_task(self) -> str:
        """Tells the policy what to do; why it wouldn't, if it wouldn't: then the arm just stands there."""
        try:
            self._policy.reset(self._attempt.task, self._settings.policy.seed)
        except InstructionError as error:
            return f"; the policy refused the task: {error}"
        self._is_understood = True
        return ""

    def _expose(self) -> None:
        if self._image_every and self._tick % self._image_every == 0:
            self._observations.expose(self._cell.now_ns, self._world.snapshot())

    def _converse(self, measured: RobotState) -> None:
        """Hands over the answer that is due, and asks when it is time."""
        dialogue, now_ns = self._dialogue, self._cell.now_ns
        if dialogue.wire is not None and now_ns >= dialogue.due_ns:
            self._offer(dialogue.wire, now_ns)
            dialogue.wire = None
        if dialogue.wire is None and self._is_understood and now_ns >= dialogue.next_ns:
            dialogue.next_ns = max(dialogue.next_ns + self._period_ns, now_ns)
            self._ask(now_ns)

    def _ask(self, now_ns: int) -> None:
        dialogue, latency = self._dialogue, self._settings.latency
        seen_ns = self._observations.newest_ns(now_ns - round(latency.camera_s / _NS))
        if seen_ns is None or seen_ns <= dialogue.asked_ns:
            dialogue.next_ns = now_ns if dialogue.asked_ns == 0 else dialogue.next_ns
            return
        try:
            observation = self._observations.build(seen_ns, self._attempt.task)
        except SensorError:
            dialogue.unseen += 1
            return
        dialogue.asked_ns = seen_ns
        steps = self._contract.action.steps_within(self._period_ns * _NS)
        began_s = time.perf_counter()
        context = InferenceContext(self._expected_s, steps, dialogue.committed)
        try:
            chunk = self._policy.infer(observation, context)
        # A policy is other people's code: whatever it raises, the arm goes on, and the next observation is tried.
        except Exception as error:
            dialogue.failed += 1
            dialogue.failure = f"{type(error).__name__}: {error}"
            return
        dialogue.infer_s.append(time.perf_counter() - began_s)
        if self._film is not None:
            self._film.add(self._observations.drawn(seen_ns), (seen_ns - self._start_ns) * _NS, chunk.note)
        if chunk.is_idle:
            dialogue.committed = None
            return
        dialogue.sent += 1
        dialogue.due_ns = now_ns + round((latency.answer_s + latency.extra_s) / _NS)
        try:
            dialogue.wire, dialogue.committed = to_wire(
                chunk,
                self._contract.action,
                observation,
                lambda stamp_ns: self._cell.path.states.at(stamp_ns, _STATE_TOLERANCE_NS).positions,
                dialogue.due_ns,
                self._settings.policy.name,
            )
        except ChunkError as error:
            self._count_refusal(error)

    def _offer(self, wire: ToolChunk | JointChunk, now_ns: int) -> None:
        try:
            self._cell.path.filter.offer(wire, now_ns, self._cell.path.states)
        except ChunkError as error:
            self._count_refusal(error)
        else:
            self._dialogue.ages_s.append((now_ns - wire.stamp_ns) * _NS)

    def _count_refusal(self, error: ChunkError) -> None:
        is_late = isinstance(error, LateChunkError)
        self._dialogue.late += is_late
        self._dialogue.refused += not is_late

    def _step(self, measured: RobotState) -> None:
        cell, recorder = self._cell, self._recorder
        before = cell.opening
        ticks, verdict, acted = cell.tick(measured)
        if cell.opening is not None and cell.opening != before:
            self._observations.add_gripper_command(measured.stamp_ns, cell.opening)
        self._tick += 1
        if measured.stamp_ns < self._start_ns:
            return
        for stamp_ns, command in ticks:
            recorder.add_command(stamp_ns, command.positions.tolist(), command.velocities.tolist())
        self._note(verdict, acted, measured.stamp_ns)
        if self._tick % _LOGGED_EVERY == 0:
            recorder.add_truth(cell.now_ns, cell.tcp_pose()[:3, 3].tolist(), {})

    def _note(self, verdict: Verdict, acted: tuple[Intervention, ...], stamp_ns: int) -> None:
        names = [item.limit for item in (*verdict.interventions, *acted)]
        self._recorder.add_limits(names)
        said = (verdict.state, *names)
        if said != self._last:
            self._last = said
            reasons = [item.reason for item in verdict.interventions]
            self._recorder.add_verdict(stamp_ns, verdict.state.value, reasons)
