"""The figures of a set of episodes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from vla_ros.evaluation.episode_log import EpisodeLog, EpisodeOutcome, EpisodeRecorder
from vla_ros.evaluation.limits_judge import LimitReport, judge_limits
from vla_ros.evaluation.metrics import path_length_m, percentile, rate_hz, wilson_interval
from vla_ros.evaluation.summary import Timing, plain_data, summarise
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel

MS = 1_000_000


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_interval_agrees_with_scipy(counts: tuple[int, int], confidence: float) -> None:
    expected = binomtest(*counts).proportion_ci(confidence, method="wilson")
    assert wilson_interval(*counts, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_of_nothing_is_everything_and_nonsense_is_refused() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(10, 10)[1] == 1.0
    with pytest.raises(ValueError, match="11 successes of 10"):
        wilson_interval(11, 10)


def test_rate_leaves_out_the_pauses_between_stretches() -> None:
    stretch = np.arange(11) * 4 * MS
    assert rate_hz([stretch, stretch + 10**12]) == pytest.approx(250.0)
    assert math.isnan(rate_hz([stretch[:1], stretch[:0]]))


def test_path_length_is_the_sum_of_the_steps() -> None:
    assert path_length_m(np.array([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0], [3.0, 4.0, 2.0]])) == pytest.approx(7.0)
    assert path_length_m(np.empty((0, 3))) == 0.0


def test_percentile_is_interpolated() -> None:
    assert percentile(range(101), 99) == pytest.approx(99.0)
    assert percentile([1.0, 2.0], 50) == pytest.approx(1.5)
    assert math.isnan(percentile([], 50))


@pytest.fixture(scope="module")
def model() -> RobotModel:
    return RobotModel.from_config(load_robot("panda"))


def episode(
    model: RobotModel, seed: int, outcome: EpisodeOutcome, speed: float, missing: int = -1
) -> tuple[EpisodeLog, LimitReport]:
    """Two seconds at a constant speed of joint 1, all in place but one tick if one is missing; two cameras."""
    t0 = 10**18 + seed * 10**10
    recorder = EpisodeRecorder("pick up the red block", seed, model.names, t0)
    for i in range(501):
        if i != missing:
            q = model.home.copy()
            q[0] += 0.004 * i * speed - 2.7
            recorder.add_command(t0 + 4 * i * MS, q, np.zeros(7))
    for i in range(41):
        recorder.add_image("base", t0 + 50 * i * MS)
        recorder.add_truth(t0 + 40 * i * MS, (0.01 * i, 0.0, 0.0), {})
        if i % 2 == 0:
            recorder.add_image("wrist", t0 + 50 * i * MS)
    recorder.add_verdict(t0 + 500 * MS, "running")
    log = recorder.finish(outcome, 2.0, "why")
    return log, judge_limits(log.command_stamps_ns, log.command_positions.values, model)


def test_summary_holds_the_figures(model: RobotModel) -> None:
    limit = float(model.velocity[0])
    pairs = [
        episode(model, 0, "success", 0.5 * limit),
        episode(model, 1, "success", 0.25 * limit, missing=100),
        episode(model, 2, "timeout", 1.25 * limit),
    ]
    timing = Timing(chunk_to_command_ms=list(range(101)))
    summary = summarise("panda", "pick up the red block", *zip(*pairs, strict=True), timing, policy="scripted_visual")
    assert summary == json.loads(json.dumps(summary, allow_nan=False))
    assert summary["robot"] == "panda"
    assert summary["policy"] == "scripted_visual"
    assert summary["seeds"] == [0, 1, 2]
    assert (summary["successes"], summary["episodes"]) == (2, 3)
    assert summary["success_rate"] == pytest.approx(2.0 / 3.0)
    interval = binomtest(2, 3).proportion_ci(method="wilson")
    assert summary["success_interval"] == pytest.approx([interval.low, interval.high])
    assert summary["peak_velocity_fraction"] == pytest.approx(1.25)
    assert summary["limit_violations"] == summary["violations"]["velocity"] == 500
    assert len(summary["first_violations"]) == 1
    assert "velocity of panda_joint1" in summary["first_violations"][0]
    assert summary["control_rate_hz"] == pytest.approx(1499 / 6.0)
    assert summary["control_gaps"] == 1
    assert summary["camera_rate_hz"] == pytest.approx({"base": 20.0, "wrist": 10.0})
    assert summary["chunk_to_command_ms"] == pytest.approx({"p50": 50.0, "p99": 99.0})
    first = summary["per_episode"][0]
    assert (first["seed"], first["outcome"], first["time_s"], first["reason"]) == (0, "success", 2.0, "why")
    assert first["path_length_m"] == pytest.approx(0.4)
    assert first["verdicts"] == [{"time_s": pytest.approx(0.5), "state": "running", "reasons": []}]
    assert [item["limit_violations"] for item in summary["per_episode"]] == [0, 0, 500]
    assert summary["versions"].keys() == {"vla_ros", "python", "mujoco", "ros"}


def test_duplicate_stamps_count_as_violations(model: RobotModel) -> None:
    stamps = 10**18 + 4 * MS * np.array([0, 1, 1, 2, 3])
    report = judge_limits(stamps, np.tile(model.home, (5, 1)), model)
    log = EpisodeRecorder("pick up the red block", 0, model.names, 10**18).finish("success", 1.0)
    summary = summarise("panda", "pick up the red block", [log], [report], Timing(), policy="x")
    assert summary["limit_violations"] == summary["violations"]["stamps"] == 1


def test_summary_of_nothing_is_null_where_there_is_no_number() -> None:
    summary = summarise("panda", "pick up the red block", [], [], Timing(), policy="scripted_visual")
    json.dumps(summary, allow_nan=False)
    for key in ("success_rate", "peak_jerk_fraction", "control_rate_hz"):
        assert summary[key] is None
    assert summary["chunk_to_command_ms"] == {"p50": None, "p99": None}
    assert summary["success_interval"] == [0.0, 1.0]


def test_one_report_per_log_is_asked_for(model: RobotModel) -> None:
    log, report = episode(model, 0, "success", 0.0)
    with pytest.raises(ValueError, match="1 logs and 2 reports"):
        summarise("panda", "pick up the red block", [log], [report, report], Timing(), policy="x")


def test_plain_data_has_no_numpy_and_no_nan() -> None:
    data = plain_data({"a": np.float64(1.5), "b": [np.int64(2), math.nan], 3: (np.inf, np.array([1.0, np.nan]))})
    assert data == {"a": 1.5, "b": [2, None], "3": [None, [1.0, None]]}
    assert type(data["a"]) is float
    assert type(data["b"][0]) is int
