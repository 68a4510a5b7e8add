"""The types of the events, generated from `schemas/avro/*.avsc` by `make generate`; do not edit."""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict


class ContentPart(TypedDict):
    """
    One part of a message or of an answer; `type` says which of the other fields are used.
    """

    type: str
    """
    What the part is: `text`, `image`, `audio`, `file`, `tool_call` or `tool_result`.
    """
    text: str | None
    """
    The text of a `text` part, or the result of a `tool_result` part.
    """
    media_type: str | None
    """
    IANA media type of `data` or of what `url` points to, such as image/png; Gemini needs it for a URL, too.
    """
    url: str | None
    """
    Where an image, audio or file part can be read, when it is not carried in `data`.
    """
    data: bytes | None
    """
    The bytes of an image, audio or file part.
    """
    tool_call_id: str | None
    """
    The provider's id of a tool call; a `tool_result` repeats the id it answers.
    """
    tool_name: str | None
    """
    Name of the tool that is called.
    """
    tool_arguments: str | None
    """
    Arguments of a tool call as a JSON object in text.
    """


class Message(TypedDict):
    """
    One turn of the conversation.
    """

    role: str
    """
    Who speaks: `system`, `user`, `assistant` or `tool`.
    """
    content: list[ContentPart]
    """
    The parts of the turn, in order.
    """


class Tool(TypedDict):
    """
    A function that the model may ask to be called.
    """

    name: str
    """
    The tool's name.
    """
    description: str | None
    """
    What the tool does, for the model.
    """
    parameters: str
    """
    JSON schema of the arguments, in text.
    """


class Parameters(TypedDict):
    """
    How the model is asked to generate; null leaves the provider's default.
    """

    temperature: float | None
    """
    Sampling temperature, 0 to 2.
    """
    top_p: float | None
    """
    Nucleus sampling mass, above 0 up to 1.
    """
    max_output_tokens: int | None
    """
    Most tokens the answer may hold, reasoning included; null takes the model's default, else the deployment's.
    """
    stop: list[str]
    """
    Texts at which generation ends.
    """
    seed: int | None
    """
    Seed for repeatable sampling; refused where the provider has none.
    """
    response_format: str | None
    """
    A JSON schema in text that the answer must follow.
    """
    reasoning_effort: str | None
    """
    How much the model may think: `minimal`, `low`, `medium` or `high`, as far as the provider offers it.
    """


OnUnknownOutcome: TypeAlias = Literal['retry', 'fail']
"""
What to do when a crash leaves the outcome of a provider call unknown.
"""


Priority: TypeAlias = Literal['interactive', 'batch']
"""
Whether somebody waits for the answer: routes by latency prefer fast models for `interactive`, cheap ones for `batch`.
"""


CacheUse: TypeAlias = Literal['use', 'refresh', 'bypass']
"""
How the response cache is used where a route offers it: read and written, only written, or neither.
"""


OnLimit: TypeAlias = Literal['refuse', 'wait']
"""
What to do while a limit has no room for a request.
"""


