"""Whether runs with two keys show that they share a limit, with simulated limiters in virtual time.

python -m benchmarks.key_sharing --seeds 3        three runs of each limiter, load, and division of the keys
"""

import argparse
import random
from collections import Counter
from itertools import product

import msgspec

from benchmarks.ordinary_runs import LIMITERS, START_S, Client, SimulatedServer
from bltybench.limits.observations.extract import EXACT
from bltybench.limits.sharing import Conditions, divide
from bltybench.runs.attempt import Attempt

SHARES = (0.5, 0.8)
"""Fractions of the calls that use the first key."""
LOAD = 1.5
"""Load as a multiple of what the keys accept together."""
MAX_ATTEMPTS = 500


def attempts_with_keys(
    name: str,
    seed: int,
    *,
    shared: bool,
    share: float = 0.5,
    fallback: bool = False,
    max_requests: int = MAX_ATTEMPTS,
) -> list[Attempt]:
    """Return a run of random arrivals with two keys, which share a limiter or have one each."""
    text = f"{name}/{seed}"
    servers = [SimulatedServer(name, random.Random(text)) for _ in range(1 if shared else 2)]
    clients = [Client(servers[0 if shared else key], random.Random(f"{text}/{key}"), 0.0) for key in (0, 1)]
    rng, at_s = random.Random(f"{text}/arrivals"), 0.0
    per_s = LOAD * len(servers) * servers[0].limit / servers[0].period_s
    until_s = 4 * servers[0].period_s + 30
    while at_s < until_s and sum(len(client.rows) for client in clients) < max_requests:
        at_s += rng.expovariate(per_s)
        key = int(rng.random() >= share)
        accepted, took_s = clients[key].send(at_s)
        if fallback and not accepted:
            at_s += took_s
            clients[1 - key].send(at_s)
    rows = [msgspec.structs.replace(row, key="AB"[key]) for key in (0, 1) for row in clients[key].rows]
    return sorted(rows, key=lambda row: row.sent_ns or 0)


def shared_by(attempts: list[Attempt]) -> bool | None:
    """Return whether a run shows that its keys share a limit; None if it does not say."""
    _, (sharing,) = divide(attempts, Conditions(START_S, (), EXACT))
    return sharing.shared


def main() -> None:
    """Play all cases and print how many answers are right, wrong, and missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    total: Counter[str] = Counter()
    for name in LIMITERS:
        counts: Counter[str] = Counter()
        for seed, shared, share, fallback in product(seeds, (True, False), SHARES, (False, True)):
            found = shared_by(attempts_with_keys(name, seed, shared=shared, share=share, fallback=fallback))
            answer = "open" if found is None else "right" if found is shared else "wrong"
            counts[answer] += 1
            if answer == "wrong":
                print(f"wrong: {name} seed {seed} {shared=} {share=} {fallback=}", flush=True)
        print(f"{name}: {counts['right']} right, {counts['wrong']} wrong, {counts['open']} open", flush=True)
        total += counts
    print(f"all {total.total()}: {total['right']} right, {total['wrong']} wrong, {total['open']} open")


if __name__ == "__main__":
    main()
