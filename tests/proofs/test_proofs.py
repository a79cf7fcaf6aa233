"""Proofs on both engines, of plain and sealed logs: what they show, and what is refused."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agents_eventlog import AdvancedSQLiteSession, ConversationLog
from agents_eventlog.eventlog import (
    EventLog,
    ItemsAdded,
    KeyFile,
    RecordedEvent,
    SigningKey,
    check_consistency,
    check_proof,
    generate_signing_key,
)
from agents_eventlog.eventlog.errors import (
    CorruptFileError,
    KeysMissingError,
    ProofError,
    SessionNotFoundError,
    ShreddedError,
    TamperedPayloadError,
)
from tests.proofs.conftest import SIGNING

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
PUBLIC = SigningKey(SIGNING).public_key
SECRET = "My card is 4111."


def user(text: str) -> Any:
    return {"role": "user", "content": text}


async def said(log: EventLog, session_id: str, *texts: str) -> None:
    for text in texts:
        await log.append(session_id, ItemsAdded(items=[user(text)]), branch_id="main")


def items(events: tuple[RecordedEvent, ...]) -> list[Any]:
    return [item for each in events for item in getattr(each.event, "items", [])]


async def crowd(log: EventLog) -> None:
    """Write sessions whose events lie between each other's, over more than one tile."""
    for number in range(300):
        await said(log, f"session-{number % 3}", f"é {number}")


# -- what is proven -------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [False, True])
async def test_a_proof_shows_a_session_and_nothing_of_the_others(
    path: str, key: SigningKey, keys: KeyFile, *, sealed: bool
) -> None:
    async with EventLog.open(path, keys=keys if sealed else None) as log:
        await crowd(log)
        head = await log.sign(key)
        await said(log, "session-1", "later")
        for given in (head, None):
            proof = await log.prove("session-1", signed=given, with_key=True)
            if given is None:
                head = await log.sign(key, earlier=head)
            proven = check_proof(proof, head, public_key=PUBLIC)
            stored = [each async for each in log.read("session-1")][
                : None if given is None else 100
            ]
            assert proven.session_id == "session-1"
            assert [vars_of(each) for each in proven.events] == [vars_of(each) for each in stored]
            assert items(proven.events) == [item for each in stored for item in each.event.items]  # type: ignore[union-attr]
            assert proven.signed.size == 300 + (given is None)
            assert "session-0" not in proof
            assert "session-2" not in proof


def vars_of(recorded: RecordedEvent) -> list[Any]:
    names = ("position", "version", "type", "branch_id", "recorded_at", "digest", "metadata_json")
    return [getattr(recorded, name) for name in names]


async def test_sealed_contents_open_with_the_keys_in_the_proof_only(
    path: str, key: SigningKey, keys: KeyFile
) -> None:
    session = AdvancedSQLiteSession("s", path, keys=keys, user_id="alice", metadata={"plan": "x"})
    await session.add_items([user(SECRET)])
    await session.create_branch_from_turn(1, "calm", include_turn=True)
    await session._atomic_replace_items([user("short")])
    head = await session.log.sign(key)
    closed, opened = [await session.log.prove("s", with_key=with_key) for with_key in (False, True)]
    session.close()
    assert SECRET not in closed
    hidden = check_proof(closed, head, public_key=PUBLIC).events
    assert {each.type: each.withheld for each in hidden}["items_added"] == "sealed"
    with pytest.raises(KeysMissingError, match="does not have its key"):
        _ = next(each for each in hidden if each.type == "items_added").event
    shown = check_proof(opened, head, public_key=PUBLIC).events
    assert items(shown) == [user(SECRET), user("short")]
    assert {each.withheld for each in shown} == {None}
    replaced = next(each for each in shown if each.type == "items_replaced")
    added = next(each for each in shown if each.type == "items_added")
    assert replaced.event is not None
    assert replaced.event.first_item in (None, (added.position, 0))  # type: ignore[attr-defined]


