"""What all pages are made of: one file with its style inside, and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """\
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1180px; padding: 16px; color: #222; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 24px 0 6px; }
table { border-collapse: collapse; } td, th { text-align: left; vertical-align: top; padding: 2px 14px 2px 0; }
th { font-weight: 600; white-space: nowrap; } td { overflow-wrap: anywhere; }
.bad { color: #a00000; } .dim { color: #666; }
"""


def document(title: str, body: Iterable[str], style: str = "", scripts: Iterable[str] = ()) -> str:
    """A whole page.

    Args:
        title: plain text.
        body: HTML.
        style: CSS besides the common one.
        scripts: whole script elements, at the end.
    """
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{STYLE}{style}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *body,
            *scripts,
            "</body></html>\n",
        )
    )


def facts_table(rows: Iterable[tuple[str, str]]) -> str:
    """A table of a name and a value a row, both HTML."""
    return "<table>" + "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows) + "</table>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a head, all HTML."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
