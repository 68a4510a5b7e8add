"""How a process reaches the ledger's database."""

from __future__ import annotations

from sqlalchemy import make_url, text

from config.database import open_database


def test_of_several_hosts_the_one_that_takes_writes_is_used(postgres: str) -> None:
    """Where the first host of the URL is away, as after a failover, the second one serves under the same URL."""
    there = make_url(postgres)
    hosts = ["127.0.0.1:1", f"127.0.0.1:{there.port}"]
    query = {"host": hosts, "target_session_attrs": "read-write"}
    engine = open_database(there.set(host=None, port=None, query=query).render_as_string(hide_password=False))
    with engine.begin() as db:
        assert db.execute(text("SHOW transaction_read_only")).scalar() == "off"
        assert db.execute(text("SELECT inet_server_port()")).scalar() == there.port
    engine.dispose()
