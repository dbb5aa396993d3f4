"""The hierarchy of errors and their one line."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hrviewer import errors
from hrviewer.errors import HrviewerError


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ImageReadError", OSError),
        ("ModelError", Exception),
        ("UntrustedModelError", Exception),
        ("ParameterError", ValueError),
        ("BudgetError", ValueError),
        ("RunError", Exception),
        ("GroundTruthError", Exception),
        ("DisplayError", Exception),
        ("WriteError", OSError),
        ("ClaimedError", OSError),
        ("DeviceMemoryError", MemoryError),
    ],
)
def test_each_is_an_hrviewer_error_and_a_builtin_one(name, builtin):
    error = getattr(errors, name)("what is wrong: what to do")
    assert isinstance(error, HrviewerError)
    assert isinstance(error, builtin)
    assert str(error) == errors.format_error(error) == "what is wrong: what to do"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_unexpected_errors_begin_with_their_type():
    assert errors.format_error(KeyError("a")) == "KeyError: 'a'"


def test_other_libraries_messages_become_one_short_line():
    assert errors.short_message(ValueError("a\n  b")) == "a b"
    assert errors.short_message(ValueError()) == "ValueError"
    assert len(errors.short_message(ValueError("x" * 999))) == 160


def test_write_errors_give_advice():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(errors.write_error(Path("a"), full)).startswith("a cannot be written: the disk is")


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tile: int = Field(0, ge=0)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"tiles": 1}, "patches has no parameter 'tiles'; it has: tile"),
        ({"tile": -1}, "patches: tile: Input should be greater than or equal to 0; correct it"),
    ],
)
def test_pydantics_errors_become_one_line(values, line):
    with pytest.raises(ValidationError) as caught:
        Options(**values)
    error = errors.validation_error(caught.value, "patches", known=["tile"], advice="correct it")
    assert isinstance(error, errors.ParameterError)
    assert str(error) == line
