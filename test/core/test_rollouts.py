"""Rollouts in one process: the same seed is the same episode, latencies are what was asked for, and suites are fair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("vla_ros.sim.world")  # Not "mujoco": MUJOCO_GL is chosen first.

from vla_ros.errors import UnknownNameError, VlaRosError
from vla_ros.evaluation.displacement import draw_direction
from vla_ros.evaluation.figures import EpisodeFigures
from vla_ros.evaluation.parallel_rollouts import run_attempts
from vla_ros.evaluation.rollout_settings import Attempt, Latency, RolloutSettings
from vla_ros.evaluation.rollouts import Rollouts
from vla_ros.evaluation.task_suites import SUITES, SWAPPED, draw_attempts, find_suites
from vla_ros.instruction import parse_instruction
from vla_ros.policies.registry import load_policy_config
from vla_ros.sim.content import draw_content
from vla_ros.sim.placement import AXES

pytestmark = pytest.mark.sim

SETTINGS = RolloutSettings("panda", "panda_table", load_policy_config("scripted_visual"), time_limit_s=8.0)
REACH = Attempt("reach", 0, "reach the red block", "reach the red block")


@pytest.fixture(scope="module")
def rollouts() -> Iterator[Rollouts]:
    with Rollouts(SETTINGS) as made:
        yield made


@pytest.fixture(scope="module")
def reached(rollouts: Rollouts) -> EpisodeFigures:
    return rollouts.run(REACH)


def without_clock(figures: EpisodeFigures) -> EpisodeFigures:
    """All but what a clock measured."""
    return replace(figures, infer_ms=None)


def test_scripted_policy_reaches_and_the_same_seed_is_the_same_episode_to_the_bit(
    rollouts: Rollouts, reached: EpisodeFigures
) -> None:
    first = reached
    assert first.outcome == "success"
    assert first.limit_violations == 0
    assert first.chunks.sent > 10
    assert first.chunks.late == first.chunks.refused == first.chunks.unseen == first.chunks.failed == 0
    assert without_clock(rollouts.run(REACH)) == without_clock(first)


def test_a_process_of_its_own_gives_the_same_figures(reached: EpisodeFigures) -> None:
    shown: list[float] = []
    (alone,) = run_attempts(SETTINGS, [REACH], jobs=2, progress=shown.append)
    assert without_clock(alone) == without_clock(reached)
    assert shown == [1.0]


def test_answers_are_as_old_as_the_latency_says() -> None:
    """An image is at least camera_s old when it is asked about, and at most a period of the camera more."""
    latency = Latency(camera_s=0.03, answer_s=0.02, extra_s=0.2)
    with Rollouts(replace(SETTINGS, latency=latency)) as slow:
        figures = slow.run(REACH)
    assert figures.age_ms is not None
    assert 250.0 <= figures.age_ms <= 250.0 + 1e3 / 20.0 + 8.0
    # It answers every 0.2 s instead of every 0.125 s, and yet gets there.
    assert figures.outcome == "success"
    assert figures.chunks.sent <= figures.time_s / 0.2 + 1


def test_a_blind_policy_does_nothing_and_is_a_timeout() -> None:
    with Rollouts(replace(SETTINGS, is_blind=True, time_limit_s=0.6)) as blind:
        figures = blind.run(REACH)
    assert (figures.outcome, figures.chunks.sent) == ("timeout", 0)
    assert figures.path_length_m < 1e-3


def test_words_that_the_policy_refuses_are_a_failure_with_its_reason(rollouts: Rollouts) -> None:
    class Refusing:
        contract = rollouts._contract

        def reset(self, task: str, seed: int) -> None:
            parse_instruction("juggle")

    before, rollouts._policy = rollouts._policy, Refusing()  # type: ignore[assignment]
    try:
        figures = rollouts.run(REACH)
    finally:
        rollouts._policy = before
    assert figures.outcome == "timeout"
    assert "refused the task" in figures.reason


def test_a_displaced_camera_is_off_by_so_much_in_a_direction_of_the_seed() -> None:
    with Rollouts(replace(SETTINGS, time_limit_s=0.05)) as plain:
        plain.run(REACH)
        mounted = plain.world.truth()["camera/base"]
    with Rollouts(replace(SETTINGS, camera_offset_m=0.08, time_limit_s=0.05)) as moved:
        for seed in range(3):
            moved.run(replace(REACH, seed=seed))
            T_base_cam = moved.world.truth()["camera/base"]
            np.testing.assert_allclose(T_base_cam[:3, 3] - mounted[:3, 3], 0.08 * draw_direction(seed), atol=1e-9)
            np.testing.assert_allclose(T_base_cam[:3, :3], mounted[:3, :3], atol=1e-12)
    assert np.linalg.norm(draw_direction(0)) == pytest.approx(1.0)


def test_varied_scenes_hold_what_is_asked_and_what_is_named_instead() -> None:
    settings = replace(SETTINGS, setting="varied", time_limit_s=0.05)
    attempts = [draw_attempts(suite, "varied", [seed], with_swap=True) for suite in SUITES for seed in (0, 1)]
    with Rollouts(settings) as varied:
        for swapped, plain in attempts:
            figures = varied.run(swapped)
            assert figures.outcome == "timeout"
            there = varied.world.object_poses().keys()
            for text in (plain.task, swapped.task):
                instruction = parse_instruction(text)
                assert instruction.thing.name in there
                assert instruction.destination is None or instruction.destination.name in there
            assert parse_instruction(plain.task).destination == parse_instruction(swapped.task).destination


def test_suites_ask_the_same_at_a_seed_and_a_swap_names_another_thing_of_the_scene() -> None:
    for suite in find_suites("all", "blocks"):
        attempts = draw_attempts(suite, "blocks", range(40), with_swap=True)
        assert attempts == draw_attempts(suite, "blocks", range(40), with_swap=True)
        swapped, plain = attempts[::2], attempts[1::2]
        assert {one.variant for one in swapped} == {SWAPPED}
        for one, other in zip(plain, swapped, strict=True):
            said, meant = parse_instruction(one.task), parse_instruction(one.needed)
            assert said == meant
            named = parse_instruction(other.task)
            assert named.thing != meant.thing
            assert (named.verb, named.direction) == (meant.verb, meant.direction)
            assert one.needed == other.needed
            assert parse_instruction(one.other) == named
            assert parse_instruction(other.other) == meant
        assert len({parse_instruction(one.task).thing for one in plain}) == 3
        assert len({one.task for one in plain}) > 8


def test_a_push_that_is_swapped_has_room_like_the_one_it_stands_for() -> None:
    """A policy isn't to be called deaf because a thing can't be pushed; seen by walking along the way."""
    swapped = 0
    for seed in range(60):
        attempts = draw_attempts("push", "varied", [seed], with_swap=True)
        content = draw_content(seed, "varied", parse_instruction(attempts[0].needed))
        places = {thing.name: np.array(thing.xy_m) for thing in content.things}
        for attempt in attempts:
            pushed = parse_instruction(attempt.task)
            assert pushed.direction is not None
            along = np.array(AXES[pushed.direction])
            for way_m in np.linspace(-0.09, 0.09, 37):
                p = places[pushed.thing.name] + way_m * along
                assert 0.31 - 1e-9 <= p[0] <= 0.63 + 1e-9
                assert abs(p[1]) <= 0.28 + 1e-9
                for name, q in places.items():
                    least_m = 0.095 if name == "bowl" else 0.065
                    assert name == pushed.thing.name or np.linalg.norm(p - q) >= least_m - 1e-9
        swapped += len(attempts) == 2
    assert swapped > 45


def test_held_out_wordings_mean_the_same_in_other_words() -> None:
    attempts = draw_attempts("pick", "blocks", range(30), with_held_out=True)
    for one, other in zip(attempts[::2], attempts[1::2], strict=True):
        assert one.needed == other.needed
        assert parse_instruction(one.task) == parse_instruction(other.task)
        assert one.task != other.task


@pytest.mark.parametrize(("text", "setting"), [("juggle", "blocks"), ("stack", "blocks"), (" ,", "blocks")])
def test_suites_that_there_are_not_are_refused(text: str, setting: str) -> None:
    with pytest.raises((UnknownNameError, VlaRosError)):
        find_suites(text, setting)


def test_latency_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="answer_s"):
        Latency(answer_s=-0.1)
