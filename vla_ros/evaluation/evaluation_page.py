"""The report of an evaluation: a folder with a page, plots, videos and the figures, and nothing from elsewhere."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from vla_ros.evaluation.comparison import describe
from vla_ros.evaluation.evaluation_plots import plot_evaluation
from vla_ros.evaluation.evaluation_summary import by_suite, compare
from vla_ros.evaluation.figures import EpisodeFigures
from vla_ros.evaluation.page_parts import document, facts_table, table
from vla_ros.evaluation.summary import plain_data
from vla_ros.files import whole_file

INDEX, PLOTS, SUMMARY, EPISODES, VIDEOS = "index.html", "plots.svg", "summary.json", "episodes.csv", "videos"

_STYLE = """\
video { width: 360px; background: #111; display: block; }
figure { display: inline-block; margin: 0 12px 12px 0; vertical-align: top; width: 360px; }
figcaption { font-size: 13px; } thead th { border-bottom: 1px solid #999; } img { max-width: 100%; }
"""
_COLUMNS = (
    "policy",
    "suite",
    "seed",
    "variant",
    "outcome",
    "time, s",
    "path, m",
    "jerk rms",
    "holds",
    "limits",
    "what",
)


def write_report(
    folder: Path, title: str, summary: Mapping[str, Any], results: Mapping[str, Sequence[EpisodeFigures]]
) -> None:
    """Writes page, plots, summary.json and episodes.csv beside the videos that are there.

    Args:
        folder: of the report; videos are in its folder `videos`.
        title: of the page.
        summary: as `vla-ros eval --json` gives it.
        results: episodes by policy.

    Raises:
        MissingDependencyError: without matplotlib.
    """
    plot_evaluation(results, folder / PLOTS)
    with whole_file(folder / SUMMARY) as partial:
        partial.write_text(json.dumps(plain_data(summary), indent=1) + "\n", encoding="utf-8")
    _write_csv(folder / EPISODES, results)
    with whole_file(folder / INDEX) as partial:
        partial.write_text(_page(title, summary, results), encoding="utf-8")


def _page(title: str, summary: Mapping[str, Any], results: Mapping[str, Sequence[EpisodeFigures]]) -> str:
    facts = {key: value for key, value in summary.items() if isinstance(value, (str, int, float)) and key != "out"}
    body = [
        f'<p class="dim">{escape(", ".join(f"{key} {value}" for key, value in facts.items()))}</p>',
        "<h2>Success</h2>",
        table(_SUITE_HEAD, _suite_rows(summary)),
        *(f"<p>{escape(line)}</p>" for line in compared(results)),
        f'<p><img src="{PLOTS}" alt="success, times and paired outcomes"></p>',
        "<h2>Figures</h2>",
        *_figures(summary),
        "<h2>Videos</h2>",
        *_videos(results),
        "<h2>Episodes</h2>",
        table(_COLUMNS, _episode_rows(results)),
    ]
    return document(title, body, _STYLE)


def compared(results: Mapping[str, Sequence[EpisodeFigures]]) -> list[str]:
    """What the first policy's episodes say against each other's, in sentences; none for a single policy."""
    (a, first), *others = results.items()
    return [describe(compare(first, episodes), a, b) for b, episodes in others]


_SUITE_HEAD = ("policy", "suite", "success", "95 % interval", "episodes", "time, s", "language", "new wordings")


def _suite_rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for policy, figures in summary["policies"].items():
        for suite, values in (*figures["suites"].items(), ("all", figures["all"])):
            lower, upper = values["success_interval"]
            held_out = values.get("held_out")
            words = ""
            if held_out is not None:
                bound = held_out["against_known"]["costs_at_most"]
                words = f"{_percent(held_out['success_rate'])}, cost at most {_percent(max(0.0, bound))}"
            yield (
                escape(policy),
                escape(suite),
                _percent(values["success_rate"]),
                f"{_percent(lower)} to {_percent(upper)}",
                str(values["episodes"]),
                _number(values["time_s"], 1),
                _percent(values.get("language_sensitivity")),
                words,
            )


def _figures(summary: Mapping[str, Any]) -> Iterator[str]:
    for policy, figures in summary["policies"].items():
        values = figures["all"]
        chunks = ", ".join(f"{key} {count}" for key, count in values["chunks"].items() if count)
        limits = ", ".join(f"{name} {count}" for name, count in values["limit_hits"].items())
        reasons = ", ".join(f"{name} ({count})" for name, count in values["reasons"].items())
        rows = [
            ("path of the tool, median", f"{_number(values['path_length_m'], 3)} m"),
            ("jerk of the joints' command", f"{_number(values['jerk_rms_rad_s3'], 2)} rad/s³ rms, median of episodes"),
            ("greatest jerk", f"{_percent(values['peak_jerk_fraction'])} of its joint's limit"),
            ("values past a joint's limit", str(values["limit_violations"])),
            ("limits that acted", limits or "none"),
            ("times the filter took over", str(values["interventions"])),
            ("chunks", chunks),
            ("age of an answer", f"{_number(values['age_ms'], 0)} ms"),
            ("inference", f"{_number(values['infer_ms'], 1)} ms"),
            ("failures", reasons or "none"),
        ]
        yield f"<h3>{escape(policy)}</h3>" if len(summary["policies"]) > 1 else ""
        yield facts_table((escape(name), escape(value)) for name, value in rows)


def _videos(results: Mapping[str, Sequence[EpisodeFigures]]) -> Iterator[str]:
    for policy, episodes in results.items():
        for episode in sorted(episodes, key=lambda one: one.is_success):
            if episode.video:
                text = f"{policy}, {episode.suite} {episode.seed}: {episode.task}; {episode.outcome}: {episode.reason}"
                source = f"{VIDEOS}/{episode.video}"
                yield (
                    f'<figure><video src="{escape(source)}" controls preload="none" muted></video>'
                    f'<figcaption class="{"" if episode.is_success else "bad"}">{escape(text)}</figcaption></figure>'
                )


def _episode_rows(results: Mapping[str, Sequence[EpisodeFigures]]) -> Iterator[tuple[str, ...]]:
    for policy, episodes in results.items():
        for suite in by_suite(episodes).values():
            for episode in suite:
                limits = ", ".join(f"{name} {count}" for name, count in episode.limit_hits.items())
                text = escape(f"{episode.task}: {episode.reason}")
                if episode.video:
                    text += f' (<a href="{escape(f"{VIDEOS}/{episode.video}")}">video</a>)'
                yield (
                    escape(policy),
                    escape(episode.suite),
                    str(episode.seed),
                    escape(episode.variant),
                    episode.outcome if episode.is_success else f'<span class="bad">{episode.outcome}</span>',
                    f"{episode.time_s:.2f}",
                    f"{episode.path_length_m:.3f}",
                    _number(episode.jerk_rms_rad_s3, 2),
                    str(episode.holds),
                    escape(limits),
                    text,
                )


def _write_csv(path: Path, results: Mapping[str, Sequence[EpisodeFigures]]) -> None:
    rows = [{"policy": policy, **_flat(episode)} for policy, episodes in results.items() for episode in episodes]
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0] if rows else ("policy",), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _flat(episode: EpisodeFigures) -> dict[str, Any]:
    values = plain_data(episode.plain())
    chunks, limits = values.pop("chunks"), values.pop("limit_hits")
    return {
        **values,
        **{f"chunks_{key}": count for key, count in chunks.items()},
        "limit_hits": " ".join(f"{name}={count}" for name, count in limits.items()),
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or value != value else f"{value:.{digits}f}"
