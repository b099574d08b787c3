"""The tracker's web page: plain, light, the same for a phone and a PC, and without a script.

Every text that came from outside is escaped, and the content security policy allows nothing
but the one style sheet below, by its hash.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from types import MappingProxyType

from tracker.views import Overview, RenditionView, TitlePage, TitleView

STYLE = """
:root { color-scheme: light dark; --soft: color-mix(in srgb, CanvasText 62%, Canvas);
  --line: color-mix(in srgb, CanvasText 18%, Canvas); }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 46rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .25rem 0; }
ul { list-style: none; margin: 1.5rem 0; padding: 0; }
li { border-top: 1px solid var(--line); padding: 1rem 0; }
code { display: block; font: .8125rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere; margin-top: .5rem;
  padding: .5rem; border: 1px solid var(--line); border-radius: .25rem; user-select: all; }
.soft { color: var(--soft); font-size: .875rem; }
nav a { margin-right: 1rem; }
"""

_STYLE_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
)


def titles_page(overview: Overview, page: TitlePage) -> str:
    """The catalogue as HTML, with the address to copy under each title."""
    titles = "".join(map(_title, page.titles))
    listing = f"<ul>{titles}</ul>" if titles else '<p class="soft">Nothing is published here.</p>'
    counts = ", ".join(
        (_count(page.total, "title"), _count(overview.viewers, "viewer"), _count(overview.edges, "edge"))
    )
    return _document(
        f'<h1>Titles</h1><p class="soft">{counts}. Open one with <b>penstock play ADDRESS</b>.</p>'
        f"{listing}{_turn(page)}"
    )


def error_page(text: str) -> str:
    """One line for a person."""
    return _document(f'<h1>Not here</h1><p>{escape(text)}</p><p><a href="/">All titles</a></p>')


def _document(body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Penstock</title><style>{STYLE}</style></head><body>{body}</body></html>"
    )


def _title(view: TitleView) -> str:
    best = view.renditions[0] if view.renditions else None
    about = f'<p class="soft">{escape(_about(best))}</p>' if best else ""
    return f"<li><h2>{escape(view.title)}</h2>{about}<code>{escape(view.address)}</code></li>"


def _about(rendition: RenditionView) -> str:
    parts = [f"{rendition.length / 1e6:.1f} MB"]
    if rendition.height:
        parts.insert(0, f"{rendition.width}x{rendition.height}")
    if rendition.duration_seconds:
        minutes, seconds = divmod(round(rendition.duration_seconds), 60)
        parts.insert(0, f"{minutes}:{seconds:02}")
    parts.append(f"{_count(rendition.seeders, 'seeder')}, {_count(rendition.leechers, 'leecher')}")
    return " · ".join(parts)


def _turn(page: TitlePage) -> str:
    newer = max(0, page.skip - page.limit)
    older = page.skip + page.limit
    links = f'<a href="/?skip={newer}&amp;limit={page.limit}">Newer</a>' if page.skip else ""
    if older < page.total:
        links += f'<a href="/?skip={older}&amp;limit={page.limit}">Older</a>'
    return f"<nav>{links}</nav>" if links else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
