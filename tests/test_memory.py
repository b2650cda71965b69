"""Freed memory goes back to the system."""

from __future__ import annotations

from mixrl import memory


def test_what_the_c_library_cannot_do_is_left(monkeypatch):
    memory.give_back()
    asked = []
    monkeypatch.setattr(memory, "_trim", lambda: asked.append)
    memory.give_back()
    assert asked == [0]
    monkeypatch.setattr(memory, "_trim", lambda: None)
    memory.give_back()
    assert asked == [0]
