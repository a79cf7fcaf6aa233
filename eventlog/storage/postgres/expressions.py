"""
Expressions of PostgreSQL for views: the parts of an event ``e``, and of the item ``i`` in it.

JSON that PostgreSQL does not accept (NaN, half a surrogate pair, a NUL) gives NULL instead of an error,
which would end the whole query. Only a function can do that.
"""

from __future__ import annotations

from typing import Final

CURRENT_TIME: Final = "CAST(EXTRACT(EPOCH FROM now()) * 1000000 AS bigint)"
EVENT_TIME: Final = "event_time(e.metadata, e.recorded_at)"
ITEM: Final = "item_json(e.data, i.index_in_event)"
ITEM_TEXT: Final = "item_text(e.data, i.index_in_event)"

FUNCTIONS: Final = (
    """
    CREATE FUNCTION event_time(metadata text, recorded_at bigint) RETURNS bigint
    LANGUAGE plpgsql IMMUTABLE AS $body$
    BEGIN
        IF json_typeof(CAST(metadata AS json) -> 'occurred_at') = 'number' THEN
            RETURN CAST(CAST(metadata AS json) ->> 'occurred_at' AS bigint);
        END IF;
        RETURN recorded_at;
    EXCEPTION WHEN OTHERS THEN
        RETURN recorded_at;
    END
    $body$
    """,
    """
    CREATE FUNCTION item_json(data bytea, index bigint) RETURNS text
    LANGUAGE plpgsql IMMUTABLE AS $body$
    BEGIN
        RETURN CAST(convert_from(data, 'UTF8') AS json) -> 'items' -> CAST(index AS integer);
    EXCEPTION WHEN OTHERS THEN
        RETURN NULL;
    END
    $body$
    """,
    r"""
    CREATE FUNCTION item_text(data bytea, index bigint) RETURNS text
    LANGUAGE plpgsql IMMUTABLE AS $body$
    DECLARE
        name text;
        field json;
    BEGIN
        FOR name, field IN SELECT key, value FROM json_each(
            CAST(convert_from(data, 'UTF8') AS json) -> 'items' -> CAST(index AS integer)
        ) LOOP
            CONTINUE WHEN name NOT IN ('content', 'arguments', 'output', 'summary')
                OR json_typeof(field) = 'null';
            IF json_typeof(field) <> 'array' THEN
                RETURN field #>> '{}';
            END IF;
            RETURN (
                SELECT string_agg(
                    CASE json_typeof(part)
                        WHEN 'string' THEN part #>> '{}'
                        WHEN 'object' THEN part ->> 'text'
                    END, E'\n' ORDER BY number
                )
                FROM json_array_elements(field) WITH ORDINALITY AS parts (part, number)
            );
        END LOOP;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN
        RETURN NULL;
    END
    $body$
    """,
)
"""The statements that create what the expressions call."""


def iso_time(microseconds: str) -> str:
    """Return an expression for a time as ISO 8601 text; the time is in microseconds since 1970 UTC."""
    time = f"TIMESTAMP '1970-01-01' + ({microseconds}) * INTERVAL '1 microsecond'"
    return f'to_char({time}, \'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\')'
