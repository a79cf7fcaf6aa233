"""The garbage collector is held off for a while, and never left otherwise than it was found."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

import pytest

from eventlog import codec, collector

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    """Leave the collector on, whatever a test does."""
    yield
    gc.enable()


def test_it_is_held_off_inside_and_on_again_after() -> None:
    with collector.held_off():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_program_that_switched_it_off_finds_it_off() -> None:
    gc.disable()
    with collector.held_off():
        pass
    assert not gc.isenabled()


def test_it_is_on_again_after_an_error() -> None:
    with pytest.raises(ValueError, match="inside"), collector.held_off():
        raise ValueError("inside")
    assert gc.isenabled()


def test_the_last_of_several_threads_lets_go() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with collector.held_off():
            inside.set()
            go_on.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    with collector.held_off():
        pass
    assert not gc.isenabled()
    go_on.set()
    thread.join()
    assert gc.isenabled()


def test_decoding_a_long_history_collects_nothing() -> None:
    data = b'{"items":[' + b",".join([b'{"a":[{}]}'] * 2_000) + b"]}"
    payloads = [(position, "items_added", 1, data) for position in range(1, 21)]
    begun: list[int] = []

    def note(phase: str, details: dict[str, int]) -> None:
        if phase == "start":
            begun.append(details["generation"])

    gc.collect()
    gc.callbacks.append(note)
    try:
        decoded = codec.decode_items(payloads)
    finally:
        gc.callbacks.remove(note)
    assert sum(map(len, decoded)) == 40_000
    assert len(begun) <= 2  # of over a hundred