async def test_a_key_of_another_session_does_not_open_the_contents(
    file: Path, key: SigningKey, keys: KeyFile
) -> None:
    async with EventLog.open(file, keys=keys) as log:
        await said(log, "a", SECRET)
        await said(log, "b", "hello")
        head = await log.sign(key)
        proof, other = [json.loads(await log.prove(s, with_key=True)) for s in ("a", "b")]
        with pytest.raises(SessionNotFoundError):
            await log.prove("c")
    (event,) = check_proof(
        json.dumps({**proof, "keys": other["keys"]}), head, public_key=PUBLIC
    ).events
    assert event.withheld == "sealed"


async def test_keys_are_only_handed_over_where_they_can_be(
    file: Path, key: SigningKey, keys: KeyFile
) -> None:
    async with EventLog.open(file, keys=keys) as log:
        await said(log, "a", SECRET)
        (key_id,) = {each.data[2:34] async for each in log.read("a") if each.data}
    async with EventLog.open(file, read_only=True) as log:
        with pytest.raises(KeysMissingError):
            await log.prove("a", with_key=True)
    keys.destroy([key_id])
    async with EventLog.open(file, keys=keys) as log:
        with pytest.raises(ShreddedError):
            await log.prove("a", with_key=True)
        proof, head = await log.prove("a"), await log.sign(key)
    assert check_proof(proof, head, public_key=PUBLIC).events[0].withheld == "sealed"


async def test_keys_of_events_that_are_not_in_the_proof_are_not_handed_over(
    file: Path, key: SigningKey, keys: KeyFile
) -> None:
    session = AdvancedSQLiteSession("s", file, keys=keys)
    await session.add_items([user(SECRET)])
    head = await session.log.sign(key)
    await session.log.erase(session_id="s")
    await said(session.log, "s", "again, under a new key")
    proofs = [await session.log.prove("s", signed=given, with_key=True) for given in (head, None)]
    session.close()
    assert [len(json.loads(proof)["keys"]) for proof in proofs] == [0, 1]


async def test_an_erased_content_stays_proven_and_a_redacted_one_is_left_out(
    path: str, key: SigningKey
) -> None:
    session = AdvancedSQLiteSession("s", path)
    await session.add_items([user(SECRET), user("And my other card is 5500.")])
    (position,) = [event.position async for event in session.log.read("s")]
    head = await session.log.sign(key)
    await session.redact(position, 0)
    await session.redact(position, 1)
    for given in (head, None):
        proof = await session.log.prove("s", signed=given)
        assert "My card" not in proof  # words: a digest may hold any four digits
        assert "my other card" not in proof
        proven = check_proof(proof, given or await session.log.sign(key), public_key=PUBLIC)
        assert proven.events[0].withheld == "erased"
    await session.log.erase(popped=True)
    last = await session.log.sign(key, earlier=head)
    events = check_proof(await session.log.prove("s"), last, public_key=PUBLIC).events
    assert [each.withheld for each in events][:1] == ["erased"]
    assert events[-1].type == "content_erased"
    session.close()


async def test_a_session_that_began_after_the_head_is_not_proven(
    path: str, key: SigningKey
) -> None:
    async with EventLog.open(path) as log:
        empty = await log.sign(key)
        await said(log, "a", "hello")
        head = await log.sign(key)
        await said(log, "b", "hello")
        for given in (empty, head):
            with pytest.raises(ProofError, match="has no events up to the signed head"):
                await log.prove("b", signed=given)


# -- consistency ----------------------------------------------------------------------------------


async def test_a_log_is_shown_to_have_only_grown_from_each_head_to_each_later_one(
    path: str, key: SigningKey
) -> None:
    async with EventLog.open(path) as log:
        heads = [await log.sign(key)]
        for count in (1, 2, 300):
            for number in range(count):
                await said(log, f"s{number % 3}", str(number))
            heads.append(await log.sign(key, earlier=heads[-1]))
        for later in range(len(heads)):
            for earlier in range(later + 1):
                proof = await log.prove_consistency(heads[earlier], signed=heads[later])
                assert len(proof) < 20_000
                grown = check_consistency(proof, heads[earlier], heads[later], public_key=PUBLIC)
                assert grown.earlier.size <= grown.signed.size
        proof = await log.prove_consistency(heads[1])
        assert check_consistency(proof, heads[1], heads[-1], public_key=PUBLIC)
        with pytest.raises(ProofError, match="earlier head is the later one"):
            await log.prove_consistency(heads[-1], signed=heads[1])
        with pytest.raises(ProofError, match="for another head"):
            check_consistency(proof, heads[2], heads[-1], public_key=PUBLIC)
        broken = json.loads(proof)
        for lane in broken["lanes"]:
            lane["hashes"] = lane["hashes"][1:]
        if any(lane["hashes"] for lane in json.loads(proof)["lanes"]):
            with pytest.raises(ProofError, match="did not only grow"):
                check_consistency(json.dumps(broken), heads[1], heads[-1], public_key=PUBLIC)


