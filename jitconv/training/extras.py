"""Packages that only some of this needs, imported where they are used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needs_extra(package: str, purpose: str, extra: str = "train") -> Iterator[None]:
    """Say which extra to install if the import inside fails.

    Raises
    ------
    ImportError
        If the package, or one that it needs, is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f'{purpose} need {package}, which is missing: pip install "jitconv[{extra}]"') from error
