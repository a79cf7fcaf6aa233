"""
The command line: ``eventlog COMMAND``.

Exit codes: 0 clean, 1 findings, 2 usage error, 3 cannot open the file.
"""

from __future__ import annotations

import io
import sys
from copy import copy as shallow_copy
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, Unpack

import typer

from agents_eventlog.adapters.cli import terminal
from agents_eventlog.adapters.cli.options import (
    Actor,
    After,
    AsJson,
    Database,
    DryRun,
    EarlierHead,
    Reason,
    Removed,
    Session,
    SessionId,
    SignedHead,
    Since,
    Tz,
    Until,
    User,
    Which,
    WholeSessionId,
    Yes,
    names,
    of_sessions,
    session_ids,
)
from agents_eventlog.adapters.cli.terminal import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Function = TypeVar("Function", bound="Callable[..., object]")

DISTRIBUTION = "agents-eventlog"

app = typer.Typer(
    cls=terminal.Commands,
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

INSPECT, COST, MANAGE, MOVE, MAINTAIN = terminal.PANELS


def _command(*name_and_panel: str) -> Callable[[Function], Function]:
    """Register a command, in a panel of the help."""
    *name, panel = name_and_panel
    return app.command(*name, cls=terminal.Command, rich_help_panel=panel)


def _show_version(enabled: bool) -> None:
    if enabled:
        from importlib.metadata import version

        typer.echo(f"eventlog {version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback(epilog="Exit codes: 0 clean, 1 findings, 2 usage error, 3 cannot open the file.")
def eventlog(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """
    Inspect and maintain event logs of LLM agent conversations.

    Example: [bold]eventlog demo[/bold]
    """


@_command(MAINTAIN)
def replay(
    db: Database,
    projection: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only this one (repeatable): conversations, usage or search."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the tables with a replay, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> bool:
    """
    Rebuild the projection tables from the events, or check them.

    Other programs can keep writing. If interrupted, it changes nothing; run it again.

    [bold]--check[/bold] lists every row that differs, and exits with 1 if there are any.

    Example: [bold]eventlog replay conversations.db --check[/bold]
    """
    from agents_eventlog.adapters.cli import replay

    return replay.run(db, projection or [], check=check, as_json=as_json)


@_command(MAINTAIN)
def demo(
    db: Annotated[
        Path | None,
        typer.Option(
            "--db",
            metavar="PATH",
            help="Log file, created if missing. [dim]\\[default: in a temporary folder][/dim]",
        ),
    ] = None,
) -> bool:
    """
    Run a demo: a conversation with a tool, branches and usage, its events, and a replay.

    With OPENAI_API_KEY set, the SDK's default model answers, otherwise a scripted model.

    Exits with 1 if any read returns a different result after the replay.

    Example: [bold]eventlog demo --db conversations.db[/bold]
    """
    from agents_eventlog.adapters.cli.demo import command as demo_command

    return demo_command.run(db)


@_command(MAINTAIN)
def verify(
    db: Database,
    expect_head: Annotated[
        str | None,
        typer.Option(
            metavar="POSITION:DIGEST",
            help="A head saved earlier, which the log must contain.",
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="POSITION:DIGEST",
            help="A head verified earlier: read only the events after it. Skips the projection tables.",
        ),
    ] = None,
    head: Annotated[
        bool,
        typer.Option("--head", help="Print the head, to save it. Skips the projection tables."),
    ] = False,
    as_json: AsJson = False,
) -> bool:
    """
    Verify the digest chain, and compare every projection table with a replay.

    Recomputes every digest, checks positions and versions, decodes every event, and names the first
    bad event.

    The file alone cannot show whether its last events were cut off: save its head elsewhere with
    [bold]--head[/bold], and pass it as [bold]--expect-head[/bold].

    Example: [bold]eventlog verify conversations.db --head > head.txt[/bold]
    """
    from agents_eventlog.adapters.cli import verify

    return verify.run(db, expect_head=expect_head, after=after, only_head=head, as_json=as_json)


@_command(MAINTAIN)
def sign(
    db: Database,
    key: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Signing key of the log, from `keys init-signing`."),
    ],
    earlier: EarlierHead = None,
    as_json: AsJson = False,
) -> None:
    """
    Sign the head of a log, to publish it or keep it elsewhere.

    The signed head is a C2SP checkpoint: the number of events, and the root of a Merkle tree over their
    digests. It proves single sessions with [bold]prove[/bold]. One key is for one log.

    Exits with 1 if the log no longer contains the earlier head; then nothing is signed.

    Example: [bold]eventlog sign conversations.db --key sign.key > head.note[/bold]
    """
    from agents_eventlog.adapters.cli import proofs

    proofs.sign(db, key, earlier=earlier, as_json=as_json)


@_command(MAINTAIN)
def prove(
    db: Database,
    session: Session = None,
    with_key: Annotated[
        bool,
        typer.Option("--with-key", help="Add the session's keys, which open its sealed contents."),
    ] = False,
    earlier: EarlierHead = None,
    signed: SignedHead = None,
    as_json: AsJson = False,
) -> None:
    """
    Prove that a session's events are in a signed log, without showing any other session.

    With [bold]--earlier[/bold] and without a session, prove that the log only grew since an earlier signed
    head. Without [bold]--signed[/bold], the proof is for the end of the log: sign it before another event
    is appended.

    Exits with 1 if the log does not contain a head.

    --json: the proof, which is one JSON document in any case.

    Example: [bold]eventlog prove conversations.db -s support-42 --signed head.note > proof.json[/bold]
    """
    from agents_eventlog.adapters.cli import proofs

    proofs.prove(
        db,
        session_id=session,
        earlier=earlier,
        signed=signed,
        with_key=with_key,
        as_json=as_json,
    )


@_command(MAINTAIN)
def check(
    proof: Annotated[Path, typer.Argument(metavar="PROOF", help="File with a proof.")],
    signed: SignedHead = None,
    public_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Public key of the log, from its owner."),
    ] = None,
    earlier: EarlierHead = None,
    as_json: AsJson = False,
) -> bool:
    """
    Check a proof against a signed head, without the log, and show the events.

    Get the public key from the owner of the log, not together with the proof. A proof of consistency also
    needs [bold]--earlier[/bold].

    Exits with 1 if the proof does not hold, and says why.

    Example: [bold]eventlog check proof.json --signed head.note --public-key KEY[/bold]
    """
    from agents_eventlog.adapters.cli import proofs

    if signed is None or public_key is None:
        terminal.fail(ExitCode.USAGE, "expected both --signed and --public-key")
    return proofs.check(
        proof, signed=signed, earlier=earlier, public_key=public_key, as_json=as_json
    )


@_command(INSPECT)
def show(
    db: Database,
    session: SessionId,
    branch: Annotated[
        str | None, typer.Option(help="Branch to show. [dim]\\[default: the current one][/dim]")
    ] = None,
    turns: Annotated[bool, typer.Option("--turns", help="Show one line per turn.")] = False,
    as_of: Annotated[
        str | None, typer.Option(metavar="VERSION|TIME", help="Show it at this version or time.")
    ] = None,
    diff: Annotated[
        str | None,
        typer.Option(metavar="VERSION|TIME", help="Show changes since this version or time."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Show a conversation as the model saw it, now or at any time in the past.

    VERSION is the number of events that the session had. Times are ISO 8601, in UTC unless they have a
    zone. A date means the end of that day.

    Example: [bold]eventlog show conversations.db support-42 --as-of 2026-11-04[/bold]
    """
    from agents_eventlog.adapters.cli import show

    show.run(db, session, branch_id=branch, turns=turns, as_of=as_of, diff=diff, as_json=as_json)


@_command(INSPECT)
def branches(
    db: Database,
    session: SessionId,
    removed: Removed = False,
    turns: Annotated[
        bool, typer.Option("--turns", help="Also show the turns after each fork.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Show the tree of a session's branches: fork points, turns, items and last use.

    Example: [bold]eventlog branches conversations.db support-42 --removed[/bold]
    """
    from agents_eventlog.adapters.cli import branches

    branches.run(db, session, include_ended=removed, shows_turns=turns, as_json=as_json)


@_command(INSPECT)
def log(
    db: Database,
    session: SessionId,
    graph: Annotated[
        bool, typer.Option("--graph", help="Draw the turns of all branches as a tree.")
    ] = False,
    branch: Annotated[
        str | None, typer.Option(help="Branch to show. [dim]\\[default: the current one][/dim]")
    ] = None,
    removed: Removed = False,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=0, metavar="N", help="Only the newest N turns."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Show the turns of a session, the newest first: time, actor, tokens, cost and first words.

    A plus after a cost means that it excludes requests without a known price.

    Example: [bold]eventlog log conversations.db support-42 --graph[/bold]
    """
    from agents_eventlog.adapters.cli import log

    if branch is not None and graph:
        terminal.fail(ExitCode.USAGE, "--branch and --graph cannot be combined")
    log.run(
        db, session, graph=graph, branch_id=branch, removed=removed, limit=limit, as_json=as_json
    )


@_command(INSPECT)
def compare(
    db: Database,
    session: SessionId,
    a: Annotated[str, typer.Argument(metavar="A", help="A branch; main@12 is main at version 12.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The branch to compare it with.")],
    as_json: AsJson = False,
) -> None:
    """
    Compare two branches of a session turn by turn: items, tokens, cost and time.

    Turns that both branches share are only counted. A plus after a cost means that it excludes requests
    without a known price.

    Example: [bold]eventlog compare conversations.db support-42 main kinder[/bold]
    """
    from agents_eventlog.adapters.cli import compare

    compare.run(db, session, a, b, as_json=as_json)


class Order(StrEnum):
    """Time by which sessions are sorted."""

    updated_at = "updated_at"
    created_at = "created_at"


@_command(INSPECT)
@of_sessions
def sessions(
    db: Database,
    session: Session = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Only deleted sessions.")] = False,
    order_by: Annotated[
        Order, typer.Option(help="Sort by this time, newest first.")
    ] = Order.updated_at,
    reverse: Annotated[bool, typer.Option("--reverse", help="Sort oldest first.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="N", help="Maximum number of results.")
    ] = 50,
    after: After = None,
    as_json: AsJson = False,
    **which: Unpack[Which],
) -> None:
    """
    List the sessions that match all filters, most recently used first.

    A plus after a cost means that it excludes requests without a known price. Times are ISO 8601, in
    UTC unless they have a zone. A date means the beginning of that day.

    Example: [bold]eventlog sessions conversations.db --user alice --updated-after 2026-11-01[/bold]
    """
    from agents_eventlog.adapters.cli import sessions

    sessions.run(
        db,
        which,
        session_id=session,
        deleted=deleted,
        order_by=order_by.value,
        reverse=reverse,
        limit=limit,
        after=after,
        as_json=as_json,
    )


@_command(MANAGE)
@of_sessions
def delete(
    db: Database,
    session: Annotated[
        str | None,
        typer.Argument(metavar="SESSION", help="Only this session.", autocompletion=session_ids),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Delete every session; required without a filter.")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    reason: Reason = None,
    actor: Actor = None,
    as_json: AsJson = False,
    **which: Unpack[Which],
) -> None:
    """
    Delete the sessions that match all filters; without [bold]--yes[/bold], only list them.

    Deleted sessions disappear from lists and reads. Their usage still counts, and [bold]restore[/bold]
    undoes the deletion.

    Example: [bold]eventlog delete conversations.db --updated-before 2026-01-01[/bold]
    """
    terminal.check_dry_run(yes=yes, dry_run=dry_run)
    from agents_eventlog.adapters.cli import sessions

    sessions.delete(
        db,
        which,
        session_id=session,
        everything=all_,
        yes=yes,
        reason=reason,
        actor=actor,
        as_json=as_json,
    )


@_command(MANAGE)
def restore(
    db: Database, session: WholeSessionId, actor: Actor = None, as_json: AsJson = False
) -> None:
    """
    Restore a deleted session with all its items, branches and metadata.

    Example: [bold]eventlog restore conversations.db support-42[/bold]
    """
    from agents_eventlog.adapters.cli import sessions

    sessions.restore(db, session, actor=actor, as_json=as_json)


@_command(INSPECT)
def audit(
    db: Database,
    session: Session = None,
    branch: Annotated[
        str | None, typer.Option(help="Only events on this branch or about it.")
    ] = None,
    since: Since = None,
    until: Until = None,
    type_: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only events of this type (repeatable)."),
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only events by this actor.")] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=0, metavar="N", help="Only the newest N events."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep printing new events, from any process.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Print all items, and complete texts.")
    ] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Print each event, not a turn on one line.")
    ] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Print trace ids.")] = False,
    as_json: AsJson = False,
) -> bool:
    """
    Show the audit trail: time, session, branch and actor of every event.

    A turn is one line: its question, its tool calls and its answer; [bold]--events[/bold] prints each
    event. Marks items that were later removed. The last line is the result of verifying the digest chain.

    Times are ISO 8601, in UTC unless they have a zone.

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
        full=full,
        by_event=events or full,
        with_traces=trace,
        as_json=as_json,
    )


@_command(INSPECT)
def search(
    db: Database,
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="Text to find, literally.")
    ] = None,
    type_: Annotated[
        str | None, typer.Option("--type", help="Only items of this type: user, function_call ...")
    ] = None,
    tool: Annotated[str | None, typer.Option(help="Only calls of this tool.")] = None,
    role: Annotated[str | None, typer.Option(help="Only messages of this role.")] = None,
    session: Session = None,
    user: User = None,
    branch: Annotated[str | None, typer.Option(help="Only items on this branch.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, metavar="N", help="Maximum number of results.")
    ] = 20,
    after: After = None,
    removed: Removed = False,
    index: Annotated[
        bool,
        typer.Option("--index", help="Build or update the full-text index first."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Search active messages, tool calls, outputs and reasoning summaries.

    The search is case-insensitive. [bold]--removed[/bold] also finds what was popped, cleared, replaced or
    deleted. Without QUERY, it lists all items that match the options. The newest come first.

    [bold]--index[/bold] writes to the file; the index takes about twice the size of the indexed text.

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
        include_removed=removed,
        index=index,
        as_json=as_json,
    )


@_command(INSPECT)
def tools(
    db: Database,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Group by tool, session or day (comma-separated). [dim]\\[default: tool][/dim]",
        ),
    ] = None,
    session: Session = None,
    user: User = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """
    Count active tool calls, failed ones, and those without an output.

    Example: [bold]eventlog tools conversations.db --by day,tool[/bold]
    """
    from agents_eventlog.adapters.cli import tools

    tools.run(
        db,
        by=names(by, "tool"),
        session_id=session,
        user_id=user,
        since=since,
        until=until,
        as_json=as_json,
    )


@_command(INSPECT)
def view(
    db: Annotated[Path | None, typer.Argument(metavar="DB", help="Log file.")] = None,
    session: Annotated[
        str | None,
        typer.Argument(metavar="SESSION", help="Open this session.", autocompletion=session_ids),
    ] = None,
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, help="Port. [dim]\\[default: the first free one from 4780][/dim]"
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another host name to answer for (repeatable)."),
    ] = None,
    no_key: Annotated[
        bool, typer.Option("--no-key", help="Let every user of this machine read the pages.")
    ] = False,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser.")] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Show the demo's conversation, without a file.")
    ] = False,
) -> None:
    """
    Look at conversations in a browser: branches, tools, costs, and every version.

    The pages only read. They are served to this machine alone; the printed address has a key.

    [bold]--demo[/bold] shows a scripted conversation, and needs no file.

    Example: [bold]eventlog view conversations.db[/bold]
    """
    from agents_eventlog.adapters.cli import view

    view.run(
        db,
        session,
        host=host,
        port=port,
        allowed=allow_host or [],
        with_key=not no_key,
        opens=not no_open,
        shows_demo=demo,
    )


@_command(MAINTAIN)
def doctor(db: Database, as_json: AsJson = False) -> bool:
    """
    Examine a file: its contents, its problems, and how to fix each.

    Findings need action, notes do not. Exits with 1 if there are findings.

    Example: [bold]eventlog doctor conversations.db[/bold]
    """
    from agents_eventlog.adapters.cli import doctor

    return doctor.run(db, as_json=as_json)


@_command(MAINTAIN)
def health(db: Database, as_json: AsJson = False) -> bool:
    """
    Report whether a log can be used, for probes. Takes the same time for a log of any length.

    Exits with 1 if tables are so far behind the log that opening it would replay them, with 3 if the log
    cannot be opened.

    Example: [bold]eventlog health conversations.db --json[/bold]
    """
    from agents_eventlog.adapters.cli import health

    return health.run(db, as_json=as_json)


@_command(COST)
def usage(
    db: Database,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Group by session, user, model, agent, day, month, run, turn or branch"
            " (comma-separated)."
            " [dim]\\[default: model][/dim]",
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    user: User = None,
    session: Session = None,
    live: Annotated[
        bool, typer.Option("--live", help="Only active turns: not popped, deleted or cleared.")
    ] = False,
    tz: Tz = "UTC",
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="LIMIT", help="Compare with a budget: 20usd/user/month, 5000tokens/run ..."
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the groups as CSV.")] = False,
) -> bool:
    """
    Show usage: tokens, cost in USD, and requests without a known price.

    A run counts in the group of its first request. On a terminal, days and months have bars.

    [bold]--budget[/bold] shows the usage of the current period, and exits with 1 if a budget is used up.

    Times are ISO 8601, in the time zone of [bold]--tz[/bold] unless they have one.

    Example: [bold]eventlog usage conversations.db --by user,model --since 2026-11-01[/bold]
    """
    from agents_eventlog.adapters.cli import usage

    if budget is not None:
        if by or since or until or live or as_csv:
            terminal.fail(
                ExitCode.USAGE, "--budget: expected only --user, --session, --tz and --json"
            )
        return usage.budget(db, budget, tz=tz, user_id=user, session_id=session, as_json=as_json)
    usage.usage(
        db,
        by=names(by, "model"),
        since=since,
        until=until,
        user_id=user,
        session_id=session,
        live=live,
        tz=tz,
        as_json=as_json,
        as_csv=as_csv,
    )
    return True


@_command(COST)
def reprice(
    db: Database,
    since: Since = None,
    until: Until = None,
    session: Session = None,
    model: Annotated[str | None, typer.Option(help="Only this model's requests.")] = None,
    only_unpriced: Annotated[
        bool, typer.Option("--only-unpriced", help="Only requests without a cost.")
    ] = False,
    actor: Actor = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """
    Compute costs again, with the prices that genai-prices has for the time of each request.

    Changed costs are recorded as corrections; nothing is overwritten. Costs from an application's own
    prices stay. If interrupted, run it again.

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
    """Output format of an export."""

    jsonl = "jsonl"
    markdown = "markdown"
    html = "html"
    sdk = "sdk"


class Conflict(StrEnum):
    """Action for a session that already exists."""

    refuse = "refuse"
    skip = "skip"
    rename = "rename"


@_command(MOVE)
def export(
    db: Database,
    session: Annotated[
        list[str] | None,
        typer.Option(
            "--session",
            "-s",
            metavar="ID",
            help="Only this session (repeatable).",
            autocompletion=session_ids,
        ),
    ] = None,
    user: User = None,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="Events as JSON lines, readable Markdown or HTML, or a file of the SDK's.",
        ),
    ] = Format.jsonl,
    sealed: Annotated[
        bool, typer.Option("--sealed", help="Export the contents of a sealed log without opening.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Output file. [dim]\\[default: stdout][/dim]"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Export complete histories as JSON lines for [bold]import[/bold].

    [bold]--user[/bold] exports all sessions of a user, deleted ones included.

    [bold]--format markdown[/bold] exports the current conversations, with branches, turns and tools;
    [bold]--format html[/bold] exports them as one page without scripts, with pictures.

    [bold]--format sdk[/bold] writes their items, branches, turns and usage to a new file, which the SDK's
    AdvancedSQLiteSession opens, and prints what has no place there: erased items, deleted branches and
    sessions.

    [bold]--sealed[/bold] needs no keys. An empty log, or a copy of this one, can import it, also without.

    --json describes the written file: kind ("exported"), sessions, events, output; for the SDK also items,
    branches, turns_with_usage, and the numbers of objects that were left out.

    Example: [bold]eventlog export conversations.db --output history.jsonl[/bold]
    """
    from agents_eventlog.adapters.cli import export_import

    export_import.export(
        db, session, user, form=form.value, sealed=sealed, output=output, as_json=as_json
    )


@_command("import", MOVE)
def import_(
    db: Database,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="File to import.")],
    on_conflict: Annotated[
        Conflict, typer.Option("--on-conflict", help="Action for a session whose id is in use.")
    ] = Conflict.refuse,
    dry_run: DryRun = False,
    sessions_table: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the SDK's sessions table in SOURCE. [dim]\\[default: agent_sessions][/dim]",
        ),
    ] = None,
    messages_table: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the SDK's messages table in SOURCE. [dim]\\[default: agent_messages][/dim]",
        ),
    ] = None,
    encryption_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Environment variable with the key of the SDK's EncryptedSession."
        ),
    ] = None,
    encrypted_ttl: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Leave out older turns of EncryptedSession: 10m, 12h."),
    ] = None,
    actor: Actor = None,
    as_json: AsJson = False,
) -> bool:
    """
    Import histories: each session completely or not at all.

    SOURCE is an export as JSON lines, another log, or a file of the SDK's SQLiteSession or
    AdvancedSQLiteSession. The import does not change it, and creates DB if it is missing. A dry run
    checks all of SOURCE.

    If SOURCE contains both a log and the SDK's tables, the import reads the log. To read the tables, pass
    [bold]--sessions-table[/bold] or [bold]--messages-table[/bold].

    With [bold]--encryption-key-env[/bold], the items that the SDK's EncryptedSession stored in SOURCE are
    opened, also after its ttl. [bold]--encrypted-ttl[/bold] leaves out the turns that are older as a whole.

    Exits with 1 if a session is refused, broken or incomplete. Damaged rows of the SDK's tables are
    skipped, and make a session incomplete; so are items that the key does not open, or that are not
    encrypted.

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
        key_variable=encryption_key_env,
        ttl=encrypted_ttl,
        dry_run=dry_run,
        actor=actor,
        as_json=as_json,
    )


@_command(MOVE)
def init(
    db: Annotated[Path, typer.Argument(metavar="DB", help="Log file or URL, created if missing.")],
    role: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="PostgreSQL role that may append and read, created if missing."
        ),
    ] = None,
    search: Annotated[
        bool, typer.Option("--search", help="Also create the full-text index.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Create a log with its tables; on PostgreSQL also the role that applications connect as.

    That role can append and read. It cannot change or delete events, nor change the schema: erase, replay
    and upgrade as the owner, which is the role that runs this command. Run it again to repair rights.

    Example: [bold]eventlog init postgresql://owner@db.example/chats --role app[/bold]
    """
    from agents_eventlog.adapters.cli import init

    init.run(db, role=role, search=search, as_json=as_json)


