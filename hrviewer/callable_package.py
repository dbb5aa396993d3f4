"""Packages that can be called, too: ``hrviewer.models()`` beside ``hrviewer.models.card``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["make_callable"]


def make_callable(package: str, function: Callable[..., Any]) -> None:
    """Let a call of an imported package be a call of `function`.

    A package and a function of one name cannot both be attributes of their parent: importing the
    package replaces the function.

    Parameters
    ----------
    package : str
        Name of the imported package, its ``__name__``.
    function : callable
        The function; its docstring becomes that of the call.
    """

    class CallablePackage(ModuleType):
        __call__ = staticmethod(function)

    sys.modules[package].__class__ = CallablePackage
