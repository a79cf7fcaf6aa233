"""
The same tests on another engine: ``pytest --engine=postgres tests/adapters tests/properties``.

Each path of a log file then means a schema of its own on a PostgreSQL server. What differs is in one table,
``DIFFERS``, with the reason.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from agents_eventlog.eventlog.storage import engines
from agents_eventlog.eventlog.storage.engine import MEMORY
from tests import postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agents_eventlog.eventlog import Transaction
    from agents_eventlog.eventlog.storage.engine import Problem
    from tests.postgres import Server

SUITES: Final = (
    "tests/properties/",
    "tests/adapters/cli/",
    *(
        f"tests/adapters/test_{name}.py"
        for name in (
            *("call_order", "concurrent_runs", "find_items", "generated_ids", "metadata"),
            *("owners", "run_tracker", "runner_budgets", "sessions", "turns", "usage_questions"),
        )
    ),
)
"""What runs on both engines; the tests of the contract, forks and redactions choose theirs themselves."""

NOT_DURABLE: Final = "fsync is off: a crash can damage the log"
"""What ``doctor`` rightly finds about the server of the tests."""

POSITIONS: Final = "names positions, which on PostgreSQL depend on the lane"
BYTES: Final = "changes the bytes of an SQLite file"
FILE: Final = "looks at the file of the log, or opens it"
BOTH: Final = "chooses its engines itself"
CHILD: Final = "gives another process the path of the file"
MIGRATED: Final = "migrates a file of the SDK's"
REFUSED: Final = "stores what PostgreSQL's types refuse"
STORAGE_FREE: Final = "does not depend on the engine"
COMMANDS: Final = {
    POSITIONS: {
        "audit": (
            "test_a_branch_that_was_only_made_or_is_deleted_was_there",
            "test_a_changed_event_is_named_and_exits_with_1",
            "test_an_event_that_cannot_be_read_is_told_as_such",
            "test_cleared_and_replaced_items_are_marked",
            "test_clearing_deleting_replacing_labels_usage_and_imports_are_told",
            "test_documents_hold_complete_contents",
            "test_items_in_no_branch_any_more_are_marked_and_shared_ones_are_not",
            "test_marks_are_the_same_however_few_events_are_asked_for",
            "test_metadata_of_any_kind_is_no_obstacle",
            "test_of_one_session_only_its_events_are_verified",
            "test_only_what_was_asked_for_is_told",
            "test_times_are_when_it_happened_and_a_day_counts_whole",
        ),
        "branches": (
            "test_a_removed_or_erased_turn_says_so",
            "test_live_branches_have_their_fork_sizes_and_use",
            "test_own_items_are_those_behind_the_fork",
        ),
        "cli": ("test_an_event_that_cannot_be_read_is_named_and_nothing_is_replayed",),
        "compare": ("test_a_turn_that_a_branch_lacks_and_erased_content_are_shown",),
        "doctor": ("test_a_session_whose_content_was_erased_or_damaged_is_a_finding",),
        "erase": (
            "test_a_replay_on_opening_gives_the_tables_of_an_erased_file",
            "test_labels_that_were_replaced_go_and_those_that_show_stay",
            "test_popped_items_go_only_with_events_of_which_nothing_is_live",
            "test_the_past_of_what_was_erased_cannot_be_read_and_is_named",
        ),
        "export": (
            "test_an_event_names_others_by_their_versions",
            "test_an_event_that_cannot_be_read_stops_the_export_and_is_named",
            "test_metadata_that_cannot_be_read_stops_the_export_and_is_named",
            "test_what_arrives_are_the_same_events",
        ),
        "proofs": (
            "test_a_log_that_only_grew_is_shown_to_have_done_so",
            "test_a_log_that_was_rewritten_is_neither_signed_nor_proven",
        ),
        "show": ("test_turns_are_those_of_the_outline_with_the_removed_ones",),
        "uniform": (
            "test_documents_are_those_of_the_manual_with_times_of_one_form[redact]",
            "test_what_removes_content_only_shows_it_without_yes",
        ),
        "tools": ("test_an_event_is_decoded_once_however_many_calls_it_holds",),
        "verify": (
            "test_a_changed_event_is_named_by_its_position",
            "test_a_deleted_event_is_named_where_it_is_missing",
            "test_a_tail_cut_without_trace_is_found_by_a_head_kept_elsewhere",
            "test_many_findings_are_cut_for_people",
            "test_no_head_is_printed_to_be_kept_of_a_log_that_is_not_as_recorded",
            "test_the_head_alone_is_one_line_to_be_kept",
        ),
    },
    FILE: {
        "audit": ("test_an_erased_event_is_marked",),
        "backup": ("",),
        "cli": (
            "test_a_check_changes_nothing",
            "test_a_name_in_an_error_cannot_command_the_terminal",
            "test_what_is_no_log_is_one_line_on_stderr",
        ),
        "doctor": (
            "test_a_damaged_file_is_a_finding",
            "test_a_folder_that_cannot_be_written",
            "test_a_large_write_ahead_log_is_a_finding",
            "test_a_replay_repairs_what_it_is_said_to_repair",
            "test_a_trigger_that_lets_everything_pass_is_a_finding",
            "test_an_erase_that_was_stopped_before_the_file_was_rewritten",
            "test_another_journal_mode_is_found",
            "test_sizes_are_pages",
            "test_the_journal_mode_is_known",
            "test_what_a_killed_replay_left_is_a_finding",
            "test_what_is_not_as_it_should_be_is_a_finding",
            "test_what_the_file_is_and_holds_is_told",
        ),
        "export": (
            "test_a_file_is_there_once_it_is_whole",
            "test_an_erased_content_stays_erased_and_keeps_its_digest",
            "test_an_output_that_cannot_be_written_is_named_as_it_was_asked_for",
            "test_what_was_written_by_hand_moves_as_what_it_means",
            "test_who_when_and_why_are_kept_over_any_number_of_moves",
            "test_the_log_itself_is_never_overwritten",
        ),
        "health": (
            "test_a_copy_with_its_write_ahead_log_says_what_to_do_where_nothing_can_be_written",
            "test_a_log_that_can_be_used_is_healthy_and_left_unchanged",
            "test_a_user_who_cannot_write_the_file_gets_a_healthy_read_only_log",
            "test_tables_a_little_behind_are_reported_and_no_problem",
            "test_tables_that_an_opening_would_replay_are_a_problem",
        ),
        "hostile_text": ("test_looking_changes_nothing",),
        "import_command": (
            "test_a_dry_run_of_the_command_leaves_the_log_as_it_is",
            "test_tables_that_are_named_and_not_there_are_an_error",
            "test_the_command_tells_conflicts_and_exits_with_1",
            "test_the_commands_json_is_a_line_a_session_and_a_receipt",
            "test_a_hostile_session_id_is_shown_not_obeyed",
        ),
        "keys": (
            "test_check_finds_what_does_not_open",
            "test_commands_never_seal_a_plain_log",
            "test_doctor_finds_keys_that_the_log_does_not_know",
            "test_maintenance_needs_no_keys",
        ),
        "no_log": ("",),
        "proofs": ("test_a_session_is_signed_proven_and_shown_without_the_log",),
        "sessions": ("test_listing_and_telling_what_would_be_deleted_write_nothing",),
        "uniform": ("test_documents_are_those_of_the_manual_with_times_of_one_form[backup]",),
        "verify": ("test_a_damaged_page_is_a_finding",),
    },
    BOTH: {
        "copy": ("",),
        "encrypt": (
            "test_a_sealed_copy_prints_what_its_source_prints",
            "test_a_sealed_log_on_a_server_is_made_and_copied_without_keys",
            "test_copy_leaves_a_log_in_plaintext_though_there_are_keys",
        ),
    },
    CHILD: {
        "audit": (
            "test_following_goes_on_with_what_others_write",
            "test_following_waits_for_a_session_that_is_not_there_yet",
        ),
        "cli": (
            "test_a_killed_replay_changed_nothing",
            "test_a_reader_that_went_away_ends_a_command_in_silence",
            "test_a_replay_beside_a_writer_misses_nothing",
            "test_a_terminal_shows_progress",
            "test_ctrl_c_ends_a_replay_in_silence",
            "test_json_shows_no_progress_even_on_a_terminal",
            "test_what_only_reads_starts_without_what_it_does_not_need",
        ),
        "export": ("test_an_output_on_a_full_disk_is_named", "test_lines_are_utf_8"),
        "import_command": (
            "test_a_terminal_shows_progress",
            "test_of_an_import_that_is_killed_only_whole_sessions_are_there",
        ),
        "uniform": ("test_long_output_goes_to_the_pager",),
        "view": ("",),
    },
    MIGRATED: {
        "doctor": (
            "test_an_erase_deletes_from_the_sdks_tables",
            "test_messages_that_an_old_program_left",
            "test_text_that_a_program_deleted_from_the_sdks_tables",
            "test_the_sdks_tables_may_be_dropped",
            "test_what_doctor_says_to_do_about_late_messages",
            "test_what_was_imported_later_is_not_expected",
        ),
        "erase": ("test_an_adopted_file_forgets", "test_no_byte_of_a_popped_item_is_left"),
        "import_command": ("test_the_sdks_tables_are_read_beside_a_log",),
        "keys": ("test_doctor_notes_the_sdks_tables_in_a_sealed_file",),
    },
    REFUSED: {
        "audit": ("test_text_that_is_not_utf_8_ends_the_timeline",),
        "cli": ("test_a_value_that_can_never_be_is_told_as_damage",),
        "doctor": ("test_text_that_is_not_utf_8_is_a_finding",),
        "verify": ("test_text_that_is_not_utf_8_is_a_finding",),
    },
    STORAGE_FREE: {
        "demo": ("",),
        "export": ("test_ten_megabytes_in_one_item_move",),
        "hostile_text": ("test_an_item_of_10_megabytes_is_cut",),
        "import": ("",),
        "layout": ("",),
    },
    "an append without the index makes all of it out of date": {
        "search": ("test_an_index_that_is_behind_is_used_as_far_as_it_goes",),
    },
}
"""What runs on SQLite alone of the commands' tests: reasons, modules, beginnings of names."""

