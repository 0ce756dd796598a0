"""What documents are held against their JSON schemas with."""

from collections.abc import Mapping
from typing import Any


def assert_fits(document: Any, schema: Mapping[str, Any]) -> None:
    """Raises `jsonschema.ValidationError` where a document does not fit its schema."""
    # It builds forty parsers of addresses when it is imported, which takes two seconds: the
    # processes that only collect these tests go without.
    import jsonschema

    jsonschema.validate(document, schema)
