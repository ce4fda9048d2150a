"""JSON Schemas of types and functions, the strict form, and JSON texts as values."""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import jsonschema
import msgspec
import pydantic
import pytest

from llm_manager import (
    InvalidParameterError,
    InvalidResponseError,
    LLMRequestOptions,
    LLMResponse,
    ToolDefinition,
    UnsupportedFeatureError,
)
from llm_manager.schemas import (
    described,
    is_strict,
    json_in,
    parsed,
    schema_of,
    strict_schema,
    validator_of,
)
from llm_manager.testing import Reply, ScriptedPeer

ROOT = Path(__file__).parent.parent


class Unit(Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


@dataclass
class Place:
    """Where it is.

    Attributes:
        town: the name of the town
        country: two letters
    """

    town: str
    country: str = "NO"


class Node(msgspec.Struct):
    """A tree."""

    value: int
    children: list[Node] = []
    note: str = ""


class Person(TypedDict):
    name: str
    age: NotRequired[int]


class Inner(pydantic.BaseModel):
    number: int
    note: str = ""


class Model(pydantic.BaseModel):
    inner: Inner
    again: Model | None = None


@dataclass
class Everything:
    unit: Unit
    kind: Literal["a", "b"]
    place: Place | None = None
    counts: dict[str, int] = field(default_factory=dict)
    models: list[Model] = field(default_factory=list)
    either: int | str = 0


# ---- schemas of types ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Place, Node, Person, Inner, Model, Everything, dict[str, int]])
def test_the_schema_of_a_type_is_an_object_schema_that_is_valid(kind) -> None:
    schema = schema_of(kind)
    assert schema["type"] == "object"
    assert "$ref" not in schema
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("kind", "fits", "misfit"),
    [
        (Place, {"town": "Oslo"}, {"town": 5}),
        (Node, {"value": 1, "children": [{"value": 2}]}, {"value": 1, "children": [{}]}),
        (Person, {"name": "Ada"}, {"age": 3}),
        (Model, {"inner": {"number": 1}}, {"inner": {"number": "x"}}),
        (
            Everything,
            {"unit": "celsius", "kind": "a", "models": [{"inner": {"number": 1}}], "either": "x"},
            {"unit": "celsius", "kind": "a", "models": [{"inner": {}}]},
        ),
    ],
)
def test_a_schema_accepts_what_the_type_accepts_and_refuses_what_it_refuses(
    kind, fits, misfit
) -> None:
    validator = jsonschema.Draft202012Validator(schema_of(kind))
    assert validator.is_valid(fits)
    assert not validator.is_valid(misfit)
    parsed(msgspec.json.encode(fits).decode(), kind)
    with pytest.raises(InvalidResponseError):
        parsed(msgspec.json.encode(misfit).decode(), kind)


def test_a_type_that_contains_itself_keeps_its_definition() -> None:
    schema = schema_of(Node)
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert schema["$defs"]["Node"]["properties"] == schema["properties"]


def test_a_type_that_does_not_contain_itself_has_no_definitions() -> None:
    assert "$defs" not in schema_of(Place)
    assert set(schema_of(Everything)["$defs"]) == {"Unit", "Place", "Model", "Inner"}


def test_names_and_docstrings_tell_the_model_what_is_meant() -> None:
    schema = schema_of(Place)
    assert (schema["title"], schema["description"]) == ("Place", "Where it is.")
    assert schema["properties"]["town"]["description"] == "the name of the town"
    assert schema["properties"]["country"]["default"] == "NO"


def test_an_enumeration_says_its_type() -> None:
    unit = schema_of(Everything)["$defs"]["Unit"]
    assert (unit["type"], sorted(unit["enum"])) == ("string", ["celsius", "fahrenheit"])