DIFFERS: dict[str, str] = {
    "tests/adapters/test_find_items.py::test_a_row_tells_what_was_found_and_where": POSITIONS,
    "tests/adapters/test_runner_budgets.py::test_a_run_that_another_process_continues": CHILD,
    "tests/adapters/test_sessions.py::test_session_and_log_show_what_they_are": FILE,
    "tests/adapters/test_sessions.py::test_text_that_few_say_is_found_through_the_full_text_index": (
        "names the statement of SQLite's full-text index"
    ),
    "tests/adapters/test_turns.py::test_a_transcript_says_of_each_item": POSITIONS,
    "tests/adapters/test_turns.py::test_a_transcript_keeps_the_place_of_erased_content": BYTES,
    "tests/properties/test_erasing.py::test_an_erased_history_gives_the_same_tables": POSITIONS,
    "tests/properties/test_finding.py::test_every_way_finds_the_same": POSITIONS,
    "tests/properties/test_replay.py::test_readers_give_the_items_that_the_fold": POSITIONS,
}
"""What runs on SQLite alone, by the beginnings of its name, with the reason."""
DIFFERS |= {
    f"tests/adapters/cli/test_{module}.py::{name}": why
    for why, modules in COMMANDS.items()
    for module, names in modules.items()
    for name in names
}


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the suites that run on both engines, and skip in them what differs."""
    others = [item for item in items if not item.nodeid.startswith(SUITES)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item.nodeid.startswith(SUITES)]
    for item in items:
        for beginning, why in DIFFERS.items():
            if item.nodeid.startswith(beginning):
                item.add_marker(pytest.mark.skip(reason=f"SQLite only: {why}"))


def redirect(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Let the paths of log files mean schemas on a server, until the end of a test."""
    from agents_eventlog.eventlog.storage.postgres.engine import POSTGRES_ENGINE, PostgresEngine

    class OnServer(PostgresEngine):
        """Resolves the path of a file to a schema of the server."""

        def resolve(self, path: str | os.PathLike[str]) -> str:
            given = os.fspath(path)
            if not given.startswith(engines.POSTGRES):
                given = url_of(given)
            return super().resolve(given)

        def problems(self, tx: Transaction) -> Iterator[Problem]:
            return (each for each in super().problems(tx) if each.problem != NOT_DURABLE)

    def url_of(path: str | os.PathLike[str]) -> str:
        name = hashlib.sha256(str(Path(path).absolute()).encode()).hexdigest()[:32]
        return server.url(f"log_{name}")

    monkeypatch.setattr(sys.modules[__name__], "_url_of", url_of)
    on_server = OnServer()
    own = engines.engine_for

    def engine_for(path: str | os.PathLike[str]) -> Any:
        engine = own(path)
        is_file = engine is not POSTGRES_ENGINE and os.fspath(path) != MEMORY
        return on_server if is_file else engine

    for module in list(sys.modules.values()):
        if getattr(module, "engine_for", None) is own:
            monkeypatch.setattr(module, "engine_for", engine_for)


