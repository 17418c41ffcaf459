"""A page about a recorded episode: a folder with index.html, the video and the plots, and nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from vla_ros.evaluation.episode_plots import LEFT, RIGHT, interventions, limit_spans, plot_episode
from vla_ros.evaluation.episode_video import write_video
from vla_ros.evaluation.page_parts import document, facts_table
from vla_ros.files import whole_file, whole_folder
from vla_ros.recording.recorded import RecordedEpisode
from vla_ros.robots.model import RobotModel

VIDEO, PLOTS, INDEX = "cameras.mp4", "plots.svg", "index.html"

_STYLE = """\
video { width: 100%; background: #111; display: block; }
#plots { position: relative; cursor: crosshair; margin-top: 8px; } #plots img { width: 100%; display: block; }
#cursor { position: absolute; top: 0; bottom: 0; width: 0; border-left: 2px solid #d55e00; pointer-events: none; }
button { font: inherit; border: 0; background: none; color: #0a5ca8; cursor: pointer; padding: 0; }
"""

_SCRIPT = """\
const page = JSON.parse(document.getElementById("page").textContent);
const video = document.querySelector("video"), plots = document.getElementById("plots");
const cursor = document.getElementById("cursor"), clock = document.getElementById("clock");
let now = 0;
function show(time) {
  now = Math.min(page.duration_s, Math.max(0, time));
  cursor.style.left = 100 * (page.left + (page.right - page.left) * now / page.duration_s) + "%";
  clock.textContent = now.toFixed(2) + " s";
}
function seek(time) { show(time); if (video) video.currentTime = now; }
if (video) {
  const follow = () => { show(video.currentTime); if (!video.paused) requestAnimationFrame(follow); };
  for (const name of ["play", "seeked", "timeupdate", "pause"]) video.addEventListener(name, follow);
}
let isHeld = false;
function point(event) {
  const box = plots.getBoundingClientRect();
  const share = ((event.clientX - box.left) / box.width - page.left) / (page.right - page.left);
  seek(share * page.duration_s);
}
plots.addEventListener("pointerdown", event => { isHeld = true; point(event); event.preventDefault(); });
window.addEventListener("pointermove", event => { if (isHeld) point(event); });
window.addEventListener("pointerup", () => { isHeld = false; });
for (const button of document.querySelectorAll("button[data-time]"))
  button.addEventListener("click", () => seek(Number(button.dataset.time)));
show(0);
"""


def write_page(
    episode: RecordedEpisode,
    model: RobotModel,
    folder: Path,
    progress: Callable[[float], None] = lambda _fraction: None,
) -> dict[str, Any]:
    """Writes it, whole or not at all.

    Args:
        episode: what it is about.
        model: of its arm.
        folder: that it becomes; what is there is replaced.
        progress: called with the share that is done.

    Returns:
        The figures that it begins with.

    Raises:
        MissingDependencyError: without matplotlib or PyAV.
        RecordingError: for an image that can't be decoded.
        VideoError: if the video can't be written.
    """
    start_ns, duration_s = time_axis(episode)
    facts = describe_episode(episode, start_ns, duration_s)
    with whole_folder(folder) as partial:
        facts["video_frames"] = 0
        if any(len(camera) for camera in episode.cameras.values()):
            facts["video_frames"] = write_video(episode, partial / VIDEO, start_ns, duration_s, progress)
        plot_episode(episode, model, partial / PLOTS, start_ns, duration_s)
        with whole_file(partial / INDEX) as path:
            path.write_text(_html(episode, facts, start_ns, duration_s), encoding="utf-8")
    return facts


def time_axis(episode: RecordedEpisode) -> tuple[int, float]:
    """(start, ns; duration, s) over all that is stamped."""
    series = (episode.joint_positions, episode.joint_commands, episode.tool_targets, episode.joint_targets)
    stamps = [item.stamps_ns for item in series] + [camera.stamps_ns for camera in episode.cameras.values()]
    stamps = [found for found in stamps if len(found)]
    firsts = [int(found[0]) for found in stamps] + [episode.info.started_ns] * (not stamps)
    lasts = [int(found[-1]) for found in stamps] + [episode.info.ended_ns] * (not stamps)
    return min(firsts), max(0.1, (max(lasts) - min(firsts)) * 1e-9)


def describe_episode(episode: RecordedEpisode, start_ns: int, duration_s: float) -> dict[str, Any]:
    """What is known of it, for a machine."""
    info = episode.info
    people = interventions(episode, start_ns, duration_s)
    counts = {f"camera {name}": len(camera) for name, camera in episode.cameras.items()}
    counts |= {
        "joint_states": len(episode.joint_positions),
        "joint_command": len(episode.joint_commands),
        "target": len(episode.tool_targets),
        "joint_target": len(episode.joint_targets),
        "chunks": len(episode.chunks),
        "safety/verdict": len(episode.verdicts),
    }
    return {
        "episode": info.name,
        "task": info.task,
        "outcome": info.outcome,
        "robot": episode.robot.name,
        "rig": info.rig.name,
        "duration_s": duration_s,
        "interventions": len(people),
        "intervened_s": sum(span.end_s - span.begin_s for span in people),
        "limits": {name: len(spans) for name, spans in limit_spans(episode, start_ns, duration_s).items()},
        "messages": {name: count for name, count in counts.items() if count},
        "findings": [finding.text for finding in episode.findings],
    }


def _html(episode: RecordedEpisode, facts: Mapping[str, Any], start_ns: int, duration_s: float) -> str:
    info = episode.info
    # What closes a script can't be in JSON as it stands.
    data = json.dumps({"duration_s": duration_s, "left": LEFT, "right": RIGHT}).replace("<", "\\u003c")
    video = f'<video src="{VIDEO}" controls preload="auto" muted></video>' if facts["video_frames"] else ""
    rates = ", ".join(f"{name} {count} ({count / duration_s:.1f} Hz)" for name, count in facts["messages"].items())
    contracts = [f"{name}: {contract.name} {contract.interface_hash}" for name, contract in info.contracts.items()]
    rows = [
        ("task", info.task),
        ("outcome", info.outcome),
        ("robot, rig", f"{episode.robot.name}, {info.rig.name}"),
        ("duration", f"{duration_s:.2f} s from {start_ns} ns"),
        ("source at the start", info.source),
        ("contracts", "; ".join(contracts)),
        ("operator", info.operator),
        ("note", info.note),
        ("messages", rates),
        ("interventions", f"{facts['interventions']}, {facts['intervened_s']:.1f} s together"),
        ("versions", ", ".join(f"{name} {version}" for name, version in info.versions.items())),
        ("mended", info.recovered),
    ]
    title = f"{info.name}: {info.task}" if info.task else info.name
    body = (
        f'<p class="dim">{escape(info.outcome)}; <span id="clock">0.00 s</span>. Click into the plots to seek.</p>',
        video,
        '<div id="plots"><div id="cursor"></div>',
        f'<img src="{PLOTS}" alt="plots of the episode" draggable="false"></div>',
        "<h2>Events</h2>",
        facts_table(_events(episode, start_ns, duration_s)),
        "<h2>Findings</h2>" if episode.findings else "",
        "".join(f'<p class="bad">{escape(f"{f.kind} {f.topic}: {f.text}")}</p>' for f in episode.findings),
        "<h2>Facts</h2>",
        facts_table((escape(name), escape(value)) for name, value in rows if value),
    )
    scripts = (
        f'<script type="application/json" id="page">{data}</script>',
        f"<script>\n{_SCRIPT}</script>",
    )
    return document(title, body, _STYLE, scripts)


def _events(episode: RecordedEpisode, start_ns: int, duration_s: float) -> Iterable[tuple[str, str]]:
    """(button that seeks, text) of what happened, by time."""
    found: list[tuple[float, str]] = []
    for event in episode.events:
        left = {key: value for key, value in event.values.items() if key not in ("event", "stamp_ns", "episode")}
        more = f" {json.dumps(left)}" if left else ""
        found.append(((event.stamp_ns - start_ns) * 1e-9, f"{event.event}{more}"))
    found += [((task.received_ns - start_ns) * 1e-9, f"task: {task.task or '(none)'}") for task in episode.tasks]
    for limit, spans in limit_spans(episode, start_ns, duration_s).items():
        found.append((spans[0].begin_s, f"limit {limit}, first of {len(spans)}: {spans[0].name}"))
    # The first event comes a moment before the first message.
    found = sorted((max(0.0, time_s), text) for time_s, text in found)
    return [(f'<button data-time="{time_s:.3f}">{time_s:.2f} s</button>', escape(text)) for time_s, text in found]
