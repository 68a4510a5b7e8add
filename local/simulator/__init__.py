"""The providers of the local stack: OpenAI's, Anthropic's and Gemini's HTTP APIs, with faults on demand and exact accounts.

`python -m local.simulator --port N` serves, with only a base URL changed in the real SDKs:

- `/openai/v1`: `POST /chat/completions`, also streamed, `POST /responses`, `GET /models`
- `/anthropic`: `POST /v1/messages`, also streamed, `GET /v1/models`
- `/google`: `POST /v1beta/models/{model}:generateContent`, `…:streamGenerateContent?alt=sse`, `GET /v1beta/models`, and the
  same under `/v1`

Any key is accepted but `bad-key`. The same prompt and model give the same answer text and token counts; response ids are
new with every call, as the providers' are. A stream has a piece for every word of the text, and for every few characters of
a tool call's arguments.

A **directive** in any message text picks what happens to that call: `[[sim {"status": 503, "times": 2}]]`. It is not
part of the prompt. With several, the later key wins. The keys:

- `latency_ms`: wait before the answer; default `--latency-ms`.
- `status`: answer with this HTTP error (400 to 599) in the provider's own form. A 429 comes with `retry-after: 1`.
- `retry_after` (seconds), `retry_after_ms`, `retry_after_date` (seconds from now, sent as an HTTP date): the headers of
  that error, 429 when no `status` is given; Gemini's body says it too. `"retry_after": null` sends a 429 without any.
- `fault`: `garbage` (200, no JSON), `truncated` (the connection ends in mid body), `reset` (it ends without an answer),
  `hang` (no answer until the client goes away), `empty_choices` (200, nothing in it, zero tokens), `error_in_200` (an
  error object with status 200), `refusal` (content refused, with usage), `off_schema` (an answer, JSON that is not what
  the schema asks for). `status` beside a fault only chooses the error of `error_in_200`.
- `context_tokens`: a longer prompt is refused with 400, as the provider refuses one that its model's context does not hold.
- `times`: only the first N calls with the same `key` get the `status`, `fault` or `stream` (or the `latency_ms`, where
  there is none); `key` defaults to a hash of the prompt.
- `text`: the exact answer text; its tokens are counted from its length.
- `tool_call`: `{"name": ..., "arguments": {...}}` is called, whatever tools are on offer. Without it a model calls the tool
  that `tool_choice` names or demands, or the first on offer, until it has a result.
- `usage`: token counts by class, each replacing its own: `input`, `cached`, `cache_write_5m`, `cache_write_1h`,
  `input_audio`, `output`, `reasoning`, `output_audio`. The classes are disjoint here, so `input` is what was neither cached
  nor audio, and the answer adds them up as its provider does. A class that an API has no field for gets a 400.
- `missing_usage`: true leaves the usage out of the answer; the account has it all the same.
- `stream`: how a stream goes, an object with: `first_token_ms` (a wait after the HTTP headers), `pace_ms` (a wait after each
  piece), and what befalls it before a piece, counted from 0: `cut_at` (the connection ends), `stall_at` with
  `stall_seconds` (a silence, broken every `keep_alive_ms` by what keeps the connection open), `malformed_at` (an event that is no JSON), `error_at` (an event that says overloaded, then the
  end); `no_end`: true leaves out the last event, the mark that the answer is whole. A `fault` other than `refusal` wins.

`POST /_sim/faults` with `{"provider": "google", ...directive keys...}` does so for all calls of a provider, before what
its messages ask, until `DELETE /_sim/faults`. Its list of models then follows `latency_ms`, `status`, and the faults `garbage`,
`reset` and `hang`.

The **account** is the truth that others are checked against. `GET /_sim/ledger` has the totals; `GET /_sim/calls?since=N`
the records after sequence N, in the order the calls ended; `POST /_sim/reset` forgets both (calls still under way then
belong to neither) and the counts behind `times`. Outcomes: `answered` (the whole answer was written to the socket, and
is paid for), `error` (an HTTP error was), `garbled` (garbage, truncated, empty_choices, error_in_200), `cut_off` (the
client left before the answer was complete, reset, hang). What a stream made until it ended is in the account and paid for,
whatever the outcome.
"""