def test_two_types_of_one_name_are_refused_instead_of_mixed_up() -> None:
    other = pydantic.create_model("Place", street=(str, ...))
    outer = pydantic.create_model("Outer", inner=(other, ...))
    holder = msgspec.defstruct("Holder", [("a", Place), ("b", list[outer])])
    with pytest.raises(InvalidParameterError, match="two different types are called 'Place'"):
        schema_of(holder)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (list[int], "list is no JSON object"),
        (int, "int is no JSON object"),
        (object, "object cannot be described as JSON"),
        ("Place", "cannot be described as JSON"),
        (5, "cannot be described as JSON"),
    ],
)
def test_what_no_answer_can_be_is_refused_with_its_name(kind, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        schema_of(kind)


def test_a_type_as_response_format_is_kept_as_its_schema() -> None:
    options = LLMRequestOptions(response_format=Place)
    assert options.response_format == schema_of(Place)


# ---- the strict form -----------------------------------------------------------------------------


def test_the_strict_form_closes_every_object_and_requires_every_property() -> None:
    schema = schema_of(Node)
    strict = strict_schema(schema)
    assert not is_strict(schema)
    assert is_strict(strict)
    assert strict["required"] == ["value", "children", "note"]
    assert strict["$defs"]["Node"]["additionalProperties"] is False
    assert schema == schema_of(Node), "the given schema must stay as it was"
    jsonschema.Draft202012Validator.check_schema(strict)


@pytest.mark.parametrize(
    ("given", "nullable"),
    [
        ({"type": "string", "default": ""}, {"type": ["string", "null"]}),
        ({"type": ["string", "integer"]}, {"type": ["string", "integer", "null"]}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        (
            {"type": "string", "enum": ["a"]},
            {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]},
        ),
        ({"const": 1}, {"anyOf": [{"const": 1}, {"type": "null"}]}),
        (
            {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
        ),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, None),
        (
            {"$ref": "#/$defs/X", "description": "d"},
            {"description": "d", "anyOf": [{"$ref": "#/$defs/X"}, {"type": "null"}]},
        ),
        (
            {"oneOf": [{"type": "integer"}]},
            {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        ),
    ],
)
def test_what_was_optional_may_be_null_instead(given, nullable) -> None:
    strict = strict_schema({"type": "object", "properties": {"x": given}})
    expected = {key: value for key, value in given.items() if key != "default"}
    assert strict["properties"]["x"] == (nullable or expected)
    assert strict["required"] == ["x"]


def test_what_was_required_is_not_made_nullable() -> None:
    strict = strict_schema(
        {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
    )
    assert strict["properties"]["x"] == {"type": "string"}


def test_nothing_stands_beside_a_reference() -> None:
    schema = {
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/X", "description": "d"}},
        "required": ["x"],
    }
    assert strict_schema(schema)["properties"]["x"] == {
        "description": "d",
        "anyOf": [{"$ref": "#/$defs/X"}],
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {"x": {"type": "object"}}},
        {"type": "array", "items": {"type": ["object", "null"]}},
    ],
)
def test_an_object_with_free_keys_has_no_strict_form(schema) -> None:
    with pytest.raises(UnsupportedFeatureError, match="may have any keys"):
        strict_schema(schema)
    assert not is_strict(schema)


def test_an_answer_in_the_strict_form_fits_the_type_it_was_made_from() -> None:
    text = '{"value": 1, "note": null, "children": [{"value": 2, "note": null, "children": []}]}'
    assert jsonschema.Draft202012Validator(strict_schema(schema_of(Node))).is_valid(
        msgspec.json.decode(text)
    ), "the test is about an answer that a strict service gives"
    assert parsed(text, Node) == Node(1, [Node(2)])
    assert validator_of(schema_of(Node)).problems(msgspec.json.decode(text)) == []


# ---- texts as values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"town": "Oslo"}',
        '  {"town": "Oslo"}\n',
        '```json\n{"town": "Oslo"}\n```',
        'Here it is:\n\n```\n{"town": "Oslo"}\n```\nAnything else?',
        'Sure! {"town": "Oslo"} Anything else?',
    ],
)
def test_json_is_found_in_what_models_put_around_it(text) -> None:
    assert parsed(text, Place) == Place("Oslo")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "I cannot do that.",
        '{"town": "Oslo"} or {"town": "Bergen"}',
        '```\n{"town": "Oslo"}\n```\n```\n{"town": "Bergen"}\n```',
        '{"town": "Os',
        "} {",
        "[" * 100_000,
    ],
)
def test_nothing_is_guessed_where_it_is_not_clear_what_is_meant(text) -> None:
    with pytest.raises(InvalidResponseError, match="the answer is no Place") as raised:
        parsed(text, Place)
    assert raised.value.code == "schema_mismatch"