@_command(MOVE)
def copy(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Log to copy.")],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="New log, or an earlier copy of SRC to continue.")
    ],
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep copying new events until interrupted.")
    ] = False,
    as_json: AsJson = False,
) -> bool:
    """
    Copy a log that may be in use to another file or engine: SQLite, PostgreSQL, in both directions.

    Sessions, versions, times, keys and payloads stay; positions and digests are new. At the end, every
    event of both logs is compared, and the projections are built. If interrupted, run it again.

    Programs must not append to DST meanwhile. To move, stop the programs after the copy has caught up, run
    it once more, and start them with DST. Leases are not copied.

    Exits with 1 if DST has other events than SRC, and names their sessions.

    Example: [bold]eventlog copy conversations.db postgresql://app@db.example/chats[/bold]
    """
    from agents_eventlog.adapters.cli import copy

    return copy.run(source, target, follow=follow, as_json=as_json)


@_command(MOVE)
def encrypt(
    db: Database,
    target: Annotated[
        Path, typer.Argument(metavar="NEW", help="New log, or an earlier one of DB to continue.")
    ],
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Key file, created if missing. [dim]\\[default: EVENTLOG_KEYS][/dim]",
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> bool:
    """
    Copy a log with contents in plaintext into a new, sealed log.

    Session ids, versions, times and contents stay; positions and digests are new. At the end, every event
    of both logs is compared. DB is not changed; programs may append to it, but not to NEW. If interrupted,
    run it again.

    The file of DB, its backups and unused blocks of the disk still hold the plaintext afterwards.

    Exits with 1 if NEW has other events than DB, or DB has no contents in plaintext.

    Example: [bold]eventlog encrypt conversations.db sealed.db --keys keys.db[/bold]
    """
    from agents_eventlog.adapters.cli import encrypt

    return encrypt.run(db, target, keys, dry_run=dry_run, as_json=as_json)


@_command(MANAGE)
def fork(
    db: Database,
    session: WholeSessionId,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Id of the new session.")],
    branch: Annotated[
        str | None,
        typer.Option(
            metavar="BRANCH", help="Branch to fork. [dim]\\[default: the current one][/dim]"
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user", "-u", metavar="ID", help="User id. [dim]\\[default: that of SESSION][/dim]"
        ),
    ] = None,
    actor: Actor = None,
    as_json: AsJson = False,
) -> None:
    """
    Create a session that begins with the items of a branch of another one, and copies none.

    Its usage begins with 0. What happens to the items of one session does not change the other; erasing
    SESSION leaves placeholders in NEW.

    --json: kind ("fork"), session_id, from_session_id, from_branch_id, items, turns.

    Example: [bold]eventlog fork conversations.db support-42 support-42-test[/bold]
    """
    from agents_eventlog.adapters.cli import fork

    fork.run(db, session, new, branch_id=branch, user_id=user, actor=actor, as_json=as_json)


@_command(MANAGE)
def redact(
    db: Database,
    position: Annotated[
        int, typer.Argument(min=1, metavar="POSITION", help="Position of the item's event.")
    ],
    index: Annotated[
        int, typer.Argument(min=0, metavar="INDEX", help="Index of the item in the event.")
    ],
    yes: Yes = False,
    dry_run: DryRun = False,
    reason: Reason = None,
    actor: Actor = None,
    as_json: AsJson = False,
) -> None:
    """
    Replace the content of one item by a placeholder, on every branch; without [bold]--yes[/bold], preview.

    The item may have been removed. Its placeholder keeps calls and outputs together. The file holds the
    content until [bold]erase --popped[/bold], or another erase of the session.

    [bold]show --json[/bold] and [bold]search --json[/bold] print positions and indexes.

    --json: kind ("redaction"), session_id, position, index, type, placeholder, copies, dry_run.

    Example: [bold]eventlog redact conversations.db 1042 0 --reason "card number" --yes[/bold]
    """
    terminal.check_dry_run(yes=yes, dry_run=dry_run)
    from agents_eventlog.adapters.cli import redact

    redact.run(db, position, index, reason=reason, actor=actor, yes=yes, as_json=as_json)


@_command(MANAGE)
def erase(
    db: Database,
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            "-s",
            metavar="ID",
            help="Delete and erase this session.",
            autocompletion=session_ids,
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user", "-u", metavar="ID", help="Delete and erase all sessions of this user."
        ),
    ] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Erase all deleted sessions.")] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="Minimum age of the deletion: 30d, 12h. Requires --deleted."
        ),
    ] = None,
    popped: Annotated[
        bool,
        typer.Option("--popped", help="Erase removed items, and replaced user ids and metadata."),
    ] = False,
    shred_only: Annotated[
        bool,
        typer.Option(
            "--shred-only", help="Only destroy the keys of a sealed log; do not rewrite the file."
        ),
    ] = False,
    reason: Reason = None,
    actor: Actor = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> bool:
    """
    Erase content permanently from the file and its write-ahead log.

    Without [bold]--yes[/bold], nothing changes. Positions, digests and usage stay. The log records who
    erased what, when and why. Writers wait while the file is rewritten at the end.

    In a sealed log, the keys of the erased sessions are destroyed, so that no copy of the log can be read
    with them. [bold]--shred-only[/bold] destroys only the keys, which takes milliseconds in any log.

    Exits with 1 if another process prevented rewriting the file, or if a sealed log's keys were not given;
    run it again later, with keys.

    --json: kind ("erased"), sessions, events, payload_bytes, kept_items, is_complete, forks, keys,
    keys_left, dry_run.

    Example: [bold]eventlog erase conversations.db --deleted --older-than 30d --yes[/bold]
    """
    from agents_eventlog.adapters.cli import erase

    terminal.check_dry_run(yes=yes, dry_run=dry_run)
    selection = erase.selection(
        session,
        user,
        deleted=deleted,
        older_than=older_than,
        popped=popped,
        reason=reason,
        shred_only=shred_only,
    )
    return erase.run(db, selection, actor=actor, dry_run=not yes, as_json=as_json)


