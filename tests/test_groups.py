"""Groups as operators meet them: stored before they are acknowledged, and in force at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from shared import cli
from shared.core.errors import LocalError, Reason
from shared.core.messages import Locate, Redirect, Refusal, Registered
from shared.identity import Identity
from tests.desk_parts import desks_of
from tests.tracker_client import client_of, config_of, film_of, tracker_of
from tests.tracker_parts import ask, entry, infohash, join, node, register, title_id
from tracker.dbs import groups
from tracker.member_file import read

EDGE, OTHER = node("edge"), node("other")
FILM, SECOND = entry("film", EDGE), entry("second", OTHER)
ANNA, BERT = node("anna"), node("bert")


def may_watch(core: Any, viewer: bytes, name: str = "film") -> bool:
    """Whether a Locate is answered with a ticket."""
    (sent,) = ask(core, Locate(1, infohash(name)), viewer)  # type: ignore[arg-type]  # a NodeId
    if isinstance(sent.message, Refusal):  # type: ignore[union-attr]  # a Send
        assert sent.message.reason is Reason.NOT_ALLOWED  # type: ignore[union-attr]
        return False
    assert isinstance(sent.message, Redirect)  # type: ignore[union-attr]
    return True


async def test_a_title_kept_to_a_group_is_refused_to_others_at_once_and_after_a_restart(
    tmp_path: Path,
) -> None:
    async with desks_of(tmp_path, FILM) as desks:
        for name in ("anna", "bert"):
            join(desks.core, name)
        assert may_watch(desks.core, BERT)
        made = await desks.post("groups", {"name": "family"})
        assert (made["name"], made["publisher"], made["members"]) == ("family", EDGE.hex(), 0)
        await desks.post("members", {"group": "family", "add": [ANNA.hex()]})
        kept = await desks.post("kept", {"title": "Film film", "groups": ["family"]})
        assert kept == {"title_id": title_id("film").hex(), "title": "Film film", "groups": ["family"]}
        assert (may_watch(desks.core, ANNA), may_watch(desks.core, BERT)) == (True, False)

    async with desks_of(tmp_path) as desks:
        for name in ("anna", "bert"):
            join(desks.core, name)
        assert (may_watch(desks.core, ANNA), may_watch(desks.core, BERT)) == (True, False)
        assert (await desks.get("members?group=family"))["members"] == [ANNA.hex()]
        await desks.post("members", {"group": "family", "add": [BERT.hex()], "remove": [ANNA.hex()]})
        assert (may_watch(desks.core, ANNA), may_watch(desks.core, BERT)) == (False, True)
        assert (await desks.get("kept"))["kept"][0]["groups"] == ["family"]
        await desks.post("kept", {"title": title_id("film").hex(), "groups": None})
        assert may_watch(desks.core, ANNA)
        await desks.ask("DELETE", "groups?group=family")
        assert (await desks.get("groups"))["total"] == 0


async def test_a_title_kept_to_a_group_stays_so_when_it_is_registered_again(tmp_path: Path) -> None:
    async with desks_of(tmp_path, FILM) as desks:
        await desks.post("groups", {"name": "family"})
        await desks.post("kept", {"title": "Film film", "groups": ["family"]})
        await desks.store.store_title(FILM)
    async with desks_of(tmp_path) as desks:
        join(desks.core, "bert")
        assert not may_watch(desks.core, BERT)


async def test_groups_belong_to_publishers(tmp_path: Path) -> None:
    async with desks_of(tmp_path, FILM, SECOND) as desks:
        status, error = await desks.refused("POST", "groups", {"name": "family"})
        assert (status, error) == (409, "there is more than one publisher; say which")
        await desks.post("publishers", {"publisher": EDGE.hex(), "name": "Studio"})
        for owner in ("Studio", OTHER.hex()):
            await desks.post("groups", {"name": "family", "publisher": owner})
        status, error = await desks.refused("POST", "members", {"group": "family", "add": [ANNA.hex()]})
        assert status == 409
        assert f"Studio/family, {OTHER.hex()}/family" in error or f"{OTHER.hex()}/family, Studio" in error
        await desks.post("members", {"group": "Studio/family", "add": [ANNA.hex()]})
        await desks.post("kept", {"title": "Film film", "groups": ["family"]})
        join(desks.core, "anna")
        assert may_watch(desks.core, ANNA)
        await desks.post("kept", {"title": "Film second", "groups": ["family"]})
        assert not may_watch(desks.core, ANNA, "second")
        wish = {"title": "Film second", "groups": ["Studio/family"]}
        assert await desks.refused("POST", "kept", wish) == (
            409,
            "group 'Studio/family' belongs to another publisher than the title",
        )
        seen = (await desks.get("publishers"))["publishers"]
        assert [(one["name"], one["titles"], one["groups"]) for one in seen] == [("Studio", 1, 1), ("", 1, 1)]
        status, error = await desks.refused("DELETE", "groups?group=Studio/family")
        assert (status, error.startswith("titles are kept to group 'family': 'Film film'")) == (409, True)


HOSTILE: list[tuple[str, str, Any, int, str]] = [
    ("POST", "groups", {"name": ""}, 400, "group '' is no name"),
    ("POST", "groups", {"name": "a/b"}, 400, "group 'a/b' is no name"),
    ("POST", "groups", {"name": "x\x1b[31m"}, 400, "is no name"),
    ("POST", "groups", {"name": "x" * 65}, 400, "is no name; use up to 64"),
    ("POST", "groups", {"name": 7}, 400, "Expected 'str', got 'int' - at 'name'"),
    ("POST", "groups", {"nome": "x"}, 400, "unknown field 'nome'"),
    ("POST", "groups", [], 400, "Expected 'object', got 'array'"),
    ("POST", "groups?x=1", {"name": "a"}, 400, "'x': unknown parameter"),
    ("POST", "groups", {"name": "a", "publisher": "nobody"}, 404, "there is no publisher 'nobody'"),
    ("POST", "members", {"group": "none", "add": []}, 404, "there is no group 'none'"),
    ("POST", "members", {"group": "family", "add": ["zz"]}, 400, "'zz' is not a node id"),
    ("POST", "members", {"group": "family", "add": ["0f" * 32] * 10_001}, 400, "add: 10001 at once"),
    ("POST", "kept", {"title": "Film fil", "groups": []}, 404, "did you mean 'Film film'"),
    ("POST", "kept", {"title": "zzz", "groups": []}, 404, "there is no title 'zzz' here; /api/v1/titles"),
    ("POST", "kept", {"title": "0f" * 16, "groups": []}, 404, "there is no title 0f0f"),
    ("POST", "kept", {"title": "Film film", "groups": ["x"]}, 404, "publisher has no group 'x'"),
    ("POST", "publishers", {"publisher": "0f" * 32, "name": "ab" * 32}, 400, "may not look like an id"),
    ("GET", "members", None, 400, "group: expected a text"),
    ("GET", "members?group=a&group=b", None, 400, "group: given more than once"),
    ("GET", "groups?limit=501", None, 400, "limit: expected one whole number from 1 to 500"),
    ("DELETE", "groups?group=nobody", None, 404, "there is no group 'nobody'"),
]


async def test_hostile_input_is_answered_by_a_named_error_and_changes_nothing(tmp_path: Path) -> None:
    async with desks_of(tmp_path, FILM) as desks:
        await desks.post("groups", {"name": "family"})
        before = await desks.get("groups"), await desks.get("kept"), await desks.get("publishers")
        for method, path, wish, status, says in HOSTILE:
            got, error = await desks.refused(method, path, wish)
            assert (got, says in error) == (status, True), (path, wish, got, error)
        raw: list[tuple[bytes, str, int]] = [
            (b"\xff{", "application/json", 400),
            (b"[" * 100_000, "application/json", 400),
            (b'{"name": "a"}', "text/plain", 415),
            (b"name=a", "application/x-www-form-urlencoded", 415),
        ]
        for body, kind, status in raw:
            answer = await desks.client.post("/api/v1/groups", content=body, headers={"content-type": kind})
            assert answer.status_code == status, answer.text
        assert before == (await desks.get("groups"), await desks.get("kept"), await desks.get("publishers"))


async def test_another_sites_page_and_an_open_door_change_nothing(tmp_path: Path) -> None:
    async with desks_of(tmp_path, FILM) as desks:
        answer = await desks.client.post(
            "/api/v1/groups", json={"name": "x"}, headers={"origin": "http://evil.example"}
        )
        assert answer.status_code == 403
    async with desks_of(tmp_path, FILM, host="0.0.0.0") as desks:
        status, error = await desks.refused("POST", "groups", {"name": "x"})
        assert (status, "set tracker.api to 127.0.0.1" in error) == (403, True)
        assert (await desks.get("groups"))["total"] == 0


async def test_there_is_an_end_to_groups_and_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MAX_GROUPS", 1)
    monkeypatch.setattr(groups, "MAX_MEMBERS", 2)
    async with desks_of(tmp_path, FILM) as desks:
        await desks.post("groups", {"name": "family"})
        assert (await desks.refused("POST", "groups", {"name": "friends"}))[0] == 409
        wish = {"group": "family", "add": [node(number).hex() for number in range(3)]}
        assert (await desks.refused("POST", "members", wish))[0] == 409
        assert (await desks.get("members?group=family"))["total"] == 0


# -- files and commands -------------------------------------------------------------------------


def test_a_file_of_members_is_read_or_every_wrong_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "family.csv"
    path.write_text(f'\ufeffnode,who\n{ANNA.hex()},"Anna, PC"\n\n# cousins\n {BERT.hex()}\n')
    assert read(path) == [ANNA, BERT]
    path.write_text(f"node\n{ANNA.hex()}\nbert\n{ANNA.hex()}0\n")
    with pytest.raises(LocalError, match=r"family.csv: nobody is changed: line 3: 'bert' .*; line 4: "):
        read(path)
    path.write_text("x\n" * 1000)
    with pytest.raises(LocalError, match="and 980 more lines") as error:
        read(path)
    assert "\n" not in str(error.value)
    path.write_text("node\n")
    with pytest.raises(LocalError, match="names nobody"):
        read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(LocalError, match="no CSV file in UTF-8"):
        read(path)
    with pytest.raises(LocalError, match="cannot be read: No such file"):
        read(tmp_path / "none.csv")


async def test_the_commands_make_a_group_and_keep_a_title_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a running tracker, with a viewer that is connected all the time."""
    identity = Identity.generate()
    async with (
        tracker_of(config_of(tmp_path, open_to_edges=True)) as ready,
        client_of(ready.address, identity=identity) as viewer,
    ):
        edge_identity = Identity.generate()

        async def run(*arguments: str) -> tuple[int, str, str]:
            api = ["--tracker-api", f"http://{ready.api}"]
            status = await trio.to_thread.run_sync(cli.main, ["group", *arguments, *api])
            return status, *capsys.readouterr()

        assert "there is no publisher yet" in (await run("create", "family"))[2]
        from shared.core.ids import Kind

        async with client_of(ready.address, Kind.EDGE, edge_identity) as edge:
            await edge.ask(register(1, film_of(edge_identity)), Registered)
        swarm = infohash("film")
        await viewer.ask(Locate(1, swarm), Redirect)
        assert (await run("publisher", edge_identity.id.hex(), "Studio"))[0] == 0
        assert (await run("create", "family"))[1] == "group family of publisher Studio\n"
        assert (await run("keep", "Film film", "family"))[0] == 0
        assert (await viewer.ask(Locate(2, swarm), Refusal)).reason is Reason.NOT_ALLOWED
        members = tmp_path / "family.csv"
        members.write_text(f"node,who\n{identity.id.hex()},me\n{ANNA.hex()}\n")
        assert (await run("add", "family", "--csv", str(members)))[1] == "group family has 2 members\n"
        await viewer.ask(Locate(3, swarm), Redirect)
        shown = (await run())[1].splitlines()
        assert [line.split() for line in shown[1:]] == [["family", "Studio", "2", "1"]]
        assert (await run("members", "family"))[1].split() == sorted([identity.id.hex(), ANNA.hex()])
        assert (await run("drop", "family", identity.id.hex()))[0] == 0
        assert (await viewer.ask(Locate(4, swarm), Refusal)).reason is Reason.NOT_ALLOWED
        assert "Film film" in (await run("kept"))[1]
        assert (await run("open", "Film film"))[0] == 0
        assert (await run("remove", "family"))[1] == "group family is no more\n"
        assert '"name":"Studio"' in (await run("publishers", "--json"))[1]
        status, _, error = await run("remove", "family")
        assert (status, error) == (
            1,
            "penstock: error: there is no group 'family'; `penstock group` lists them\n",
        )
        assert (await run("add", "family"))[0] == 2


def test_a_tracker_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["group", "--tracker-api", "127.0.0.1:9"]) == 1
    assert "no tracker answers at http://127.0.0.1:9" in capsys.readouterr().err
    assert cli.main(["group", "--tracker-api", "ftp://x"]) == 2
