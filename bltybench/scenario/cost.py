"""What the requests of a scenario have, on average, before any is composed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bltybench.scenario.prompts.compose import overhead
from bltybench.scenario.prompts.conversations import read_conversations
from bltybench.scenario.prompts.lengths import at_quantile, mean
from bltybench.scenario.prompts.tokens import ROLE_OVERHEAD
from bltybench.scenario.workload import Call, Scenario


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a request, or of many."""

    prompt: float
    answer: float
    """What is asked for at most: max_tokens."""

    @property
    def total(self) -> float:
        """Both together."""
        return self.prompt + self.answer


def mean_tokens(scenario: Scenario, base_dir: Path) -> Tokens:
    """Return the expected tokens of one arrival of the mix; of all turns, where it begins a conversation.

    Answers are taken to be as long as they may be. Raises UserError where a conversations file is missing or
    has a mistake in it.
    """
    total = sum(call.weight for call in scenario.mix)
    costs = [(call.weight / total, call_tokens(call, base_dir)) for call in scenario.mix]
    return Tokens(sum(w * cost.prompt for w, cost in costs), sum(w * cost.answer for w, cost in costs))


def requests_per_arrival(scenario: Scenario) -> float:
    """Return how many requests one arrival comes to: more than one where conversations have turns."""
    total = sum(call.weight for call in scenario.mix)
    return sum(call.weight * _turns(call) for call in scenario.mix) / total


def least_tokens(scenario: Scenario, base_dir: Path) -> int:
    """Return the fewest tokens, prompt and max_tokens, that a request of the mix can reserve."""
    return min(_least(call, base_dir) for call in scenario.mix)


def call_tokens(call: Call, base_dir: Path) -> Tokens:
    """Return the expected tokens of one call; of all its turns, each of which sends the history again."""
    answer = mean(call.max_tokens)
    first = _prompt(call, base_dir)
    if call.turns is None:
        return Tokens(first, answer)
    # Turn n sends the first prompt and n − 1 times an answer and a further question. Of n turns that makes
    # n·first + n(n − 1)/2·more, averaged over n = min … max.
    more = ROLE_OVERHEAD["assistant"] + answer + ROLE_OVERHEAD["user"] + mean(call.turns.tokens)
    counts = range(call.turns.min, call.turns.max + 1)
    pairs = sum(n * (n - 1) / 2 for n in counts) / len(counts)
    return Tokens(_turns(call) * first + pairs * more, _turns(call) * answer)


def _turns(call: Call) -> float:
    return 1.0 if call.turns is None else (call.turns.min + call.turns.max) / 2


def _prompt(call: Call, base_dir: Path) -> float:
    if call.conversations is not None:
        known = read_conversations(base_dir / call.conversations)
        return sum(conversation.prompt_tokens for conversation in known) / len(known)
    return max(mean(call.prompt_tokens), overhead(call) + 1)


def _least(call: Call, base_dir: Path) -> int:
    answer = at_quantile(call.max_tokens, 0.0)
    if call.conversations is not None:
        known = read_conversations(base_dir / call.conversations)
        return answer + min(conversation.prompt_tokens for conversation in known)
    return answer + max(at_quantile(call.prompt_tokens, 0.0), overhead(call) + 1)
