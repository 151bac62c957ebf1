"""What the chunks of an answer add up to: its text, finish reason, usage, and error."""

from collections.abc import Sequence
from typing import Any

from bltybench.wire.sse.chunk import ArgumentsPart, Choice, Chunk, Delta, MixedDelta, join_surrogates
from bltybench.wire.sse.delta import (
    finish_reason_in,
    has_audio,
    is_failure,
    joined_tool_call,
    merge_tool_call,
    reasoning_in,
    text_in,
    text_of,
    uncommon_text_in,
)

MAX_PARTS = 64
"""New parts of the texts after which ``settle`` joins them. One string per token would take ten times the
memory."""


class Answer:
    """A plain completion, or the chunks of a stream so far."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._uncommon: list[str] = []
        """Text that only counts: of other choices, and of rare kinds."""
        self._starts, self._settled = [0, 0, 0], 0
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self._unfinished: set[int] = set()
        self.declined = False
        """Whether the model declined in the first choice (``refusal``)."""
        self.error: Any = None
        self.finish_reason: str | None = None
        """That of the first choice, unless another one failed."""
        self.usage: dict[str, Any] | None = None
        self.response_id: str | int | None = None
        self.model: str | int | None = None

    @property
    def text(self) -> str:
        """Text of the first choice."""
        return join_surrogates("".join(self._text))

    @property
    def reasoning(self) -> str:
        """Reasoning of the first choice."""
        return join_surrogates("".join(self._reasoning))

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """Tool calls of the first choice, with their arguments joined."""
        return [joined_tool_call(self._tool_calls[index]) for index in sorted(self._tool_calls)]

    @property
    def generated_text(self) -> str:
        """Everything that the server generated, in all choices: the text from which tokens are counted."""
        functions = (call["function"] for call in self.tool_calls)
        calls = (f"{function.get('name', '')}{function.get('arguments', '')}" for function in functions)
        return "".join((self.reasoning, self.text, join_surrogates("".join(self._uncommon)), *calls))

    @property
    def finished(self) -> bool:
        """Whether every choice has a finish reason."""
        return self.finish_reason is not None and not self._unfinished

    def add(self, chunk: Chunk) -> tuple[bool, bool]:
        """Add a decoded chunk. Return whether it holds content, and whether it holds more than reasoning."""
        if self.response_id is None and isinstance(chunk.id, str | int):
            self.response_id = chunk.id
        if self.model is None and isinstance(chunk.model, str | int):
            self.model = chunk.model
        if isinstance(chunk.x_groq, dict):
            self._add_error(chunk.x_groq.get("error"))
            self._add_usage(chunk.x_groq.get("usage"))
        if chunk.usage is not None:
            self._add_usage(chunk.usage)
        content = output = False
        for choice in chunk.choices or ():
            has_content, has_output = self._add_choice(choice)
            content, output = content or has_content, output or has_output
        return content, output

    def _add_mixed(self, deltas: Sequence[MixedDelta]) -> int | None:
        """Add deltas of reasoning and then of text. Return the index of the first text.

        Return None, adding none, if they are not in this order, or one holds both or neither.
        """
        contents = [delta.content for delta in deltas]
        texts = [text if isinstance(text, str) else text_of(text) for text in contents]
        reasoning = [delta.reasoning_content or delta.reasoning or "" for delta in deltas]
        first = next((i for i, text in enumerate(texts) if text), len(texts))
        if any(reasoning[first:]) or not (all(texts[first:]) and all(reasoning[:first])):
            return None
        self._reasoning += reasoning[:first]
        self._text += texts[first:]
        return first

    def _add_arguments(self, parts: Sequence[ArgumentsPart]) -> bool:
        """Add arguments of tool calls. Return False, adding none, if one of the calls has not begun."""
        if not {part.index for part in parts} <= self._tool_calls.keys():
            return False
        for part in parts:
            arguments = self._tool_calls[part.index]["function"].setdefault("arguments", [])
            arguments.append(part.function.arguments)
        return True

    def settle(self) -> None:
        """Join the parts of the texts since the last call if there are many."""
        texts = (self._text, self._reasoning, self._uncommon)
        if sum(map(len, texts)) - self._settled < MAX_PARTS:
            return
        for parts, start in zip(texts, self._starts, strict=True):
            parts[start:] = ["".join(parts[start:])]
        self._starts = [len(parts) for parts in texts]
        self._settled = sum(self._starts)

    def _add_usage(self, usage: Any) -> None:
        """Keep the newest usage. One that is all zeros does not replace another: some servers end with it."""
        if isinstance(usage, dict) and (self.usage is None or usage.get("completion_tokens")):
            self.usage = usage

    def _add_error(self, error: Any) -> None:
        self.error = self.error or ({"error": error} if error else None)

    def _add_choice(self, choice: Choice) -> tuple[bool, bool]:
        index = choice.index if isinstance(choice.index, int) else 0
        content = output = False
        delta = choice.delta or choice.message
        if delta is not None:
            content, output = self._add_delta(delta, first=index == 0)
        if choice.text and isinstance(choice.text, str):
            content = output = True
            (self._uncommon if index else self._text).append(choice.text)
        if choice.error is not None or choice.usage is not None:
            self._add_error(choice.error)
            self._add_usage(choice.usage)
        if not choice.finish_reason:
            self._unfinished.add(index)
            return content, output
        self._unfinished.discard(index)
        reason = finish_reason_in(choice.finish_reason)
        if not is_failure(self.finish_reason) and (
            index == 0 or self.finish_reason is None or is_failure(reason)
        ):
            self.finish_reason = reason or self.finish_reason
        return content, output

    def _add_delta(self, delta: Delta, *, first: bool) -> tuple[bool, bool]:
        content, refusal = delta.content, delta.refusal
        text = text_in(content) if content else ""
        if refusal:
            text = text or text_in(refusal)
            self.declined = self.declined or first
        has_parts = content is not None and not isinstance(content, str)
        reasoning = reasoning_in(delta) if delta.reasoning_content or delta.reasoning or has_parts else ""
        if text:
            (self._text if first else self._uncommon).append(text)
        if reasoning:
            (self._reasoning if first else self._uncommon).append(reasoning)
        if first and isinstance(delta.tool_calls, list):
            for call in delta.tool_calls:
                if isinstance(call, dict):
                    merge_tool_call(self._tool_calls, call)
        if delta.audio or delta.function_call or (delta.tool_calls and not first):
            self._uncommon.append(uncommon_text_in(delta, tool_calls=not first))
        output = bool(text or delta.tool_calls or delta.function_call or (delta.audio and has_audio(delta)))
        return output or bool(reasoning), output
