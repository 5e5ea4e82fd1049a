"""Filters of DuckDB's client: the same answer as DuckDB's own, and no harm from what nobody sent."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.acero as acero
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boilstream.catalog.types import TopicSchema
from boilstream.errors import InvalidArgument
from boilstream.log.statistics import ColumnStatistics
from boilstream.query.predicates import filters
from boilstream.query.predicates.filters import parse
from boilstream.query.predicates.predicate import Predicate
from tests.query.predicates.duckdb_filters import Oracle
from tests.query.predicates.duckdb_tables import KINDS, samples, statistics, subsets


def kept(predicate: Predicate, table: pa.Table) -> set[int]:
    """The `id` of each row that a predicate keeps, from the columns that it asks for."""
    if predicate.expression is None:
        return set(table["id"].to_pylist())
    source = acero.Declaration(
        "table_source", acero.TableSourceNodeOptions(table.select(sorted(predicate.columns | {"id"})))
    )
    project = acero.ProjectNodeOptions([pc.field("id"), predicate.expression], ["id", "kept"])
    result = acero.Declaration("project", project, [source]).to_table()
    assert result["kept"].type == pa.bool_()
    return {row["id"] for row in result.to_pylist() if row["kept"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_filter_keeps_what_duckdb_keeps(name: str, data: st.DataObject) -> None:
    sample = data.draw(samples(name))
    rows = len(sample.table)
    known = statistics(sample.table, sample.topic)
    less = data.draw(subsets(known))
    order = ["rowid", *reversed(sample.table.column_names), "gone"]
    with Oracle(sample.table) as oracle:
        for where in sample.wheres:
            try:
                expected = oracle.kept(where)
            except duckdb.Error:  # such as a cast out of range
                continue
            predicate = parse(oracle.json_filters(where, order), sample.topic)
            found = kept(predicate, sample.table)
            assert expected <= found, where
            assert expected == found or not predicate.exact, where
            assert not expected or predicate.may_match(known, rows), where
            assert not expected or predicate.may_match(less, rows), where


def column(index: int, kind: str, info: object = None) -> dict[str, Any]:
    return {
        "expression_class": "BOUND_COLUMN_REF",
        "type": "BOUND_COLUMN_REF",
        "alias": "a",
        "query_location": 18446744073709551615,
        "return_type": {"id": kind, "type_info": info},
        "binding": {"table_index": 0, "column_index": index},
        "depth": 0,
    }


def value(kind: str, found: object, info: object = None) -> dict[str, Any]:
    shown = {} if found is None else {"value": found}
    return {
        "expression_class": "BOUND_CONSTANT",
        "type": "VALUE_CONSTANT",
        "value": {"type": {"id": kind, "type_info": info}, "is_null": found is None, **shown},
    }


def compare(left: object, kind: str, right: object) -> dict[str, Any]:
    return {"expression_class": "BOUND_COMPARISON", "type": f"COMPARE_{kind}", "left": left, "right": right}


def operator(kind: str, *children: object) -> dict[str, Any]:
    return {"expression_class": "BOUND_OPERATOR", "type": kind, "children": list(children)}


def junction(kind: str, *children: object) -> dict[str, Any]:
    return {
        "expression_class": "BOUND_CONJUNCTION",
        "type": f"CONJUNCTION_{kind}",
        "children": list(children),
    }


def function(name: str, *children: object) -> dict[str, Any]:
    return {"expression_class": "BOUND_FUNCTION", "name": name, "children": list(children), "arguments": []}


def document(*found: object, names: object = ("a", "b", "rowid")) -> str:
    return json.dumps({"filters": list(found), "column_binding_names_by_index": names})


SMALL = pa.table(
    {"a": pa.array([1, 5, 7, 9, None], pa.int32()), "b": ["ab", "abc", "b", None, ""], "id": range(5)}
)
SMALL_TOPIC = TopicSchema.declare(SMALL.schema)

A, B = column(0, "INTEGER"), column(1, "VARCHAR")
FIVE = compare(A, "EQUAL", value("INTEGER", 5))
UNKNOWN = compare(function("length", B), "EQUAL", value("BIGINT", 3))
EVERY = {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("filters_", "ids", "exact"),
    [
        ([FIVE], {1}, True),
        ([compare(value("INTEGER", 5), "LESSTHAN", A)], {2, 3}, True),
        (
            [
                {
                    "expression_class": "BOUND_BETWEEN",
                    "type": "COMPARE_BETWEEN",
                    "input": A,
                    "lower": value("INTEGER", 5),
                    "upper": value("INTEGER", 9),
                    "lower_inclusive": False,
                    "upper_inclusive": True,
                }
            ],
            {2, 3},
            True,
        ),
        ([operator("COMPARE_IN", A, value("INTEGER", 1), value("INTEGER", 7))], {0, 2}, True),
        ([operator("COMPARE_NOT_IN", A, value("INTEGER", 1), value("INTEGER", None))], set(), True),
        ([operator("OPERATOR_IS_NOT_NULL", B)], {0, 1, 2, 4}, True),
        ([operator("OPERATOR_IS_NULL", B)], {3}, True),
        ([function("prefix", B, value("VARCHAR", "ab"))], {0, 1}, True),
        ([function("~~", B, value("VARCHAR", "a_"))], {0}, True),
        ([junction("OR", FIVE, function("contains", B, value("VARCHAR", "c")))], {1}, True),
        ([compare(A, "DISTINCT_FROM", value("INTEGER", 5))], {0, 2, 3, 4}, True),
        ([], EVERY, True),
        ([UNKNOWN], EVERY, False),
        ([FIVE, UNKNOWN], {1}, False),
        ([junction("AND", FIVE, UNKNOWN)], {1}, False),
        ([junction("OR", FIVE, UNKNOWN)], EVERY, False),
        ([junction("OR", FIVE, junction("AND", UNKNOWN, operator("OPERATOR_IS_NULL", A)))], {1, 4}, False),
        ([operator("OPERATOR_NOT", UNKNOWN)], EVERY, False),
        ([operator("OPERATOR_NOT", junction("AND", FIVE, UNKNOWN))], EVERY, False),
        ([operator("OPERATOR_IS_NULL", junction("AND", FIVE, UNKNOWN))], EVERY, False),
        ([operator("COMPARE_NOT_IN", A, value("INTEGER", 1), A)], EVERY, False),
        ([compare(column(2, "BIGINT"), "EQUAL", value("BIGINT", 1))], EVERY, False),
        ([operator("OPERATOR_IS_NULL", column(3, "INTEGER"))], EVERY, False),
        ([compare(column(0, "BIGINT"), "EQUAL", value("BIGINT", 5))], EVERY, False),
        ([compare(A, "EQUAL", value("VARCHAR", "5"))], EVERY, False),
        ([compare(A, "EQUAL", value("INTEGER", True))], EVERY, False),
        ([compare(A, "EQUAL", value("INTEGER", 5.0))], EVERY, False),
        ([compare(B, "EQUAL", value("VARCHAR", {"base64": "/w=="}))], EVERY, False),
        ([compare(B, "EQUAL", value("VARCHAR", "\ud800"))], EVERY, False),
        ([compare({**A, "depth": 1}, "EQUAL", value("INTEGER", 5))], EVERY, False),
        ([compare(A, "SOMETHING", value("INTEGER", 5))], EVERY, False),
        ([{"expression_class": "BOUND_PARAMETER"}], EVERY, False),
        ([None, 5, "x", [], {}, {"expression_class": []}], EVERY, False),
        ([{"expression_class": name} for name in filters._CLASSES], EVERY, False),
    ],
)
def test_each_shape(filters_: list[object], ids: set[int], exact: bool) -> None:
    predicate = parse(document(*filters_), SMALL_TOPIC)
    assert kept(predicate, SMALL) == ids
    assert predicate.exact is exact
    assert predicate.columns <= {"a", "b"}
    assert predicate.may_match({}, 5) or not ids


def test_a_collation_is_not_understood() -> None:
    nocase = {"type": "STRING_TYPE_INFO", "alias": "", "extension_info": None, "collation": "nocase"}
    predicate = parse(
        document(compare(column(1, "VARCHAR", nocase), "EQUAL", value("VARCHAR", "AB"))), SMALL_TOPIC
    )
    assert predicate.expression is None


def test_no_filter_is_exact() -> None:
    predicate = parse("", SMALL_TOPIC)
    assert predicate.expression is None
    assert predicate.exact
    assert not predicate.columns


def test_tables_and_batches_can_be_filtered() -> None:
    predicate = parse(document(FIVE), SMALL_TOPIC)
    assert SMALL.filter(predicate.expression)["id"].to_pylist() == [1]
    assert SMALL.to_batches()[0].filter(predicate.expression)["id"].to_pylist() == [1]


@pytest.mark.parametrize("name", ["A", "a ", "rowid", "", 5, None, ["a"]])
def test_names_are_matched_exactly(name: object) -> None:
    assert parse(document(FIVE, names=[name, "b"]), SMALL_TOPIC).expression is None


def test_a_column_that_is_called_rowid_is_not_the_row_id() -> None:
    topic = TopicSchema.declare(pa.schema([("rowid", pa.int64())]))
    text = document(compare(column(0, "BIGINT"), "EQUAL", value("BIGINT", 5)), names=["rowid"])
    assert parse(text, topic).expression is None


@pytest.mark.parametrize("index", [-1, 3, 2**70, True, 0.0, "0", None, []])
def test_bindings_outside_the_names_are_not_understood(index: object) -> None:
    node = {**A, "binding": {"table_index": 0, "column_index": index}}
    predicate = parse(document(compare(node, "EQUAL", value("INTEGER", 5))), SMALL_TOPIC)
    assert predicate.expression is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "null",
        "5",
        "{}",
        '{"filters": []}',
        '{"filters": {}, "column_binding_names_by_index": []}',
        '{"filters": [], "column_binding_names_by_index": "a"}',
        "\ud800",
        "9" * 5000,
    ],
)
def test_what_is_no_filter_document_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="json_filters"):
        parse(text, SMALL_TOPIC)


def test_a_text_that_is_too_long_filters_nothing() -> None:
    text = document(FIVE)
    predicate = parse(text + " " * (filters.MAX_CHARACTERS - len(text) + 1), SMALL_TOPIC)
    assert predicate.expression is None
    assert not predicate.exact


@pytest.mark.parametrize("depth", [filters.MAX_DEPTH, 20_000])
def test_a_text_that_is_too_deep_filters_nothing(depth: int) -> None:
    opening = '{"expression_class": "BOUND_OPERATOR", "type": "OPERATOR_NOT", "children": ['
    text = document("HERE").replace('"HERE"', opening * depth + json.dumps(FIVE) + "]}" * depth)
    predicate = parse(text, SMALL_TOPIC)
    assert predicate.expression is None
    assert not predicate.exact


def test_a_case_with_many_branches_is_not_nested_too_deep() -> None:
    check = {"when_expr": FIVE, "then_expr": FIVE}
    case = {"expression_class": "BOUND_CASE", "case_checks": [check] * 300, "else_expr": FIVE}
    assert parse(document(case), SMALL_TOPIC).expression is None
    case["case_checks"] = [check] * 20
    assert kept(parse(document(case), SMALL_TOPIC), SMALL) == {1}


def test_very_many_conditions_are_translated_in_part() -> None:
    predicate = parse(document(*[FIVE] * (filters.MAX_NODES + 1)), SMALL_TOPIC)
    assert kept(predicate, SMALL) == {1}
    assert not predicate.exact
    either = parse(document(junction("OR", *[FIVE] * (filters.MAX_NODES + 1))), SMALL_TOPIC)
    assert either.expression is None


def test_a_long_list_is_one_condition() -> None:
    text = document(operator("COMPARE_IN", A, *(value("INTEGER", number) for number in range(7, 10_007))))
    predicate = parse(text, SMALL_TOPIC)
    assert kept(predicate, SMALL) == {2, 3}
    assert predicate.exact
    (field,) = (field.field_id for field in SMALL_TOPIC.iceberg.fields if field.name == "a")
    assert not predicate.may_match({field: ColumnStatistics(1, -5, 6)}, 5)
    assert not predicate.may_match({field: ColumnStatistics(1, 10_007, 20_000)}, 5)
    assert predicate.may_match({field: ColumnStatistics(1, -5, 7)}, 5)


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()])
def test_views_are_compared_as_what_they_hold(kind: pa.DataType) -> None:
    name, wanted = ("VARCHAR", "b") if kind == pa.string_view() else ("BLOB", "\\x62")
    table = pa.table({"a": pa.array(["a", "b", None, "c" * 20], kind), "id": range(4)})
    predicate = parse(
        document(compare(column(0, name), "GREATERTHANOREQUALTO", value(name, wanted))),
        TopicSchema.declare(table.schema),
    )
    assert kept(predicate, table) == {1, 3}


@pytest.mark.parametrize(
    ("kind", "name", "constant"),
    [
        (pa.month_day_nano_interval(), "INTERVAL", {"months": 0, "days": 3, "micros": 0}),
        (pa.duration("us"), "INTERVAL", {"months": 0, "days": 3, "micros": 0}),
        (pa.list_(pa.int32()), "LIST", {"children": []}),
        (pa.opaque(pa.binary(), "bit", "DuckDB"), "BIT", "a"),
        (pa.opaque(pa.binary(8), "time_tz", "DuckDB"), "TIME WITH TIME ZONE", 5),
        (pa.opaque(pa.binary(16), "hugeint", "another"), "HUGEINT", 5),
    ],
)
def test_types_without_a_rule_are_only_tested_for_null(
    kind: pa.DataType, name: str, constant: object
) -> None:
    table = pa.table({"a": pa.nulls(2, kind), "id": range(2)})
    topic = TopicSchema.declare(table.schema)
    tested = column(0, name)
    assert parse(document(compare(tested, "EQUAL", value(name, constant))), topic).expression is None
    assert kept(parse(document(operator("OPERATOR_IS_NULL", tested)), topic), table) == {0, 1}
    assert kept(parse(document(operator("OPERATOR_IS_NOT_NULL", tested)), topic), table) == set()


LIKE = function("like_escape", B, value("VARCHAR", "a!_%"), value("VARCHAR", "!"))
CAST = {
    "expression_class": "BOUND_CAST",
    "child": A,
    "return_type": {"id": "BIGINT", "type_info": None},
    "try_cast": False,
}
CASE = {
    "expression_class": "BOUND_CASE",
    "case_checks": [{"when_expr": FIVE, "then_expr": LIKE}],
    "else_expr": value("BOOLEAN", False),
}
DOCUMENT = {
    "filters": [
        junction("OR", CASE, compare(CAST, "LESSTHAN", value("BIGINT", 3))),
        operator("COMPARE_NOT_IN", A, value("INTEGER", 5), value("DECIMAL", 5, {"width": 4, "scale": 1})),
        compare(value("HUGEINT", {"upper": -1, "lower": 5}), "EQUAL", CAST),
    ],
    "column_binding_names_by_index": ["a", "b"],
}
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([*filters._CLASSES, 2**200]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "value", "children", "type", "width", "upper", "lower"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


def paths(node: object, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items: list[tuple[str | int, object]] = []
    if isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, list):
        items = list(enumerate(node))
    return [here, *(path for key, inner in items for path in paths(inner, (*here, key)))]


def replaced(node: Any, path: tuple[str | int, ...], junk: object) -> Any:
    if not path:
        return junk
    copy = node.copy()
    copy[path[0]] = replaced(node[path[0]], path[1:], junk)
    return copy


@settings(max_examples=400, deadline=None)
@given(path=st.sampled_from(paths(DOCUMENT)), junk=JUNK)
def test_no_document_breaks_the_server(path: tuple[str | int, ...], junk: object) -> None:
    try:
        predicate = parse(json.dumps(replaced(DOCUMENT, path, junk)), SMALL_TOPIC)
    except InvalidArgument:
        return
    assert kept(predicate, SMALL) <= EVERY
    assert predicate.may_match({}, 5) in (True, False)