def test_a_fence_inside_a_json_text_is_part_of_the_text() -> None:
    text = msgspec.json.encode({"town": "```json\n{}\n```"}).decode()
    assert parsed(text, Place).town == "```json\n{}\n```"
    assert json_in(text) == text


@pytest.mark.parametrize(
    ("text", "kind", "place"),
    [
        ('{"value": 1, "children": [{"value": "x"}]}', Node, r"\$\.children\[0\]\.value"),
        ('{"value": 1, "children": [{}]}', Node, r"`value` - at `\$\.children\[0\]"),
        ('{"inner": {"number": "x"}}', Model, r"\$\.inner\.number: "),
        ('[{"number": "x"}]', list[Inner], r"\$\.number: .*at `\$\[0\]"),
        ('{"value": null}', Node, "value"),
    ],
)
def test_the_error_names_the_place(text, kind, place) -> None:
    with pytest.raises(InvalidResponseError, match=place):
        parsed(text, kind)


def test_an_error_of_pydantic_does_not_repeat_the_value() -> None:
    with pytest.raises(InvalidResponseError) as raised:
        parsed('{"inner": {"number": "secret words"}}', Model)
    assert "secret words" not in str(raised.value)


def test_a_null_where_none_is_taken_counts_as_left_out_everywhere() -> None:
    assert parsed('[{"number": 1, "note": null}]', list[Inner]) == [Inner(number=1)]
    assert parsed('{"inner": {"number": 1, "note": null}}', Model).inner == Inner(number=1)
    assert parsed('{"a": {"town": "Oslo", "country": null}}', dict[str, Place]) == {
        "a": Place("Oslo")
    }
    many = [{"town": str(i), "country": None} for i in range(2_000)]
    assert len(parsed(msgspec.json.encode(many).decode(), list[Place])) == 2_000


def test_an_answer_that_was_cut_off_says_what_to_do() -> None:
    response = LLMResponse(text='{"town": "Os', finish_reason="length")
    with pytest.raises(InvalidResponseError, match="raise max_tokens") as raised:
        response.parse(Place)
    assert raised.value.partial is response


# ---- functions -----------------------------------------------------------------------------------


def forecast(
    place: Place,
    days: int,
    unit: Unit = Unit.CELSIUS,
    detail: Literal["brief", "full"] = "brief",
    tags: list[str] = [],  # noqa: B006
    hours: Annotated[float, "how far ahead"] = 1.5,
    model: Model | None = None,
    limit: int = None,  # noqa: RUF013 - an old habit
    anything=3,
):
    """Say how the weather will be.

    It is a guess.

    Args:
        place (Place): where,
            in which country
        days: for how long
        hours: less strong than the annotation

    Returns:
        A text.
    """
    return (place, days, unit, detail, tags, hours, model, limit, anything)


def test_a_function_becomes_a_definition() -> None:
    definition = ToolDefinition.from_function(forecast)
    schema = definition.parameters
    properties = schema["properties"]

    assert (definition.name, definition.description) == (
        "forecast",
        "Say how the weather will be.\n\nIt is a guess.",
    )
    assert schema["required"] == ["place", "days"]
    assert schema["additionalProperties"] is False
    assert list(properties) == [*forecast.__annotations__, "anything"]
    assert properties["place"]["description"] == "where, in which country"
    assert properties["hours"] == {
        "type": "number", "description": "how far ahead", "default": 1.5
    }  # fmt: skip
    assert properties["unit"]["default"] == "celsius"
    assert properties["detail"]["enum"] == ["brief", "full"]
    assert {"type": "null"} in properties["limit"]["anyOf"]
    assert properties["anything"] == {"default": 3}
    assert set(schema["$defs"]) == {"Place", "Unit", "Model", "Inner"}
    jsonschema.Draft202012Validator.check_schema(schema)


