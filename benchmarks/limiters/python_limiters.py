"""Limiters from PyPI in front of the chat API.

python -m benchmarks.limiters.python_limiters NAME LIMIT PERIOD_S PORT

It runs in the environment that ``requirements.txt`` describes. Each function takes a limit and a period in
seconds, and returns an ASGI application. Packages that only decide get a plain 429 without headers. The
variable LIMITER_REDIS holds the address of a Redis server, for limiters that use one.
"""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import uvicorn

from benchmarks.limiters import python_frameworks as frameworks
from benchmarks.limiters.asgi import App, behind, chat_api


def _limits(strategy: str, *, redis: bool = False) -> Callable[[int, int], App]:
    def make(limit: int, period_s: int) -> App:
        from limits import RateLimitItemPerSecond
        from limits.storage import storage_from_string
        from limits.strategies import STRATEGIES

        limiter: Any = STRATEGIES[strategy](
            storage_from_string(os.environ["LIMITER_REDIS"] if redis else "memory://")
        )
        item = RateLimitItemPerSecond(limit, period_s)
        return behind(lambda key: limiter.hit(item, key))

    return make


def _throttled(algorithm: str) -> Callable[[int, int], App]:
    def make(limit: int, period_s: int) -> App:
        from throttled import Throttled, per_duration

        throttle = Throttled(using=algorithm, quota=per_duration(timedelta(seconds=period_s), limit))
        return behind(lambda key: not throttle.limit(key).limited)

    return make


def _pyrate(bucket: str) -> Callable[[int, int], App]:
    def make(limit: int, period_s: int) -> App:
        from pyrate_limiter import InMemoryBucket, Limiter, Rate
        from pyrate_limiter.abstracts.algorithm import FixedWindow, SlidingWindowLog, TokenBucket
        from pyrate_limiter.buckets.state_bucket import StateBucket

        rates = [Rate(limit, period_s * 1000)]
        limiter = Limiter(
            StateBucket(rates, TokenBucket())
            if bucket == "token bucket"
            else InMemoryBucket(rates, {"log": SlidingWindowLog, "window": FixedWindow}[bucket]())
        )
        return behind(lambda key: limiter.try_acquire(key, blocking=False))

    return make


def _rush(limit: int, period_s: int) -> App:
    from rush.limiters.periodic import PeriodicLimiter
    from rush.quota import Quota
    from rush.stores.dictionary import DictionaryStore
    from rush.throttle import Throttle

    quota = Quota(period=timedelta(seconds=period_s), count=limit)
    throttle = Throttle(limiter=PeriodicLimiter(store=DictionaryStore()), rate=quota)
    return behind(lambda key: not throttle.check(key, 1).limited)


def _ratelimit(limit: int, period_s: int) -> App:
    from ratelimit import RateLimitException, limits

    consume = limits(calls=limit, period=period_s)(lambda: None)

    def allow(_: str) -> bool:
        try:
            consume()
        except RateLimitException:
            return False
        return True

    return behind(allow)


def _token_bucket(limit: int, period_s: int) -> App:
    from token_bucket import Limiter, MemoryStorage

    limiter = Limiter(limit / period_s, limit, MemoryStorage())
    return behind(limiter.consume)


def _token_throttler(limit: int, period_s: int) -> App:
    from token_throttler import TokenBucket, TokenThrottler
    from token_throttler.storage import RuntimeStorage

    throttler = TokenThrottler(1, RuntimeStorage())
    throttler.add_bucket("all", TokenBucket(replenish_time=period_s, max_tokens=limit))
    return behind(lambda _: throttler.consume("all"))


def _aiolimiter(limit: int, period_s: int) -> App:
    from aiolimiter import AsyncLimiter

    limiter = AsyncLimiter(limit, period_s)

    async def allow(_: str) -> bool:
        free = limiter.has_capacity()
        if free:
            await limiter.acquire()
        return free

    return behind(allow)


MAKE: dict[str, Callable[[int, int], App]] = {
    "none": lambda _limit, _period_s: chat_api,
    "limits fixed window": _limits("fixed-window"),
    "limits moving window": _limits("moving-window"),
    "limits sliding window counter": _limits("sliding-window-counter"),
    "limits moving window, Redis": _limits("moving-window", redis=True),
    "limits sliding window counter, Redis": _limits("sliding-window-counter", redis=True),
    "slowapi fixed window": frameworks.slowapi("fixed-window"),
    "slowapi moving window": frameworks.slowapi("moving-window"),
    "flask-limiter fixed window": frameworks.flask("fixed-window"),
    "flask-limiter moving window": frameworks.flask("moving-window"),
    "fastapi-limiter": frameworks.fastapi_limiter,
    "pyrate-limiter sliding log": _pyrate("log"),
    "pyrate-limiter fixed window": _pyrate("window"),
    "pyrate-limiter token bucket": _pyrate("token bucket"),
    "ratelimit": _ratelimit,
    "throttled-py fixed window": _throttled("fixed_window"),
    "throttled-py sliding window": _throttled("sliding_window"),
    "throttled-py token bucket": _throttled("token_bucket"),
    "throttled-py leaking bucket": _throttled("leaking_bucket"),
    "throttled-py GCRA": _throttled("gcra"),
    "token-bucket": _token_bucket,
    "token-throttler": _token_throttler,
    "rush periodic": _rush,
    "aiolimiter": _aiolimiter,
    "django-ratelimit": frameworks.django(rest=False),
    "djangorestframework": frameworks.django(rest=True),
    "quart-rate-limiter": frameworks.quart,
    "litestar": frameworks.litestar,
}


def main(name: str, limit: str, period_s: str, port: str) -> None:
    """Serve one limiter."""
    app: Any = MAKE[name](int(limit), int(period_s))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="critical", http="httptools")


if __name__ == "__main__":
    main(*sys.argv[1:])