async def test_changed_proofs_of_consistency_are_refused(file: Path, key: SigningKey) -> None:
    async with EventLog.open(file) as log:
        empty = await log.sign(key)
        for number in range(6):
            await said(log, "s", str(number))
        old = await log.sign(key)
        await said(log, "s", "a", "b")
        new = await log.sign(key)
        proof = json.loads(await log.prove_consistency(old, signed=new))
        first = json.loads(await log.prove_consistency(empty, signed=new))

    def refused(changed: Any, why: str, earlier: str = old) -> None:
        with pytest.raises(ProofError, match=why):
            check_consistency(json.dumps(changed), earlier, new, public_key=PUBLIC)

    (lane,) = proof["lanes"]
    other = lane["hashes"][0][::-1].replace("=", "A")[:43] + "="
    refused({**proof, "lanes": [{**lane, "hashes": [other, *lane["hashes"][1:]]}]}, "only grow")
    hashes = [lane["hashes"][0], other, lane["hashes"][2]]
    refused({**proof, "lanes": [{**lane, "hashes": hashes}]}, "the later root is another")
    refused(
        {**proof, "lanes": [{**lane, "earlier": {"size": 6, "root": other}}]}, "roots of the signed"
    )
    refused(
        {**proof, "lanes": [{**lane, "later": {"size": 8, "root": other}}]}, "roots of the signed"
    )
    (grown,) = first["lanes"]
    refused({**first, "lanes": [{**grown, "hashes": [other]}]}, "had no events", empty)


async def test_two_histories_under_one_name_are_never_consistent(
    tmp_path: Path, key: SigningKey
) -> None:
    heads, proofs = [], []
    for name in ("one", "two"):
        async with EventLog.open(tmp_path / name) as log:
            await said(log, "s", name)
            heads.append(await log.sign(key))
            await said(log, "s", "later")
            heads.append(await log.sign(key))
            proofs.append(await log.prove_consistency(heads[-2]))
            if name == "two":
                for attempt in (
                    log.sign(key, earlier=heads[0]),
                    log.prove_consistency(heads[0]),
                    log.prove("s", signed=heads[1]),
                ):
                    with pytest.raises(ProofError, match="does not contain the signed head"):
                        await attempt
    with pytest.raises(ProofError, match="of another log"):
        check_consistency(proofs[1], heads[0], heads[3], public_key=PUBLIC)


# -- what is refused ------------------------------------------------------------------------------


async def test_every_single_changed_byte_of_a_proof_is_refused_or_changes_nothing(
    file: Path, key: SigningKey
) -> None:
    async with EventLog.open(file) as log:
        await said(log, "s", "hello")
        await said(log, "t", "hello")
        await said(log, "s", "there")
        head, proof = await log.sign(key), (await log.prove("s")).encode()
    whole = check_proof(proof, head, public_key=PUBLIC)
    for place in range(len(proof)):
        for bit in (1, 32):
            changed = proof[:place] + bytes([proof[place] ^ bit]) + proof[place + 1 :]
            try:
                proven = check_proof(changed, head, public_key=PUBLIC)
            except ProofError:
                continue
            assert items(proven.events) == items(whole.events), changed
            assert [vars_of(e) for e in proven.events] == [vars_of(e) for e in whole.events]
        with pytest.raises(ProofError):
            check_proof(proof[:place], head, public_key=PUBLIC)