def test_arguments_arrive_as_the_types_of_the_annotations_with_the_functions_defaults() -> None:
    known = described(forecast)
    arguments = known.arguments_from(
        {"place": {"town": "Oslo"}, "days": 2, "model": {"inner": {"number": 1}}}
    )
    assert forecast(**arguments) == (
        Place("Oslo"), 2, Unit.CELSIUS, "brief", [], 1.5, Model(inner=Inner(number=1)), None, 3
    )  # fmt: skip


def test_name_and_description_can_be_given() -> None:
    definition = ToolDefinition.from_function(forecast, name="weather", description="")
    assert (definition.name, definition.description) == ("weather", "")


def test_a_docstring_of_the_numpy_style_is_read() -> None:
    def area(width, height: float = 1.0, *, unit: str = "m"):
        """Say how large it is.

        Parameters
        ----------
        width : float
            From left to right,
            in metres.
        height, unit
            The rest.

        Returns
        -------
        float
            The area.
        """

    known = described(area)
    assert known.description == "Say how large it is."
    meanings = {k: v.get("description") for k, v in known.parameters["properties"].items()}
    assert meanings == {
        "width": "From left to right, in metres.",
        "height": "The rest.",
        "unit": "The rest.",
    }


def test_words_that_look_like_a_section_are_none_without_a_colon_or_a_line() -> None:
    def f(x: int):
        """Do it.

        Notes
        are kept: this is text.

        Args:
            x: first line
                example: goes on
        """

    known = described(f)
    assert known.description.endswith("this is text.")
    assert known.parameters["properties"]["x"]["description"] == "first line example: goes on"


class Desk:
    async def open(self, drawer: int) -> None:
        """Open a drawer."""

    def __call__(self, drawer: int) -> None:
        """Use the desk."""

    @classmethod
    def new(cls, drawers: int) -> Desk: ...

    @staticmethod
    def size(unit: str) -> int: ...


@pytest.mark.parametrize(
    ("function", "name", "parameters"),
    [
        (Desk().open, "open", ["drawer"]),
        (Desk(), "Desk", ["drawer"]),
        (Desk.new, "new", ["drawers"]),
        (Desk.size, "size", ["unit"]),
        (functools.partial(forecast, Place("Oslo"), days=1), "forecast", ["unit", "detail"]),
    ],
)
def test_what_is_bound_already_is_not_asked_of_the_model(function, name, parameters) -> None:
    known = described(function)
    assert known.name == name
    assert list(known.parameters["properties"])[:2] == parameters


def several(*values: int): ...


def named(**values: int): ...


def by_place(value: int, /): ...


def unreadable(value: Nowhere): ...  # noqa: F821 - that is the point


