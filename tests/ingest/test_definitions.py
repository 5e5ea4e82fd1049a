"""Commits of a topic beside changes of its definition."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from boilstream.catalog.changes import AddColumn, DropColumn, RenameColumn, SetNotNull
from boilstream.catalog.names import topic_name
from boilstream.catalog.topics import draft
from boilstream.catalog.types import TopicSchema
from boilstream.errors import Unavailable
from boilstream.ingest.definitions import DefinitionGuard, require_fitting
from tests.ingest.test_engine import World

SOON, LATER = 0.05, 30.0


@contextmanager
def commit(guard: DefinitionGuard, topic: str, *, deadline: float) -> Iterator[None]:
    end = guard.begin_commit(topic, deadline=deadline)
    try:
        yield
    finally:
        end()


def within(seconds: float) -> float:
    return time.monotonic() + seconds


@pytest.fixture
def guard() -> DefinitionGuard:
    return DefinitionGuard()


def test_commits_run_side_by_side(guard: DefinitionGuard) -> None:
    with commit(guard, "t", deadline=within(SOON)), commit(guard, "t", deadline=within(SOON)):
        pass


def test_a_change_keeps_commits_and_changes_out(guard: DefinitionGuard) -> None:
    with guard.change("t", deadline=within(SOON)):
        for other in (partial(commit, guard), guard.change):
            with pytest.raises(Unavailable, match="try again"), other("t", deadline=within(SOON)):
                pytest.fail("it was let in")


def test_a_commit_keeps_changes_out(guard: DefinitionGuard) -> None:
    with (
        commit(guard, "t", deadline=within(SOON)),
        pytest.raises(Unavailable),
        guard.change("t", deadline=within(SOON)),
    ):
        pytest.fail("it was let in")


def test_topics_do_not_wait_for_each_other(guard: DefinitionGuard) -> None:
    with guard.change("one", deadline=within(SOON)), guard.change("two", deadline=within(SOON)):
        pass


def test_a_change_that_gave_up_or_failed_leaves_the_way_free(guard: DefinitionGuard) -> None:
    with (
        commit(guard, "t", deadline=within(SOON)),
        pytest.raises(Unavailable),
        guard.change("t", deadline=within(0)),
    ):
        pass
    with pytest.raises(ZeroDivisionError), guard.change("t", deadline=within(SOON)):
        raise ZeroDivisionError
    with commit(guard, "t", deadline=within(SOON)), commit(guard, "t", deadline=within(SOON)):
        pass
    assert not guard._uses, "nothing is remembered of topics that nobody uses"


def test_a_waiting_change_goes_before_later_commits(guard: DefinitionGuard) -> None:
    order: list[str] = []
    first, waits = threading.Event(), threading.Event()

    def run(name: str, use: AbstractContextManager[None]) -> None:
        with use:
            order.append(name)

    with ThreadPoolExecutor(2) as pool:
        with commit(guard, "t", deadline=within(LATER)):
            change = pool.submit(run, "change", guard.change("t", deadline=within(LATER)))
            while not guard._uses["t"].waiting:
                waits.wait(0.001)
            later = pool.submit(run, "commit", commit(guard, "t", deadline=within(LATER)))
            first.set()
        change.result(LATER)
        later.result(LATER)
    assert order == ["change", "commit"]


def test_many_threads_never_meet_a_change(guard: DefinitionGuard) -> None:
    inside: list[str] = []
    met: list[list[str]] = []

    def work(number: int) -> None:
        kind = "change" if number % 5 == 0 else "commit"
        use = guard.change if kind == "change" else partial(commit, guard)
        with use("t", deadline=within(LATER)):
            inside.append(kind)
            seen = list(inside)
            if "change" in seen and len(seen) > 1:
                met.append(seen)
            inside.remove(kind)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(400)))
    assert not met
    assert not guard._uses


def test_rows_of_an_earlier_definition_fit_unless_they_may_hold_nulls(tmp_path: Path) -> None:
    world = World(tmp_path)
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    before = world.catalog.create(draft(topic_name("s3", "t"), TopicSchema.declare(schema)))
    for change in (
        AddColumn(pa.field("c", pa.int32())),
        RenameColumn("a", "d"),
        DropColumn("b"),
    ):
        require_fitting(before, world.catalog.alter(before.id, change))
    after = world.catalog.alter(before.id, SetNotNull("d"))
    with pytest.raises(Unavailable, match="column 'd' allows no nulls now; send the rows again"):
        require_fitting(before, after)
    require_fitting(after, replace(after))
    world.engine.close(5)


def test_an_append_that_began_before_a_change_is_committed_or_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    topic = world.topic()
    kept = world.engine.open(topic, pa.schema([("n", pa.int64())]))
    kept.write(pa.record_batch({"n": [1, None]}))
    added = world.catalog.alter(topic.id, AddColumn(pa.field("more", pa.string())))
    assert kept.finish(lambda: False).rows == 2
    kept.close()
    late = world.engine.open(added, pa.schema([("n", pa.int64())]))
    late.write(pa.record_batch({"n": [3]}))
    world.catalog.alter(topic.id, SetNotNull("n"))
    with pytest.raises(Unavailable, match="altered meanwhile"):
        late.finish(lambda: False)
    late.close()
    assert sum(file.rows for file in world.index.files(topic.id)) == 2
    world.engine.close(5)
    assert world.engine.budget.used == 0


def test_one_flush_keeps_rows_of_two_definitions_apart(tmp_path: Path) -> None:
    world = World(tmp_path, flush_interval=0.3)
    topic = world.topic()
    world.append(topic, pa.record_batch({"n": [0]}))  # this flush starts at once; the next two share one
    with ThreadPoolExecutor(2) as pool:
        old = pool.submit(world.append, topic, pa.record_batch({"n": [1]}))
        while not world.engine.committer._pending:
            threading.Event().wait(0.001)
        new = world.catalog.alter(topic.id, AddColumn(pa.field("more", pa.string())))
        assert pool.submit(world.append, new, pa.record_batch({"n": [2]})).result(LATER) == 1
        assert old.result(LATER) == 1
    assert len(world.index.files(topic.id)) == 3
    world.engine.close(5)
