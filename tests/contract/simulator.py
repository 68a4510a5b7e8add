"""The provider simulator as the contracts see it: an address, an account of calls, and faults that can be held."""

from __future__ import annotations

import json
from typing import Any, cast
from urllib.request import Request, urlopen

from local.processes import wait_until


class Simulator:
    """A running simulator and its account."""

    def __init__(self, url: str) -> None:
        self.url = url

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of one of its endpoints, such as `/_sim/ledger`."""
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(f"{self.url}{path}", data, method=method), timeout=10) as answer:
            return json.load(answer)

    def ledger(self) -> dict[str, Any]:
        """The totals, once no call is under way."""
        wait_until(lambda: self.in_flight() == 0, 10, "the simulator's calls to end")
        return cast(dict[str, Any], self.request("GET", "/_sim/ledger"))

    def in_flight(self) -> int:
        """The calls under way."""
        return int(self.request("GET", "/_sim/ledger")["overall"]["in_flight"])

    def calls(self) -> list[dict[str, Any]]:
        """The records of all calls since the last reset, once none is under way."""
        self.ledger()
        return cast(list[dict[str, Any]], self.request("GET", "/_sim/calls"))

    def outcomes(self) -> list[tuple[str, int | None]]:
        """Outcome and status of every call."""
        return [(call["outcome"], call["status"]) for call in self.calls()]

    def reset(self) -> None:
        """Forget every call."""
        self.request("POST", "/_sim/reset")

    def hold(self, provider: str, **directives: Any) -> None:
        """Make every answer of a provider follow these directives."""
        self.request("POST", "/_sim/faults", {"provider": provider.removesuffix("-compatible"), **directives})

    def release(self) -> None:
        """Let every provider answer again."""
        self.request("DELETE", "/_sim/faults")