async def test_each_way_of_being_wrong_has_its_own_sentence(file: Path, key: SigningKey) -> None:
    async with EventLog.open(file) as log:
        await said(log, "s", "hello", "there")
        head, text = await log.sign(key), await log.prove("s")
        await said(log, "t", "later")
        newer = await log.sign(key)
    async with EventLog.open(file.with_name("other.db")) as log:
        await said(log, "s", "HELLO", "there")
        other = await log.prove("s")
    proof = json.loads(text)
    first, second = proof["events"]

    def changed(event: dict[str, Any], column: int, value: Any) -> dict[str, Any]:
        columns = [*event["columns"]]
        columns[column] = value
        return {**event, "columns": columns}

    def refused(why: str, proof: Any = text, head: str = head, public_key: str = PUBLIC) -> None:
        given = proof if isinstance(proof, str) else json.dumps(proof)
        with pytest.raises(ProofError, match=why):
            check_proof(given, head, public_key=public_key)

    refused("not whole JSON", text[:-9])
    refused(r"expected what `eventlog prove` prints.*\$\.events", {**proof, "events": 7})
    refused("format 2, this program knows 1: upgrade", {**proof, "format": 2})
    refused("expected one lane or more", {**proof, "lanes": []})
    refused("is for another head: expected position 3, got 2", head=newer)
    refused("of another log, or it was changed: expected the head 2:", other)
    refused("signed by another key", public_key=SigningKey(generate_signing_key()).public_key)
    refused("signature by PeterNeumann does not fit", head=head.replace("\n2\n", "\n3\n"))
    refused("invalid signed head", head=head[:-9])
    refused("invalid public key", public_key="PeterNeumann")
    refused("no events", {**proof, "events": []})
    refused("not the next of its session: expected version 1, got 2", {**proof, "events": [second]})
    refused("content .* at position 1 does not match", with_events(proof, {**first, "data": "{}"}))
    refused("invalid digest", with_events(proof, changed(first, 6, "xx"), second))
    refused("another session than the proof", with_events(proof, changed(first, 1, "t"), second))
    refused("not under the signed head", with_events(proof, changed(first, 9, 7), second))
    refused("in the proof twice", with_events(proof, first, {**second, "leaf": 0}))
    refused("not in the tree", with_events(proof, first, {**second, "leaf": 2}))
    refused("missing", with_events(proof, first))
    refused("does not match", with_events(proof, {**first, "sealed": "AAAA"}, second))
    with pytest.raises(
        ProofError, match="expected a proof of consistency, got a proof of a session"
    ):
        check_consistency(text, head, head, public_key=PUBLIC)


def with_events(proof: dict[str, Any], *events: dict[str, Any]) -> dict[str, Any]:
    return {**proof, "events": [*events]}


async def test_a_changed_log_makes_no_proof_and_its_signed_head_is_missed(
    file: Path, key: SigningKey
) -> None:
    async with EventLog.open(file) as log:
        await said(log, "s", "hello", "there")
        await said(log, "t", "hello")
        head = await log.sign(key)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TRIGGER events_are_never_changed")
        connection.execute("UPDATE events SET data = replace(data, 'there', 'THERE')")
        connection.execute("UPDATE events SET digest = zeroblob(32) WHERE position = 1")
        connection.commit()
    async with EventLog.open(file, read_only=True) as log:
        for session_id in ("s", "t"):
            with pytest.raises(ProofError, match="is not the signed one: run `eventlog verify`"):
                await log.prove(session_id, signed=head)
        with pytest.raises(ProofError, match="is not the signed one"):
            await log.sign(key, earlier=head)
        with pytest.raises(CorruptFileError, match="position 1 does not match its digest"):
            await log.prove("s")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TRIGGER events_are_never_deleted")
        connection.execute("DELETE FROM events WHERE position = 3")
        connection.commit()
    async with EventLog.open(file, read_only=True) as log:
        with pytest.raises(ProofError, match="does not contain the signed head"):
            await log.prove("s", signed=head)