class LlmRequest(TypedDict):
    """
    An application asks a model for an answer.
    """

    request_id: str
    """
    The client's own id of the request, a UUID (version 7 advised); also the record's key.
    """
    tenant: str
    """
    The customer or team that the request belongs to.
    """
    user: str | None
    """
    The end user on whose behalf the request is made.
    """
    api_key_id: str | None
    """
    Id of the virtual key that was used, never the key itself.
    """
    project: str | None
    """
    The project within the tenant.
    """
    tags: dict[str, str]
    """
    Free labels, carried onto every fact.
    """
    task: str | None
    """
    What the request is for, such as `extraction`.
    """
    plan: str | None
    """
    The user's plan, such as `pro`.
    """
    created_at: int
    """
    When the application made the request.
    """
    deadline: int | None
    """
    When the answer is of no use any more; a call is not begun after it and is cut off at it.
    """
    model: str | None
    """
    The model asked for, as `provider/model`, by an alias, or by its name at the default provider; null leaves the choice to the routes.
    """
    messages: list[Message]
    """
    The conversation so far, oldest first; behind the messages that a named task makes of its inputs.
    """
    tools: list[Tool]
    """
    The tools that the model may ask for.
    """
    tool_choice: str | None
    """
    Whether a tool is to be asked for: `auto`, `none`, `required` or the name of a tool; null leaves the provider's default.
    """
    input: str | None
    """
    The inputs of the named task, a JSON object in text; the task's template makes the messages of them.
    """
    prompt_version: str | None
    """
    The version of the task's prompt that makes the messages, by its name in the task; null leaves it to the versions' shares.
    """
    parameters: Parameters
    """
    How the model is asked to generate.
    """
    provider_options: dict[str, str]
    """
    Further fields of the provider's own API, each a JSON value in text, passed through; those that name another model, bound the answer or add tools are refused.
    """
    stream: bool
    """
    Whether partial answers are wanted on the chunk topic.
    """
    on_unknown_outcome: OnUnknownOutcome
    """
    What to do when a crash leaves a call's outcome unknown: `retry` may pay twice, `fail` answers `provider_outcome_unknown`.
    """
    reply_topic: str | None
    """
    A topic of the caller's own for the answer, in addition to the response topic; it must match an allowed pattern.
    """
    priority: Priority
    """
    Whether somebody waits for the answer.
    """
    cache: CacheUse
    """
    How the response cache is used where a route offers it.
    """
    max_attempts: int | None
    """
    Most provider calls for this request, over all candidates; a route may allow fewer, and the deployment bounds the calls to each candidate.
    """
    max_cost_nano_usd: int | None
    """
    Most that all provider calls for this request together may cost, in nano-USD; candidates whose bound does not fit are dropped.
    """
    on_limit: OnLimit
    """
    What to do while a limit has no room: `refuse`, or `wait` for room until the deadline, as long as the deployment lets requests wait.
    """


Outcome: TypeAlias = Literal['completed', 'failed', 'refused', 'expired']
"""
How a request ended: answered, failed at the provider or in the pipeline, refused before any call, or too late.
"""


class Error(TypedDict):
    """
    Why a request has no answer.
    """

    code: str
    """
    A code from the closed list in docs/events.md; its first word says whose fault it is: caller, policy, provider or pipeline.
    """
    message: str
    """
    One sentence with the value at fault and the next action; never a secret.
    """
    retryable: bool
    """
    Whether the same request can succeed later.
    """
    retry_after_ms: int | None
    """
    How long to wait before another try, in milliseconds, where somebody said so.
    """
    provider_status: int | None
    """
    HTTP status the provider answered with.
    """


class Tokens(TypedDict):
    """
    Tokens by class; the classes are disjoint, null means that the provider did not say, zero means zero.
    """

    input_uncached: int | None
    """
    Input tokens read at the full price.
    """
    cache_read: int | None
    """
    Input tokens read from the provider's prompt cache.
    """
    cache_write_5m: int | None
    """
    Input tokens written to the provider's five-minute prompt cache.
    """
    cache_write_1h: int | None
    """
    Input tokens written to the provider's one-hour prompt cache.
    """
    input_audio: int | None
    """
    Audio tokens of the input.
    """
    output_text: int | None
    """
    Output tokens of the visible answer.
    """
    reasoning: int | None
    """
    Output tokens the model spent on thinking.
    """
    output_audio: int | None
    """
    Audio tokens of the output.
    """


CostStatus: TypeAlias = Literal['priced', 'unpriced', 'not_charged', 'unknown', 'cached']
"""
How far a cost is known: exact from tokens and price; tokens known but no price; the provider charged nothing; the call may have been charged and nobody said how much; or the answer came from the response cache and cost nothing.
"""


