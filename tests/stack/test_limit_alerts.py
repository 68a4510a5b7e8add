"""Alerts of limits through the whole pipeline: once each in ClickHouse, whoever dies while they are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select

from cli.exchange import Exchange
from cli.running import WORKERS, running
from config import limits
from config.database import open_database, reading
from config.limit_models import LIMIT_ALERTS
from core.limits import SHARES, Limit
from core.topics import ALERTS
from schemas.codec import Codec
from sinks.writer import connect
from tests.conftest import QUICK
from tests.stack.asking import events, eventually, told

#: Each of them uses all its requests of a day.
USERS = 60
MOST = 5
METERS = {"meter": WORKERS["meter"], "meter-2": WORKERS["meter"]}


def test_every_alert_is_stored_once_though_its_publishers_die(tmp_path: Path) -> None:
    """Two meter workers are killed in turn while limits fill: ClickHouse has each share of each count one time.

    And the answers of requests that take four fifths of a limit or more say so.
    """
    with running(tmp_path, workers={**WORKERS, **METERS}, environment=QUICK) as run:
        engine = open_database(run.settings.database_url)
        with engine.begin() as db:
            limits.change(db, limits.Edit([Limit("/acme/user:*", "requests", "month", MOST)]), "test", 1)
        exchange = Exchange(run.settings)
        for number in range(MOST):
            requests = [told("Hello.", user=f"u{user}") for user in range(USERS)]
            for request in requests:
                exchange.send(request)
            exchange.flush()
            victim = ("meter", "meter-2")[number % 2]
            run.workers[victim].kill()
            run.start_worker(victim, METERS[victim][0])
            answers = exchange.answers([request["request_id"] for request in requests], 90)
            assert len(answers) == USERS
            percent = (number + 1) * 100 // MOST
            told_near = [[each["percent"] for each in answer["near_limits"]] for answer in answers.values()]
            assert told_near == [[percent] if percent >= SHARES[0] else []] * USERS
        exchange.close()
        expected = sorted((f"/acme/user:u{user}", str(share)) for user in range(USERS) for share in SHARES)

        def stored() -> list[tuple[str, str]]:
            query = "SELECT subject, details['share'] FROM alerts WHERE kind LIKE 'limit_%' ORDER BY 1, 2"
            with connect(run.settings) as client:
                return [tuple(row) for row in client.query(query).result_rows]

        def waiting() -> int:
            with reading(engine) as db:
                return len(db.execute(select(LIMIT_ALERTS).where(LIMIT_ALERTS.c.published_at.is_(None))).all())

        assert eventually(lambda: len(stored()) >= len(expected) and not waiting(), 60)

        def told_of() -> list[tuple[int, int]]:
            query = "SELECT near_limits_percent[1] AS percent, count() FROM responses "
            query += "WHERE near_limits_limit = ['requests per month'] GROUP BY percent ORDER BY percent"
            with connect(run.settings) as client:
                return [tuple(row) for row in client.query(query).result_rows]

        assert eventually(lambda: told_of() == [(80, USERS), (100, USERS)], 60), told_of()
        assert stored() == expected
        # Published again or not, an alert is the same bytes.
        published: dict[str, set[bytes]] = {}
        for records in events(run, ALERTS).values():
            for event_id, value in records:
                found: Any = Codec().decode("LlmAlert", value)
                assert found["alert_id"] == event_id
                published.setdefault(event_id, set()).add(value)
        assert {len(values) for values in published.values()} == {1}
        assert len(published) == len(expected)
        engine.dispose()
