"""What recorder_node says of itself in `/diagnostics` and in its log."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticStatus

from vla_ros.recording.disk import DiskState
from vla_ros.recording.episode import EpisodeInfo
from vla_ros.recording.writer import WriterFigures


class RecorderReport:
    """Of one episode: it remembers what was said already, and what was written at the last report."""

    def __init__(self) -> None:
        self._level = "ok"
        self._dropped = 0
        self._before_s = float("nan")
        self._before = WriterFigures()

    def news(self, disk: DiskState, figures: WriterFigures, lost: Mapping[str, int]) -> list[str]:
        """What has to be in the log, once each."""
        news = []
        if disk.level != self._level and disk.level != "ok":
            news.append(f"the disk is nearly full: {disk}; the episode ends then")
        self._level = disk.level
        dropped = sum(figures.dropped.values()) + sum(lost.values())
        if dropped > self._dropped:
            listing = ", ".join(f"{count} of {topic}" for topic, count in {**figures.dropped, **lost}.items())
            news.append(f"messages are lost, on the way here or because disk or compression are slow: {listing}")
        self._dropped = dropped
        return news

    def say(
        self,
        now_s: float,
        info: EpisodeInfo | None,
        figures: WriterFigures,
        disk: DiskState,
        lost: Mapping[str, int],
        problem: str,
    ) -> tuple[str, bytes, dict[str, object]]:
        """Text, level and values of a diagnostic status.

        Args:
            now_s: monotonic time.
            info: of the open episode.
            figures: of its bag.
            disk: how long it will do.
            lost: messages that didn't come as far as the bag, by topic.
            problem: what went wrong last.
        """
        took_s = now_s - self._before_s
        rates = {
            f"{topic} Hz": (count - self._before.counts.get(topic, 0)) / took_s
            for topic, count in figures.counts.items()
            if took_s > 0.0
        }
        dropped = sum(figures.dropped.values()) + sum(lost.values())
        values: dict[str, object] = {
            "state": "idle" if info is None else "recording",
            "episode": -1 if info is None else info.number,
            "messages": figures.messages,
            "megabytes": figures.bytes / 1e6,
            "megabytes_s": (figures.bytes - self._before.bytes) / took_s / 1e6 if took_s > 0.0 else 0.0,
            "queue_megabytes": figures.queue_bytes / 1e6,
            "dropped": dropped,
            "longest_write_s": figures.longest_write_s,
            "disk_free_gb": disk.free_bytes / 1e9,
            "disk_left_s": disk.left_s,
            **rates,
        }
        self._before_s, self._before = now_s, figures
        text = "idle" if info is None else f"recording episode {info.number}: {disk}"
        if problem or figures.failure or dropped:
            count = f"{dropped} messages are lost" if dropped else ""
            return "; ".join(filter(None, (problem, figures.failure, count, text))), DiagnosticStatus.ERROR, values
        return text, DiagnosticStatus.OK if disk.level == "ok" else DiagnosticStatus.WARN, values