class Decision(TypedDict):
    """
    Why a model was or was not a candidate for a request.
    """

    model: str
    """
    The model, as `provider/model`.
    """
    kept: bool
    """
    Whether it became a candidate.
    """
    reason: str
    """
    Why, such as `tier balanced fits complexity 0.42` or `dropped: no image input`.
    """


class NearLimit(TypedDict):
    """
    A limit of which at least 80 % were used or held once a request was admitted.
    """

    account: str
    """
    The account, such as `/acme/user:ana`.
    """
    limit: str
    """
    What is limited, such as `usd per month`.
    """
    percent: int
    """
    How much of it was used or held, rounded down; a soft limit may be over 100.
    """


class LlmResponse(TypedDict):
    """
    The one answer to a request, whatever its outcome.
    """

    request_id: str
    """
    The request that is answered; also the record's key.
    """
    attempt_id: str | None
    """
    The provider call that gave the answer, or the last one made; null when none was made.
    """
    tenant: str
    """
    The customer or team that the request belongs to.
    """
    user: str | None
    """
    The end user on whose behalf the request is made.
    """
    api_key_id: str | None
    """
    Id of the virtual key that was used, never the key itself.
    """
    project: str | None
    """
    The project within the tenant.
    """
    tags: dict[str, str]
    """
    Free labels, carried onto every fact.
    """
    task: str | None
    """
    What the request is for, such as `extraction`.
    """
    plan: str | None
    """
    The user's plan, such as `pro`.
    """
    outcome: Outcome
    """
    How the request ended.
    """
    output: list[ContentPart]
    """
    The answer's parts, empty unless completed.
    """
    finish_reason: str | None
    """
    Why the model stopped: `stop`, `length`, `tool_calls`, `content_filter` or `other`.
    """
    provider: str | None
    """
    The provider that was called, or would have been.
    """
    model: str | None
    """
    The model asked for, without the provider.
    """
    response_model: str | None
    """
    The model that served, as the provider names it.
    """
    provider_response_id: str | None
    """
    The provider's own id of its answer.
    """
    error: Error | None
    """
    Why there is no answer; null when completed.
    """
    tokens: Tokens | None
    """
    Tokens of the call that gave the answer.
    """
    cost_nano_usd: int | None
    """
    What this request cost over all its calls, in nano-USD; null when any part of it is not known.
    """
    cost_status: CostStatus
    """
    How far the cost is known; the least known of the request's calls decides.
    """
    created_at: int
    """
    When the application made the request.
    """
    admitted_at: int | None
    """
    When the request was admitted.
    """
    started_at: int | None
    """
    When the last provider call began.
    """
    first_token_at: int | None
    """
    When the first token arrived, for streamed calls.
    """
    finished_at: int
    """
    When the outcome was known.
    """
    attempts: int
    """
    Provider calls made for this request.
    """
    route: str | None
    """
    Name of the route that chose the model.
    """
    decisions: list[Decision]
    """
    Every model that was considered, and why it was kept or dropped.
    """
    complexity: float | None
    """
    Complexity score of the request, 0 to 1, where a strategy asked for it.
    """
    prompt_version: str | None
    """
    Version of the named task's prompt.
    """
    cached_from: str | None
    """
    Request id whose answer the response cache served; null when a provider answered.
    """
    downgraded_from: str | None
    """
    The first choice, as `provider/model`, where a cheaper model had to do: for want of energy, or because a limit was nearly used up; null where the first choice stands.
    """
    near_limits: list[NearLimit]
    """
    Limits of the request's tenant, project, user and key that were nearly used up when it was admitted.
    """
    unchecked: bool
    """
    Whether the request was admitted by the spare ledger, unchecked against limits and energy, since the ledger was away.
    """


class Candidate(TypedDict):
    """
    A model that may answer the request, as admit chose it.
    """

    provider: str
    """
    The provider whose lane would carry the call.
    """
    model: str
    """
    The model's name at the provider.
    """
    max_output_tokens: int
    """
    Most output tokens the call may ask for; the bound is priced with it.
    """
    reserved_nano_usd: int | None
    """
    Upper bound of one call's cost in nano-USD; null when the model has no known price.
    """
    hedge_after_us: int | None
    """
    After how many microseconds without a first token, or without an answer that is not streamed, a later candidate is called as well; null for never.
    """


