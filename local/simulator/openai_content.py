"""What the messages of Chat Completions hold, checked as OpenAI does (https://platform.openai.com/docs/api-reference/chat/create)."""

from __future__ import annotations

from local.simulator.calls import Json, Refused
from local.simulator.media import Media, decoded, is_what_it_says

AUDIO = {"wav": "audio/wav", "mp3": "audio/mp3"}
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")


def media_in(messages: list[Json]) -> Media:
    """The media of all messages; `Refused` for one that is not what it says."""
    media = Media(image=765, page=1_000, audio_second=10)
    for number, message in enumerate(messages):
        content = message.get("content")
        for at, part in enumerate(content if isinstance(content, list) else ()):
            place = f"messages[{number}].content[{at}]"
            match part.get("type"):
                case "image_url":
                    _image(part["image_url"]["url"], place, media)
                case "input_audio":
                    _audio(part["input_audio"], place, media)
                case "file":
                    _file(part["file"], place, media)
                case "text" | "refusal":
                    pass
                case other:
                    kinds = "'text', 'image_url', 'input_audio', 'refusal' and 'file'"
                    told = f"Invalid value: '{other}'. Supported values are: {kinds}."
                    raise Refused(400, told, code="invalid_value", param=f"{place}.type")
    return media


def _image(url: str, place: str, media: Media) -> None:
    if url.startswith(("http://", "https://")):
        media.count("image/png", None)
        return
    media_type, data = _data_url(url)
    if data is None:
        raise Refused(400, "Invalid base64 image_url.", code="invalid_base64", param=f"{place}.image_url.url")
    if media_type not in IMAGES or not is_what_it_says(data, media_type):
        message = (
            "You uploaded an unsupported image. Please make sure your image has of one the following formats: "
            "['png', 'jpeg', 'gif', 'webp']."
        )
        raise Refused(400, message, code="invalid_image_format")
    media.count(media_type, data)


def _audio(audio: Json, place: str, media: Media) -> None:
    kind, data = audio.get("format"), decoded(audio.get("data"))
    if kind not in AUDIO:
        message = f"Invalid value: '{kind}'. Supported values are: 'wav' and 'mp3'."
        raise Refused(400, message, code="invalid_value", param=f"{place}.input_audio.format")
    if data is None or not is_what_it_says(data, AUDIO[kind]):
        message = f"The data provided for 'input_audio' is not of valid {kind} format."
        raise Refused(400, message, code="invalid_value", param=f"{place}.input_audio.data")
    media.count(AUDIO[kind], data)


def _file(file: Json, place: str, media: Media) -> None:
    media_type, data = _data_url(str(file.get("file_data")))
    if data is None or media_type != "application/pdf" or not is_what_it_says(data, media_type):
        message = f"Invalid file data: '{place}.file.file_data'. Expected a base64-encoded data URL with an application/pdf MIME type."
        raise Refused(400, message, code="invalid_value", param=f"{place}.file.file_data")
    media.count(media_type, data)


def _data_url(url: str) -> tuple[str, bytes | None]:
    head, _, text = url.partition(",")
    media_type = head.removeprefix("data:").removesuffix(";base64")
    return media_type, decoded(text) if head == f"data:{media_type};base64" else None


def check_tool_turns(messages: list[Json]) -> None:
    """`Refused` where a tool call has no result right behind it, or a result no call before it."""
    open_ids: list[str] = []
    for number, message in enumerate([*messages, {"role": "end"}]):
        if message.get("role") == "tool":
            if message.get("tool_call_id") not in open_ids:
                told = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
                raise Refused(400, told, param=f"messages.[{number}].role")
            open_ids.remove(message["tool_call_id"])
            continue
        if open_ids:
            told = (
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
                f"The following tool_call_ids did not have response messages: {', '.join(open_ids)}"
            )
            raise Refused(400, told, param=f"messages.[{number}].role")
        open_ids = [call["id"] for call in message.get("tool_calls") or ()]


def check_strict(schema: object, place: tuple[str, ...] = ()) -> None:
    """`Refused` for a schema that strict mode does not take (https://developers.openai.com/api/docs/guides/structured-outputs)."""
    if not isinstance(schema, dict):
        raise Refused(
            400, f"Invalid schema for response_format 'answer': In context={place}, schema must be an object."
        )
    properties = schema.get("properties", {})
    missing = [name for name in properties if name not in schema.get("required", ())]
    told = None
    if unknown := schema.keys() & {
        "allOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "dependentRequired",
        "dependentSchemas",
    }:
        told = f"'{min(unknown)}' is not permitted."
    elif "object" in str(schema.get("type")) and schema.get("additionalProperties") is not False:
        told = "'additionalProperties' is required to be supplied and to be false."
    elif missing:
        told = f"'required' is required to be supplied and to be an array including every key in properties. Missing '{missing[0]}'."
    elif not place and schema.get("type") != "object":
        told = f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
    if told:
        raise Refused(
            400, f"Invalid schema for response_format 'answer': In context={place}, {told}", param="response_format"
        )
    for name in ("properties", "$defs"):
        for key, inner in schema.get(name, {}).items():
            check_strict(inner, (*place, name, key))
    for number, inner in enumerate(schema.get("anyOf", ())):
        check_strict(inner, (*place, "anyOf", str(number)))
    if "items" in schema:
        check_strict(schema["items"], (*place, "items"))
