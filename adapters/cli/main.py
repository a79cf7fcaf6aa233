"""
The command line: ``eventlog COMMAND``.

Quiet when all is well, exact when not. Exit codes: 0 clean, 1 findings, 2 usage, 3 cannot open.
"""

from __future__ import annotations

import io
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Unpack

import typer

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.cli.options import (
    Actor,
    After,
    AsJson,
    Database,
    DryRun,
    Reason,
    Session,
    SessionId,
    Since,
    Until,
    User,
    Which,
    of_sessions,
)
from agents_eventlog.adapters.cli.terminal import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

DISTRIBUTION = "agents-eventlog"

app = typer.Typer(
    cls=terminal.Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"eventlog {version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback(epilog="Exit codes: 0 clean, 1 findings, 2 usage, 3 cannot open.")
def eventlog(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """
    Conversations of LLM agents, as a log of events.

    Example: [bold]eventlog demo[/bold]
    """


@app.command()
def replay(
    db: Database,
    projection: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this projection; may be given several times."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with the tables, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> bool:
    """
    Build the projections' tables again from the first event, or check them.

    Programs may go on writing meanwhile. Safe to kill, and to run again.

    A check names each row that differs; it exits with 1 if there is one.

    Example: [bold]eventlog replay conversations.db --check[/bold]
    """
    from agents_eventlog.adapters.cli import replay

    return replay.run(db, projection or [], check=check, as_json=as_json)


@app.command()
def demo(
    db: Annotated[
        Path | None,
        typer.Option(
            "--db",
            metavar="PATH",
            help="The log's file, made if need be. [dim]\\[default: in a temporary folder][/dim]",
        ),
    ] = None,
) -> bool:
    """
    Show it: a conversation with a tool, branches and usage, its events, and a replay.

    With OPENAI_API_KEY set, the SDK's default model answers; else a scripted one.

    It exits with 1 if anything reads differently after the replay.

    Example: [bold]eventlog demo --db conversations.db[/bold]
    """
    from agents_eventlog.adapters.cli.demo import command as demo_command

    return demo_command.run(db)


@app.command()
def verify(
    db: Database,
    expect_head: Annotated[
        str | None,
        typer.Option(
            metavar="POSITION:DIGEST",
            help="A head that was kept elsewhere; the log must contain it.",
        ),
    ] = None,
    head: Annotated[
        bool, typer.Option("--head", help="Verify the log only, and print its head to be kept.")
    ] = False,
    as_json: AsJson = False,
) -> bool:
    """
    Prove that the log is what was recorded, and that its tables are what the log says.

    Recomputes every digest from what is read back, checks positions, versions and that each event
    can be read, and replays each projection beside its tables. The first bad event is named.

    A tail that was cut off leaves no trace in the file: keep a head elsewhere, and expect it.

    Example: [bold]eventlog verify conversations.db --head > head.txt[/bold]
    """
    from agents_eventlog.adapters.cli import verify

    return verify.run(db, expect_head=expect_head, only_head=head, as_json=as_json)


@app.command()
def show(
    db: Database,
    session: SessionId,
    branch: Annotated[
        str | None, typer.Option(help="This branch, not the one last switched to.")
    ] = None,
    turns: Annotated[bool, typer.Option("--turns", help="A line for each turn.")] = False,
    as_of: Annotated[
        str | None, typer.Option(metavar="VERSION|TIME", help="As it was then.")
    ] = None,
    diff: Annotated[
        str | None, typer.Option(metavar="VERSION|TIME", help="What changed since then.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Show a conversation as the model saw it, now or at any point of its past.

    A time is ISO 8601, in UTC unless it has a zone; a day alone is its end.

    Example: [bold]eventlog show conversations.db support-42 --as-of 2026-11-04[/bold]
    """
    from agents_eventlog.adapters.cli import show

    show.run(db, session, branch_id=branch, turns=turns, as_of=as_of, diff=diff, as_json=as_json)


@app.command()
def branches(
    db: Database,
    session: SessionId,
    all_: Annotated[bool, typer.Option("--all", help="Deleted branches, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Show the tree of a session's branches: where each left which, turns, items and last use.

    Example: [bold]eventlog branches conversations.db support-42 --all[/bold]
    """
    from agents_eventlog.adapters.cli import branches

    branches.run(db, session, include_ended=all_, as_json=as_json)


class Order(StrEnum):
    """By which time sessions are listed."""

    updated_at = "updated_at"
    created_at = "created_at"


@app.command()
@of_sessions
def sessions(
    db: Database,
    deleted: Annotated[
        bool, typer.Option("--deleted", help="Those that were deleted, instead.")
    ] = False,
    order_by: Annotated[Order, typer.Option(help="The newest first by this.")] = Order.updated_at,
    reverse: Annotated[bool, typer.Option("--reverse", help="The oldest first.")] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 50,
    after: After = None,
    as_json: AsJson = False,
    **which: Unpack[Which],
) -> None:
    """
    List sessions: all, or those that match, the last used first.

    A cost with a plus does not count requests whose price is not known. A time is ISO 8601, in UTC
    unless it has a zone; a day alone is its beginning.

    Example: [bold]eventlog sessions conversations.db --user alice --updated-after 2026-11-01[/bold]
    """
    from agents_eventlog.adapters.cli import sessions

    sessions.run(
        db,
        which,
        deleted=deleted,
        order_by=order_by.value,
        reverse=reverse,
        limit=limit,
        after=after,
        as_json=as_json,
    )


@app.command()
@of_sessions
def delete(
    db: Database,
    all_: Annotated[bool, typer.Option("--all", help="Without any filter: all of them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it, and not only tell.")] = False,
    reason: Reason = None,
    actor: Actor = None,
    as_json: AsJson = False,
    **which: Unpack[Which],
) -> None:
    """
    Delete the sessions that match: without [bold]--yes[/bold], only tell which.

    They are gone from every list and read; what they cost stays counted, and [bold]restore[/bold] brings
    each back.

    Example: [bold]eventlog delete conversations.db --updated-before 2026-01-01[/bold]
    """
    from agents_eventlog.adapters.cli import sessions

    sessions.delete(
        db, which, everything=all_, yes=yes, reason=reason, actor=actor, as_json=as_json
    )


@app.command()
def restore(db: Database, session: SessionId, actor: Actor = None, as_json: AsJson = False) -> None:
    """
    Undo the deletion of a session: all that it held and was is back.

    Example: [bold]eventlog restore conversations.db support-42[/bold]
    """
    from agents_eventlog.adapters.cli import sessions

    sessions.restore(db, session, actor=actor, as_json=as_json)


@app.command()
def audit(
    db: Database,
    session: Session = None,
    branch: Annotated[
        str | None, typer.Option(help="Only what happened on this branch or to it.")
    ] = None,
    since: Since = None,
    until: Until = None,
    type_: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only this type; may be given several times."),
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this actor did.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Only the newest so many.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what is appended, by any process.")
    ] = False,
    as_json: AsJson = False,
) -> bool:
    """
    Tell what happened: when, to which session and branch, by whom, and what became of it.

    Items that are in no branch any more are marked. It ends with whether the log is as recorded.

    A time is ISO 8601, in UTC unless it has a zone.

    Example: [bold]eventlog audit conversations.db --since 2026-11-04 --type branch_deleted[/bold]
    """
    from agents_eventlog.adapters.cli import audit

    return audit.run(
        db,
        session_id=session,
        branch_id=branch,
        since=since,
        until=until,
        types=type_ or [],
        actor=actor,
        limit=limit,
        follow=follow,
        as_json=as_json,
    )


@app.command()
def search(
    db: Database,
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="What it says, literally.")
    ] = None,
    type_: Annotated[
        str | None, typer.Option("--type", help="Only this type: user, function_call ...")
    ] = None,
    tool: Annotated[str | None, typer.Option(help="Only calls of this tool.")] = None,
    role: Annotated[str | None, typer.Option(help="Only messages of this role.")] = None,
    session: Session = None,
    user: User = None,
    branch: Annotated[str | None, typer.Option(help="Only on this branch.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="At most so many.")] = 20,
    after: After = None,
    index: Annotated[
        bool,
        typer.Option("--index", help="First build the full-text index, or bring it up to date."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Find where something was said: in messages, calls, outputs and reasoning that stand on a branch.

    Letters match in either case. Without QUERY, all that fits the options, the newest first.

    Of the newest 100 that are found the best come first. --index writes to the file; it asks for about
    the room of the texts, twice.

    Example: [bold]eventlog search conversations.db refund --since 2026-11-04[/bold]
    """
    from agents_eventlog.adapters.cli import search

    search.run(
        db,
        query,
        type=type_,
        tool_name=tool,
        role=role,
        session_id=session,
        user_id=user,
        branch_id=branch,
        since=since,
        until=until,
        limit=limit,
        after=after,
        index=index,
        as_json=as_json,
    )


class ToolGroup(StrEnum):
    """By what tool calls are counted."""

    tool = "tool"
    session = "session"
    day = "day"


@app.command()
def tools(
    db: Database,
    by: Annotated[
        list[ToolGroup] | None,
        typer.Option(
            help="Count by this; may be given several times. [dim]\\[default: tool][/dim]"
        ),
    ] = None,
    session: Session = None,
    user: User = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """
    Count tool calls that stand on a branch: how many, how many failed, and how many wait for an output.

    Example: [bold]eventlog tools conversations.db --by day --by tool[/bold]
    """
    from agents_eventlog.adapters.cli import tools

    tools.run(
        db,
        by=[group.value for group in by or [ToolGroup.tool]],
        session_id=session,
        user_id=user,
        since=since,
        until=until,
        as_json=as_json,
    )


@app.command()
def doctor(db: Database, as_json: AsJson = False) -> bool:
    """
    Examine a file: what it is and holds, what is wrong with it, and what to do about that.

    It exits with 1 when something needs doing; a note needs nothing.

    Example: [bold]eventlog doctor conversations.db[/bold]
    """
    from agents_eventlog.adapters.cli import doctor

    return doctor.run(db, as_json=as_json)


@app.command()
def usage(
    db: Database,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="In groups: session, user, model, agent, day, run, turn, branch; several by commas."
            " [dim]\\[default: model][/dim]",
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    user: User = None,
    session: Session = None,
    live: Annotated[
        bool, typer.Option("--live", help="Not what was popped, deleted or cleared.")
    ] = False,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the groups as CSV.")] = False,
) -> None:
    """
    Tell what was spent: tokens, and USD of what has a known price; the rest is counted.

    A run counts in the group where its first request does. By day, a terminal shows bars.

    A time is ISO 8601, in UTC unless it has a zone.

    Example: [bold]eventlog usage conversations.db --by user,model --since 2026-11-01[/bold]
    """
    from agents_eventlog.adapters.cli import usage

    usage.usage(
        db,
        by=by or [],
        since=since,
        until=until,
        user_id=user,
        session_id=session,
        live=live,
        as_json=as_json,
        as_csv=as_csv,
    )


@app.command()
def reprice(
    db: Database,
    since: Since = None,
    until: Until = None,
    session: Session = None,
    model: Annotated[str | None, typer.Option(help="Only this model's requests.")] = None,
    only_unpriced: Annotated[
        bool, typer.Option("--only-unpriced", help="Only requests that have no cost yet.")
    ] = False,
    actor: Actor = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """
    Price recorded requests again, each at its time, with the prices that genai-prices brings along.

    What costs something else is recorded as a correction; nothing is overwritten. What an
    application priced itself stays. Safe to kill, and to run again.

    Example: [bold]eventlog reprice conversations.db --only-unpriced --dry-run[/bold]
    """
    from agents_eventlog.adapters.cli import usage

    usage.reprice(
        db,
        since=since,
        until=until,
        session_id=session,
        model=model,
        only_unpriced=only_unpriced,
        dry_run=dry_run,
        actor=actor,
        as_json=as_json,
    )


class Format(StrEnum):
    """In which form histories are exported."""

    jsonl = "jsonl"
    markdown = "markdown"


class Conflict(StrEnum):
    """What to do about a session that exists already."""

    refuse = "refuse"
    skip = "skip"
    rename = "rename"


@app.command()
def export(
    db: Database,
    session: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Only this session; may be given several times."),
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="The events as JSON lines, or Markdown for people.")
    ] = Format.jsonl,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to this file instead of stdout.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Write histories out: complete, as JSON lines that [bold]import[/bold] takes in again.

    Or as Markdown, the present conversations with their branches, turns and tools.

    --json tells of the written file: kind ("exported"), sessions, events, output.

    Example: [bold]eventlog export conversations.db --output history.jsonl[/bold]
    """
    from agents_eventlog.adapters.cli import export_import

    is_markdown = form is Format.markdown
    export_import.export(db, session or [], markdown=is_markdown, output=output, as_json=as_json)


@app.command("import")
def import_(
    db: Database,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="What to import.")],
    on_conflict: Annotated[
        Conflict, typer.Option("--on-conflict", help="What to do about a session that exists.")
    ] = Conflict.refuse,
    dry_run: DryRun = False,
    sessions_table: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The SDK's sessions table in SOURCE. [dim]\\[default: agent_sessions][/dim]",
        ),
    ] = None,
    messages_table: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The SDK's messages table in SOURCE. [dim]\\[default: agent_messages][/dim]",
        ),
    ] = None,
    actor: Actor = None,
    as_json: AsJson = False,
) -> bool:
    """
    Bring histories in: each session whole or not at all.

    SOURCE is what [bold]export[/bold] wrote, another log, or a file of the SDK's SQLiteSession or
    AdvancedSQLiteSession. It stays as it is; DB is made if need be. A dry run checks all of it.

    Of a SOURCE that holds both a log and the SDK's tables, the log is read; the tables if one is named.

    It exits with 1 if a session was refused, because it exists, or is broken, or if it is incomplete: what
    of the SDK's cannot be read is left out, and told as its problem.

    --json: for each session kind ("session"), session_id, outcome (imported, renamed, skipped,
    refused, broken), imported_as, events, problem; then kind ("receipt"), the number of each outcome,
    incomplete, events, dry_run.

    Example: [bold]eventlog import conversations.db history.jsonl --dry-run[/bold]
    """
    from agents_eventlog.adapters.cli import export_import
    from agents_eventlog.adapters.conversations.sdk_tables import TablePair

    tables = None
    if sessions_table is not None or messages_table is not None:
        tables = TablePair(sessions_table or "agent_sessions", messages_table or "agent_messages")
    return export_import.import_(
        db,
        source,
        on_conflict=on_conflict.value,
        tables=tables,
        dry_run=dry_run,
        actor=actor,
        as_json=as_json,
    )


@app.command()
def erase(
    db: Database,
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="All of this session; it is deleted.")
    ] = None,
    deleted: Annotated[
        bool, typer.Option("--deleted", help="All of every session that was deleted.")
    ] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="Of the deleted, only those deleted at least so long ago: 30d, 12h."
        ),
    ] = None,
    popped: Annotated[
        bool, typer.Option("--popped", help="What is on no branch any more, in every session.")
    ] = False,
    reason: Reason = None,
    actor: Actor = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> bool:
    """
    Blank contents for good: no byte of them stays in the file or its write-ahead log.

    Places, digests and what was spent stay, and who erased what, when and why is recorded. The file
    is rewritten at the end; writers wait meanwhile.

    It exits with 1 if another process kept the file from being rewritten; run it again then.

    --json: kind ("erased"), sessions, events, payload_bytes, kept_items, is_complete, dry_run.

    Example: [bold]eventlog erase conversations.db --deleted --older-than 30d --dry-run[/bold]
    """
    from agents_eventlog.adapters.cli import erase

    what = erase.asked(
        session, deleted=deleted, older_than=older_than, popped=popped, reason=reason
    )
    return erase.run(db, what, actor=actor, dry_run=dry_run, yes=yes, as_json=as_json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever the terminal's encoding
    try:
        app(args=None if arguments is None else list(arguments), prog_name="eventlog")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.CLEAN
    return ExitCode.CLEAN
