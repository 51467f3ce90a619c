"""The tree that `errors.py` draws is the one there is."""

from __future__ import annotations

import inspect
import re

import pytest

from pacs_cbir import errors
from pacs_cbir.errors import PacsCbirError


def drawn() -> dict[str, str]:
    """Each class in the drawing → the one that it hangs on."""
    parents: dict[str, str] = {}
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([│ ]*(?:[├└]── )?)([A-Z]\w+)(?:\s{2,}\S.*)?$", line)
        if found is None:
            continue
        depth, name = len(found[1]) // 4, found[2]
        above[depth] = name
        if depth:
            parents[name] = above[depth - 1]
    return parents


def defined() -> dict[str, str]:
    return {
        name: found.__bases__[0].__name__
        for name, found in inspect.getmembers(errors, inspect.isclass)
        if found.__module__ == errors.__name__ and found is not PacsCbirError
    }


def test_the_drawing_is_the_tree() -> None:
    assert len(drawn()) > 15
    assert drawn() == defined()


def test_everything_has_one_base_and_a_docstring() -> None:
    for name in defined():
        found = getattr(errors, name)
        assert issubclass(found, PacsCbirError)
        assert len(found.__bases__) == 1
        assert found.__doc__


def test_not_ready_says_when() -> None:
    with pytest.raises(errors.QueryError, match="later") as raised:
        raise errors.ExampleNotReady("later", 2.5)
    assert isinstance(raised.value, errors.ExampleNotReady)
    assert raised.value.retry_after == 2.5
