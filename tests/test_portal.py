"""The tracker's JSON API and page."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import trio

from shared import web
from shared.core.ids import Address, HostPort, Kind, parse_address
from shared.core.messages import Report, Share
from tests.tracker_parts import NOW, TRACKER_ID, announce, ask, entry, infohash, join, node, title_id, tracker
from tracker.core.tracker import Tracker
from tracker.page import STYLE
from tracker.portal import Portal
from tracker.query import MAX_LIMIT
from tracker.views import MAX_HOLDERS

EDGE = node("edge")
AT = Address(TRACKER_ID, HostPort("192.0.2.7", 4430))
EVIL = """<script>alert("1")</script> & 'x' [red]"""


@asynccontextmanager
async def client_of(
    core: Tracker, host: str = "127.0.0.1", asked: str = "127.0.0.1"
) -> AsyncIterator[httpx2.AsyncClient]:
    app = Portal(core, AT, "penstock 1", NOW).app(host)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://{asked}:8430") as client:
        yield client


async def get(core: Tracker, path: str) -> Any:
    async with client_of(core) as client:
        response = await client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    return response.json()


def busy_tracker() -> Tracker:
    """An edge with everything, a PC with half, a box that is here and holds nothing."""
    core = tracker(entry("film", EDGE), entry("evil", EDGE, title=EVIL), edges=frozenset({EDGE}))
    for name, kind in (("edge", Kind.EDGE), ("pc", Kind.PC), ("box", Kind.STB)):
        join(core, name, kind, "north")
    ask(core, announce(infohash("film")), EDGE)
    ask(core, announce(infohash("film"), held=5), node("pc"))
    shares = (Share(EDGE, 300), Share(node("box"), 100))
    ask(core, Report(10, 20, 30, 300, 100, 50, 60, 2, 1, shares), node("pc"))
    return core


async def test_overview_has_counts_sums_and_offload() -> None:
    seen = await get(busy_tracker(), "/api/v1/overview")
    assert seen["address"] == str(AT)
    assert (seen["nodes"], seen["viewers"], seen["edges"]) == (3, 2, 1)
    assert (seen["swarms"], seen["titles"], seen["announces"]) == (1, 2, 2)
    assert (seen["edge_bytes"], seen["peer_bytes"], seen["offload"]) == (300, 100, 0.25)


async def test_nodes_show_what_they_said() -> None:
    seen = await get(busy_tracker(), "/api/v1/nodes")
    assert (seen["total"], seen["skip"], seen["limit"]) == (3, 0, 100)
    edge, pc, box = seen["nodes"]
    assert (edge["id"], edge["kind"], edge["report"]) == (EDGE.hex(), "edge", None)
    assert (pc["mode"], pc["region"], pc["at"]) == ("shared", "north", "192.0.2.1:4430")
    assert (pc["swarms"], pc["titles"]) == (1, ["Film film"])
    assert (pc["report"]["up_rate"], pc["report"]["cap_rate"], pc["report"]["stalls"]) == (10, 30, 1)
    assert pc["report"]["shares"][0] == {"node": EDGE.hex(), "taken_bytes": 300}
    assert (box["swarms"], box["titles"]) == (0, [])


async def test_swarms_show_who_holds_what() -> None:
    seen = await get(busy_tracker(), "/api/v1/swarms")
    (swarm,) = seen["swarms"]
    assert (swarm["infohash"], swarm["title"], swarm["name"]) == (
        infohash("film").hex(),
        "Film film",
        "film.mp4",
    )
    assert (swarm["seeders"], swarm["leechers"], swarm["viewers"], swarm["viewers_held"]) == (1, 1, 1, 0.5)
    assert [(h["node"], h["held"], h["total"], h["spare"]) for h in swarm["holders"]] == [
        (EDGE.hex(), 10, 10, 4),
        (node("pc").hex(), 5, 10, 4),
    ]


async def test_a_large_swarm_is_counted_whole_and_listed_in_part() -> None:
    core = tracker(entry("film", EDGE))
    for number in range(MAX_HOLDERS + 20):
        join(core, number)
        ask(core, announce(infohash("film")), node(number))
    (swarm,) = (await get(core, "/api/v1/swarms"))["swarms"]
    assert (swarm["seeders"], len(swarm["holders"])) == (MAX_HOLDERS + 20, MAX_HOLDERS)


async def test_titles_carry_the_address_that_opens_them() -> None:
    seen = await get(busy_tracker(), "/api/v1/titles")
    assert [title["title"] for title in seen["titles"]] == [EVIL, "Film film"]
    film = seen["titles"][1]
    assert parse_address(film["address"]) == Address(TRACKER_ID, AT.at, title_id("film"))
    assert film["renditions"][0]["infohash"] == infohash("film").hex()
    assert (film["renditions"][0]["seeders"], film["renditions"][0]["leechers"]) == (1, 1)
    assert await get(busy_tracker(), f"/api/v1/titles/{film['id']}") == film


@pytest.mark.parametrize("kind, key", [("nodes", "id"), ("swarms", "infohash"), ("titles", "id")])
async def test_pages_cover_everything_once(kind: str, key: str) -> None:
    core = tracker(*(entry(number, EDGE) for number in range(7)))
    for number in range(7):
        join(core, number)
        ask(core, announce(infohash(number)), node(number))
    whole = await get(core, f"/api/v1/{kind}?limit=500")
    pages = [await get(core, f"/api/v1/{kind}?skip={skip}&limit=3") for skip in (0, 3, 6, 9)]
    assert [len(page[kind]) for page in pages] == [3, 3, 1, 0]
    assert {page["total"] for page in pages} == {7}
    assert [item[key] for page in pages for item in page[kind]] == [item[key] for item in whole[kind]]


@pytest.mark.parametrize(
    "query, name",
    [
        ("limit=0", "limit"),
        (f"limit={MAX_LIMIT + 1}", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=1&limit=2", "limit"),
        ("limit=%D9%A3", "limit"),  # a digit, but an Arabic one
        ("skip=-1", "skip"),
        ("skip=1.5", "skip"),
        ("skip=" + "9" * 5000, "skip"),
        ("skip=1e3", "skip"),
    ],
)
@pytest.mark.parametrize("kind", ["nodes", "swarms", "titles"])
async def test_a_bad_page_names_its_parameter(kind: str, query: str, name: str) -> None:
    async with client_of(tracker()) as client:
        response = await client.get(f"/api/v1/{kind}?{query}")
    assert response.status_code == 400
    assert re.fullmatch(rf"{name}: expected one whole number from \d+ to \d+", response.json()["error"])


@pytest.mark.parametrize("kind", ["overview", "nodes", "swarms", "placement", "tiers", "redirects", "titles"])
async def test_an_unknown_parameter_is_refused_by_its_name(kind: str) -> None:
    async with client_of(tracker()) as client:
        response = await client.get(f"/api/v1/{kind}?limits=3")
    assert response.status_code == 400
    assert response.json()["error"].startswith("'limits': unknown parameter; known: ")


@pytest.mark.parametrize(
    "path, status",
    [
        (f"/api/v1/titles/{'0' * 32}", 404),
        ("/api/v1/titles/nonsense", 404),
        ("/api/v1/titles/..%2f..%2fetc", 404),
        ("/api/v1/unknown", 404),
        ("/unknown", 404),
        ("/?limit=0", 400),
    ],
)
async def test_what_is_not_here_is_said_in_the_askers_format(path: str, status: int) -> None:
    async with client_of(tracker()) as client:
        response = await client.get(path)
    assert response.status_code == status
    if path.startswith("/api/"):
        assert "\n" not in response.json()["error"]
    else:
        assert response.headers["content-type"].startswith("text/html")
        assert "Traceback" not in response.text


async def test_only_reading_is_offered() -> None:
    async with client_of(tracker()) as client:
        response = await client.post("/api/v1/titles")
        assert response.status_code == 405
        assert response.headers["allow"]
        assert (await client.get("/healthz")).text == "ok\n"


async def test_the_page_escapes_everything_and_loads_nothing() -> None:
    async with client_of(busy_tracker()) as client:
        response = await client.get("/")
    html = response.text
    assert response.status_code == 200
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#x27;x&#x27; [red]" in html
    assert "<script" not in html
    assert f"{AT}/{title_id('film').hex()}" in html
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", html)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert f"<style>{STYLE}</style>" in html
    assert "sha256-" in policy


async def test_the_page_of_an_empty_tracker_and_the_turning_of_pages() -> None:
    async with client_of(tracker()) as client:
        assert "Nothing is published here" in (await client.get("/")).text
    core = tracker(*(entry(number, EDGE) for number in range(5)))
    async with client_of(core) as client:
        middle = (await client.get("/?skip=2&limit=2")).text
    assert re.findall(r'href="(/\?[^"]*)"', middle) == ["/?skip=0&amp;limit=2", "/?skip=4&amp;limit=2"]
    assert re.findall(r"<h2>(.*?)</h2>", middle) == ["Film 2", "Film 1"]


@pytest.mark.parametrize(
    "bound, asked, origin, status",
    [
        ("127.0.0.1", "127.0.0.1", None, 200),
        ("127.0.0.1", "localhost", None, 200),
        ("127.0.0.1", "evil.example", None, 403),
        ("::1", "evil.example", None, 403),
        ("127.0.0.1", "127.0.0.1", "http://evil.example", 403),
        ("0.0.0.0", "tracker.example", None, 200),
    ],
)
async def test_on_loopback_only_this_machine_may_ask(
    bound: str, asked: str, origin: str | None, status: int
) -> None:
    async with client_of(tracker(), bound, asked) as client:
        response = await client.get("/api/v1/overview", headers={"origin": origin} if origin else {})
    assert response.status_code == status


async def test_it_answers_over_a_real_socket() -> None:
    app = Portal(busy_tracker(), AT, "penstock 1", NOW).app("127.0.0.1")
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(web.serve, app, "127.0.0.1", 0)
        async with httpx2.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
            assert (await client.get("/api/v1/overview")).json()["nodes"] == 3
            assert (await client.get("/", headers={"host": "evil.example"})).status_code == 403
        nursery.cancel_scope.cancel()
