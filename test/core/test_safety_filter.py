"""The Cartesian filter's states, refusals and limits, on an arm whose joints are the tcp's pose."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_ros.actions.path import OffsetLimits
from vla_ros.config import load, package_share
from vla_ros.errors import ChunkError
from vla_ros.geometry import se3
from vla_ros.robots.config import ToolLimits
from vla_ros.robots.state_buffer import JointStateBuffer
from vla_ros.safety.config import KeepOutPlane, KeepOutSphere, SafetyConfig
from vla_ros.safety.filter import SafetyFilter
from vla_ros.safety.joint_limits import JointRate
from vla_ros.types import FloatArray, JointChunk, JointTarget, MotionState, RobotState, ToolChunk, ToolTarget, Verdict

NS = 1_000_000_000
START_NS = 1_700_000_000 * NS
DT_S = 0.004
TICK_NS = 4_000_000
HOME = np.array([0.45, 0.0, 0.3, np.pi - 0.1, 0.0, 0.0])
CONFIG = replace(
    load(SafetyConfig, package_share() / "config" / "safety.yaml"),
    workspace_lower_m=(0.15, -0.5, 0.005),
    workspace_upper_m=(0.75, 0.5, 0.8),
    velocity_m_s=0.5,
    acceleration_m_s2=2.0,
    jerk_m_s3=150.0,
    angular_velocity_rad_s=1.5,
    angular_acceleration_rad_s2=6.0,
    angular_jerk_rad_s3=450.0,
    soft_start_s=0.5,
    chunk_max_age_s=1.0,
    state_timeout_s=0.1,
    tracking_tolerance_m=0.08,
    tracking_tolerance_rad=0.5,
)
TOOL = ToolLimits(2.0, 13.0, 6500.0, 2.5, 25.0, 12500.0)
TIMES_S = 0.1 * np.arange(1, 9)
IDLE, RUNNING, HOLDING, STOPPED, FAULT = MotionState
NAN_POSES = se3.make_pose(np.full((8, 3), np.nan))


def forward_kinematics(q: FloatArray) -> FloatArray:
    return se3.make_pose(q[:3], Rotation.from_rotvec(q[3:]).as_matrix())


def joints_of(T_base_tcp: FloatArray) -> FloatArray:
    return np.concatenate([T_base_tcp[:3, 3], Rotation.from_matrix(T_base_tcp[:3, :3]).as_rotvec()])


class Cell:
    """A filter and an arm that is where the last target was, `offset` apart, and reports it unless it `is_silent`."""

    def __init__(self, config: SafetyConfig = CONFIG, q: FloatArray = HOME) -> None:
        limits = OffsetLimits(np.full(6, 2.0), np.full(6, 10.0), np.full(6, 1e3))
        self.filter = SafetyFilter(config, TOOL, forward_kinematics, limits)
        self.filter.select_source("p", START_NS - NS)
        self.states = JointStateBuffer(capacity=1024)
        self.q, self.offset = q, np.zeros(6)
        self.now_ns, self.is_silent = START_NS, False
        self.targets: list[ToolTarget | JointTarget | None] = []
        self.verdicts: list[Verdict] = []

    def tick(self, count: int = 1) -> MotionState:
        for _ in range(count):
            self.now_ns += TICK_NS
            measured = RobotState(self.now_ns, self.q + self.offset, np.zeros(6))
            if not self.is_silent:
                self.states.append(measured)
            # The buffer takes none that isn't finite; whoever calls the filter may have no buffer.
            is_finite = bool(np.isfinite(self.offset).all())
            target, verdict = self.filter.step(self.now_ns, DT_S, self.states.newest() if is_finite else measured)
            if isinstance(target, ToolTarget):
                self.q = joints_of(target.T_base_tcp)
            elif target is not None:
                self.q = target.positions
            self.targets.append(target)
            self.verdicts.append(verdict)
        return self.filter.state

    def offer(self, chunk: ToolChunk | JointChunk) -> None:
        self.filter.offer(chunk, self.now_ns, self.states)

    def refuses(self, chunk: ToolChunk | JointChunk) -> str:
        try:
            self.offer(chunk)
        except ChunkError as error:
            return str(error)
        return ""

    @property
    def target(self) -> ToolTarget:
        assert isinstance(self.targets[-1], ToolTarget)
        return self.targets[-1]


def tool_chunk(stamp_ns: int, step_m: tuple[float, float, float] = (0.01, 0.0, 0.0), source: str = "p") -> ToolChunk:
    deltas = se3.make_pose(np.outer(np.arange(1, 9), step_m))
    return ToolChunk(stamp_ns, "base", deltas, np.linspace(0.9, 0.2, 8), TIMES_S, source)


def joint_chunk(stamp_ns: int, q_end: FloatArray, source: str = "p", q_start: FloatArray = HOME) -> JointChunk:
    positions = q_start + np.outer(np.linspace(0.125, 1.0, 8), q_end - q_start)
    return JointChunk(stamp_ns, positions, None, TIMES_S, source)


def running_cell(step_m: tuple[float, float, float] = (0.01, 0.0, 0.0), config: SafetyConfig = CONFIG) -> Cell:
    cell = Cell(config)
    cell.tick(5)
    cell.offer(tool_chunk(cell.now_ns, step_m))
    assert cell.tick(60) is RUNNING
    return cell


def cell_in(state: MotionState) -> Cell:
    if state is IDLE:
        cell = Cell()
        cell.tick(5)
    else:
        cell = running_cell()
    if state is HOLDING:
        cell.filter.drop_chunks(cell.now_ns, "task is now 'x'")
    elif state is STOPPED:
        cell.filter.stop("button", cell.now_ns)
    elif state is FAULT:
        cell.is_silent = True
        cell.tick(30)
    if state is not FAULT:
        cell.tick(30)
        if state is RUNNING:
            cell.offer(tool_chunk(cell.now_ns))
            cell.tick(10)
    assert cell.filter.state is state
    return cell


def is_stale(cell: Cell) -> None:
    cell.is_silent = True
    cell.tick(30)


def is_out(cell: Cell) -> None:
    cell.refuses(joint_chunk(cell.now_ns, np.array([0.45, 2.0, 0.3, *HOME[3:]]), q_start=cell.q))
    cell.tick(100)


def settles(cell: Cell) -> None:
    cell.is_silent = False
    cell.tick(80)


def is_gone(cell: Cell) -> None:
    cell.states.clear()
    cell.is_silent = True


def clock_jumps(seconds: float) -> Callable[[Cell], object]:
    def jump(cell: Cell) -> None:
        cell.now_ns += round(seconds * NS)
        cell.states.clear()

    return jump


def stop_and_reset(cell: Cell) -> None:
    cell.filter.stop("button", cell.now_ns)
    cell.tick(3)
    cell.filter.reset(cell.now_ns)


EVENTS: dict[str, Callable[[Cell], object]] = {
    "tick": lambda cell: None,
    "chunk": lambda cell: cell.refuses(tool_chunk(cell.now_ns)),
    "joint chunk": lambda cell: cell.refuses(joint_chunk(cell.now_ns, cell.q, q_start=cell.q)),
    "chunk of another source": lambda cell: cell.refuses(tool_chunk(cell.now_ns, source="other")),
    "chunk that is refused": lambda cell: cell.refuses(replace(tool_chunk(cell.now_ns), transforms=NAN_POSES)),
    "end of chunk": lambda cell: cell.tick(500),
    "stop": lambda cell: cell.filter.stop("button", cell.now_ns),
    "reset": lambda cell: cell.filter.reset(cell.now_ns),
    "stop and reset": stop_and_reset,
    "source": lambda cell: cell.filter.select_source("other", cell.now_ns),
    "the same source": lambda cell: cell.filter.select_source("p", cell.now_ns),
    "task": lambda cell: cell.filter.drop_chunks(cell.now_ns, "task is now 'y'"),
    "stale": is_stale,
    "no state": is_gone,
    "state that isn't finite": lambda cell: setattr(cell, "offset", np.full(6, np.nan)),
    "state from the future": lambda cell: setattr(cell, "now_ns", cell.now_ns - NS),
    "back": lambda cell: setattr(cell, "is_silent", False),
    "back and still": settles,
    "elsewhere": lambda cell: setattr(cell, "offset", np.array([0.0, 0.2, 0.0, 0.0, 0.0, 0.0])),
    "turned": lambda cell: setattr(cell, "offset", np.array([0.0, 0.0, 0.0, -0.7, 0.0, 0.0])),
    "out": is_out,
    "clock back": clock_jumps(-10.0),
    "clock forth": clock_jumps(0.5),
}
LOST = {"stale": FAULT, "state that isn't finite": FAULT, "state from the future": FAULT}
TABLE: dict[MotionState, dict[str, MotionState]] = {
    IDLE: {
        "chunk": RUNNING,
        "joint chunk": RUNNING,
        "stop": STOPPED,
        "stop and reset": HOLDING,
        "out": HOLDING,
        **LOST,
    },
    RUNNING: {
        "end of chunk": HOLDING,
        "source": HOLDING,
        "task": HOLDING,
        "out": HOLDING,
        "clock back": HOLDING,
        "clock forth": HOLDING,
        "stop": STOPPED,
        "stop and reset": HOLDING,
        "elsewhere": FAULT,
        "turned": FAULT,
        "no state": FAULT,
        **LOST,
    },
    HOLDING: {
        "chunk": RUNNING,
        "joint chunk": RUNNING,
        "stop": STOPPED,
        "no state": FAULT,
        **LOST,
    },
    STOPPED: {"reset": HOLDING, "stop and reset": HOLDING},
    # A fault by silence, which only "back" ends.
    FAULT: {"stop": STOPPED, "back and still": HOLDING},
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", MotionState)
def test_event_leads_to_the_state_of_the_table(state: MotionState, event: str) -> None:
    cell = cell_in(state)
    EVENTS[event](cell)
    assert cell.tick() is TABLE[state].get(event, state)
    assert cell.verdicts[-1].state is cell.filter.state
    # Whatever isn't running says why.
    assert cell.verdicts[-1].is_clean or cell.verdicts[-1].interventions[0].reason
    assert cell.filter.state is RUNNING or not cell.verdicts[-1].is_clean
    if cell.filter.state is not RUNNING:
        assert cell.verdicts[-1].interventions[0].limit == cell.filter.state.value
        assert cell.verdicts[-1].interventions[0].reason


def test_arm_is_not_commanded_before_the_first_chunk_or_during_a_fault() -> None:
    cell = Cell()
    assert cell.filter.step(START_NS, DT_S, None)[0] is None
    assert "no joint state yet" in cell.filter.step(START_NS, DT_S, None)[1].interventions[0].reason
    assert cell.tick(20) is IDLE
    assert set(cell.targets) == {None}
    assert cell_in(FAULT).targets[-1] is None


def test_joint_states_that_vanish_are_a_fault() -> None:
    cell = running_cell()
    cell.states.clear()
    cell.is_silent = True
    assert cell.tick() is FAULT
    assert cell.targets[-1] is None


def faulted_by(offset: FloatArray, chunk: Callable[[Cell], ToolChunk | JointChunk]) -> Cell:
    cell = Cell()
    cell.tick(5)
    cell.offer(chunk(cell))
    cell.tick(60)
    cell.offset = offset
    assert cell.tick() is FAULT
    return cell


ASTRAY: dict[str, tuple[FloatArray, Callable[[Cell], ToolChunk | JointChunk], str]] = {
    "position": (
        np.array([0.0, 0.2, 0.0, 0.0, 0.0, 0.0]),
        lambda cell: tool_chunk(cell.now_ns),
        r"the arm is 0.200 m away from its target \(limit 0.08 m\)",
    ),
    "rotation": (
        np.array([0.0, 0.0, 0.0, -0.6, 0.0, 0.0]),
        lambda cell: tool_chunk(cell.now_ns),
        r"the tool is 0.600 rad away from its target \(limit 0.5 rad\)",
    ),
    "joint": (
        np.array([0.0, 0.0, -0.55, 0.0, 0.1, 0.0]),
        lambda cell: joint_chunk(cell.now_ns, HOME),
        r"joint 3 of the arm is 0.550 rad away from its target \(limit 0.5 rad\)",
    ),
}


@pytest.mark.parametrize("kind", ASTRAY)
def test_fault_by_tracking_is_named_and_lasts_until_the_arm_has_stood_still_where_it_is(kind: str) -> None:
    """It ended by itself after one tick, and rotation and joints weren't looked at."""
    offset, chunk, text = ASTRAY[kind]
    cell = faulted_by(offset, chunk)
    for index in range(200):
        reason = cell.verdicts[-1].interventions[0].reason
        assert re.search(text, reason)
        assert cell.targets[-1] is None
        assert "during a fault" in cell.refuses(tool_chunk(cell.now_ns))
        # The arm coasts on at 2 cm/s for a while.
        cell.q = cell.q + (8e-5 if index < 150 else 0.0) * np.eye(6)[1]
        assert cell.tick() is FAULT
    assert cell.tick(30) is HOLDING
    assert re.search("waiting for a chunk after a fault.*" + text, cell.verdicts[-1].interventions[0].reason)
    assert set(cell.targets[-30:]) == {None}
    assert "before the last change" in cell.refuses(tool_chunk(cell.now_ns - 40 * TICK_NS))
    elsewhere, cell.q, cell.offset = cell.q + cell.offset, cell.q + cell.offset, np.zeros(6)
    cell.offer(tool_chunk(cell.now_ns))
    cell.tick()
    np.testing.assert_allclose(cell.target.T_base_tcp, forward_kinematics(elsewhere), atol=1e-4)


