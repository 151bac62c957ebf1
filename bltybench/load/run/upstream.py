"""The targets of a run, as one process reaches them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from pydantic import SecretStr

from bltybench import __version__
from bltybench.load.run.budget import BudgetAccount
from bltybench.scenario.api.access import Access, maskable
from bltybench.scenario.target import Target
from bltybench.wire.http.origin import Origin

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, repr=False)
class Upstream:
    """One target, with its credentials, its address, and this process's share of its budget."""

    name: str
    target: Target
    access: Access
    origin: Origin
    budget: BudgetAccount
    _headers: dict[tuple[SecretStr | None, str | None, bool], Headers] = field(default_factory=dict)

    def headers(
        self, key: SecretStr | None, variable: str | None, recorded: Headers = (), *, stream: bool
    ) -> Headers:
        """Return a request's headers, with ``key``, or else that of an environment variable of the target.

        Of the ``recorded`` ones, those are added that the target does not set.
        """
        found = self._headers.get((key, variable, stream))
        if found is None:
            accepted = "text/event-stream" if stream else "application/json"
            own = [("Content-Type", "application/json"), ("User-Agent", f"bltybench/{__version__}")]
            used = key or (self.access.key if variable is None else self.access.keys[variable])
            found = self._headers[key, variable, stream] = self.access.headers(
                [*own, ("Accept", accepted)], used
            )
        if recorded:
            names = {name.lower() for name, _ in found}
            found = (*found, *((name, value) for name, value in recorded if name.lower() not in names))
        return found


def open_upstreams(targets: Mapping[str, Target], index: int, workers: int) -> dict[str, Upstream]:
    """Return the targets by name. Raise UserError for a key or a certificate that is unusable."""
    accesses = {name: target.access(name) for name, target in targets.items()}
    # A gateway in front of several APIs can repeat the key of any of them.
    secrets = all_secrets(list(accesses.values()))
    return {
        name: Upstream(
            name,
            target,
            accesses[name],
            Origin(
                target.base_url,
                target.timeouts,
                verify_tls=target.verify_tls,
                ca_file=target.ca_file,
                secrets=secrets,
                query=accesses[name].query,
                proxy=accesses[name].proxy,
            ),
            BudgetAccount(target.budget, target.prices, index, workers),
        )
        for name, target in targets.items()
    }


def all_secrets(accesses: Sequence[Access]) -> tuple[str, ...]:
    """Return the secrets of several targets, the longest first."""
    return maskable(list(chain.from_iterable(access.secrets for access in accesses)))
