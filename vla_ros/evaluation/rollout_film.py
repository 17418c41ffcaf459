"""The video of a rollout: what the policy looked at, kept until it is known whether anybody wants to see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vla_ros.evaluation.episode_log import EpisodeOutcome
from vla_ros.evaluation.video import VideoWriter, caption
from vla_ros.types import ImageArray


@dataclass(frozen=True)
class FilmPlan:
    """Which episodes get a video.

    Attributes:
        folder: for the videos.
        policy: whose episodes; the names of its videos begin with it.
        most_failures: videos of episodes that failed.
    """

    folder: Path
    policy: str
    most_failures: int

    def videos(self) -> list[Path]:
        """Those of the policy that are there."""
        return sorted(self.folder.glob(f"{self.policy}-*.mp4"))


class Film:
    """Frames of one episode.

    Args:
        plan: which are kept.
        name: of the episode, for the file's name.
        task: the instruction.
        fps: of the video; the policy's rate.
        is_wanted: whatever the outcome.
    """

    def __init__(self, plan: FilmPlan, name: str, task: str, fps: float, is_wanted: bool) -> None:
        self._plan, self._name, self._task, self._fps, self._is_wanted = plan, name, task, fps, is_wanted
        self._frames: list[tuple[Mapping[str, ImageArray], str]] = []

    def add(self, images: Mapping[str, ImageArray], time_s: float, note: str) -> None:
        """What was looked at."""
        if images:
            self._frames.append((dict(images), caption(self._task, time_s, note if note != self._task else "")))

    def finish(self, outcome: EpisodeOutcome) -> str:
        """Writes the video if it is wanted; its name, empty for none."""
        if not self._frames or not (self._is_wanted or self._is_wanted_failure(outcome)):
            return ""
        file = f"{self._plan.policy}-{self._name}-{outcome}.mp4"
        with VideoWriter(self._plan.folder / file, self._fps, is_patient=True) as video:
            for images, text in self._frames:
                video.write(images, text)
            images, text = self._frames[-1]
            video.write(images, f"{self._task}   {outcome}")
        return file

    def _is_wanted_failure(self, outcome: EpisodeOutcome) -> bool:
        there = sum(not video.stem.endswith("-success") for video in self._plan.videos())
        return outcome != "success" and there < self._plan.most_failures