def test_reset_ends_a_fault_by_tracking_at_once_and_the_motion_begins_where_the_arm_is() -> None:
    cell = faulted_by(*ASTRAY["position"][:2])
    cell.filter.reset(cell.now_ns)
    assert cell.tick() is HOLDING
    assert cell.targets[-1] is None
    elsewhere, cell.q, cell.offset = cell.q + cell.offset, cell.q + cell.offset, np.zeros(6)
    cell.offer(tool_chunk(cell.now_ns))
    cell.tick()
    np.testing.assert_allclose(cell.target.T_base_tcp, forward_kinematics(elsewhere), atol=1e-4)


def test_stop_during_a_fault_outlasts_it() -> None:
    cell = cell_in(FAULT)
    cell.filter.stop("button", cell.now_ns)
    cell.is_silent = False
    assert cell.tick(200) is STOPPED
    assert cell.targets[-1] is None
    cell.filter.reset(cell.now_ns)
    assert cell.tick() is HOLDING


def chunk_with(**changes: object) -> Callable[[int], ToolChunk]:
    return lambda now_ns: replace(tool_chunk(now_ns - 2 * TICK_NS), **changes)  # type: ignore[arg-type]


SHEARED = np.tile(np.diag([1.0, 2.0, 1.0, 1.0]), (8, 1, 1))
REFUSALS: dict[str, tuple[MotionState, Callable[[int], ToolChunk | JointChunk], str]] = {
    "wrong source": (RUNNING, lambda now: tool_chunk(now, source="q"), "chunk of q while the selected source is p"),
    "stopped": (STOPPED, tool_chunk, r"while stopped \(button\); call safety/reset"),
    "fault": (FAULT, tool_chunk, "during a fault .no joint state for"),
    "before the task": (
        HOLDING,
        lambda now: tool_chunk(now - 31 * TICK_NS),
        "before the last change of task or source",
    ),
    "no anchor": (RUNNING, lambda now: tool_chunk(START_NS - NS // 2), "has no anchor: nearest joint state is"),
    "future": (RUNNING, lambda now: tool_chunk(now + 2 * NS), "nearest joint state is 2000.0 ms before the stamp"),
    "all late": (RUNNING, chunk_with(time_from_start_s=1e-4 * np.arange(1, 9)), "all 8 points .* are late"),
    "duplicate": (RUNNING, lambda now: tool_chunk(now - 10 * TICK_NS), "older than the one in force or the same"),
    "joint chunk, all late": (
        HOLDING,
        lambda now: replace(joint_chunk(now - TICK_NS, HOME), time_from_start_s=1e-4 * np.arange(1, 9)),
        "all 8 points .* are late",
    ),
    "not finite": (RUNNING, chunk_with(transforms=NAN_POSES), "finite rigid motions"),
    "not rigid": (RUNNING, chunk_with(transforms=SHEARED), "finite rigid motions"),
    "anchor not finite": (RUNNING, chunk_with(T_base_anchor=NAN_POSES[0]), "its anchor"),
    "too few": (RUNNING, chunk_with(transforms=SHEARED[:3]), "needs 8 transforms"),
    "no points": (RUNNING, chunk_with(time_from_start_s=np.zeros(0)), "must be at least 0 and increase"),
    "times back": (RUNNING, chunk_with(time_from_start_s=TIMES_S[::-1]), "must be at least 0 and increase"),
    "openings": (RUNNING, chunk_with(openings=np.full(8, 1.5)), r"8 gripper openings in \[0, 1\]"),
    "joints not finite": (RUNNING, lambda now: joint_chunk(now, np.full(6, np.nan)), "finite joint positions"),
    "joints too many": (
        RUNNING,
        lambda now: JointChunk(now, np.zeros((8, 7)), None, TIMES_S, "p"),
        "8 x 6 finite joint positions",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_names_itself_and_leaves_the_motion_as_it_was(name: str) -> None:
    state, make, text = REFUSALS[name]
    cell, twin = cell_in(state), cell_in(state)
    with pytest.raises(ChunkError, match=text):
        cell.offer(make(cell.now_ns))
    assert cell.filter.state is state
    for _ in range(120):
        cell.tick()
        twin.tick()
        assert cell.verdicts[-1] == twin.verdicts[-1]
        got, wanted = cell.targets[-1], twin.targets[-1]
        assert type(got) is type(wanted)
        if isinstance(got, ToolTarget) and isinstance(wanted, ToolTarget):
            np.testing.assert_array_equal(got.T_base_tcp, wanted.T_base_tcp)
            np.testing.assert_array_equal(got.twist_tcp_in_base, wanted.twist_tcp_in_base)
            assert got.gripper_opening == wanted.gripper_opening


def test_chunk_older_than_the_limit_is_refused_with_its_age() -> None:
    cell = Cell()
    cell.tick(500)
    with pytest.raises(ChunkError, match=r"is 1\.500 s old \(limit 1\.0 s\)"):
        cell.offer(tool_chunk(cell.now_ns - 1_500_000_000))
    assert cell.tick() is IDLE


def test_policy_that_is_not_selected_any_more_is_refused_and_the_other_is_taken() -> None:
    cell = running_cell()
    cell.filter.select_source("q", cell.now_ns)
    assert "selected source is q" in cell.refuses(tool_chunk(cell.now_ns))
    assert cell.tick() is HOLDING
    cell.offer(tool_chunk(cell.now_ns, source="q"))
    assert cell.tick() is RUNNING


def test_stop_latches_until_reset_and_then_needs_a_newer_chunk() -> None:
    cell = running_cell()
    cell.filter.stop("button", cell.now_ns)
    for _ in range(20):
        assert "button" in cell.refuses(tool_chunk(cell.now_ns))
        cell.filter.select_source("q", cell.now_ns)
        cell.filter.select_source("p", cell.now_ns)
        assert cell.tick(10) is STOPPED
    before = tool_chunk(cell.now_ns - TICK_NS)
    cell.filter.reset(cell.now_ns)
    assert cell.tick() is HOLDING
    assert "before the last change" in cell.refuses(before)
    assert cell.tick(50) is HOLDING
    cell.offer(tool_chunk(cell.now_ns))
    assert cell.tick() is RUNNING


def poses_of(targets: list[ToolTarget | JointTarget | None]) -> FloatArray:
    return np.array([target.T_base_tcp for target in targets if isinstance(target, ToolTarget)])


def twists(poses: FloatArray) -> FloatArray:
    """(n - 1, 6) from poses alone, with scipy's rotations."""
    turns = Rotation.from_matrix(poses[1:, :3, :3]) * Rotation.from_matrix(poses[:-1, :3, :3]).inv()
    return np.hstack([np.diff(poses[:, :3, 3], axis=0), turns.as_rotvec()]) / DT_S


def norms(values: FloatArray) -> FloatArray:
    return np.linalg.norm(values.reshape(-1, 2, 3), axis=2)


def exceedances(poses: FloatArray) -> list[str]:
    """Limits that a stretch of emitted poses, from rest on, is past."""
    values = twists(np.concatenate([poses[:1], poses[:1], poses[:1], poses]))
    found = []
    for order, (name, linear, angular) in enumerate(
        (
            ("velocity", CONFIG.velocity_m_s, CONFIG.angular_velocity_rad_s),
            ("acceleration", CONFIG.acceleration_m_s2, CONFIG.angular_acceleration_rad_s2),
            ("jerk", CONFIG.jerk_m_s3, CONFIG.angular_jerk_rad_s3),
        ),
        start=1,
    ):
        # Poses are rounded to about 1e-15.
        if np.any(norms(values) > np.array([linear, angular]) * (1 + 1e-8) + 1e-14 * 2**order / DT_S**order):
            found.append(f"{name} {norms(values).max(axis=0)}")
        values = np.diff(values, axis=0) / DT_S
    p = poses[:, :3, 3]
    if np.any(p < np.array(CONFIG.workspace_lower_m) - 1e-9) or np.any(p > np.array(CONFIG.workspace_upper_m) + 1e-9):
        found.append(f"workspace {p.min(axis=0)} {p.max(axis=0)}")
    if not se3.is_pose(poses, tolerance=1e-9):
        found.append("not poses")
    return found


def random_chunk(rng: np.random.Generator, now_ns: int) -> ToolChunk:
    count = int(rng.integers(1, 17))
    kind = rng.integers(5)
    size_m = (0.002, 0.02, 0.3, 10.0, 1e6)[kind]
    moves = np.cumsum(rng.normal(0, size_m, (count, 3)), axis=0)
    turns = Rotation.from_rotvec(np.cumsum(rng.normal(0, (0.01, 0.1, 1.0, 3.0, 0.0)[kind], (count, 3)), axis=0))
    if rng.random() < 0.2:
        turns = turns * Rotation.from_rotvec(np.pi * np.eye(3)[rng.integers(3, size=count)])
    frame = ("tcp", "base", "absolute")[rng.integers(3)]
    transforms = se3.make_pose(moves + (HOME[:3] if frame == "absolute" else 0.0), turns.as_matrix())
    openings = rng.integers(0, 2, count).astype(float) if rng.random() < 0.7 else None
    times_s = np.cumsum(10.0 ** rng.uniform(-3, -0.3, count))
    age_ns = round(rng.choice([0.0, rng.uniform(0.0, 0.9)]) * NS)
    return ToolChunk(now_ns - age_ns, frame, transforms, openings, times_s, "p")


@pytest.mark.parametrize("seed", range(5))
def test_targets_keep_box_speed_acceleration_and_jerk_whatever_chunks_arrive(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell = Cell()
    cell.tick(5)
    sent: list[ToolChunk] = []
    taken = 0
    for _ in range(2000):
        draw = rng.random()
        if draw < 0.2:
            sent.append(random_chunk(rng, cell.now_ns))
            taken += not cell.refuses(sent[-1])
        elif draw < 0.25 and sent:
            cell.refuses(sent[rng.integers(len(sent))])
        elif draw < 0.255:
            cell.filter.drop_chunks(cell.now_ns, "task")
        elif draw < 0.258:
            cell.filter.stop("button", cell.now_ns)
        elif draw < 0.262:
            cell.filter.reset(cell.now_ns)
        elif draw < 0.264:
            # Silence for less than the limit.
            cell.is_silent = True
        cell.is_silent = cell.is_silent and rng.random() < 0.8
        if cell.filter.state is STOPPED and rng.random() < 0.05:
            cell.filter.reset(cell.now_ns)
        cell.tick()
    assert taken > 50
    started = [target for target in cell.targets if target is not None]
    assert len(started) > 1500
    assert cell.targets[-len(started) :] == started
    assert exceedances(poses_of(cell.targets)) == []
    openings = {target.gripper_opening for target in started}
    assert openings <= {None, 0.0, 1.0}
    reported = np.array([target.twist_tcp_in_base for target in started if isinstance(target, ToolTarget)])
    np.testing.assert_allclose(reported[1:], twists(poses_of(cell.targets)), atol=1e-9)


def test_judge_of_this_file_sees_each_kind_of_exceedance() -> None:
    t = DT_S * np.arange(200)
    found = [
        exceedances(se3.make_pose(HOME[:3] + y[:, None] * np.array([0.0, 1.0, 0.0])))
        for y in (
            3.0 * t**3 / (1.0 + 30.0 * t**3),
            0.95 * np.maximum(0.0, t - 0.6) ** 2,
            np.where(t > 0.4, 0.2 * (t - 0.4), 0.0),
            0.35 * t**2,
            -0.6 + 0.0 * t,
        )
    ]
    assert [[text.split()[0] for text in texts] for texts in found] == [
        [],
        ["jerk"],
        ["acceleration", "jerk"],
        ["velocity"],
        ["workspace"],
    ]


def test_soft_start_is_slower_at_first_and_grows_to_full_speed() -> None:
    moved = {}
    for soft_start_s in (0.0, 0.5):
        cell = Cell(replace(CONFIG, soft_start_s=soft_start_s))
        cell.tick(5)
        cell.offer(tool_chunk(cell.now_ns, (0.03, 0.0, 0.0)))
        cell.tick(200)
        moved[soft_start_s] = poses_of(cell.targets)[:, 0, 3] - HOME[0]
        speed = norms(twists(poses_of(cell.targets)))[:, 0]
        if soft_start_s:
            # By hand: a fifth of 0.5 m/s, and 0.8 of it more in half a second.
            t = DT_S * np.arange(1, len(speed) + 1)
            assert np.all(speed <= 0.1 + 0.4 * np.minimum(t / 0.5, 1.0) + 1e-9)
        assert speed.max() > 0.25
    assert moved[0.5][25] < 0.7 * moved[0.0][25]


def test_engaging_in_motion_does_not_take_the_brakes_away() -> None:
    """The limits of a soft start from rest would let a tool at 0.4 m/s run on for a quarter of a metre."""
    cell = running_cell((0.05, 0.0, 0.0))
    while norms(twists(poses_of(cell.targets)[-2:]))[0, 0] < 0.4:
        cell.tick()
    before = cell.target.T_base_tcp[:3, 3]
    cell.filter.drop_chunks(cell.now_ns, "task")
    cell.tick()
    here = cell.target.T_base_tcp
    cell.offer(ToolChunk(cell.now_ns, "absolute", np.tile(here, (8, 1, 1)), None, TIMES_S, "p"))
    cell.tick(400)
    assert np.max(poses_of(cell.targets)[:, 0, 3]) - before[0] < 0.09
    assert exceedances(poses_of(cell.targets)) == []


@pytest.mark.parametrize("event", ["stop", "source", "task"])
def test_motion_brakes_to_rest_in_v_over_a_and_twice_a_over_j_and_stays(event: str) -> None:
    cell = running_cell((0.04, 0.0, 0.0))
    cell.tick(40)
    speed = norms(twists(poses_of(cell.targets)[-2:]))[0, 0]
    assert speed > 0.3
    count = len(cell.targets)
    EVENTS[event](cell)
    cell.tick(500)
    v = norms(twists(poses_of(cell.targets[count - 1 :])))
    # What it accelerates with has to be taken back first.
    a, j = CONFIG.acceleration_m_s2, CONFIG.jerk_m_s3
    ticks = int(np.ceil((speed / a + 2.0 * a / j) / DT_S)) + 3
    assert np.all(v[ticks:] < 1e-9)
    assert exceedances(poses_of(cell.targets)) == []
    assert cell.target.gripper_opening is not None


@pytest.mark.parametrize("y_m", [0.45, 0.48])
def test_tool_stops_in_front_of_a_wall_that_it_was_led_into_at_full_speed(y_m: float) -> None:
    """The chunk takes the tool up to 0.45 m/s and through the wall; a stop comes before, or nothing does."""
    for has_stop in (True, False):
        start = HOME - np.array([0.0, 0.45, 0.0, 0.0, 0.0, 0.0])
        cell = Cell(replace(CONFIG, soft_start_s=0.0, seam="switch"), start)
        cell.tick(5)
        times_s = 0.1 * np.arange(31)
        y = -0.45 + np.where(times_s < 0.45, 0.5 * times_s**2, 0.45 * times_s - 0.5 * 0.45**2)
        path = np.column_stack([np.full(31, 0.45), y, np.full(31, 0.3)])
        poses = se3.make_pose(path, forward_kinematics(HOME)[:3, :3])
        cell.offer(ToolChunk(cell.now_ns, "absolute", poses, None, times_s, "p"))
        cell.tick()
        while cell.target.T_base_tcp[1, 3] < y_m:
            cell.tick()
            assert len(cell.targets) < 2000
        if has_stop:
            cell.filter.stop("button", cell.now_ns)
        cell.tick(300)
        assert exceedances(np.concatenate([[forward_kinematics(start)], poses_of(cell.targets)])) == []
        speed = norms(twists(poses_of(cell.targets)))[:, 0]
        assert speed.max() > 0.44
        assert cell.target.T_base_tcp[1, 3] > y_m


def test_end_of_a_chunk_is_reached_before_it_holds_and_while_it_leads_over_still() -> None:
    """The second chunk ends before the lead over to it, which the limits make long."""
    cell = running_cell()
    goal = se3.make_pose(np.array([0.5, 0.3, 0.35]), Rotation.from_rotvec([np.pi - 0.1, 0.3, 0.0]).as_matrix())
    cell.offer(ToolChunk(cell.now_ns, "absolute", goal[None], None, np.array([0.1]), "p"))
    while cell.tick() is RUNNING:
        assert len(cell.targets) < 3000
    np.testing.assert_allclose(cell.target.T_base_tcp, goal, atol=1e-9)
    assert "has ended" in cell.verdicts[-1].interventions[0].reason


@pytest.mark.parametrize("step_m", [0.005, 0.01, 0.02, 0.03, 0.2])
def test_chunk_from_rest_is_followed_forwards_only_and_soon(step_m: float) -> None:
    """However slow the start has to be, what is left of the chunk's velocity never carries the tool the other way."""
    cell = Cell(replace(CONFIG, workspace_upper_m=(9.0, 9.0, 9.0), velocity_m_s=1.0))
    cell.tick(5)
    cell.offer(tool_chunk(cell.now_ns, (step_m, 0.0, 0.0)))
    assert cell.tick(560 if step_m < 0.1 else 1500) is HOLDING
    x = poses_of(cell.targets)[:, 0, 3] - HOME[0]
    assert x.min() > -1e-4
    assert x[-1] == pytest.approx(8 * step_m, abs=1e-9)
    # A chunk that ends sooner than the limits allow is run past, by no more than a stop from its catching up takes.
    speed = min(1.0, 1.6 * step_m / 0.1)
    assert x.max() - x[-1] <= speed**2 / (2 * CONFIG.acceleration_m_s2)


def test_end_of_a_joint_chunk_is_reached_before_it_holds_and_while_it_leads_over_still() -> None:
    cell = Cell()
    cell.tick(5)
    q_goal = HOME + np.array([0.1, 0.3, 0.1, 0.0, 0.4, 0.0])
    cell.offer(JointChunk(cell.now_ns, q_goal[None], None, np.array([0.05]), "p"))
    while cell.tick() is RUNNING:
        assert len(cell.targets) < 3000
    np.testing.assert_allclose(cell.q, q_goal, atol=1e-6)


def test_motion_goes_on_from_the_last_command_where_the_arm_follows() -> None:
    cell = cell_in(HOLDING)
    cell.offset = np.array([0.0, 0.015, 0.0, 0.0, 0.05, 0.0])
    cell.tick(2)
    last = cell.target.T_base_tcp
    cell.offer(tool_chunk(cell.now_ns))
    cell.tick()
    assert cell.filter.state is RUNNING
    assert np.linalg.norm(cell.target.T_base_tcp[:3, 3] - last[:3, 3]) < 1e-4
    assert exceedances(poses_of(cell.targets)) == []


@pytest.mark.parametrize("offset", [[0.0, 0.05, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.3, 0.0]])
def test_motion_goes_on_from_what_is_measured_where_the_arm_does_not_follow(offset: list[float]) -> None:
    cell = cell_in(HOLDING)
    cell.tick(100)
    cell.offset = np.array(offset)
    cell.tick(2)
    T_measured = forward_kinematics(cell.q + cell.offset)
    cell.offer(tool_chunk(cell.now_ns))
    cell.offset = np.zeros(6)
    cell.tick()
    gap = norms(twists(np.stack([T_measured, cell.target.T_base_tcp])) * DT_S)[0]
    assert np.all(gap < 1e-4)


def test_gripper_opening_stays_through_holds_and_chunks_without_one() -> None:
    cell = Cell()
    cell.tick(5)
    openings = np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    cell.offer(replace(tool_chunk(cell.now_ns), openings=openings))
    cell.tick(500)
    assert cell.filter.state is HOLDING
    sent = [target.gripper_opening for target in cell.targets[5:] if target is not None]
    changes = [b for a, b in pairwise(sent) if a != b]
    assert (sent[0], changes, sent[-1]) in ((None, [1.0, 0.0], 0.0), (1.0, [0.0], 0.0))
    cell.offer(replace(tool_chunk(cell.now_ns), openings=None))
    cell.tick(100)
    assert cell.target.gripper_opening == 0.0


ZONES = {
    "workspace": ({}, 0.5, "the workspace's wall at y = 0.500 m"),
    "keep_out_plane wall": (
        {"keep_out_planes": (KeepOutPlane("wall", (0.0, -2.0, 0.0), -0.4),)},
        0.4,
        "the plane wall",
    ),
    "keep_out_sphere lamp": (
        {"keep_out_spheres": (KeepOutSphere("lamp", (0.45, 0.45, 0.3), 0.1),)},
        0.35,
        "the sphere lamp",
    ),
}


@pytest.mark.parametrize("limit", ZONES)
@pytest.mark.parametrize("has_stop", [False, True])
def test_joint_targets_brake_before_a_region_and_the_hold_names_it(limit: str, has_stop: bool) -> None:
    """They stopped dead where the region began."""
    zones, border_m, what = ZONES[limit]
    cell = Cell(replace(CONFIG, **zones))
    cell.tick(5)
    cell.offer(joint_chunk(cell.now_ns, np.array([0.45, 0.9, 0.3, *HOME[3:]])))
    while (not has_stop or cell.q[1] < border_m - 0.12) and len(cell.targets) < 300:
        cell.tick()
    if has_stop:
        cell.filter.stop("button", cell.now_ns)
        cell.tick(200)
    assert cell.filter.state is (STOPPED if has_stop else HOLDING)
    assert all(item is None or isinstance(item, JointTarget) for item in cell.targets)
    targets = [target for target in cell.targets if isinstance(target, JointTarget)]
    y = np.array([target.positions[1] for target in targets])
    assert border_m - 0.06 < y.max() <= border_m + 1e-9
    np.testing.assert_array_equal(targets[-1].velocities, np.zeros(6))
    speed = np.diff(y) / DT_S
    assert speed.max() > 0.7
    # Half of the joints' 10 rad/s^2.
    slowing = np.diff(speed)[np.argmax(speed) + 1 :] / DT_S
    assert slowing.min() > -5.0 * (1 + 1e-6) - 2.0
    named = [item for verdict in cell.verdicts for item in verdict.interventions if item.limit == limit]
    assert has_stop or what in named[0].reason


def test_joint_targets_that_leap_are_slowed_to_the_velocity_limit_and_named() -> None:
    cell = Cell(replace(CONFIG, seam="switch", soft_start_s=0.0))
    cell.tick(5)
    goal = HOME + np.array([0.0, 0.05, 0.0, -0.5, 0.0, 0.0])
    cell.offer(JointChunk(cell.now_ns, goal[None], None, np.array([0.004]), "p"))
    while cell.tick() is RUNNING:
        assert len(cell.targets) < 500
    q = np.array([target.positions for target in cell.targets if isinstance(target, JointTarget)])
    steps = np.abs(np.diff(np.vstack([HOME, q]), axis=0)) / DT_S
    assert steps.max() == pytest.approx(2.0, rel=1e-9)
    np.testing.assert_allclose(q[-1], goal, atol=1e-9)
    named = [item for verdict in cell.verdicts for item in verdict.interventions if item.limit == "joint_rate"]
    assert re.match(r"joint 4 wanted at \d+\.\d+ rad/s, limit 2.00 rad/s", named[0].reason)


def test_joint_with_a_limit_of_zero_stands_still_and_the_others_move() -> None:
    limits = OffsetLimits(np.array([2.0, 2.0, 2.0, 2.0, 0.0, 2.0]), np.full(6, 10.0), np.full(6, 1e3))
    rate = JointRate(limits)
    last = JointTarget(0, np.zeros(6), np.zeros(6))
    target, intervention = rate.apply(JointTarget(1, np.full(6, 0.004), np.ones(6)), last, DT_S, 1.0)
    np.testing.assert_array_equal(target.positions, [0.004, 0.004, 0.004, 0.004, 0.0, 0.004])
    assert target.velocities[4] == 0.0
    assert intervention is not None
    assert "joint 5" in intervention.reason


def test_joint_start_outside_of_the_workspace_may_come_in_but_not_go_further_out() -> None:
    q = np.array([0.45, 0.6, 0.3, *HOME[3:]])
    for y_end, state in ((0.3, RUNNING), (0.7, HOLDING)):
        cell = Cell(q=q)
        cell.tick(5)
        cell.offer(joint_chunk(cell.now_ns, np.array([0.45, y_end, 0.3, *HOME[3:]]), q_start=q))
        assert cell.tick(20) is state
        y = [target.positions[1] for target in cell.targets if isinstance(target, JointTarget)]
        assert max(y) <= 0.6 + 1e-6


def test_spaces_can_be_switched_without_a_jump() -> None:
    cell = running_cell((0.02, 0.0, 0.0))
    kinds = []
    for index in range(12):
        cell.tick(60)
        here, away = cell.q, np.array([0.0, 0.02 * (-1) ** index, 0.0, 0.0, 0.0, 0.05])
        if index % 2:
            cell.offer(tool_chunk(cell.now_ns - 10 * TICK_NS))
        else:
            cell.offer(joint_chunk(cell.now_ns - 10 * TICK_NS, here + away, q_start=here))
        assert cell.tick() is RUNNING
        kinds.append(type(cell.targets[-1]))
    assert kinds == [JointTarget, ToolTarget] * 6
    track = [
        item.T_base_tcp if isinstance(item, ToolTarget) else forward_kinematics(item.positions)
        for item in cell.targets
        if item is not None
    ]
    speed = norms(twists(np.array(track)))
    assert speed[:, 0].max() <= CONFIG.velocity_m_s * 1.01
    assert speed[:, 1].max() <= CONFIG.angular_velocity_rad_s * 1.01


def test_held_joint_motion_is_at_rest_when_it_is_engaged_again() -> None:
    cell = Cell()
    cell.tick(5)
    cell.offer(joint_chunk(cell.now_ns, HOME + np.array([0.0, 0.3, 0.0, 0.0, 0.0, 0.0])))
    cell.tick(100)
    cell.filter.drop_chunks(cell.now_ns, "task")
    cell.tick(100)
    rest = cell.q
    cell.offer(joint_chunk(cell.now_ns, rest, q_start=rest))
    cell.tick(20)
    np.testing.assert_allclose(cell.q, rest, atol=1e-9)


def test_numbers_that_overflow_on_the_way_are_held_and_named() -> None:
    cell = running_cell()
    moves = se3.make_pose(np.outer([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0], [1.5e308, 0.0, 0.0]))
    with np.errstate(all="ignore"):
        refused = cell.refuses(replace(tool_chunk(cell.now_ns), transforms=moves))
        cell.tick(50)
    poses = poses_of(cell.targets)
    assert np.all(np.isfinite(poses))
    assert exceedances(poses) == []
    limits = {item.limit for verdict in cell.verdicts for item in verdict.interventions}
    assert refused or limits & {"finite", "workspace"}


def test_robot_limits_win_where_they_are_tighter() -> None:
    tool = ToolLimits(0.1, 0.5, 20.0, 2.5, 25.0, 12500.0)
    cell = Cell()
    cell.filter = SafetyFilter(CONFIG, tool, forward_kinematics, cell.filter._joint_limits)
    cell.filter.select_source("p", START_NS)
    cell.tick(5)
    cell.offer(tool_chunk(cell.now_ns, (0.03, 0.0, 0.0)))
    cell.tick(300)
    v = twists(poses_of(cell.targets))
    assert norms(v)[:, 0].max() <= 0.1 * (1 + 1e-9)
    assert norms(np.diff(v, axis=0) / DT_S)[:, 0].max() <= 0.5 * (1 + 1e-9)
    assert norms(np.diff(v, 2, axis=0) / DT_S**2)[:, 0].max() <= 20.0 * (1 + 1e-7)


@pytest.mark.parametrize("key", ["velocity_m_s", "acceleration_m_s2", "jerk_m_s3"])
@pytest.mark.parametrize("is_robots", [False, True])
def test_limit_of_zero_keeps_the_position_and_lets_the_rotation_go_on(key: str, is_robots: bool) -> None:
    """Every chunk was refused: nothing can be led over to with a limit of zero."""
    cell = Cell(CONFIG if is_robots else replace(CONFIG, **{key: 0.0}))
    tool = replace(TOOL, **{key: 0.0}) if is_robots else TOOL
    cell.filter = SafetyFilter(cell.filter.config, tool, forward_kinematics, cell.filter._joint_limits)
    cell.filter.select_source("p", START_NS)
    cell.tick(5)
    turns = Rotation.from_rotvec(np.outer(0.05 * np.arange(1, 9), [0.0, 0.0, 1.0])).as_matrix()
    chunk = replace(tool_chunk(cell.now_ns), transforms=se3.make_pose(tool_chunk(0).transforms[:, :3, 3], turns))
    assert cell.refuses(chunk) == ""
    cell.tick(100)
    named = {item.reason for verdict in cell.verdicts for item in verdict.interventions if item.limit == "tool_rate"}
    assert any("tool stands still: its " in reason and "limit is 0" in reason for reason in named)
    assert cell.tick(900) is HOLDING
    poses = poses_of(cell.targets)
    np.testing.assert_array_equal(poses[:, :3, 3], np.tile(HOME[:3], (len(poses), 1)))
    expected = turns[-1] @ forward_kinematics(HOME)[:3, :3]
    np.testing.assert_allclose(poses[-1, :3, :3], expected, atol=1e-6)


@pytest.mark.parametrize("event", ["first", "source", "task", "stop", "fault"])
def test_every_engage_starts_softly(event: str) -> None:
    cell = Cell()
    cell.tick(5)
    source = "p"
    if event != "first":
        cell.offer(tool_chunk(cell.now_ns))
        cell.tick(120)
        if event == "source":
            source = "q"
            cell.filter.select_source("q", cell.now_ns)
        elif event == "task":
            cell.filter.drop_chunks(cell.now_ns, "task")
        elif event == "stop":
            stop_and_reset(cell)
        else:
            is_stale(cell)
            cell.is_silent = False
        cell.tick(150)
        assert cell.filter.state is HOLDING
    count = len(cell.targets)
    cell.offer(tool_chunk(cell.now_ns, (0.04, 0.0, 0.0), source))
    cell.tick(130)
    v = twists(np.concatenate([poses_of(cell.targets[count - 1 :])[:1], poses_of(cell.targets[count:])]))
    # By hand: a fifth of each limit, and all of it after half a second.
    share = 0.2 + 0.8 * np.minimum(DT_S * np.arange(1, len(v) + 1) / 0.5, 1.0)
    assert np.all(norms(v)[:, 0] <= 0.5 * share + 1e-9)
    a = norms(np.diff(v, axis=0) / DT_S)[:, 0]
    assert np.all(a[:100] <= 2.0 * share[1:101] + 1e-9)
    assert norms(v)[100:, 0].max() > 0.3


def test_first_engage_while_the_arm_moves_begins_softly_where_it_is_measured() -> None:
    """Somebody else moves the arm at 0.3 m/s until the first target comes."""
    cell = Cell()
    for _ in range(50):
        cell.q = cell.q + 0.0012 * np.eye(6)[1]
        cell.tick()
    start = cell.q
    cell.offer(tool_chunk(cell.now_ns))
    cell.tick(300)
    poses = poses_of(cell.targets)
    assert np.linalg.norm(poses[0, :3, 3] - start[:3]) < 1e-4
    stream = np.concatenate([forward_kinematics(start)[None], poses])
    assert exceedances(stream) == []
    assert norms(twists(stream))[:25, 0].max() < 0.1


def test_stop_while_the_clock_goes_back_still_brakes() -> None:
    cell = running_cell((0.04, 0.0, 0.0))
    cell.filter.stop("button", cell.now_ns)
    cell.now_ns -= 20 * NS
    cell.states.clear()
    cell.tick(200)
    assert exceedances(poses_of(cell.targets)) == []
    assert np.linalg.norm(cell.target.twist_tcp_in_base) == 0.0
