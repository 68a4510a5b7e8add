"""Turn events into Kafka record values and back.

Two wire forms are read, one is written:

- Confluent wire format, byte 0x00 and a four-byte schema id, written where a schema registry is configured
  (https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format);
- Avro single-object encoding, bytes C3 01 and an eight-byte fingerprint, written where none is
  (https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding).

Both resolve the writer's schema to the reader's, so older and newer producers work. An event is a dictionary in the shape
of its `TypedDict` in `schemas.events`; times are integers of microseconds since 1970, dates integers of days.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

from schemas.avro import SCHEMAS, Schema, written

if TYPE_CHECKING:
    from schemas.columnar import Columns, Table

CONFLUENT_MAGIC = b"\x00"
SINGLE_OBJECT_MAGIC = b"\xc3\x01"

Event = dict[str, Any]


class Undecodable(ValueError):
    """The bytes are not an event of the expected kind; the message says why and holds no content."""


class SchemaNotLoaded(LookupError):
    """The value names a schema id that has not been fetched yet: `load` it off the event loop, then decode again."""

    def __init__(self, schema_id: int) -> None:
        super().__init__(f"Schema id {schema_id} has not been fetched from the schema registry yet.")
        self.schema_id = schema_id


class SchemaSource(Protocol):
    """A schema registry, as far as the codec needs one; both calls block."""

    def schema_of(self, schema_id: int) -> Schema | None:
        """The schema with this id, or None when the registry has no such id."""

    def id_of(self, subject: str, schema: Schema) -> int:
        """The id of `schema` under `subject`, registered first when it is new."""


def without_logical_types(schema: Any) -> Any:
    """The schema as plain integers and strings: fastavro builds datetime objects otherwise, at ten times the cost."""
    if isinstance(schema, list):
        return [without_logical_types(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: value for key, value in schema.items() if key != "logicalType"}
    for key in ("type", "items", "values"):
        if key in plain:
            plain[key] = without_logical_types(plain[key])
    if "fields" in plain:
        plain["fields"] = [{**f, "type": without_logical_types(f["type"])} for f in plain["fields"]]
    if set(plain) == {"type"}:
        return plain["type"]
    return plain


def fingerprint_of(schema: Schema) -> bytes:
    """The eight little-endian bytes of the schema's CRC-64-AVRO fingerprint, as single-object encoding wants them."""
    return bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def canonical_form(schema: Schema) -> Schema:
    """What of a schema tells how values are written: no docs, defaults or logical types."""
    form: Schema = json.loads(to_parsing_canonical_form(schema))
    return form