_url_of: Callable[[str | os.PathLike[str]], str] | None = None


def change(path: Path, *statements: str | tuple[str, tuple[Any, ...]]) -> None:
    """Change a log behind the library's back; statements may have parameters, ``?``."""
    if _url_of is not None:
        with postgres.raw(_url_of(path)) as connection:
            for sql, parameters in map(_with_parameters, statements):
                on_events = " ON events" if sql.startswith("DROP TRIGGER") else ""
                connection.execute(sql.replace("?", "%s") + on_events, parameters or None)
        return
    with closing(sqlite3.connect(path)) as connection:
        for sql, parameters in map(_with_parameters, statements):
            connection.execute(sql, parameters)
        connection.commit()


def _with_parameters(
    statement: str | tuple[str, tuple[Any, ...]],
) -> tuple[str, tuple[Any, ...]]:
    return (statement, ()) if isinstance(statement, str) else statement


def dump(path: Path) -> list[str]:
    """Return all rows of a log, as text."""
    if _url_of is None:
        with closing(sqlite3.connect(path)) as connection:
            return list(connection.iterdump())
    with postgres.raw(_url_of(path)) as connection:
        names = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1"
        return [
            f"{name} {row}"
            for (name,) in connection.execute(names).fetchall()
            for row in connection.execute(f'SELECT * FROM "{name}" ORDER BY 1').fetchall()
        ]


def stored(path: Path) -> bytes:
    """Return all that a log contains: the bytes of its file, or the rows of its schema."""
    return path.read_bytes() if _url_of is None else "\n".join(dump(path)).encode()
