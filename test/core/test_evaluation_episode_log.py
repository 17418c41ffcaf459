"""The log of an episode and its table."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.evaluation.episode_log import EpisodeLog, EpisodeRecorder, Samples
from vla_ros.files import whole_file

MS = 1_000_000
T0_NS = 1_763_800_000_123_456_789


def recorded(ticks: int = 50) -> EpisodeLog:
    """Commands each 4 ms from -20 ms on, measurements each 7 ms, truth each 40 ms, two verdicts."""
    rng = np.random.default_rng(1)
    recorder = EpisodeRecorder("reach the red block", 7, ("a", "b"), T0_NS)
    for i in range(ticks):
        recorder.add_command(T0_NS + (4 * i - 20) * MS, rng.normal(size=2), rng.normal(size=2))
    for i in range(20):
        recorder.add_measured(T0_NS + 7 * i * MS, rng.normal(size=2))
        recorder.add_gripper(T0_NS + 7 * i * MS, 1.0 / (i + 3))
    for i in range(4):
        recorder.add_truth(T0_NS + 40 * i * MS, rng.normal(size=3), {"red": rng.normal(size=3)})
        recorder.add_image("base", T0_NS + 50 * i * MS)
    recorder.add_verdict(T0_NS, "running")
    recorder.add_verdict(T0_NS + 10 * MS, "running")
    recorder.add_verdict(T0_NS + 60 * MS, "holding", ["no chunk for 0.5 s"])
    return recorder.finish("success", 0.18, "did it")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def newest(samples: Samples, stamp_ns: int) -> list[float]:
    """The definition, slowly."""
    known = [(t, i) for i, t in enumerate(samples.stamps_ns.tolist()) if t <= stamp_ns]
    return samples.values[max(known)[1]].tolist() if known else [math.nan] * samples.values.shape[1]


def test_table_reads_back_equal(tmp_path: Path) -> None:
    log = recorded()
    log.write_csv(tmp_path / "new" / "episode.csv")
    rows = read(tmp_path / "new" / "episode.csv")
    assert len(rows) == 50
    q, dq = log.command_positions.values, log.command_velocities.values
    for i, row in enumerate(rows):
        stamp_ns = int(row["stamp_ns"])
        assert stamp_ns == log.command_stamps_ns[i]
        assert float(row["time_s"]) == pytest.approx(0.004 * i - 0.02, abs=1e-9)
        for j, joint in enumerate("ab"):
            assert float(row[f"{joint}_command_rad"]) == q[i, j]
            assert float(row[f"{joint}_command_rad_s"]) == dq[i, j]
            if 0 < i < 49:
                acceleration = (q[i + 1, j] - 2.0 * q[i, j] + q[i - 1, j]) / 0.004**2
                assert float(row[f"{joint}_command_rad_s2"]) == pytest.approx(acceleration, rel=1e-6)
            else:
                assert row[f"{joint}_command_rad_s2"] == ""
        for names, samples in (
            (["a_measured_rad", "b_measured_rad"], log.measured_positions),
            (["gripper_opening"], log.gripper_opening),
            (["tcp_x_m", "tcp_y_m", "tcp_z_m"], log.tcp_positions),
        ):
            assert [float(row[name] or "nan") for name in names] == pytest.approx(
                newest(samples, stamp_ns), abs=0.0, rel=0.0, nan_ok=True
            )
        time_ms = 4 * i - 20
        assert row["verdict"] == ("" if time_ms < 0 else "running" if time_ms < 60 else "holding")


def test_verdict_is_kept_when_it_changes_and_only_then() -> None:
    assert [(v.state, v.reasons) for v in recorded().verdicts] == [
        ("running", ()),
        ("holding", ("no chunk for 0.5 s",)),
    ]


def test_truth_and_images_are_kept() -> None:
    log = recorded()
    assert log.block_positions["red"].values.shape == (4, 3)
    assert log.tcp_positions.values.shape == (4, 3)
    assert np.diff(log.camera_stamps_ns["base"]).tolist() == [50 * MS] * 3
    assert (log.outcome, log.duration_s, log.reason, log.seed) == ("success", 0.18, "did it", 7)


def test_log_stays_what_it_was_when_the_recorder_goes_on() -> None:
    recorder = EpisodeRecorder("reach the red block", 0, ("a",), 0)
    command = np.array([1.0])
    recorder.add_command(0, command, command)
    log = recorder.finish("timeout", 1.0)
    command[:] = 2.0
    recorder.add_command(1, command, command)
    assert log.command_positions.values.tolist() == [[1.0]]
    assert recorder.finish("timeout", 1.0).command_positions.values.tolist() == [[1.0], [2.0]]


def test_an_episode_in_which_nothing_was_heard_has_an_empty_table(tmp_path: Path) -> None:
    log = EpisodeRecorder("reach the red block", 0, ("a", "b"), T0_NS).finish("timeout", 30.0)
    log.write_csv(tmp_path / "episode.csv")
    assert read(tmp_path / "episode.csv") == []
    assert log.command_accelerations().shape == (0, 2)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-5, 5), max_size=8), st.lists(st.integers(-7, 7), max_size=8))
def test_newest_at_is_the_newest_that_is_not_later(stamps: list[int], asked: list[int]) -> None:
    samples = Samples.collect([(stamp, (float(i),)) for i, stamp in enumerate(stamps)], 1)
    found = samples.newest_at(np.array(asked, dtype=np.int64))
    np.testing.assert_array_equal(found, np.reshape([newest(samples, stamp) for stamp in asked], (-1, 1)))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "episode.csv"
    path.write_text("old")

    def rows(self):
        yield ["1"]
        assert path.read_text() == "old"
        raise OSError("no space left on device")

    monkeypatch.setattr(EpisodeLog, "rows", rows)
    with pytest.raises(OSError, match="no space"):
        recorded().write_csv(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_whole_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    with whole_file(tmp_path / "deep" / "x") as partial:
        partial.write_text("new")
        assert not (tmp_path / "deep" / "x").exists()
    assert (tmp_path / "deep" / "x").read_text() == "new"
    assert len(list((tmp_path / "deep").iterdir())) == 1