class Codec:
    """Encodes and decodes events; safe to share between threads.

    `source` is the schema registry, or None to write single-object encoding. `older` are further writer schemas that
    values may have been written with beside those of `schemas.avro.written`, known by their fingerprints.
    """

    def __init__(self, source: SchemaSource | None = None, older: tuple[Schema, ...] = ()) -> None:
        self._source = source
        self._readers = {name: _parsed(schema) for name, schema in SCHEMAS.items()}
        self._prefixes = {name: SINGLE_OBJECT_MAGIC + fingerprint_of(schema) for name, schema in SCHEMAS.items()}
        self._by_fingerprint = {prefix[2:]: self._readers[name] for name, prefix in self._prefixes.items()}
        for schema in older:
            self._by_fingerprint[fingerprint_of(schema)] = _parsed(schema)
        self._tables: dict[str, Table] = {}
        self._by_id: dict[int, Schema | None] = {}

    def register(self, subjects: Mapping[str, str]) -> None:
        """Write Confluent wire format from now on: `subjects` maps a record's name to its subject. Blocks."""
        if self._source is None:
            return
        for name, subject in subjects.items():
            schema_id = self._source.id_of(subject, SCHEMAS[name])
            self._prefixes[name] = CONFLUENT_MAGIC + schema_id.to_bytes(4, "big")
            self._by_id[schema_id] = self._readers[name]

    def load(self, schema_id: int) -> None:
        """Fetch a writer's schema by id from the registry and keep it. Blocks; call it off the event loop."""
        schema = self._source.schema_of(schema_id) if self._source else None
        self._by_id[schema_id] = self._writer(schema) if schema else None

    def encode(self, name: str, event: Mapping[str, Any]) -> bytes:
        """The record value of an event; `name` is its record type, such as `LlmRequest`.

        Raises ValueError or TypeError when the event does not have the record's shape.
        """
        out = BytesIO()
        out.write(self._prefixes[name])
        schemaless_writer(out, self._readers[name], event)
        return out.getvalue()

    def decode(self, name: str, value: bytes | None) -> Event:
        """The event in a record value, in the reader's shape with every field present.

        Raises `Undecodable` with a sentence, or `SchemaNotLoaded` when the schema id is new here.
        """
        writer, body = self._writer_of(value)
        stream = BytesIO(body)
        try:
            event = schemaless_reader(stream, writer, self._readers[name])
        except Exception as error:  # fastavro raises many types on bad bytes, IndexError and MemoryError among them
            raise Undecodable(f"The value is not a valid {name} ({type(error).__name__}).") from None
        if stream.read(1):
            raise Undecodable(f"The value has bytes left over after its {name}.")
        if not isinstance(event, dict):
            raise Undecodable(f"The value is not a record of type {name}.")
        return event

    def decode_blocking(self, name: str, value: bytes | None) -> Event:
        """Like `decode`, but fetches an unknown schema id on the spot."""
        try:
            return self.decode(name, value)
        except SchemaNotLoaded as missing:
            self.load(missing.schema_id)
            return self.decode(name, value)

    def decode_columns(self, name: str, values: Sequence[bytes | None]) -> Columns | None:
        """Many events of one kind, a list of values for each field by its path; None where `decode` has to be asked.

        About five times as fast as `decode`, with what makes columns of its events. It gives nothing when one of the values is odd in any way: of another schema, say, or broken.
        Raises TypeError for a record type with fields that cannot be read so (see `schemas.columnar`), and `SchemaNotLoaded`.
        """
        if not values:
            return {}
        if (table := self._tables.get(name)) is None:
            # NumPy takes a quarter of a second to load, and only a sink reads by columns.
            from schemas.columnar import Table

            table = self._tables[name] = Table(self._readers[name])
        try:
            writer, body = self._writer_of(values[0])
        except Undecodable:
            return None
        head = (values[0] or b"")[: len(values[0] or b"") - len(body)]
        if writer is not self._readers[name] or not all(
            value is not None and value.startswith(head) for value in values
        ):
            return None
        return table.columns([value[len(head) :] for value in values if value is not None])

    def _writer_of(self, value: bytes | None) -> tuple[Schema, bytes]:
        if value is None:
            raise Undecodable("The record has no value (a tombstone).")
        if not value:
            raise Undecodable("The value is empty.")
        if value[:2] == SINGLE_OBJECT_MAGIC and len(value) >= 10:
            return self._former(value[2:10]), value[10:]
        if value[:1] == CONFLUENT_MAGIC and len(value) >= 5:
            schema_id = int.from_bytes(value[1:5], "big")
            if self._source is None:
                raise Undecodable(f"The value names schema id {schema_id}, but no schema registry is configured.")
            if schema_id not in self._by_id:
                raise SchemaNotLoaded(schema_id)
            if (writer := self._by_id[schema_id]) is None:
                raise Undecodable(f"The schema registry has no schema with id {schema_id}.")
            return writer, value[5:]
        raise Undecodable("The value is neither Confluent wire format nor Avro single-object encoding.")

    def _former(self, mark: bytes) -> Schema:
        """The writer's schema with this fingerprint, the present one or one of before."""
        if (known := self._by_fingerprint.get(mark)) is not None:
            return known
        if (schema := written().get(mark)) is None:
            raise Undecodable(f"No schema with fingerprint {mark.hex()} is known here.")
        self._by_fingerprint[mark] = found = _parsed(schema)
        return found

    def _writer(self, schema: Schema) -> Schema:
        """The schema as a writer's: the one known by its fingerprint, else a new one."""
        return self._by_fingerprint.get(fingerprint_of(schema)) or _parsed(schema)


def _parsed(schema: Schema) -> Schema:
    parsed: Schema = parse_schema(without_logical_types(schema), named_schemas={})
    return parsed
