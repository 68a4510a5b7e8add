"""The schema registry, through the HTTP interface that Confluent's, Apicurio's and Karapace's registries share.

https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

from config.settings import PROVIDER_NAMES, Settings, SettingsError
from core.topics import all_topics
from schemas.avro import Schema
from schemas.codec import Codec

TIMEOUT_SECONDS = 10.0


class SchemaRegistry:
    """A registry at `url`, such as http://127.0.0.1:8081; OSError when it cannot be reached."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def schema_of(self, schema_id: int) -> Schema | None:
        """The schema with this id, None when the registry has none."""
        try:
            found = self._ask("GET", f"/schemas/ids/{schema_id}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        schema: Schema = json.loads(found["schema"])
        return schema

    def id_of(self, subject: str, schema: Schema) -> int:
        """The id of the schema under a subject; it is registered when it is new, refused (OSError) when incompatible."""
        body = {"schema": json.dumps(schema), "schemaType": "AVRO"}
        return int(self._ask("POST", f"/subjects/{quote(subject, safe='')}/versions", body)["id"])

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return json.load(answer)


def open_codec(settings: Settings) -> Codec:
    """The codec that the settings ask for, its schemas registered; `SettingsError` when the registry is out of reach."""
    if settings.schema_registry_url is None:
        return Codec()
    codec = Codec(SchemaRegistry(settings.schema_registry_url))
    try:
        codec.register({t.record: f"{t.on(settings.topic_prefix)}-value" for t in all_topics(PROVIDER_NAMES)})
    except OSError as error:
        raise SettingsError(
            f"The schema registry at MILLSTREAM_SCHEMA_REGISTRY_URL={settings.schema_registry_url} does not take our "
            f"schemas ({error}); start it or correct the address."
        ) from None
    return codec
