"""Expected tokens and number of requests of a scenario, before any prompt is composed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from bltybench.scenario.api.request_options import RequestOptions, choices
from bltybench.scenario.prompts.compose import overhead
from bltybench.scenario.prompts.conversations import Conversation, Conversations, read_conversations
from bltybench.scenario.prompts.lengths import at_quantile, mean
from bltybench.scenario.prompts.request_files import read_requests
from bltybench.scenario.prompts.tokens import ROLE_OVERHEAD, count_definitions
from bltybench.scenario.workload import Call, Scenario


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one request, or a sum."""

    prompt: float
    answer: float
    """Maximum completion tokens: max_tokens."""

    @property
    def total(self) -> float:
        """Sum of both."""
        return self.prompt + self.answer


def mean_tokens(scenario: Scenario, base_dir: Path, defaults: RequestOptions | None = None) -> Tokens:
    """Return the expected tokens of one arrival of the mix, including all turns of a conversation.

    ``defaults`` are the target's request options. Completions are assumed to be as long as allowed. Raise
    UserError if a conversations file is missing or invalid.
    """
    total = sum(call.weight for call in scenario.mix)
    costs = [(call.weight / total, _call_tokens(call, base_dir, defaults)) for call in scenario.mix]
    return Tokens(sum(w * cost.prompt for w, cost in costs), sum(w * cost.answer for w, cost in costs))


def requests_per_arrival(scenario: Scenario) -> float:
    """Return the expected requests per arrival. Conversations with turns have more than one."""
    total = sum(call.weight for call in scenario.mix)
    return sum(call.weight * _turns(call) for call in scenario.mix) / total


def mean_choices(scenario: Scenario, defaults: RequestOptions) -> float:
    """Return the expected number of completions that one request asks for."""
    total = sum(call.weight for call in scenario.mix)
    return sum(call.weight * choices(call.over(defaults).body) for call in scenario.mix) / total


def least_tokens(scenario: Scenario, base_dir: Path, defaults: RequestOptions | None = None) -> int:
    """Return the smallest number of tokens, prompt plus max_tokens, that a request of the mix can reserve."""
    return min(_least(call, base_dir, defaults) for call in scenario.mix)


def _least(call: Call, base_dir: Path, defaults: RequestOptions | None) -> int:
    body = call.over(defaults).body
    count, definitions = choices(body), count_definitions(body)
    answer = at_quantile(call.max_tokens, 0.0)
    recorded = _recorded(call, base_dir)
    if recorded is None:
        return count * answer + definitions + max(at_quantile(call.prompt_tokens, 0.0), overhead(call) + 1)
    return min(
        _prompt(row, body) + round(_answer(row, body, answer))
        for row in (*recorded.sample, *recorded.shortest)
    )


def _recorded(call: Call, base_dir: Path) -> Conversations | None:
    """Return the rows of the file that a call sends, if it sends one."""
    if call.requests is not None:
        return read_requests(base_dir / call.requests.file)
    return None if call.conversations is None else read_conversations(base_dir / call.conversations)


def _prompt(row: Conversation, body: Mapping[str, Any]) -> int:
    return row.count_tokens() + count_definitions(row.body or {**body, **row.tool_keys})


def _answer(row: Conversation, body: Mapping[str, Any], default: float) -> float:
    return (row.max_tokens or default) * choices(body if row.body is None else row.body)


def _call_tokens(call: Call, base_dir: Path, defaults: RequestOptions | None) -> Tokens:
    """Return the expected tokens of one call, summed over its turns. Each turn resends the history."""
    body = call.over(defaults).body
    count, definitions = choices(body), count_definitions(body)
    answer = mean(call.max_tokens)
    if (recorded := _recorded(call, base_dir)) is not None:
        return Tokens(
            fmean(_prompt(row, body) for row in recorded.sample),
            fmean(_answer(row, body, answer) for row in recorded.every.checked),
        )
    first = definitions + max(mean(call.prompt_tokens), overhead(call) + 1)
    if call.turns is None:
        return Tokens(first, count * answer)
    # Turn n sends the first prompt plus (n − 1) completions and follow-ups, so n turns sum to n·first + n(n −
    # 1)/2·more. This is averaged over n = min … max.
    more = ROLE_OVERHEAD["assistant"] + answer + ROLE_OVERHEAD["user"] + mean(call.turns.tokens)
    counts = range(call.turns.min, call.turns.max + 1)
    pairs = sum(n * (n - 1) / 2 for n in counts) / len(counts)
    return Tokens(_turns(call) * first + pairs * more, _turns(call) * count * answer)


def _turns(call: Call) -> float:
    return 1.0 if call.turns is None else (call.turns.min + call.turns.max) / 2
