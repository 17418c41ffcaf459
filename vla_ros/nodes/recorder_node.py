"""recorder_node: episodes of all that a stack says, by service; see docs/recording.md."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vla_ros.nodes.runtime import LATCHED, RELIABLE, now_ns, parameter, run  # isort: skip # Before rclpy.

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from std_msgs.msg import String
from std_srvs.srv import Trigger

from vla_ros.errors import RecordingError, UnknownNameError, VlaRosError
from vla_ros.nodes import messages
from vla_ros.nodes.episode_words import EpisodeWords
from vla_ros.nodes.recorder_images import ImageCompressor
from vla_ros.nodes.recorder_intake import RecorderIntake
from vla_ros.nodes.recorder_report import RecorderReport
from vla_ros.nodes.rivals import count_servers
from vla_ros.nodes.settings import hardware_setting, rig_setting, robot_setting, states_topic
from vla_ros.policies.registry import listed_policies
from vla_ros.recording.bag_writer import STORAGES, Topic
from vla_ros.recording.disk import DiskLimits
from vla_ros.recording.episode import Outcome
from vla_ros.recording.recorder import Recorder, RecorderOptions
from vla_ros.recording.repair import repair_folder
from vla_ros.recording.topics import EVENT_TOPIC, STRING

_DISCOVER_S, _WATCH_S = 0.25, 0.5
_SAID_KEPT = 50
_IMAGES = ("raw", "jpeg", "png")


class RecorderNode(Node):
    """Hears everything from its start on, and writes it while an episode is open."""

    def __init__(self) -> None:
        super().__init__("recorder_node")
        robot, rig = robot_setting(self), rig_setting(self)
        policies = str(parameter(self, "policies", "", "policies that are to act, with commas, for their contracts"))
        self.words = EpisodeWords(
            str(self.get_parameter("robot").value),
            robot.prefix,
            hardware_setting(self),
            rig,
            listed_policies(policies),
            str(parameter(self, "task", "", "instruction of the episodes; empty: the one in force")),
            str(parameter(self, "operator", "", "who records")),
            str(parameter(self, "note", "", "what is to be said of the episodes")),
            self.get_logger().warning,
        )
        folder = Path(str(parameter(self, "folder", "episodes", "folder of the episodes"))).expanduser().resolve()
        event = Topic(self.resolve_topic_name(EVENT_TOPIC), STRING)
        self._event_topic, self._said = event.name, deque[str](maxlen=_SAID_KEPT)
        self.recorder = Recorder(folder, event, self._options())
        self._images = self._make_images()
        self._events = self.create_publisher(String, EVENT_TOPIC, LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        if bool(parameter(self, "resume", False, "finish what a crash left unfinished, before anything else")):
            for repaired in repair_folder(folder):
                self.get_logger().warning(str(repaired))
        elif unfinished := self.recorder.store.unfinished():
            names = ", ".join(path.name for path in unfinished)
            self.get_logger().warning(f"{folder} has unfinished {names}; `vla-ros episodes repair` finishes them")
        self.intake = RecorderIntake(self, rig, self._take, states_topic(self, robot))
        self.finished: list[Path] = []
        """Folders of the episodes that this node has finished, without those that were discarded later."""
        self._last: Path | None = None
        self.problem = ""
        """What went wrong last, empty for nothing."""
        self._report = RecorderReport()
        self._lost_before: Counter[str] = Counter()
        outcomes: dict[str, Outcome] = {"stop": "unlabelled", "success": "success", "failure": "failure"}
        self.create_service(Trigger, "episode/start", self._serve(self.start))
        self.create_service(Trigger, "episode/discard", self._serve(self.discard))
        for name, outcome in outcomes.items():
            self.create_service(Trigger, f"episode/{name}", self._serve(self._ender(outcome)))
        self.create_timer(_DISCOVER_S, self.intake.discover)
        self.create_timer(_WATCH_S, self._watch)
        self.create_timer(1.0, self._publish_diagnostics)

    def start(self) -> str:
        """Begins an episode and says which.

        Raises:
            VlaRosError: if it can't; see `Recorder.start`.
        """
        self.intake.discover()
        self.problem = ""
        names, task, source = sorted(self.intake.policies), self.intake.task, self._source()
        # What the episode is said to be holds until somebody says otherwise while it is recorded.
        without = "task" if self.words.task else ""
        event = self.recorder.start(
            lambda number: self.words.info(number, now_ns(self), names, task, source), self.intake.latched(without)
        )
        if count_servers(self, self.resolve_service_name("episode/start")) > 1:
            mend = "services and keys of teleoperation reach both: end one, or give them namespaces"
            self.get_logger().warning(f"another recorder answers episode/start here, too; {mend}")
        # From now on "the last one" is this one: whatever becomes of it, the one before is left alone.
        self._last = None
        self._report = RecorderReport()
        self._lost_before += Counter(self._lost())
        self._publish(event)
        info = self.recorder.info
        text = f"recording episode {info.number if info else '?'} into {self.recorder.store.folder}"
        self.get_logger().info(text)
        return text

    def end(self, outcome: Outcome, reason: str = "") -> str:
        """Ends the episode, or labels the last one if none is open, and says what came of it.

        Raises:
            VlaRosError: if there is none, or anything wasn't written.
        """
        if self.recorder.info is None:
            if self._last is None or outcome == "unlabelled":
                raise RecordingError("no episode is being recorded; start one first")
            self.recorder.store.label(self._last, outcome)
            self._publish(self.recorder.say(outcome, now_ns(self), episode=self._last.name))
            return f"{self._last} is labelled {outcome}"
        if self._images is not None:
            self._images.drain()
        try:
            event, self._last = self.recorder.stop(outcome, now_ns(self), reason, self._lost())
        except VlaRosError as error:
            self.problem = str(error)
            self._publish(self.recorder.say("stop", now_ns(self), problem=str(error)))
            raise
        self.finished.append(self._last)
        self._publish(event)
        text = f"{self._last.name}: {outcome}"
        self.get_logger().info(f"{text}, in {self._last}")
        return text

    def discard(self) -> str:
        """Removes the episode that is open, else the last one of this node."""
        if self.recorder.info is not None:
            event = self.recorder.discard(now_ns(self))
            text = "the episode is discarded"
        elif self._last is not None:
            self.recorder.store.remove(self._last)
            self.finished.remove(self._last)
            event = self.recorder.say("discard", now_ns(self), episode=self._last.name)
            text, self._last = f"{self._last.name} is discarded", None
        else:
            raise RecordingError("no episode to discard")
        self._publish(event)
        self.get_logger().info(text)
        return text

    def close(self) -> None:
        """Ends an open episode with what there is."""
        self.intake.close()
        if self.recorder.info is not None:
            try:
                self.end("unlabelled", "the recorder was ended")
            except VlaRosError as error:
                self.get_logger().error(str(error))
        if self._images is not None:
            self._images.close()

    def _options(self) -> RecorderOptions:
        storage = str(parameter(self, "storage", "mcap", "of the bags: mcap or sqlite3"))
        if storage not in STORAGES:
            raise UnknownNameError("storage", storage, STORAGES)
        compression = str(parameter(self, "compression", "none", "of MCAP chunks: none or zstd"))
        if compression not in ("none", "zstd") or (compression == "zstd" and storage != "mcap"):
            raise VlaRosError(f"compression {compression!r} with storage {storage}: none, or zstd with mcap")
        queue_mb = int(parameter(self, "max_queue_mb", 512, "what may wait for the disk before messages drop", least=1))
        reserve_mb = int(parameter(self, "disk_reserve_mb", 512, "an episode ends when so little is free", least=0))
        warn_s = float(parameter(self, "disk_warn_s", 300.0, "announced when the disk does for so long only"))
        limits = DiskLimits(reserve_mb * 2**20, warn_s=max(warn_s, 5.0))
        return RecorderOptions(storage, compression == "zstd", queue_mb * 2**20, limits)

    def _make_images(self) -> ImageCompressor | None:
        kind = str(parameter(self, "images", "raw", "in the bag: raw, jpeg or png"))
        if kind not in _IMAGES:
            raise UnknownNameError("kind of images", kind, _IMAGES)
        return None if kind == "raw" else ImageCompressor(kind, self._add)  # type: ignore[arg-type]

    def _take(self, topic: Topic, stamp_ns: int, data: bytes) -> None:
        if self.recorder.info is None:
            return
        if self._images is not None:
            self._images.add(topic, stamp_ns, data)
        else:
            self._add(topic, stamp_ns, data)

    def _add(self, topic: Topic, stamp_ns: int, data: bytes) -> None:
        # What this node says itself is written when it says it.
        if topic.name == self._event_topic and deserialize_message(data, String).data in self._said:
            return
        self.recorder.add(topic, stamp_ns, data)

    def _ender(self, outcome: Outcome) -> Callable[[], str]:
        return lambda: self.end(outcome)

    def _serve(self, act: Callable[[], str]) -> Callable[[Any, Any], Any]:
        def serve(_request: Any, response: Any) -> Any:
            try:
                response.message, response.success = act(), True
            except VlaRosError as error:
                response.message, response.success = str(error), False
                self.get_logger().error(str(error))
            return response

        return serve

    def _source(self) -> str:
        """Who the safety filter says may move the arm."""
        data = self.intake.newest.get("safety/verdict")
        if data is None:
            return ""
        statuses = deserialize_message(data, DiagnosticArray).status
        return next((item.value for status in statuses for item in status.values if item.key == "source"), "")

    def _publish(self, event: str) -> None:
        self._said.append(event)
        self._events.publish(String(data=event))

    def _watch(self) -> None:
        """Ends an episode that the disk, or a failure, doesn't let go on."""
        if self.intake.failure is not None:
            raise RuntimeError("the intake of messages failed") from self.intake.failure
        if self.recorder.info is None:
            return
        disk = self.recorder.watch_disk(time.monotonic())
        for text in self._report.news(disk, self.recorder.figures(), self._lost()):
            self.get_logger().error(text)
        if disk.level == "full" or self.recorder.figures().failure:
            try:
                self.problem = f"ended because the disk is full: {disk}"
                self.end("unlabelled", self.problem)
            except VlaRosError as error:
                self.problem = str(error)
            self.get_logger().error(self.problem)

    def _lost(self) -> dict[str, int]:
        """Messages of this episode that didn't come as far as its bag, by topic."""
        compressing = self._images.dropped if self._images is not None else {}
        total = Counter(self.intake.lost()) + Counter(compressing)
        return dict(total - self._lost_before)

    def _publish_diagnostics(self) -> None:
        info = self.recorder.info
        disk = self.recorder.watch_disk(time.monotonic())
        text, level, values = self._report.say(
            time.monotonic(), info, self.recorder.figures(), disk, self._lost(), self.problem
        )
        values |= {"folder": self.recorder.store.folder, "topics": len(self.intake.topics())}
        name = self.get_fully_qualified_name()
        self._diagnostics.publish(messages.to_diagnostics(now_ns(self), name, text, values, level))


def _make() -> Sequence[Node]:
    return [RecorderNode()]


def main() -> int:
    """Runs recorder_node."""
    return run(_make)


if __name__ == "__main__":
    sys.exit(main())
