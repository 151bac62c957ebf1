"""The used parts of a chat API's responses. Decoding skips everything else.

Fields that servers fill in their own ways are ``Any`` and checked where they are used, so that an unexpected
value there does not make the whole event unreadable.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

D = TypeVar("D")
T = TypeVar("T")
Empty = Literal["", None]
"""A field of a delta that adds nothing."""


class Delta(msgspec.Struct, gc=False):
    """What a choice adds to a stream, or the ``message`` of a plain completion."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None
    function_call: Any = None
    refusal: Any = None
    audio: Any = None


class Choice(msgspec.Struct, gc=False):
    """One choice of a chunk or of a plain completion. The older completions API uses ``text``."""

    index: Any = 0
    delta: Delta | None = None
    message: Delta | None = None
    text: Any = None
    finish_reason: Any = None
    usage: Any = None
    error: Any = None


class Chunk(msgspec.Struct, gc=False):
    """A streamed chunk or a plain completion."""

    id: Any = None
    model: Any = None
    choices: list[Choice] | None = None
    usage: Any = None
    x_groq: Any = None
    """Groq's own fields, which include the usage of a stream."""
    error: Any = None


class TextPart(msgspec.Struct, gc=False):
    """A typed part of the content (Mistral)."""

    type: Literal["text"]
    text: str


class Arguments(msgspec.Struct, gc=False):
    """The function of a tool call, of which its first delta had the name."""

    arguments: str
    name: None = None


class ArgumentsPart(msgspec.Struct, gc=False):
    """A part of the arguments of a tool call that has begun."""

    index: int
    function: Arguments
    id: None = None
    type: None = None


class PlainDelta(msgspec.Struct, gc=False):
    """The fields that must be empty in a delta that adds nothing but text, reasoning, or arguments."""

    function_call: None = None
    refusal: None = None
    audio: None = None


class TextDelta(PlainDelta, gc=False, kw_only=True):
    """A delta that adds text, and nothing else."""

    content: Annotated[str, msgspec.Meta(min_length=1)]
    reasoning_content: Empty = None
    reasoning: Empty = None
    tool_calls: None = None


class ArgumentsDelta(PlainDelta, gc=False, kw_only=True):
    """A delta that adds arguments of one tool call, and nothing else."""

    tool_calls: tuple[ArgumentsPart]
    content: Empty = None
    reasoning_content: Empty = None
    reasoning: Empty = None


class MixedDelta(PlainDelta, gc=False, kw_only=True):
    """A delta that adds text, perhaps as typed parts, or reasoning, and nothing else."""

    content: str | list[TextPart] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: None = None


class PlainChoice(msgspec.Struct, Generic[D], gc=False):
    """The first choice, while it is not finished."""

    delta: D
    index: Literal[0] = 0
    message: None = None
    text: None = None
    finish_reason: None = None
    usage: None = None
    error: None = None


class PlainChunk(msgspec.Struct, Generic[D], gc=False):
    """A chunk like most of a stream: one kind of delta of one choice. The decoder rejects all others."""

    choices: tuple[PlainChoice[D]]
    usage: Any = None
    x_groq: None = None
    error: None = None


decode_chunks = msgspec.json.Decoder(list[Chunk]).decode
decode_texts = msgspec.json.Decoder(list[PlainChunk[TextDelta]]).decode
decode_arguments = msgspec.json.Decoder(list[PlainChunk[ArgumentsDelta]]).decode
decode_mixed = msgspec.json.Decoder(list[PlainChunk[MixedDelta]]).decode
_decode_chunk = msgspec.json.Decoder(Chunk).decode
_decode_any = msgspec.json.Decoder().decode
_HALF_PAIR = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Surrogates other than those that stand for a byte that is not UTF-8."""


def decode_chunk(data: bytes) -> Chunk:
    """Decode a chunk or a plain completion. Raises ValueError for anything else."""
    try:
        return _decode_chunk(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return msgspec.convert(_decode_lenient(data), Chunk)


def as_array(events: Sequence[bytes] | None) -> bytes | None:
    """Return the data of events as one JSON array, if each is in one line; return None otherwise.

    Decoding them one by one takes several times as long.
    """
    if events is None:
        return None
    data = b"[" + b",".join(events) + b"]"
    if b"\n" in data:  # several events in a piece; the search for their ends is slow
        data = data.replace(b"\n\ndata:", b",")
    return None if b"\n" in data else data


def decode_array(data: bytes, decode: Callable[[bytes], list[T]], count: int) -> list[T] | None:
    """Decode an array of ``count`` items; return None if it is another one."""
    try:
        items = decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return items if len(items) == count else None


def decode_any(data: bytes) -> Any:
    """Decode any JSON. Raises ValueError for anything else."""
    try:
        return _decode_any(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_lenient(data)


def decode_or_none(data: bytes) -> Any:
    """Decode any JSON; return None for anything else."""
    try:
        return decode_any(data)
    except ValueError:
        return None


def json_text(value: Any) -> str:
    """Return decoded JSON as text for a message. It can hold halves of surrogate pairs, as the input can."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return "nested too deeply"


def _decode_lenient(data: bytes) -> Any:
    """Decode what strict decoders reject: half a surrogate pair, raw control characters, bad UTF-8.

    A server that splits its text at every token also splits characters. ``join_surrogates`` rejoins them.
    """
    try:
        return json.loads(data.decode("utf-8-sig", "surrogateescape"), strict=False)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def join_surrogates(text: str) -> str:
    """Join halves of surrogate pairs and bytes of a character, and replace those without a partner."""
    if text.isascii():
        return text
    paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    escaped = _HALF_PAIR.sub("\ufffd", paired)
    return escaped.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
