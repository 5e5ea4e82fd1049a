from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from boilstream.log.records import DataFile
from boilstream.query.scan import MAX_PARTITIONS, PARTITION_BYTES, partition

sizes = st.lists(st.integers(1, 3 * PARTITION_BYTES), max_size=40)


@given(sizes)
def test_every_file_is_in_exactly_one_part_and_parts_keep_the_order(sizes: list[int]) -> None:
    files = [DataFile(f"{number:03}", 1, size) for number, size in enumerate(sizes)]
    parts = partition(files)
    assert sorted(file.key for part in parts for file in part) == [file.key for file in files]
    assert all(list(part) == sorted(part, key=lambda file: file.key) for part in parts)
    assert 1 <= len(parts) <= MAX_PARTITIONS


def test_a_small_topic_is_one_part() -> None:
    assert len(partition([DataFile("a", 1, 1000), DataFile("b", 1, 1000)])) == 1
    assert partition([]) == [()]


def test_a_large_topic_is_several_of_similar_size() -> None:
    files = [DataFile(str(number), 1, PARTITION_BYTES) for number in range(8)]
    parts = partition(files)
    assert len(parts) == 8
