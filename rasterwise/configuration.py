"""One declaration of what an option may be, which Python, the command line and JSON files are all checked by.

A configuration is a pydantic dataclass: the type of a field, with the range beside it, is its only declaration.
pydantic was chosen over checks of our own since it also reads JSON, and since tyro makes flags of such dataclasses as
of any others. Relations between fields are checked by the class, in a short ``__post_init__``.

The ranges have a generous upper end: what is beyond it is a slip, or would not fit any machine, and is refused before
anything starts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field, fields, is_dataclass
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails, PydanticCustomError

from rasterwise.errors import InputError

Class = TypeVar("Class", bound=type)

LATER: Mapping[str, bool] = {"later": True}
"""Metadata of a field that came after models had been saved, and whose default changes nothing: see ``identity_of``."""


def _as_given(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """A number that was checked. 1 stays 1 and does not become 1.0: fingerprints hash configurations as JSON."""
    checked = check(value)
    return value if type(value) is int else checked


def _kernel(value: int) -> int:
    if value < 3 or value % 2 == 0:
        raise PydanticCustomError("kernel", "an odd number from 3 on")
    return value


def _one_of(*allowed: int) -> AfterValidator:
    def check(value: int) -> int:
        if value not in allowed:
            raise PydanticCustomError("one_of", f"one of {', '.join(map(str, allowed))}")
        return value

    return AfterValidator(check)


_REAL = WrapValidator(_as_given)

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""What ``torch.manual_seed`` takes."""
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""Of things that are done one after another, such as steps."""
CountOrZero = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""A count for which 0 has a meaning of its own, such as "never"."""
BatchSize = Annotated[int, Field(ge=1, le=2**20)]
"""Of things that are in memory at once."""
Pixels = Annotated[int, Field(ge=1, le=2**14)]
"""Height or width of an image or a grid."""
Levels = Annotated[int, Field(ge=2, le=2**24)]
"""Values of a symbol; whole numbers up to the most of them are exact in float32."""
ImageChannels = Annotated[int, _one_of(1, 3)]
"""Grey or RGB."""
PixelLevels = Annotated[int, _one_of(2, 4, 8, 16, 32, 64, 128, 256)]
"""Of a subpixel: a power of two."""
Width = Annotated[int, Field(ge=1, le=2**16)]
"""Features of a layer."""
WidthOrZero = Annotated[int, Field(ge=0, le=2**16)]
"""A width for which 0 has a meaning of its own, such as four times another one."""
Kernel = Annotated[int, Field(le=1023), AfterValidator(_kernel)]
"""Side of a convolution that has a centre, and is wider than it."""
Depth = Annotated[int, Field(ge=1, le=2**10)]
"""Layers, blocks, or heads of one."""
Angle = Annotated[float, Field(ge=0, le=360), _REAL]
"""Degrees."""
Real = Annotated[float, _REAL]
"""Any finite number."""
Weight = Annotated[float, Field(ge=0, le=1e6), _REAL]
"""Of a loss, or another factor that may be 0."""
Positive = Annotated[float, Field(gt=0, le=1e6), _REAL]
"""A factor that may not be 0."""
Share = Annotated[float, Field(ge=0, le=1), _REAL]
"""A part of a whole, or a probability."""
PositiveShare = Annotated[float, Field(gt=0, le=1), _REAL]
"""A share that may not be nothing."""
Decay = Annotated[float, Field(ge=0, lt=1), _REAL]
"""A share that may not be all: a dropout, or the decay of an average."""


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def configuration(*, kw_only: bool = False) -> Callable[[Class], Class]:
    """A frozen dataclass whose fields are checked whenever it is made, also by ``dataclasses.replace``.

    Types are strict: no bool or float is taken for a whole number, no text for a number. Numbers must be finite.

    Args:
        kw_only: As for ``dataclasses.dataclass``.

    Raises:
        InputError: By the constructor: names the first field that is wrong, what came, and what was expected.

    Example:
        >>> @configuration()
        ... class Blur:
        ...     radius: Count = 1
        ...     share: Share = 0.5
        >>> Blur(radius=3)
        Blur(radius=3, share=0.5)
        >>> Blur(share=1.5)
        Traceback (most recent call last):
            ...
        rasterwise.errors.InputError: share is 1.5, expected at most 1
    """

    def decorated(owner: Class) -> Class:
        settings = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")
        made: Any = dataclass(frozen=True, kw_only=kw_only, config=settings)(owner)
        construct, names = made.__init__, [one.name for one in fields(made)]

        @functools.wraps(construct)
        def construct_or_refuse(self: Any, *arguments: Any, **options: Any) -> None:
            try:
                construct(self, *arguments, **options)
            except ValidationError as error:
                raise InputError(first_error(error, names)) from None

        made.__init__ = construct_or_refuse
        return made

    return decorated


def identity_of(config: Any) -> dict[str, Any]:
    """What a configuration is hashed as: its fields by name, but those that came later where they have their default.

    Example:
        >>> @configuration()
        ... class Blur:
        ...     radius: Count = 1
        ...     share: Share = field(default=0.5, metadata=LATER)
        >>> identity_of(Blur()), identity_of(Blur(share=0.25))
        ({'radius': 1}, {'radius': 1, 'share': 0.25})
    """
    content = asdict(config)
    for one in fields(config):
        value = getattr(config, one.name)
        if one.metadata.get("later") and value == one.default:
            del content[one.name]
        elif is_dataclass(value):
            content[one.name] = identity_of(value)
    return content


def first_error(error: ValidationError, names: Sequence[str] = ()) -> str:
    """The first thing that is wrong, as "field is value, expected …".

    Args:
        error: By pydantic.
        names: Of the fields of a constructor that was called with positional arguments.
    """
    found = error.errors(include_url=False)[0]
    if found["type"] == "value_error":
        return str(found["ctx"]["error"])
    place = list(found["loc"])
    if place and isinstance(place[0], int) and place[0] < len(names):
        place[0] = names[place[0]]
    name = ".".join(map(str, place))
    if found["type"] == "missing":
        return f"{name} is missing"
    if found["type"] in ("unexpected_keyword_argument", "unexpected_positional_argument"):
        return f"{name} is no option here"
    if found["type"] == "union_tag_invalid":
        discriminator, tag = (str(found["ctx"][part]).strip("'") for part in ("discriminator", "tag"))
        return f"{name}.{discriminator} is {tag!r}, expected one of {found['ctx']['expected_tags']}"
    if found["type"] == "union_tag_not_found":
        return f"{name} has no {found['ctx']['discriminator']}"
    return f"{name or 'the value'} is {_shown(found['input'])}, expected {_expected(found)}"


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:79] + "…"


def _expected(found: ErrorDetails) -> str:
    limits = found.get("ctx", {})
    match found["type"]:
        case "greater_than_equal":
            return f"{_number(limits['ge'])} or more"
        case "greater_than":
            return f"more than {_number(limits['gt'])}"
        case "less_than_equal":
            return f"at most {_number(limits['le'])}"
        case "less_than":
            return f"less than {_number(limits['lt'])}"
        case "int_type":
            return "a whole number"
        case "float_type":
            return "a number"
        case "bool_type":
            return "true or false"
        case "string_type":
            return "text"
        case "model_attributes_type":
            return "a configuration"
        case "dataclass_type":
            return "an object"
        case "is_instance_of" | "dataclass_exact_type":
            return f"a {limits.get('class') or limits['class_name']}"
    return found["msg"].removeprefix("Input should be ")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.12g}"
