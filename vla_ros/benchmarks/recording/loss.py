"""What recorder_node loses of a cell's streams, and what it costs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vla_ros.benchmarks.options import Options, Result
from vla_ros.errors import VlaRosError
from vla_ros.launching.environment import ros_for
from vla_ros.policies.packages import packages_for


def run(options: Options) -> Result:
    """Measures `recorded_loss` and `recorder_cpu` over DDS: a process publishes numbered messages, another records."""
    with packages_for("recorded_loss"):
        from vla_ros.recording import recorder  # noqa: F401
    with ros_for("recorded_loss", "ros,data"):
        from vla_ros.nodes import bench_recording
    seconds = 4.0 if options.is_quick else 60.0
    with tempfile.TemporaryDirectory(prefix="vla_ros_bench_") as name:
        try:
            found = bench_recording.measure(Path(name), seconds, lambda done: options.progress("loss", done))
        except VlaRosError as error:
            return Result({"recorded_loss": None, "recorder_cpu": None}, problems=(str(error),))
    published = sum(found.published.values())
    missing = {topic: count - found.recorded.get(topic, 0) for topic, count in found.published.items()}
    figures = {
        "recorded_loss": sum(missing.values()) / published,
        "recorder_cpu": found.cpu_s / found.wall_s,
    }
    details = {
        "seconds": seconds,
        "published": found.published,
        "missing": missing,
        "first_missing": found.first_missing,
        "recorder_says": found.recorder_says,
        "recorded_twice": found.recorded_twice,
        "rates_hz": {topic: count / found.published_s for topic, count in found.published.items()},
        "bag_megabytes_s": found.bag_bytes / found.published_s / 1e6,
        "feeder_cpu": found.feeder_cpu_s / found.wall_s,
    }
    problems = []
    behind = min(found.published[topic] / (found.published_s * rate) for topic, rate in found.asked_hz.items())
    if behind < 0.95:
        problems.append(f"the publisher came to {behind:.0%} of its rates; end what else runs")
    return Result(figures, details, problems=tuple(problems))