class ReplyTo(TypedDict):
    """
    Where a copy of the answer goes.
    """

    topic: str
    """
    The reply topic.
    """
    partition: int | None
    """
    The partition to write to; null lets the key decide.
    """
    correlation_id: bytes | None
    """
    Spring Kafka's `kafka_correlationId`, handed back as it came.
    """


class LlmCall(TypedDict):
    """
    An admitted request on its way to one provider's lane (internal).
    """

    request: LlmRequest
    """
    The request as it was admitted.
    """
    provider: str
    """
    The provider whose lane carries the call.
    """
    model: str
    """
    The model's name at the provider.
    """
    max_output_tokens: int
    """
    Most output tokens the call may ask for; the reservation is priced with it.
    """
    admitted_at: int
    """
    When the request was admitted.
    """
    reserved_nano_usd: int | None
    """
    Upper bound of one call's cost, reserved in the ledger, in nano-USD; null when the model has no known price.
    """
    route: str | None
    """
    Name of the route that chose the candidates; null when the request named a model and no route matched.
    """
    candidates: list[Candidate]
    """
    The models that may answer, in order; the call goes to the one at `candidate`. Empty for a call made before routes existed.
    """
    candidate: int
    """
    Place of this call's model among the candidates, from 0.
    """
    beside: int | None
    """
    Number of the open call beside which this one is made since it is late; null for a call whose turn it is.
    """
    decisions: list[Decision]
    """
    Every model that was considered, and why it was kept or dropped.
    """
    fall_back_on: list[str]
    """
    Error codes that move on to the next candidate beside those that always do.
    """
    complexity: float | None
    """
    Complexity score of the request, 0 to 1, where a strategy asked for it.
    """
    prompt_version: str | None
    """
    Version of the named task's prompt that made the messages.
    """
    repair: bool
    """
    Whether an answer that does not follow its schema is sent back once to be mended.
    """
    downgraded_from: str | None
    """
    The first choice, as `provider/model`, where a cheaper model had to do: for want of energy, or because a limit was nearly used up; null where the first choice stands.
    """
    near_limits: list[NearLimit]
    """
    Limits of the request's tenant, project, user and key that were nearly used up when it was admitted.
    """
    cache_key: bytes | None
    """
    Under what the answer is kept in the response cache; null when it is not.
    """
    cache_until: int | None
    """
    Until when the answer may be served from the response cache.
    """
    reply_to: ReplyTo | None
    """
    Where a copy of the answer goes, beside the response topic.
    """
    unchecked: bool
    """
    Whether the request was admitted by the spare ledger, unchecked against limits and energy, since the ledger was away. That ledger has its calls, then.
    """


AttemptReason: TypeAlias = Literal['first', 'retry', 'redelivery', 'fallback', 'repair', 'cached', 'hedge']
"""
Why a provider call was made: the first one, a retry after a failure, again after a crash left the one before it unknown, at the next candidate, to repair an answer that did not follow its schema, beside one whose first token was late (`hedge`); or none was made because the response cache had the answer.
"""


CallStatus: TypeAlias = Literal['succeeded', 'failed', 'outcome_unknown']
"""
How a provider call ended; `outcome_unknown` when a crash cut it off.
"""


class Costs(TypedDict):
    """
    Cost by token class in nano-USD; null where the tokens or the price are not known.
    """

    input_uncached: int | None
    """
    Cost of the input_uncached tokens, in nano-USD.
    """
    cache_read: int | None
    """
    Cost of the cache_read tokens, in nano-USD.
    """
    cache_write_5m: int | None
    """
    Cost of the cache_write_5m tokens, in nano-USD.
    """
    cache_write_1h: int | None
    """
    Cost of the cache_write_1h tokens, in nano-USD.
    """
    input_audio: int | None
    """
    Cost of the input_audio tokens, in nano-USD.
    """
    output_text: int | None
    """
    Cost of the output_text tokens, in nano-USD.
    """
    reasoning: int | None
    """
    Cost of the reasoning tokens, in nano-USD.
    """
    output_audio: int | None
    """
    Cost of the output_audio tokens, in nano-USD.
    """


