"""From what a user asks for to a call on one route, with the most that an attempt of it can cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bltybench.errors import UserError
from bltybench.load.recorder import CallContext
from bltybench.load.run.context import RunContext
from bltybench.load.run.upstream import Headers
from bltybench.scenario.api.request_options import (
    RequestOptions,
    choices,
    max_completion_tokens,
    request_body,
)
from bltybench.scenario.api.routes import Route
from bltybench.scenario.prompts import tokens
from bltybench.wire.answer_check import expected_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A call before its target, key, and model are chosen."""

    call_id: str
    messages: Sequence[Mapping[str, Any]]
    stream: bool
    max_tokens: int | None
    temperature: float | None
    name: str | None
    prompt_tokens: int | None
    stage: str | None
    turn: int | None = None
    options: RequestOptions | None = None
    keep_text: bool = False
    recorded: Mapping[str, Any] | None = None
    """The whole body, if it is sent as it was recorded."""
    headers: Headers = ()
    """Recorded headers, which are sent, too."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of the body."""

    def on(self, context: RunContext, route: Route) -> CallContext:
        """Return the call on a route. End the run if the target's budget can't bound its cost."""
        target = context.upstreams[route.target].target
        model = target.model_name(route.model)
        if self.recorded is not None:
            body = {**self.recorded, "model": model}
        else:
            body = request_body(
                target,
                self.options,
                model=model,
                messages=self.messages,
                stream=self.stream,
                max_tokens=self.max_tokens,
                temperature=self.temperature,
            )
            body |= self.parameters
        return compose_call(
            context,
            route,
            self.call_id,
            body,
            name=self.name,
            prompt_tokens=self.prompt_tokens,
            stage=self.stage,
            turn=self.turn,
            options=self.options,
            keep_text=self.keep_text,
            headers=self.headers,
        )


def compose_call(
    context: RunContext,
    route: Route,
    call_id: str,
    body: Mapping[str, Any],
    *,
    name: str | None,
    prompt_tokens: int | None,
    stage: str | None = None,
    turn: int | None = None,
    options: RequestOptions | None = None,
    keep_text: bool = False,
    headers: Headers = (),
) -> CallContext:
    """Return a call with ``body``. End the run if the target's budget can't bound its cost."""
    upstream = context.upstreams[route.target]
    model, stream = body["model"], bool(body.get("stream"))
    max_tokens = max_completion_tokens(body, options, upstream.target)
    if prompt_tokens is None and upstream.budget.counts_tokens:
        prompt_tokens = tokens.count_messages(body["messages"])
    if prompt_tokens is not None:
        prompt_tokens += tokens.count_definitions(body)
    try:
        reserved = upstream.budget.cost(model, prompt_tokens, max_tokens and max_tokens * choices(body))
    except UserError as error:
        context.abort(error)
    return CallContext(
        route=route,
        call_id=call_id,
        name=name or ("stream" if stream else "chat"),
        body=msgspec.json.encode(body),
        stream=stream,
        model=model,
        max_tokens=max_tokens,
        prompt_tokens=prompt_tokens,
        keep_text=keep_text,
        headers=headers,
        expected=expected_answer(body),
        stage=stage or context.source.stage_now(),
        turn=turn,
        can_be_empty=bool(body.get("stop")),
        reserved=reserved,
    )
