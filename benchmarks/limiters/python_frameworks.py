"""Limiters of Python's web frameworks in front of the chat API, with their own refusals and headers."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from benchmarks.limiters.api import CHAT, LIST, reply
from benchmarks.limiters.asgi import App, authorization, chat_api, paced, slept


def slowapi(strategy: str) -> Callable[[int, int], App]:
    """Return slowapi with its headers, on Starlette."""

    def make(limit: int, period_s: int) -> App:
        from slowapi import Limiter, _rate_limit_exceeded_handler
        from slowapi.errors import RateLimitExceeded
        from slowapi.util import get_remote_address
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import Response, StreamingResponse
        from starlette.routing import Mount, Route

        limiter = Limiter(key_func=get_remote_address, strategy=strategy, headers_enabled=True)

        @limiter.limit(f"{limit} per {period_s} second")
        async def chat(request: Request) -> Response:
            answer = reply("POST", CHAT, authorization(request.scope), await request.body())
            if len(answer.chunks) == 1:
                return Response(answer.chunks[0], answer.status, media_type=answer.content_type)
            return StreamingResponse(paced(answer), answer.status, media_type=answer.content_type)

        app = Starlette(routes=[Route(CHAT, chat, methods=["POST"]), Mount("/", app=chat_api)])
        app.state.limiter = limiter
        app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)  # type: ignore[arg-type]
        return app

    return make


def fastapi_limiter(limit: int, period_s: int) -> App:
    """Return fastapi-limiter as a dependency of the route."""
    from fastapi import Depends, FastAPI, Request
    from fastapi.responses import StreamingResponse
    from fastapi_limiter.depends import RateLimiter
    from pyrate_limiter import Limiter, Rate

    app = FastAPI()

    @app.post(CHAT, dependencies=[Depends(RateLimiter(limiter=Limiter(Rate(limit, period_s * 1000))))])
    async def chat(request: Request) -> StreamingResponse:
        answer = reply("POST", CHAT, authorization(request.scope), await request.body())
        return StreamingResponse(paced(answer), answer.status, media_type=answer.content_type)

    app.mount("/", chat_api)
    return app


def litestar(limit: int, period_s: int) -> App:
    """Return Litestar with its own middleware, which limits every path."""
    from litestar import Litestar, asgi
    from litestar.middleware.rate_limit import DURATION_VALUES, RateLimitConfig

    units = {seconds: unit for unit, seconds in DURATION_VALUES.items()}
    config = RateLimitConfig(rate_limit=(units[period_s], limit))

    @asgi("/", is_mount=True, copy_scope=True)
    async def everything(scope: Any, receive: Any, send: Any) -> None:
        # Litestar moves the slash from the front of the path to its end.
        await chat_api({**scope, "path": f"/{scope['path'].strip('/')}"}, receive, send)

    return Litestar([everything], middleware=[config.middleware])


def quart(limit: int, period_s: int) -> App:
    """Return quart-rate-limiter with its headers."""
    from quart import Quart, Response, request
    from quart_rate_limiter import RateLimiter, rate_limit

    app = Quart(__name__)
    RateLimiter(app)

    @app.post(CHAT)
    @rate_limit(limit, timedelta(seconds=period_s))
    async def chat() -> Response:
        answer = reply("POST", CHAT, request.headers.get("Authorization", ""), await request.get_data())
        return Response(paced(answer), answer.status, content_type=answer.content_type)

    @app.get(LIST)
    async def models() -> Response:
        answer = reply("GET", LIST, request.headers.get("Authorization", ""), b"")
        return Response(answer.chunks[0], answer.status, content_type=answer.content_type)

    return app


def flask(strategy: str) -> Callable[[int, int], App]:
    """Return Flask-Limiter with its headers."""

    def make(limit: int, period_s: int) -> App:
        from a2wsgi import WSGIMiddleware
        from flask import Flask, Response, request
        from flask_limiter import Limiter
        from flask_limiter.util import get_remote_address

        app = Flask(__name__)
        limiter = Limiter(get_remote_address, app=app, strategy=strategy, headers_enabled=True)

        @app.post(CHAT)
        @limiter.limit(f"{limit} per {period_s} second")
        def chat() -> Response:
            answer = reply("POST", CHAT, request.headers.get("Authorization", ""), request.get_data())
            return Response(slept(answer), answer.status, content_type=answer.content_type)

        @app.get(LIST)
        @limiter.exempt
        def models() -> Response:
            answer = reply("GET", LIST, request.headers.get("Authorization", ""), b"")
            return Response(answer.chunks[0], answer.status, content_type=answer.content_type)

        return WSGIMiddleware(app, workers=MAX_THREADS)

    return make


def django(*, rest: bool) -> Callable[[int, int], App]:
    """Return django-ratelimit, or the throttle of Django REST framework."""

    def make(limit: int, period_s: int) -> App:
        import django
        from a2wsgi import WSGIMiddleware
        from django.conf import settings

        cache = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
        settings.configure(
            ALLOWED_HOSTS=["127.0.0.1"],
            CACHES={"default": cache},
            DATA_UPLOAD_MAX_MEMORY_SIZE=None,
            ROOT_URLCONF=__name__,
            REST_FRAMEWORK={"UNAUTHENTICATED_USER": None, "DEFAULT_AUTHENTICATION_CLASSES": []},
        )
        django.setup()
        from django.core.wsgi import get_wsgi_application
        from django.http import HttpRequest, StreamingHttpResponse
        from django.urls import path
        from django.views.decorators.csrf import csrf_exempt

        def answer_to(request: HttpRequest) -> StreamingHttpResponse:
            key = request.headers.get("Authorization", "")
            answer = reply(request.method or "", request.path, key, request.body)
            return StreamingHttpResponse(slept(answer), answer.content_type, answer.status)

        limited = csrf_exempt((_rest_framework if rest else _django_ratelimit)(limit, period_s, answer_to))
        urlpatterns.extend([path(CHAT[1:], limited), path(LIST[1:], answer_to)])
        return WSGIMiddleware(get_wsgi_application(), workers=MAX_THREADS)

    return make


def _django_ratelimit(limit: int, period_s: int, view: Any) -> Any:
    from django_ratelimit.decorators import ratelimit

    return ratelimit(key="ip", rate=f"{limit}/{period_s}s")(view)


def _rest_framework(limit: int, period_s: int, view: Any) -> Any:
    from rest_framework.request import Request
    from rest_framework.throttling import AnonRateThrottle
    from rest_framework.views import APIView

    class Throttle(AnonRateThrottle):
        rate = f"{limit}/{period_s}"

        def parse_rate(self, rate: str) -> tuple[int, int]:
            """Return limit and period. The default has periods of one unit only."""
            return limit, period_s

    class Chat(APIView):
        throttle_classes = (Throttle,)

        def post(self, request: Request) -> Any:
            return view(request._request)

    return Chat.as_view()


urlpatterns: list[Any] = []
"""The addresses of the Django applications."""
MAX_THREADS = 64
"""Concurrent requests of a WSGI application. A stream keeps its thread until it ends."""
