"""The page about an episode: one folder that needs nothing else, whose video, plots and events share a clock."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

av = pytest.importorskip("av")
pytest.importorskip("matplotlib")

from vla_ros.evaluation.episode_page import write_page
from vla_ros.evaluation.episode_plots import LEFT, RIGHT, interventions, limit_spans, source_spans, state_spans
from vla_ros.evaluation.video import VideoWriter
from vla_ros.robots.model import RobotModel

START_NS = 1_763_800_000_000_000_000


@pytest.fixture(scope="module")
def episode(synthetic_episode) -> Any:
    return synthetic_episode()


@pytest.fixture(scope="module")
def page(episode, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("page") / "episode_000007"
    return folder, write_page(episode, RobotModel.from_config(episode.robot), folder)


class Links(HTMLParser):
    """Everything that a page points at, its texts, and its elements by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.times: list[float] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [str(found[key]) for key in ("src", "href", "action", "poster") if key in found]
        self.ids += [str(found["id"])] if "id" in found else []
        self.times += [float(str(found["data-time"]))] if "data-time" in found else []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_page_asks_for_nothing_but_its_own_files(page) -> None:
    folder, _ = page
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in folder.iterdir()) == ["cameras.mp4", "index.html", "plots.svg"]
    assert set(Links(text).links) == {"cameras.mp4", "plots.svg"}
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttp", text)
    # What an SVG refers to lies in itself; addresses in it are names of XML.
    references = re.findall(r'(?:href|src)="([^"]*)"', (folder / "plots.svg").read_text(encoding="utf-8"))
    assert references
    assert all(reference.startswith("#") for reference in references)


def test_what_people_wrote_is_shown_as_text_and_not_as_markup(page) -> None:
    text = (page[0] / "index.html").read_text(encoding="utf-8")
    assert "<red>" not in text
    shown = "".join(Links(text).texts)
    assert "pick up the <red> block" in shown
    for word in ("success", "Ada", "first & only", "scripted_visual", "panda_table", "2 images missing at 1.2 s"):
        assert word in shown


def test_events_can_be_clicked_at_their_times(page) -> None:
    links = Links((page[0] / "index.html").read_text(encoding="utf-8"))
    assert links.times == sorted(links.times)
    assert {0.0, 1.0, 2.0, 3.0, 4.0} <= set(links.times)
    assert {"plots", "cursor", "clock", "page"} <= set(links.ids)