def inexpressible(value: int, other: object): ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (several, r"several\(\) cannot be a tool: .* \*values"),
        (named, r"named\(\) cannot be a tool: .* \*\*values"),
        (by_place, "value takes no name"),
        (unreadable, "'Nowhere' is not defined"),
        (inexpressible, "parameter other: object cannot be described"),
        (Desk.open, "nobody gives it its self"),
        (Desk, "has to be a function"),
        ("forecast", "has to be a function"),
    ],
)
def test_a_function_that_no_model_can_call_is_refused(function, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        ToolDefinition.from_function(function)


@pytest.mark.parametrize(
    "definition",
    [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
        {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True},
        {"name": "f", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
        {"name": "f", "parameters": {"type": "object"}},
    ],
)
def test_a_definition_in_the_form_of_a_service_is_read(definition) -> None:
    assert ToolDefinition.from_dict(definition) == ToolDefinition(
        name="f", parameters={"type": "object"}
    )


@pytest.mark.parametrize(
    ("definition", "text"),
    [
        ({"type": "function", "function": "f"}, "function must be a dictionary"),
        ({"name": "f", "paramters": {}}, "did you mean 'parameters'"),
        ({"description": "no name"}, "name"),
    ],
)
def test_a_definition_that_is_wrong_is_refused_with_the_key(definition, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        ToolDefinition.from_dict(definition)


# ---- checks by a schema --------------------------------------------------------------------------


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "unit": {"enum": ["c", "f"]},
        "at": {"anyOf": [{"$ref": "#/$defs/Point"}, {"type": "null"}]},
        "version": {"const": 1},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"Point": {"type": "object", "properties": {"x": {"type": ["integer", "number"]}}}},
}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (5, "arguments: expected object, got 5"),
        ({}, "arguments: 'city' missing"),
        ({"city": 5}, "arguments.city: expected string, got 5"),
        ({"city": "x", "unit": "k"}, 'arguments.unit: expected one of "c", "f", got "k"'),
        ({"city": "x", "version": 2}, "arguments.version: expected 1, got 2"),
        ({"city": "x", "town": 1}, 'arguments: unknown ["town"]; known are city, unit'),
        ({"city": "x", "at": {"x": "y"}}, 'arguments.at.x: expected integer or number, got "y"'),
        ({"city": "x" * 50}, "breaks the rule maxLength: 20"),
    ],
)
def test_the_problem_is_told_in_words_that_help_to_mend_it(value, problem) -> None:
    (told,) = validator_of(SCHEMA).problems(value, "arguments")
    assert problem in told


def test_what_fits_has_no_problem() -> None:
    assert validator_of(SCHEMA).problems({"city": "Oslo", "at": {"x": 1}}) == []


def test_a_problem_with_a_huge_value_is_told_in_few_words() -> None:
    value = {"city": ["x" * 1_000_000], **{f"key{i}": i for i in range(1000)}}
    problems = validator_of(SCHEMA).problems(value)
    assert sum(map(len, problems)) < 1_000


def test_data_nested_too_deeply_is_a_problem_not_a_crash() -> None:
    tree: dict[str, Any] = {"value": 1}
    leaf = tree
    for _ in range(900):
        leaf["children"] = [{"value": 1}]
        leaf = leaf["children"][0]
    assert validator_of(schema_of(Node)).problems(tree) == ["$: it is nested too deeply"]


def test_a_validator_is_made_once_for_a_schema() -> None:
    assert validator_of(schema_of(Place)) is validator_of(schema_of(Place))


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "nothing"}, "no JSON Schema"),
        ({"type": object()}, "not JSON"),
    ],
)
def test_what_is_no_schema_is_refused(schema, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        validator_of(schema)


def test_a_reference_to_nowhere_is_an_error() -> None:
    validator = validator_of({"properties": {"x": {"$ref": "#/$defs/Nothing"}}})
    with pytest.raises(InvalidParameterError, match="refers to what it has not"):
        validator.problems({"x": 1})


def test_a_reference_to_another_document_is_never_fetched() -> None:
    with ScriptedPeer(fallback=Reply.json({"type": "integer"})) as peer:
        validator = validator_of({"properties": {"x": {"$ref": f"{peer.base_url}/schema.json"}}})
        with pytest.raises(InvalidParameterError, match="refers to what it has not"):
            validator.problems({"x": 1})
        assert peer.connections_opened == 0


def test_the_draft_that_a_schema_names_is_the_one_it_is_checked_by() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "array",
        "items": [{"type": "integer"}],
    }
    assert validator_of(schema).problems([1, "x"]) == []
    assert validator_of(schema).problems(["x"]) == ['$[0]: expected integer, got "x"']


def test_without_jsonschema_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['jsonschema'] = None\n"
        "from llm_manager import DependencyMissingError\n"
        "from llm_manager.schemas import described, parsed, schema_of, validator_of\n"
        "def f(x: int): ...\n"
        "assert described(f).arguments_from({'x': 1}) == {'x': 1}\n"
        "try: validator_of({})\n"
        "except DependencyMissingError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "pip install '.[tools]'" in done.stdout