class LlmUsage(TypedDict):
    """
    The accounting fact of one provider call, failed and cut-off calls included.
    """

    attempt_id: str
    """
    Id of the provider call: UUID version 5 of the request id and the attempt's number.
    """
    request_id: str
    """
    The request the call was made for; also the record's key.
    """
    tenant: str
    """
    The customer or team that the request belongs to.
    """
    user: str | None
    """
    The end user on whose behalf the request is made.
    """
    api_key_id: str | None
    """
    Id of the virtual key that was used, never the key itself.
    """
    project: str | None
    """
    The project within the tenant.
    """
    tags: dict[str, str]
    """
    Free labels, carried onto every fact.
    """
    task: str | None
    """
    What the request is for, such as `extraction`.
    """
    plan: str | None
    """
    The user's plan, such as `pro`.
    """
    provider: str
    """
    The provider that was called.
    """
    model: str
    """
    The model asked for, without the provider.
    """
    response_model: str | None
    """
    The model that served, as the provider names it.
    """
    provider_response_id: str | None
    """
    The provider's own id of its answer.
    """
    attempt: int
    """
    Number of the call within its request, from 1; 0 where the response cache had the answer.
    """
    reason: AttemptReason
    """
    Why the call was made.
    """
    adjusts: str | None
    """
    Attempt id of the call whose cost this event corrects; then the tokens are null and the costs are signed differences. The event's own id where the response cache had the answer. Either way the event stands for no call. Null for a call.
    """
    status: CallStatus
    """
    How the call ended.
    """
    error_code: str | None
    """
    Code of the error from the closed list; null when succeeded.
    """
    provider_status: int | None
    """
    HTTP status the provider answered with, on an error.
    """
    tokens: Tokens
    """
    Tokens by class.
    """
    costs: Costs
    """
    Cost by token class in nano-USD.
    """
    cost_nano_usd: int | None
    """
    Exact cost of the call in nano-USD, the sum of its classes; null when not known.
    """
    cost_status: CostStatus
    """
    How far the cost is known.
    """
    reserved_nano_usd: int | None
    """
    Upper bound of the call's cost in nano-USD; it counts against budgets while the cost is unknown.
    """
    price_source: str | None
    """
    Where the price came from, such as `genai-prices 0.2.3`, `registry`, or `default price` for a model that has none; or `no price: …` with the terms of service whose price is not known.
    """
    price_date: int | None
    """
    The day whose price was used.
    """
    provider_usage: str | None
    """
    The usage as the provider reported it, JSON in text.
    """
    received_chars: int | None
    """
    Characters of text that had come of a streamed answer when the call ended; null for a call that was not streamed, or that a crash cut off.
    """
    queue_us: int
    """
    From the request's creation to the start of the call, in microseconds.
    """
    first_token_us: int | None
    """
    From the start of the call to its first token, in microseconds, for streamed calls.
    """
    provider_us: int | None
    """
    From the start of the call to its end, in microseconds; null when a crash cut it off.
    """
    total_us: int | None
    """
    From the request's creation to the end of the call, in microseconds; null when a crash cut it off.
    """
    created_at: int
    """
    When the application made the request.
    """
    admitted_at: int
    """
    When the request was admitted.
    """
    started_at: int
    """
    When the call began.
    """
    first_token_at: int | None
    """
    When the first token arrived, for streamed calls.
    """
    finished_at: int
    """
    When the call ended, or was found to be cut off.
    """
    route: str | None
    """
    Name of the route that chose the model.
    """
    prompt_version: str | None
    """
    Version of the named task's prompt.
    """
    credential_id: str | None
    """
    Id of the credential that the call was made with; null for one from the environment.
    """
    credential_owner: str
    """
    Whose credential it was: `platform`, or `tenant` for a key of the tenant's own.
    """
    saved_nano_usd: int | None
    """
    What the answer had cost that the response cache served again, in nano-USD; null for a call.
    """
    unchecked: bool
    """
    Whether the request was admitted by the spare ledger, unchecked against limits and energy, since the ledger was away. Its calls are numbered from 1,001 then.
    """