def test_video_is_as_long_as_the_time_axis_and_shows_each_moments_images(page) -> None:
    folder, facts = page
    with av.open(str(folder / "cameras.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        times_s = [float(packet.pts * packet.time_base) for packet in video.demux(video=0) if packet.pts is not None]
        rate_hz = float(video.streams.video[0].average_rate)
    data = json.loads(re.search(r'id="page">(.*?)</script>', (folder / "index.html").read_text())[1])
    assert data == {"duration_s": 4.0, "left": LEFT, "right": RIGHT}
    assert len(frames) == facts["video_frames"]
    assert not times_s or max(times_s) <= 4.0
    assert len(frames) / rate_hz == pytest.approx(data["duration_s"], abs=0.05)
    # The base camera's left part grows red with the index of its image, 84 of them in 4 s.
    height, width = frames[0].shape[:2]
    base = slice(0, width // 2)
    reds = [np.count_nonzero(frame[height // 3, base, 0] > 180) / (width // 2) for frame in frames]
    assert np.all(np.diff(reds) >= -0.02)
    for share in (0.25, 0.5, 0.75):
        assert reds[round(share * len(frames))] == pytest.approx(share * 84 / 90, abs=0.06)


def test_plots_time_axis_lies_where_the_page_puts_its_cursor(page) -> None:
    root = ElementTree.fromstring((page[0] / "plots.svg").read_text(encoding="utf-8"))
    space = {"svg": "http://www.w3.org/2000/svg"}
    width = float(root.attrib["viewBox"].split()[2])
    axes = [
        group for group in root.iter(f"{{{space['svg']}}}g") if re.fullmatch(r"axes_\d+", group.attrib.get("id", ""))
    ]
    assert len(axes) == 5
    for axis in axes:
        frame = axis.find("svg:g[@id='patch_2']/svg:path", space)
        frame = axis.find("svg:g/svg:path", space) if frame is None else frame
        xs = [float(x) for x in re.findall(r"[ML] ([\d.]+) [\d.]+", frame.attrib["d"])]
        assert (min(xs) / width, max(xs) / width) == pytest.approx((LEFT, RIGHT), abs=1e-4)


def test_same_episode_makes_the_same_plots(episode, page, tmp_path) -> None:
    again = tmp_path / "again"
    facts = write_page(episode, RobotModel.from_config(episode.robot), again)
    assert facts == page[1]
    assert (again / "plots.svg").read_bytes() == (page[0] / "plots.svg").read_bytes()


def test_facts_are_counted(page) -> None:
    _, facts = page
    assert (facts["interventions"], facts["intervened_s"]) == (1, pytest.approx(1.0))
    assert facts["limits"] == {"workspace": 1}
    assert facts["messages"] == {
        "camera base": 84, "camera wrist": 84, "joint_states": 1001, "joint_command": 1001, "target": 1001,
        "safety/verdict": 5,
    }  # fmt: skip


def test_spans_are_those_of_verdicts_and_events(episode) -> None:
    def plain(spans: Any) -> list[tuple[float, float, str]]:
        return [(round(span.begin_s, 6), round(span.end_s, 6), span.name) for span in spans]

    assert plain(interventions(episode, START_NS, 4.0)) == [(2.0, 3.0, "teleop")]
    assert plain(state_spans(episode, START_NS, 4.0)) == [(0.0, 3.0, "running"), (3.0, 4.0, "holding")]
    assert plain(source_spans(episode, START_NS, 4.0)) == [(0.0, 2.0, "scripted_visual"), (2.0, 3.0, "teleop")]
    assert {k: plain(v) for k, v in limit_spans(episode, START_NS, 4.0).items()} == {
        "workspace": [(1.0, 1.1, "too low")]
    }


def test_intervention_that_never_ended_lasts_to_the_end(synthetic_episode, episode) -> None:
    left = synthetic_episode(events=tuple(event for event in episode.events if event.event != "intervention_end"))
    assert [(span.begin_s, span.end_s) for span in interventions(left, START_NS, 4.0)] == [(2.0, 4.0)]


def test_episode_without_cameras_or_motion_still_has_a_page(synthetic_episode, tmp_path) -> None:
    from vla_ros.recording.recorded import Series, TargetSeries

    none = np.zeros(0, dtype=np.int64)
    empty = {
        "cameras": {}, "verdicts": (), "events": (), "tasks": (),
        "tool_targets": TargetSeries(none, np.zeros((0, 4, 4)), np.zeros(0)),
        "joint_commands": Series(none, np.zeros((0, 7))),
        "gripper_commands": Series(none, np.zeros(0)),
        "gripper_openings": Series(none, np.zeros(0)),
    }  # fmt: skip
    bare = synthetic_episode(**empty)
    facts = write_page(bare, RobotModel.from_config(bare.robot), tmp_path / "bare")
    assert facts["video_frames"] == 0
    assert "<video" not in (tmp_path / "bare" / "index.html").read_text()
    assert not (tmp_path / "bare" / "cameras.mp4").exists()


def test_patient_video_drops_no_frame(tmp_path) -> None:
    image = np.zeros((240, 320, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / "v.mp4", 10.0, is_patient=True) as video:
        for number in range(150):
            video.write({"base": np.full_like(image, number)}, str(number))
    assert (video.frames_written, video.frames_dropped) == (150, 0)
