"""One POST to a webhook: what signs it, and where it does not go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from config.settings import Settings, SettingsError
from sinks.webhook_post import NotTaken, Receiver, secret_bytes, signed
from sinks.webhooks import group_of, receivers_of
from tests.serving import Handler, Server, served


class Counting(Server):
    """Counts requests and answers with a status."""

    status, asked = 204, 0


class _Handler(Handler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Counting)
        self.server.asked += 1
        self.body()
        self.answer(self.server.status, Location=f"{self.server.url}/elsewhere")


@pytest.fixture
def server() -> Iterator[Counting]:
    yield from served(Counting(_Handler))


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the Standard Webhooks libraries comes out as they have it, with their secret in base64."""
    secret = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert signed("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}', secret) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }  # fmt: skip


def test_a_private_address_is_only_reached_where_that_is_allowed(server: Counting) -> None:
    """Neither an address nor a name that leads to one gets a request, and both do once the operator says so."""
    port = server.server_port
    assert Receiver(f"http://127.0.0.1:{port}/in").problem is not None
    with pytest.raises(NotTaken, match="private address"):
        Receiver(f"http://localhost:{port}/in").post(b"{}", {})
    assert server.asked == 0
    allowed = Receiver(f"http://localhost:{port}/in", private=True)
    assert allowed.problem is None
    allowed.post(b"{}", {})
    assert server.asked == 1


@pytest.mark.parametrize("url", [f"https://{'a' * 64}.com/", "https://a..b.corp/x", "http://127.0.0.1:9/\u00e9"])
def test_what_no_request_can_be_sent_to_is_not_reached(url: str) -> None:
    """A name that no DNS holds, or letters that no request line does, end with the reason, not the sink."""
    with pytest.raises(NotTaken, match="could not be reached"):
        Receiver(url, private=True).post(b"{}", {})


@pytest.mark.parametrize("status", [199 + 103, 400, 410, 500])
def test_only_success_counts_as_taken(server: Counting, status: int) -> None:
    """A redirect is not followed, and an error is told by the host and status, without the path, which may be a secret."""
    server.status = status
    with pytest.raises(NotTaken) as said:
        Receiver(f"http://127.0.0.1:{server.server_port}/in/T0KEN?key=T0KEN", private=True).post(b"{}", {})
    assert str(status) in str(said.value) and "T0KEN" not in str(said.value)
    assert server.asked == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"alert_webhooks": []}, "No webhook is set"),
        ({"alert_webhook_secret": None}, "MILLSTREAM_ALERT_WEBHOOK_SECRET"),
        ({"alert_webhook_secret": "whsec_%%"}, "base64"),
        ({"alert_webhooks": ["https://example.com/T0KEN", "http://10.0.0.1/T0KEN"]}, "Webhook 2"),
        ({"alert_webhooks": ["ftp://example.com/T0KEN"]}, "http or https"),
        ({"alert_webhooks": ["https://ana:T0KEN@example.com/"], "alert_webhooks_private": True}, "user name"),
        ({"alert_webhooks": ["https:///T0KEN"], "alert_webhooks_private": True}, "no such URL"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(changes: dict[str, object], says: str) -> None:
    """Each is refused with a sentence that names the setting and repeats neither path nor password."""
    good = {"alert_webhooks": ["https://example.com/T0KEN"], "alert_webhook_secret": "s3cret"}
    assert receivers_of(Settings.model_validate(good))[1] == b"s3cret"
    with pytest.raises(SettingsError, match=says) as said:
        receivers_of(Settings.model_validate({**good, **changes}))
    assert "T0KEN" not in str(said.value)


def test_a_webhook_has_a_group_of_its_own_that_does_not_tell_it() -> None:
    """The names of the groups differ and hold nothing of the URLs."""
    settings = Settings(topic_prefix="corp.")
    one, two = (group_of(settings, Receiver(f"https://hooks.example.com/{path}")) for path in ("one", "two"))
    assert one != two and one.startswith("corp.millstream-webhooks-") and "example" not in one