async def test_a_content_that_its_key_does_not_open_is_reported(
    file: Path, key: SigningKey, keys: KeyFile
) -> None:
    async with EventLog.open(file, keys=keys) as log:
        await said(log, "s", SECRET)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TRIGGER events_are_never_changed")
        ((sealed,),) = connection.execute("SELECT sealed FROM events").fetchall()
        broken = sealed[:-1] + bytes([sealed[-1] ^ 1])
        connection.execute("UPDATE events SET sealed = ?", (broken,))
        _link_again(connection, broken)
        connection.commit()
    async with EventLog.open(file, keys=keys, read_only=True) as log:
        proof, head = await log.prove("s", with_key=True), await log.sign(key)
    (event,) = check_proof(proof, head, public_key=PUBLIC).events
    with pytest.raises(TamperedPayloadError):
        _ = event.event


async def test_content_that_was_put_there_in_plaintext_is_not_proven(
    file: Path, key: SigningKey, keys: KeyFile
) -> None:
    async with EventLog.open(file, keys=keys) as log:
        await said(log, "s", SECRET)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TRIGGER events_are_never_changed")
        planted = '{"items":[{"role":"user","content":"yes"}]}'
        connection.execute("UPDATE events SET sealed = NULL, data = ?", (planted,))
        _link_again(connection, planted.encode())
        connection.commit()
    async with EventLog.open(file, keys=keys, read_only=True) as log:
        with pytest.raises(TamperedPayloadError, match="not sealed, though the log is"):
            await log.prove("s")


async def test_a_head_beyond_the_last_event_is_damage(file: Path) -> None:
    from agents_eventlog.eventlog import Head
    from agents_eventlog.eventlog.proofs import proving

    async with EventLog.open(file) as log:
        await said(log, "s", "hello")
        with pytest.raises(CorruptFileError, match="events are missing at the end"):
            await proving._trees(log.query, 1, Head(2, bytes(32)))


def _link_again(connection: sqlite3.Connection, data: bytes) -> None:
    """Write the digests of the only event anew, as who writes the file can."""
    from agents_eventlog.eventlog import integrity

    row = connection.execute(
        "SELECT position, session_id, version, type, schema_version, branch_id, metadata,"
        " idempotency_key, recorded_at FROM events"
    ).fetchone()
    digest = integrity.data_digest(data)
    linked = integrity.link(integrity.FIRST, *row[:6], digest, *row[6:])
    connection.execute("UPDATE events SET data_digest = ?, digest = ?", (digest, linked))


# -- formats, and what is needed ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "sealed", "lanes"])
def test_proofs_of_earlier_releases_still_hold(name: str) -> None:
    proof, head, earlier, grown = (
        (GOLDEN / f"{name}.{kind}").read_text(encoding="utf-8")
        for kind in ("proof.json", "head.note", "earlier.note", "consistency.json")
    )
    proven = check_proof(proof, head, public_key=PUBLIC)
    assert items(proven.events) == [user("Where is my hat?"), user("On your head.")]
    assert check_consistency(grown, earlier, head, public_key=PUBLIC).earlier.size == 2


def test_a_proof_is_checked_where_no_database_can_be_opened() -> None:
    script = f"""
import sys
from pathlib import Path
from agents_eventlog.eventlog import check_proof
def refuse(*_, **__): raise AssertionError("opened")
import sqlite3
sqlite3.connect = refuse
golden = Path({str(GOLDEN)!r})
texts = [(golden / f"plain.{{kind}}").read_text() for kind in ("proof.json", "head.note")]
print(len(check_proof(*texts, public_key={PUBLIC!r}).events))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_without_the_package_signing_says_what_to_install() -> None:
    script = f"""
import sys
sys.modules["cryptography"] = None
from agents_eventlog.eventlog import SigningKey, errors
try:
    SigningKey({SIGNING!r})
except errors.KeysError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "pip install 'agents-eventlog[encrypt]'" in done.stdout, done.stderr


async def test_a_conversation_log_signs_and_proves_too(file: Path, key: SigningKey) -> None:
    session = AdvancedSQLiteSession("s", file)
    await session.add_items([user("hello")])
    session.close()
    async with ConversationLog.open(file, read_only=True) as log:
        head, proof = await log.sign(key), await log.prove("s")
    assert items(check_proof(proof, head, public_key=PUBLIC).events) == [user("hello")]
