"""Names of splits: one split has several names (`val`, `valid`, `validation`, `val2017`)."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FAMILIES = {
    "dev": "val",
    "eval": "val",
    "test": "test",
    "testing": "test",
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
}
_YEAR = re.compile(r"[-_ ]?\d*$")


def family(name: str) -> str | None:
    """`train`, `val` or `test` where a name is one of those in any of its usual forms, else None.

    Example:
        >>> family("Valid"), family("val2017"), family("cam1")
        ('val', 'val', None)
    """
    return _FAMILIES.get(_YEAR.sub("", name.casefold()))


def same_names(split: str, names: Iterable[str]) -> list[str]:
    """The names that mean a split: that very name, else those alike but for case, else those of its family.

    Args:
        split: What was asked for.
        names: The splits that there are.

    Returns:
        None of them, one, or those between which the split does not decide.
    """
    names = list(dict.fromkeys(names))
    if split in names:
        return [split]
    alike = [name for name in names if name.casefold() == split.casefold()]
    if alike or family(split) is None:
        return alike
    return [name for name in names if family(name) == family(split)]
