"""Packages that only training needs, imported where they are used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needs_extra(package: str, purpose: str) -> Iterator[None]:
    """Say what to install if the import inside fails.

    Raises
    ------
    ImportError
        If the package, or one that it needs, is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f'{purpose} need {package}, which is missing: pip install "jitconv[train]"') from error
