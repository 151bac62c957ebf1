"""Chat APIs behind Python limiters from other projects: python limited_app.py LIMIT PERIOD_S PORT.

/slowapi-STRATEGY/v1: slowapi with its headers, in each strategy. /status-503/v1 and /status-403/v1: the
package ``limits`` with these refusals and no headers. /slow/v1: slow responses.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvicorn
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import STRATEGIES, MovingWindowRateLimiter
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.util import get_remote_address
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

ANSWER = {
    "id": "made",
    "object": "chat.completion",
    "created": 0,
    "model": "deepseek-chat",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
PATH = "/v1/chat/completions"


def with_slowapi(strategy: str, limit: int, period_s: int) -> Starlette:
    """Return an API limited by slowapi."""
    limiter = Limiter(key_func=get_remote_address, strategy=strategy, headers_enabled=True)

    async def chat(request: Request) -> JSONResponse:
        return JSONResponse(ANSWER)

    limited: Any = limiter.limit(f"{limit} per {period_s} second")(chat)
    app = Starlette(routes=[Route(PATH, limited, methods=["POST"])])
    app.state.limiter = limiter
    app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)  # type: ignore[arg-type]
    return app


def with_limits(limit: int, period_s: int, *, status: int = 429, takes_s: float = 0.0) -> Starlette:
    """Return an API limited by the package ``limits`` with a moving window."""
    limiter, item = MovingWindowRateLimiter(MemoryStorage()), RateLimitItemPerSecond(limit, period_s)

    async def chat(request: Request) -> JSONResponse:
        if not limiter.hit(item, "key"):
            return JSONResponse({"error": {"message": "Slow down"}}, status_code=status)
        await asyncio.sleep(takes_s)
        return JSONResponse(ANSWER)

    return Starlette(routes=[Route(PATH, chat, methods=["POST"])])


def main(limit: int, period_s: int, port: int) -> None:
    """Serve all APIs."""
    mounts = [Mount(f"/slowapi-{name}", with_slowapi(name, limit, period_s)) for name in STRATEGIES]
    mounts += [Mount(f"/status-{code}", with_limits(limit, period_s, status=code)) for code in (503, 403)]
    mounts.append(Mount("/slow", with_limits(limit, period_s, takes_s=1.2 * period_s / limit)))
    uvicorn.run(Starlette(routes=mounts), host="127.0.0.1", port=port, log_level="critical")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
