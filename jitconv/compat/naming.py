"""Messages that call an argument what its caller calls it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def argument_names(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that renames arguments in the messages of TypeErrors and ValueErrors.

    Parameters
    ----------
    **names : str
        By jitconv's own name, the name in the signature that the function stands in for.
    """

    def renamed(match: re.Match[str]) -> str:
        return f"`{names.get(match[1], match[1])}`"

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except (TypeError, ValueError) as error:
                if type(error) not in (TypeError, ValueError):
                    raise
                raise type(error)(re.sub(r"`(\w+)`", renamed, str(error))) from None

        return call

    return decorate
