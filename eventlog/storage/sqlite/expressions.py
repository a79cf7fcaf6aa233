"""
Expressions of SQLite for views: the parts of an event ``e``, and of the item ``i`` in it.

JSON that SQLite does not accept (NaN, more than 1,000 levels) gives NULL instead of an error, which would
end the whole query.
"""

from __future__ import annotations

from typing import Final

CURRENT_TIME: Final = "CAST(strftime('%s', 'now') AS INTEGER) * 1000000"

EVENT_TIME: Final = """
    CASE
        WHEN json_valid(e.metadata) AND json_type(e.metadata, '$.occurred_at') = 'integer'
        THEN json_extract(e.metadata, '$.occurred_at')
        ELSE e.recorded_at
    END
"""

_PATH: Final = "'$.items[' || i.index_in_event || ']'"

ITEM: Final = f"CASE WHEN json_valid(e.data) THEN json_extract(e.data, {_PATH}) END"

# json_quote keeps an object unchanged, and makes JSON of an item that is a text. An escaped half of a
# surrogate pair would become text that is not UTF-8; an escaped backslash before "ud800" is removed first,
# because it begins no escape.
ITEM_TEXT: Final = f"""
    (
        SELECT CASE field.type
            WHEN 'array' THEN (
                SELECT group_concat(
                    CASE part.type
                        WHEN 'text' THEN part.value
                        WHEN 'object' THEN json_extract(part.value, '$.text')
                    END, char(10)
                )
                FROM json_each(field.value) AS part
            )
            ELSE field.value
        END
        FROM json_each(
            CASE WHEN json_valid(e.data) THEN json_quote(json_extract(e.data, {_PATH})) END
        ) AS field
        WHERE field.key IN ('content', 'arguments', 'output', 'summary') AND field.type <> 'null'
            AND REPLACE(field.json, '\\\\', '') NOT GLOB '*\\ud[89a-fA-F]*'
        ORDER BY field.id
        LIMIT 1
    )
"""


def iso_time(microseconds: str) -> str:
    """Return an expression for a time as ISO 8601 text; the time is in microseconds since 1970 UTC."""
    within = f"(({microseconds}) % 1000000 + 1000000) % 1000000"
    seconds = f"(({microseconds}) - {within}) / 1000000"
    return f"strftime('%Y-%m-%dT%H:%M:%S', {seconds}, 'unixepoch') || printf('.%06dZ', {within})"
