"""Tokens of a call, and what each kind of limit counts of them."""

from typing import NamedTuple

from bltybench.scenario.api.documented_limits import What


class CallSize(NamedTuple):
    """Tokens of one call."""

    prompt: int
    completion: int
    """At most, before the call has ended."""

    @property
    def tokens(self) -> int:
        """Both."""
        return self.prompt + self.completion

    def cost(self, what: What) -> float:
        """Return what a request of the call costs of a limit."""
        match what:
            case "tokens":
                return float(self.tokens)
            case "input_tokens":
                return float(self.prompt)
            case "output_tokens":
                return float(self.completion)
            case _:
                return 1.0
