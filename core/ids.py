"""Ids that follow from other ids, so that a repetition has the same ones."""

from __future__ import annotations

import uuid


def derived(of: str, name: str) -> str:
    """The id of something of a request or a call: UUID version 5 in the namespace of its id (RFC 9562, section 5.5).

    Ids are compared as texts, so that one in capitals is another one, and so is what is derived from it.
    """
    namespace = uuid.UUID(of)
    return str(uuid.uuid5(namespace if str(namespace) == of else uuid.uuid5(uuid.NAMESPACE_OID, of), name))
