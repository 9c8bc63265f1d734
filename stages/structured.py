"""Captions as JSON of a schema: what the engine's decoding is held to, and the caption within."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from schemas.section import Section


class StructuredSection(Section):
    """The schema that answers are held to by constrained decoding, and which part of them is the caption."""

    json_schema: dict[str, Any] = Field(description="JSON Schema of an answer, an object")
    caption: str = Field("caption", description="the schema's required string property that is the caption")

    @model_validator(mode="after")
    def _holds_a_caption(self) -> "StructuredSection":
        from jsonschema import Draft202012Validator, SchemaError
        from referencing import Registry
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT202012

        try:
            Draft202012Validator.check_schema(self.json_schema)
        except SchemaError as error:
            raise ValueError(f"json_schema is no JSON Schema: {error.message}") from None
        about = self.json_schema.get("properties", {}).get(self.caption)
        if self.json_schema.get("type") != "object" or not isinstance(about, dict) or about.get("type") != "string":
            raise ValueError(f"json_schema must describe an object with a string property {self.caption!r}")
        if self.caption not in self.json_schema.get("required", []):
            raise ValueError(f"json_schema must require {self.caption!r}, which is the caption")
        resource = DRAFT202012.create_resource(self.json_schema)
        resolver = Registry().with_resource("", resource).resolver()
        for reference in _references(self.json_schema):
            try:
                resolver.lookup(reference)
            except Unresolvable:
                raise ValueError(f"json_schema refers to {reference!r}, which it does not hold itself") from None
        return self

    def request(self) -> dict[str, Any]:
        """What a request's body says of it: `response_format` of OpenAI's API, which vLLM understands."""
        named = {"name": "caption", "schema": self.json_schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": named}}

    def caption_of(self, text: str) -> str:
        """The caption in an answer.

        Raises:
            ValueError: the answer is no JSON, or not of the schema; what is wrong with it.
        """
        from jsonschema import Draft202012Validator

        try:
            answer = json.loads(text)
            fault = next(Draft202012Validator(self.json_schema).iter_errors(answer), None)
        except RecursionError:
            raise ValueError("no JSON: nested too deeply") from None
        except ValueError as error:
            raise ValueError(f"no JSON: {error}") from None
        if fault is not None:
            raise ValueError(f"not of the schema: {fault.message[:200]}")
        caption = str(answer[self.caption])
        try:
            caption.encode()
        except UnicodeEncodeError:  # JSON can escape one half of a surrogate pair
            raise ValueError("no text: it has half a character") from None
        return caption


def _references(schema: Any) -> Iterator[str]:
    """All `$ref` of a schema."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)