class LlmChunk(TypedDict):
    """
    A piece of an answer while it is being made.
    """

    request_id: str
    """
    The request that is answered; also the record's key.
    """
    tenant: str
    """
    The customer or team that the request belongs to.
    """
    attempt_id: str
    """
    The provider call that the piece came from. Where two calls were made at once, the answer names the one whose pieces are its text.
    """
    attempt: int
    """
    Number of that call within its request; a higher number than before begins the answer again.
    """
    index: int
    """
    Number of the piece within its call, from 0, without gaps.
    """
    text: str
    """
    The next characters of the answer.
    """
    at: int
    """
    When the piece arrived from the provider.
    """


class LlmControl(TypedDict):
    """
    A word to all workers.
    """

    control_id: str
    """
    Id of the event, the same when it is published again.
    """
    kind: str
    """
    What to do: `cancel` stops a request's call, `refresh` reads the registry again.
    """
    subject: str
    """
    What it is about: the request id of a `cancel`, `registry` for a `refresh`; also the record's key.
    """
    tenant: str | None
    """
    The tenant of the request to be cancelled; another tenant's request is left alone.
    """
    by: str | None
    """
    Who asked for it.
    """
    at: int
    """
    When it was asked for.
    """


Severity: TypeAlias = Literal['info', 'warning', 'critical']
"""
How urgent an alert is.
"""


class LlmAlert(TypedDict):
    """
    Something an operator should know, stated once.
    """

    alert_id: str
    """
    Id of the alert, the same when it is published again.
    """
    kind: str
    """
    What happened, such as `registry_snapshot_refused`.
    """
    severity: Severity
    """
    How urgent it is.
    """
    subject: str
    """
    What the alert is about, such as a provider or an account; also the record's key.
    """
    tenant: str | None
    """
    The tenant it concerns; null when it concerns the whole deployment.
    """
    message: str
    """
    One sentence with the value and the next action; never a secret.
    """
    details: dict[str, str]
    """
    Figures behind the sentence, each as text.
    """
    raised_at: int
    """
    When the condition was seen.
    """


class Header(TypedDict):
    """
    One Kafka record header.
    """

    key: str
    """
    Name of the header.
    """
    value: bytes | None
    """
    Value of the header.
    """


class DeadLetter(TypedDict):
    """
    A record that a stage could not handle, with everything needed to send it again.
    """

    topic: str
    """
    Topic the record was read from.
    """
    partition: int
    """
    Partition the record was read from.
    """
    offset: int
    """
    Offset the record was read at.
    """
    key: bytes | None
    """
    The record's key, byte for byte.
    """
    value: bytes | None
    """
    The record's value, byte for byte; null for a tombstone.
    """
    headers: list[Header]
    """
    The record's headers, byte for byte.
    """
    timestamp: int
    """
    The record's own timestamp.
    """
    reason: str
    """
    Error code from the closed list in docs/events.md.
    """
    message: str
    """
    One sentence that says what is wrong with the record.
    """
    stage: str
    """
    The stage that rejected it: admit, complete, meter or sink.
    """
    times_seen: int
    """
    How often the record has been a dead letter, this time included.
    """
    failed_at: int
    """
    When the stage rejected it.
    """


Model: TypeAlias = LlmRequest | LlmResponse | LlmCall | LlmUsage | LlmChunk | LlmControl | LlmAlert | DeadLetter
