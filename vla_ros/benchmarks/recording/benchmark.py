"""The parts of `vla-ros bench recording` and what they have to show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vla_ros.benchmarks.options import Result
from vla_ros.benchmarks.parts import Benchmark, Part
from vla_ros.benchmarks.requirement import Requirement

PARTS: dict[str, Part] = {
    "loss": Part(
        "loss",
        "three 640x480 streams at 30 Hz, 250 Hz of joint states and verdicts, chunks, recorded over DDS",
        (
            Requirement("recorded_loss", 0.0, 0.0, "messages that aren't in the bag, of those that were published"),
            Requirement("recorder_cpu", 1.0, 0.5, "of a core, recorder_node's"),
        ),
    ),
    "crash": Part(
        "crash",
        "kill -9 at random moments of a process that records",
        (
            Requirement("crash_trials", 50, 100, "kills", is_least=True, is_full_only=True),
            Requirement("episodes_lost", 0, 0, "finished episodes with a message less, and open ones not recovered"),
            Requirement("tail_lost_s_max", 1.0, 0.6, "of the open episode's end", "s"),
        ),
    ),
    "cuts": Part(
        "cuts",
        "an open episode's file cut at random bytes, or its end never written, as a loss of power leaves it",
        (
            Requirement("cut_trials", 50, 200, "cuts", is_least=True, is_full_only=True),
            Requirement("cut_episodes_lost", 0, 0, "finished episodes that changed, and cut ones not recovered"),
            Requirement("cut_tail_lost_s_max", 1.0, 0.0, "of what was in the file before the cut", "s"),
        ),
    ),
    "export": Part(
        "export",
        "recorded episodes to LeRobot's mp4 on two cores, beside the encoder alone",
        (
            Requirement(
                "export_gb_per_min", 8.0, 15.0, "raw image bytes over wall time, MCAP to mp4", "GB/min", is_least=True
            ),
            Requirement(
                "export_over_encoder", 0.6, 0.7, "frames/s over the bare encoder's", is_least=True, is_full_only=True
            ),
        ),
    ),
}
BENCHMARK = Benchmark("recording", __package__, PARTS, ("av", "numpy", "rosbags"))
chosen_parts, requirements, run = BENCHMARK.chosen, BENCHMARK.requirements, BENCHMARK.run


def draw(_found: Mapping[str, Result], _out: Path) -> list[Path]:
    """Nothing: the figures are counts."""
    return []
