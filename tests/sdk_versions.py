"""
The tests that an older Agents SDK cannot pass, because its own class or Runner behaves otherwise.

``tests/conftest.py`` skips them where the installed SDK is older than the version in the first column.
The second column is the beginning of a test's name, or a part of its parameters in brackets as well:
"[sdk" skips the SDK's side only. The versions are those of the next SDK that was tested: 0.18.3 and
0.21.1 were tried, and the change may have come with any release between.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT = "the Runner does not hand its run context to a session"
COMPACTION = "the SDK does not ask a session for an atomic compaction"
CLASSIFICATION = "the SDK's class does not name shell_call and apply_patch_call"
SEARCH = "the SDK's class searches the JSON text of items"
NAMES = "the SDK's class checks the arguments of branches later, and with other words"
CLEARING = "the SDK's class does not notice that its branch or session was cleared elsewhere"
ORDER = "the SDK's class does not keep the order of calls"
LOGGING = "the SDK's class logs content"
SETTINGS = "the SDK has no settings as a dict"
CREATION = "the SDK's class creates tables without being asked"
TABLES = "the SDK's class does not claim its pair of tables"

UNMET = (
    ("0.24", "test_a_compaction_is_one_event", COMPACTION),
    ("0.24", "test_a_compaction_on_", COMPACTION),
    ("0.24", "test_a_compaction_that_keeps_the_turns_keeps_their_usage", COMPACTION),
    ("0.24", "test_a_compaction_to_nothing_leaves_an_empty_branch", COMPACTION),
    ("0.24", "test_a_compaction_under_encryption_stays_encrypted", COMPACTION),
    ("0.24", "test_a_compaction_with_what_cannot_be_stored_changes_nothing", COMPACTION),
    ("0.24", "test_a_run_on_a_branch_compacts_that_branch_only", COMPACTION),
    ("0.24", "test_ours_compacts_a_branch_and_nothing_else", COMPACTION),
    ("0.24", "test_a_resumed_run_whose_write_failed_is", "the Runner saves less on resuming"),
    ("0.24", "test_an_approved_call_gets_its_output", "the Runner does not read on resuming"),
    ("0.24", "test_a_branch_counts_its_own_calls", CLASSIFICATION),
    ("0.24", "test_a_hosted_tool_is_named_by_its_type", CLASSIFICATION),
    ("0.24", "test_calls_are_counted_by_name_and_turn", CLASSIFICATION),
    ("0.24", "test_several_tools_of_a_turn_are_counted_apart", CLASSIFICATION),
    ("0.24", "test_a_part_that_is_no_dict_is_no_text", SEARCH),
    ("0.24", "test_a_term_is_found_literally_but_for_ascii_case", SEARCH),
    ("0.24", "test_a_term_that_is_no_text_is_a_type_error", SEARCH),
    ("0.24", "test_every_sign_is_itself", SEARCH),
    ("0.24", "test_only_the_text_of_a_part_is_searched", SEARCH),
    ("0.24", "test_the_empty_term_finds_every_turn_with_text", SEARCH),
    ("0.24", "test_ours_searches_past_a_null", SEARCH),
    ("0.24", "test_a_blank_branch_name_is_found_before_the_close", NAMES),
    ("0.24", "test_a_branch_deleted_elsewhere_cannot_be_deleted_here", NAMES),
    ("0.24", "test_a_branch_name_may_not_be_blank", NAMES),
    ("0.24", "test_deleting_says_why_not", NAMES),
    ("0.24", "test_a_clear_by_a_wrong_clock_is_told_from_one_that_was_missed", CLEARING),
    ("0.24", "test_the_first_usage_of_an_instance_that_missed_a_clear", CLEARING),
    ("0.24", "test_ours_sees_a_session_first_in_its_first_call", CLEARING),
    ("0.24", "test_without_a_turn_nothing_is_stored", "the SDK's class stores usage on turn 0"),
    ("0.24", "test_a_pop_takes_what_was_added_before_its_call[sdk", ORDER),
    ("0.24", "test_a_queued_add_keeps_the_branch_of_its_call[sdk", ORDER),
    ("0.24", "test_adds_at_once_are_in_the_order_of_their_calls[sdk", ORDER),
    ("0.24", "test_a_cancelled_add_lets_the_next_one_pass[sdk", ORDER),
    ("0.24", "test_usage_is_of_the_turn_that_was_latest_when_it_was_stored[sdk", ORDER),
    ("0.24", "test_usage_of_a_turn_that_is_popped_at_once_is_dropped[sdk", ORDER),
    ("0.24", "test_state_machine.py", "it compares all of the above"),
    ("0.21", "test_a_mutation_that_began_is_done_when_its_cancellation[sdk", ORDER),
    ("0.21", "test_a_closed_session_says_so", "the SDK's class has no close for all methods"),
    ("0.21", "test_a_failing_add_is_[sdk", LOGGING),
    ("0.21", "test_a_new_branch_is_logged_without_its_turns_text[sdk", LOGGING),
    ("0.21", "test_failing_to_store_usage_[sdk", LOGGING),
    ("0.21", "test_nothing_that_was_said_is_logged[sdk", LOGGING),
    ("0.21", "test_an_id_is_used_once_in_the_life_of_a_session", NAMES),
    ("0.21", "test_generated_ids_are_all_different", NAMES),
    ("0.21", "test_an_instance_on_a_cleared_branch_finds_itself_on_main", CLEARING),
    ("0.21", "test_a_database_in_memory_needs_create_tables_too[sdk", CREATION),
    ("0.21", "test_a_session_that_could_not_be_opened_holds_nothing_back", CREATION),
    ("0.21", "test_an_unclaimed_file_needs_create_tables_and_stays[sdk", CREATION),
    ("0.21", "test_ours_needs_no_flag_for_a_new_file", CREATION),
    ("0.21", "test_another_pair_is_refused_by_the_name_of_the_owner[sdk", TABLES),
    ("0.21", "test_names_compare_as_sqlite_compares_them", TABLES),
    ("0.21", "test_the_refusal_says_already_belongs_to[sdk", TABLES),
    ("0.21", "test_ours_keeps_a_branch_without_items", "the SDK's class reports it otherwise"),
    ("0.21", "test_a_program_that_configured_nothing_sees_nothing", CONTEXT),
    ("0.21", "test_a_run_is_recorded_by_itself", CONTEXT),
    ("0.21", "test_without_the_functions_that_call_a_model", CONTEXT),
    ("0.24", "test_ours_takes_every_call_in_turn", ORDER),
    ("0.21", "test_settings_", SETTINGS),
    ("0.21", "test_unknown_settings_are_named", SETTINGS),
    (
        "0.21",
        "test_every_difference_is_shown_by_a_test",
        "tests that need agents.testing are left out",
    ),
)


def unmet(node_id: str) -> str | None:
    """Return why the installed SDK cannot pass a test; None if it should."""
    return next((why for name, why in _of_installed() if _fits(node_id, name)), None)


def _of_installed() -> Iterator[tuple[str, str]]:
    installed = _numbers(version("openai-agents"))
    return ((name, why) for below, name, why in UNMET if installed < _numbers(below))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def _fits(node_id: str, name: str) -> bool:
    start, _, side = name.partition("[")
    test, _, parameters = node_id.partition("[")
    return f"{'/' if start.endswith('.py') else '::'}{start}" in test and side in parameters
