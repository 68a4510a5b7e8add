"""An alert of unusual spend through the whole pipeline: once in ClickHouse, though the workers that publish it die."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from cli.running import WORKERS, running
from config import limits
from config.database import open_database, reading
from config.spending import SPEND_DAYS
from core.spending import weekdays_before
from core.topics import ALERTS
from schemas.codec import Codec
from sinks.writer import connect
from tests.conftest import QUICK
from tests.stack.asking import ask, events, eventually, told

METERS = {"meter": WORKERS["meter"], "meter-2": WORKERS["meter"]}
#: A nano-USD: every answer of a priced model costs more.
FLOOR = {"MILLSTREAM_SPEND_ANOMALY_FLOOR_USD": "0.000000001"}
USUAL = {"burst": 1, "steady": 10**15}


def test_unusual_spend_is_told_of_once(tmp_path: Path) -> None:
    """A tenant that spends more than ever on this weekday is told of once, with its figures; one that spends as usual is not."""
    with running(tmp_path, workers={**WORKERS, **METERS}, environment={**QUICK, **FLOOR}) as run:
        engine = open_database(run.settings.database_url)
        # It is noon there, so that no midnight is in the middle of the test.
        now = datetime.now(UTC)
        zone, today = f"Etc/GMT{now.hour - 12:+d}", (now + timedelta(hours=12 - now.hour)).date()
        known = [today - timedelta(days=1), *weekdays_before(today)]
        with engine.begin() as db:
            limits.change(db, limits.Edit(zones=[(tenant, zone) for tenant in USUAL]), "test", 1)
            db.execute(insert(SPEND_DAYS), [
                {"tenant": tenant, "day": day, "before_nano": 0, "spent_nano": 0 if day == known[0] else usual, "whole": True}
                for tenant, usual in USUAL.items()
                for day in known
            ])  # fmt: skip

        def spent(tenant: str) -> int:
            with reading(engine) as db:
                rows = db.execute(select(SPEND_DAYS).where(SPEND_DAYS.c.tenant == tenant, SPEND_DAYS.c.day >= today))
                return sum(row.spent_nano for row in rows)

        def published() -> list[Any]:
            with reading(engine) as db:
                rows = db.execute(select(SPEND_DAYS).where(SPEND_DAYS.c.raised_at.is_not(None))).all()
                return list(rows) if all(row.published_at is not None for row in rows) else []

        def spend() -> None:
            requests = [told("Hello.", tenant=tenant) for tenant in USUAL for _ in range(5)]
            answers = ask(run, requests)
            assert {answer["outcome"] for answer in answers.values()} == {"completed"}
            for tenant in USUAL:
                cost = sum(answers[one["request_id"]]["cost_nano_usd"] for one in requests if one["tenant"] == tenant)
                due[tenant] = due.get(tenant, 0) + cost
            run.workers["meter"].kill()
            run.start_worker("meter", METERS["meter"][0])
            assert eventually(lambda: all(spent(tenant) == due[tenant] for tenant in USUAL), 90), (due, spent("burst"))

        due: dict[str, int] = {}
        spend()
        [noted] = eventually(published, 60)
        assert noted.tenant == "burst"
        # Looked at again with more spent, nothing more is told.
        spend()

        def stored() -> list[tuple[str, str, str]]:
            with connect(run.settings) as client:
                query = "SELECT subject, tenant, details['spent'] FROM alerts WHERE kind = 'spend_anomaly'"
                return [tuple(row) for row in client.query(query).result_rows]

        assert eventually(stored, 60) == [("/burst", "burst", str(noted.raised_nano))]
        found: list[tuple[str, bytes]] = [each for records in events(run, ALERTS).values() for each in records]
        alerts: dict[bytes, Any] = {value: Codec().decode("LlmAlert", value) for _, value in found}
        assert [alert["kind"] for alert in alerts.values()].count("spend_anomaly") == 1
        engine.dispose()
