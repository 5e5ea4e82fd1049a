"""`make demo`: it runs, and its comparison would notice a difference."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from scripts.demo import differences, flights

ROOT = Path(__file__).parent.parent

SOURCE = pa.table(
    {
        "number": pa.array([1, 2, None, 4], pa.int64()),
        "delay": pa.array([0.5, None, -1.5, 2.0], pa.float64()),
        "carrier": ["UA", None, "AA", "B6"],
        "hour": pa.array([1, 2, 3, 4], pa.timestamp("s", "UTC")),
    }
)


def with_value(column: str, row: int, value: object) -> pa.Table:
    """The source with one value changed."""
    values = SOURCE[column].to_pylist()
    values[row] = value
    index = SOURCE.schema.get_field_index(column)
    return SOURCE.set_column(
        index, SOURCE.schema.field(index), pa.array(values, SOURCE.schema.field(index).type)
    )


def test_equal_tables_do_not_differ() -> None:
    assert differences(SOURCE, SOURCE) == []
    assert differences(SOURCE, pa.concat_tables([SOURCE.slice(2), SOURCE.slice(0, 2)])) == []


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("number", 1, 3),
        ("number", 0, -7),
        ("delay", 3, 2.0000001),
        ("delay", 0, float("nan")),
        ("carrier", 0, "UAL"),
        ("carrier", 2, "ZZ"),
    ],
)
def test_a_changed_value_is_found(column: str, row: int, value: object) -> None:
    found = differences(SOURCE, with_value(column, row, value))
    assert found
    assert all(f" of {column} differ" in problem for problem in found)


@pytest.mark.parametrize("column", ["number", "delay", "carrier"])
def test_a_changed_null_is_found(column: str) -> None:
    values = SOURCE[column].to_pylist()
    null, filled = values.index(None), next(i for i, value in enumerate(values) if value is not None)
    for row, value in ((filled, None), (null, values[filled])):
        assert f"nulls of {column} differ" in differences(SOURCE, with_value(column, row, value))


def test_missing_doubled_and_extra_rows_are_found() -> None:
    assert differences(SOURCE, SOURCE.slice(1)) == ["4 rows were sent and 3 came back"]
    assert differences(SOURCE, pa.concat_tables([SOURCE, SOURCE])) == ["4 rows were sent and 8 came back"]
    assert differences(SOURCE, SOURCE.slice(0, 0)) == ["4 rows were sent and 0 came back"]
    doubled = pa.concat_tables([SOURCE.slice(0, 3), SOURCE.slice(0, 1)])
    assert differences(SOURCE, doubled)


@pytest.mark.parametrize(
    "stored",
    [
        SOURCE.rename_columns(["number", "delay", "carrier", "Hour"]),
        SOURCE.set_column(0, "number", SOURCE["number"].cast(pa.int32())),
        SOURCE.select(["delay", "number", "carrier", "hour"]),
        SOURCE.drop_columns(["hour"]),
    ],
    ids=["name", "type", "order", "column"],
)
def test_a_changed_schema_is_found(stored: pa.Table) -> None:
    (found,) = differences(SOURCE, stored)
    assert found.startswith("the schema changed")


@pytest.mark.slow
def test_the_data_set_is_the_real_one() -> None:
    source = flights()
    assert (source.num_rows, source.num_columns) == (336_776, 19)
    assert source["dep_time"].null_count == 8_255, "cancelled flights have no departure"
    assert set(source["origin"].unique().to_pylist()) == {"EWR", "JFK", "LGA"}
    assert differences(source, source) == []


@pytest.mark.slow
def test_the_demonstration_succeeds_and_shows_its_proof() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "scripts.demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("flights: 336,776 rows, 19 columns, ")
    assert re.match(
        r"server: grpc\+tls://\S+, called as okta:\S+ \['DataEngineers'\]$", lines[1]
    )  # a verified token
    assert any(re.match(r"acknowledged: 336,776 rows durable in commit \S+/\d+$", line) for line in lines)
    for verb in ("wrote", "read"):
        assert any(re.match(rf"{verb}: [\d,]+ rows/s, [\d,.]+ MiB/s \([\d.]+ s\)$", line) for line in lines)
    assert any(re.match(r" +[\d,]+ bytes  tables/s3/flights-\w+/data/\w+\.parquet$", line) for line in lines)
    assert any(re.match(r" +[\d,]+ bytes  _log/\S+/\d{20}\.json$", line) for line in lines)
    assert re.match(
        r"checked: row count, schema, nulls and extremes of 19 columns and sums of \d+ numeric ones equal the source$",
        lines[-1],
    )
