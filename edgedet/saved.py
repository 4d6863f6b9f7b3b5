"""Values that one command writes as JSON and that are read back from it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import ValidationError

from edgedet.errors import DataError
from edgedet.files import write_atomically
from edgedet.spec import Value, first_problem


class SavedValue(Value):
    """A value with a file of its own.

    Attributes:
        command: The command whose `--json` writes it, for messages.
    """

    command: ClassVar[str]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_atomically(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: The file is missing, or not one of this kind and schema version.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as exc:
            raise DataError(
                f"cannot read {path}",
                got=first_problem(exc) if isinstance(exc, ValidationError) else str(exc),
                expected=f"what `{cls.command} --json` wrote",
                fix=f"give a whole file of this version of edgedet, or run `{cls.command}` again",
            ) from exc