@_command(MOVE)
def backup(
    db: Database,
    target: Annotated[
        Path, typer.Argument(metavar="DEST", help="New file, or a folder for dated backups.")
    ],
    every: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Skip if DEST has a backup newer than this: 1d, 12h."),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Keep the newest N backups in DEST, and delete the others."
        ),
    ] = None,
    expect_head: Annotated[
        str | None,
        typer.Option(
            metavar="POSITION:DIGEST", help="A head saved earlier, which the copy must contain."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Copy a log that may be in use, verify the copy, and print its head.

    Do not copy the file by other means: its newest events are in the write-ahead log beside it.

    To restore a backup, stop all programs, move the damaged file away, with the -wal and -shm files beside
    it, and run [bold]eventlog backup BACKUP DB[/bold].

    Example: [bold]eventlog backup conversations.db backups/ --every 1d --keep 14[/bold]
    """
    from agents_eventlog.adapters.cli import backup

    backup.run(db, target, every=every, keep=keep, expect_head=expect_head, as_json=as_json)


@_command(MANAGE)
def retain(
    db: Database,
    delete_after: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Delete sessions not used for this long: 90d, 12h."),
    ] = None,
    erase_after: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Erase sessions that were deleted this long ago."),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    reason: Reason = None,
    actor: Actor = None,
    as_json: AsJson = False,
) -> bool:
    """
    Apply a retention period: delete unused sessions, and erase those deleted long ago.

    Without [bold]--yes[/bold], nothing changes. A deleted session can be restored until it is erased.

    Exits with 1 if another process prevented rewriting the file; run it again later.

    --json: the documents of [bold]delete[/bold], then that of [bold]erase[/bold].

    Example: [bold]eventlog retain conversations.db --delete-after 90d --erase-after 30d[/bold]
    """
    terminal.check_dry_run(yes=yes, dry_run=dry_run)
    from agents_eventlog.adapters.cli import retain

    return retain.run(
        db,
        delete_after=delete_after,
        erase_after=erase_after,
        yes=yes,
        reason=reason,
        actor=actor,
        as_json=as_json,
    )


@_command(MANAGE)
def expire(
    db: Database,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Only sessions that expired this long ago: 30d, 12h."),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    reason: Reason = None,
    actor: Actor = None,
    as_json: AsJson = False,
) -> bool:
    """
    Clear the sessions that have expired, and erase their contents permanently.

    Without [bold]--yes[/bold], nothing changes. Programs set when a session expires; none does by default.

    Exits with 1 if another process prevented rewriting the file; run it again later.

    --json: the document of [bold]erase[/bold].

    Example: [bold]eventlog expire conversations.db --older-than 7d[/bold]
    """
    terminal.check_dry_run(yes=yes, dry_run=dry_run)
    from agents_eventlog.adapters.cli import expire

    return expire.run(
        db, older_than=older_than, yes=yes, reason=reason, actor=actor, as_json=as_json
    )


keys_app = typer.Typer(
    cls=terminal.Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Create and maintain the key file of sealed logs, and keys that sign heads.\n\n"
    "Example: [bold]eventlog keys init keys.db[/bold]",
)
app.add_typer(keys_app, name="keys", rich_help_panel=MAINTAIN)


@keys_app.command("init")
def keys_init(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="New key file, or URL of its database.")
    ],
    no_root: Annotated[
        bool, typer.Option("--no-root", help="Use no root key: the file itself is the secret.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Create a key file for sealed logs, and print the root key that opens it, once.

    If EVENTLOG_KEY is set, its root key is used. Back up the file and the root key, apart from the log.

    --json: kind ("keys"), path, root_id, root_key.

    Example: [bold]eventlog keys init keys.db[/bold]
    """
    from agents_eventlog.adapters.cli import keys

    keys.init(path, has_root=not no_root, as_json=as_json)


KeyFilePath = Annotated[Path, typer.Argument(metavar="FILE", help="Key file.")]


@keys_app.command("list")
def keys_list(
    path: KeyFilePath,
    db: Annotated[
        Path | None, typer.Argument(metavar="[DB]", help="Log whose sessions' keys to list.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    List what a key file has: epochs, and the numbers of unused, used and destroyed keys of each log.

    With DB, also the keys of its sessions: only the log knows whose they are. Needs no root key.

    --json: kind ("epoch"), epoch, root_id, created_at, keys; ("log"), log_id, sealed_from, unused, used,
    destroyed; ("session"), session_id, key_id, contents, state, destroyed_at.

    Example: [bold]eventlog keys list keys.db conversations.db[/bold]
    """
    from agents_eventlog.adapters.cli import keys

    keys.list_keys(path, db, as_json=as_json)


@keys_app.command("rotate")
def keys_rotate(
    path: KeyFilePath,
    new_root: Annotated[
        bool, typer.Option("--new-root", help="Make a new root key, and print it once.")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """
    Wrap all keys of a key file with a new key, and destroy the old one.

    Without [bold]--yes[/bold], nothing changes. EVENTLOG_KEY has the present root key. With
    [bold]--new-root[/bold], older copies of the file open with the old root key only: destroy it to make
    them useless. Programs need the new one when they start again.

    --json: kind ("rotated"), path, root_id, root_key, keys, dry_run.

    Example: [bold]eventlog keys rotate keys.db --new-root --yes[/bold]
    """
    terminal.check_dry_run(yes=yes, dry_run=dry_run)
    from agents_eventlog.adapters.cli import keys

    keys.rotate(path, new_root=new_root, yes=yes, as_json=as_json)


@keys_app.command("check")
def keys_check(db: Database, as_json: AsJson = False) -> bool:
    """
    Open every content of a sealed log with the keys in EVENTLOG_KEYS.

    Exits with 1 if one does not open, except those whose key the log records as destroyed.

    --json: kind ("finding"), session_id, position, problem; ("keys_checked"), opened, shredded, plaintext,
    findings, ok.

    Example: [bold]eventlog keys check conversations.db[/bold]
    """
    from agents_eventlog.adapters.cli import keys

    return keys.check(db, as_json=as_json)


@keys_app.command("init-signing")
def keys_init_signing(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="New file for the signing key.")],
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the log in its signed heads. [dim]\\[default: a random one][/dim]",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Create the key that signs the heads of one log, and print the public key that checks them.

    Keep the file apart from the log: a writer of the log who has it, too, can sign another history.

    --json: kind ("signing_key"), path, name, public_key.

    Example: [bold]eventlog keys init-signing sign.key --name example.com/support[/bold]
    """
    from agents_eventlog.adapters.cli import proofs

    proofs.init_signing(path, name, as_json=as_json)


def _app_for(arguments: Sequence[str]) -> typer.Typer:
    """Return the app, with the named command alone: typer builds all commands of an app when it starts."""
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        if arguments[:1] == [name]:
            only = shallow_copy(app)
            only.registered_commands, only.registered_groups = [command], []
            return only
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for every terminal encoding
    try:
        _app_for(given)(args=given, prog_name="eventlog")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.CLEAN
    return ExitCode.CLEAN
