from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.catalog.names import fold, from_path, key_segment, topic_name
from boilstream.errors import InvalidArgument
from boilstream.storage.base import validate_key


@pytest.mark.parametrize(
    "path",
    [["s3", "user_events"], [b"s3", b"user_events"], ["s3.user_events"], [b"user_events"]],
)
def test_the_three_forms_of_a_path_name_the_same_topic(path: list[bytes | str]) -> None:
    assert str(from_path(path)) == "s3.user_events"


def test_two_elements_may_hold_dots() -> None:
    name = from_path(["a.b", "c.d"])
    assert (name.schema, name.table) == ("a.b", "c.d")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ([], "has 0"),
        (["a", "b", "c", "d"], "has 4"),
        ([""], "is empty"),
        (["s3", ""], "table name '' is empty"),
        (["", "t"], "schema name '' is empty"),
        (["."], "dots alone"),
        ([".."], "dots alone"),
        (["s3", "..."], "dots alone"),
        (["s3", "a\x00b"], "control character"),
        (["s3", "a\nb"], "control character"),
        (["s3", "a\u2028b"], "line separator"),
        (["s3", "x" * 300], "300 characters"),
        (["s3", "ä" * 128], "256 bytes"),
        ([b"\xff\xfe"], "UTF-8"),
        ([".t"], "schema name '' is empty"),
    ],
)
def test_bad_paths_are_refused_with_the_reason(path: list[bytes | str], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says.replace("(", r"\(")):
        from_path(path)


def test_names_compare_without_case_and_keep_their_spelling() -> None:
    one, other = topic_name("S3", "Täulu / 1"), topic_name("s3", "TÄULU / 1")
    assert one.key == other.key
    assert one.table == "Täulu / 1"


def test_composed_and_decomposed_letters_are_the_same_name() -> None:
    assert topic_name("s3", "e\u0301").key == topic_name("s3", "\u00e9").key


@given(st.text(min_size=1, max_size=300))
def test_every_legal_name_makes_a_legal_key(name: str) -> None:
    try:
        legal = topic_name("s3", name)
    except InvalidArgument:
        return
    key = f"tables/{key_segment(legal.schema)}/{key_segment(legal.table)}-0123456789ab/data/x.parquet"
    assert validate_key(key).count("/") == 4
    assert all(len(part) <= 255 for part in key.split("/"))


@given(st.text())
def test_folding_twice_changes_nothing(name: str) -> None:
    assert fold(fold(name)) == fold(name)
