"""The rows that benchmarks send."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

BATCH_ROWS = 65_536
EVENT_TYPES = ["page_view", "click", "login", "logout", "purchase", "search", "error", "signup"]


def mixed_batch(seed: int, rows: int = BATCH_ROWS) -> pa.RecordBatch:
    """Rows as events have them: time, ids, categories, measures, a text with much and one with little repetition."""
    random = np.random.default_rng(seed)
    start = 1_700_000_000_000_000 + seed * 60_000_000
    users = random.integers(0, 1_000_000, rows)
    return pa.record_batch(
        {
            "timestamp": pa.array(
                start + np.sort(random.integers(0, 60_000_000, rows)), pa.timestamp("us", tz="UTC")
            ),
            "user_id": pa.array([f"user-{user:07d}" for user in users]),
            "event_type": pa.array(random.choice(EVENT_TYPES, rows)),
            "session": pa.array([f"{a:016x}{b:016x}" for a, b in random.integers(0, 2**63, (rows, 2))]),
            "duration_ms": pa.array(random.gamma(2.0, 150.0, rows)),
            "amount": pa.array(np.round(random.lognormal(3, 1, rows), 2), mask=random.random(rows) < 0.7),
            "items": pa.array(random.integers(0, 50, rows, dtype=np.int32)),
            "account": pa.array(random.integers(0, 2**40, rows)),
            "is_mobile": pa.array(random.random(rows) < 0.6),
        }
    )


EVENT_ROWS = 5_000_000


def event_table(rows: int = EVENT_ROWS) -> pa.Table:
    """Four columns as an analyst inserts them from DuckDB: id, time, measure, and a text that repeats."""
    random = np.random.default_rng(1)
    names = pa.array([f"page-{number:04d}" for number in range(5000)])
    start = 1_700_000_000_000_000
    return pa.table(
        {
            "id": pa.array(np.arange(rows)),
            "time": pa.array(start + np.cumsum(random.integers(0, 2000, rows)), pa.timestamp("us", tz="UTC")),
            "amount": pa.array(np.round(random.gamma(2.0, 150.0, rows), 2)),
            "page": names.take(pa.array(random.integers(0, len(names), rows))),
        }
    )
