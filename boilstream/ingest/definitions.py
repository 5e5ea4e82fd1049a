"""Keeps commits of a topic and changes of its definition apart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from boilstream.catalog.topics import Topic
from boilstream.errors import Unavailable


@dataclass(slots=True)
class _Use:
    commits: int = 0
    changing: bool = False
    waiting: int = 0
    """Changes that wait for the commits; later commits let them go first."""


class DefinitionGuard:
    """Commits of one topic run side by side; a change of its definition runs alone. Thread-safe.

    Without it rows with nulls could be committed while their column becomes NOT NULL.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._uses: dict[str, _Use] = {}

    def begin_commit(self, topic: str, *, deadline: float) -> Callable[[], None]:
        """Begin a commit of rows to the topic with this id; what it returns ends it, called once by any thread.

        Raises Unavailable at `deadline` (`time.monotonic`).
        """
        with self._changed:
            use = self._uses.setdefault(topic, _Use())
            while use.changing or use.waiting:
                self._wait(deadline)
                use = self._uses.setdefault(topic, _Use())
            use.commits += 1

        def end() -> None:
            with self._changed:
                use.commits -= 1
                self._settle(topic, use)

        return end

    @contextmanager
    def change(self, topic: str, *, deadline: float) -> Iterator[None]:
        """Around a change of the definition of the topic with this id; raises Unavailable at `deadline`."""
        with self._changed:
            use = self._uses.setdefault(topic, _Use())
            use.waiting += 1
            try:
                while use.changing or use.commits:
                    self._wait(deadline)
                use.changing = True
            finally:
                use.waiting -= 1
                self._settle(topic, use)
        try:
            yield
        finally:
            with self._changed:
                use.changing = False
                self._settle(topic, use)

    def _wait(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not self._changed.wait(left):
            raise Unavailable("the topic is being changed, or rows are on their way to it; try again")

    def _settle(self, topic: str, use: _Use) -> None:
        if not (use.commits or use.changing or use.waiting) and self._uses.get(topic) is use:
            del self._uses[topic]
        self._changed.notify_all()


def require_fitting(rows: Topic, now: Topic) -> None:
    """Raise Unavailable if rows made for one definition of a topic may not be committed under another.

    Columns have ids, so files of an earlier definition stay readable; but a column that allows no nulls any
    more may hold some.
    """
    before = {field.field_id: field.required for field in rows.schema.iceberg.fields}
    for field in now.schema.iceberg.fields:
        if field.required and not before.get(field.field_id, False):
            raise Unavailable(
                f"topic {now.name} was altered meanwhile, column {field.name!r} allows no nulls now; "
                "send the rows again"
            )
