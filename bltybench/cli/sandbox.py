"""``bltybench sandbox``: run the sandbox alone, to try it by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bltybench.scenario.algorithms import Algorithm
from bltybench.scenario.base import MAX_NUMBER

if TYPE_CHECKING:
    from bltybench.scenario.target import RateLimit, SandboxSettings


def sandbox(
    *,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="that of the target's base_url")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port. 0 chooses a free one.", show_default="that of the target's base_url"
        ),
    ] = None,
    target: Annotated[
        str, typer.Option(help="Target in scenarios.toml whose sandbox table sets the behavior.")
    ] = "sandbox",
    scenario_file: Annotated[
        Path | None, typer.Option(help="Path of scenarios.toml. Default: ./scenarios.toml if it exists.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Append one JSON line per exchange: what the server did, and when.")
    ] = None,
    limits_file: Annotated[
        Path | None,
        typer.Option(
            "--limits", help="limits.toml with limits to use instead of the target's, as the probe writes it."
        ),
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=0, max=MAX_NUMBER, help="Requests per period. 0 means no limit.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=0, max=MAX_NUMBER, help="Tokens per period. 0 means no limit.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=0, max=MAX_NUMBER, help="Concurrent requests. 0 means no limit.")
    ] = None,
    period_s: Annotated[
        float | None, typer.Option(min=0.001, max=MAX_NUMBER, help="Period, in seconds.")
    ] = None,
    algorithm: Annotated[
        Algorithm | None, typer.Option(help="Algorithm for the request and token limits.")
    ] = None,
) -> None:
    """Run a BLTYAPI sandbox on this machine until Ctrl-C.

    Limits apply per key. Options that are not set come from scenarios.toml.
    """
    from bltybench.errors import UserError  # noqa: PLC0415 - what is heavy is loaded by the verb that needs it
    from bltybench.sandbox.process import address_of, listen, own_ca_file  # noqa: PLC0415
    from bltybench.sandbox.serve import serve  # noqa: PLC0415
    from bltybench.scenario.file.scenario_file import load_book, load_limits  # noqa: PLC0415

    book = load_book(scenario_file)
    ca_file = own_ca_file(book.target(target))
    settings = book.target(target).sandbox
    if settings is None:
        raise UserError(
            f"target '{target}' is not a sandbox",
            where=str(book.path),
            remedy=f"add [targets.{target}.sandbox], or choose another target",
        )
    limits = settings.limits if limits_file is None else load_limits(limits_file)
    given = {
        "requests": changed_limit(limits.requests, requests, period_s, algorithm),
        "tokens": changed_limit(limits.tokens, tokens, period_s, algorithm),
        "concurrency": limits.concurrency if concurrency is None else concurrency or None,
    }
    settings = settings.model_copy(update={"limits": limits.model_copy(update=given)})
    own_host, own_port = address_of(book.target(target).base_url)
    host = own_host if host is None else host
    listener = listen(host, own_port if port is None else port)
    greeting = _greeting(settings, host, listener.getsockname()[1], ca_file)
    serve(
        settings,
        listener,
        log,
        ca_file=Path(ca_file) if ca_file else None,
        on_start=lambda _: print(greeting, flush=True),
    )
    print("Stopped.", file=sys.stderr)


def changed_limit(
    limit: RateLimit | None, count: int | None, period_s: float | None, algorithm: str | None
) -> RateLimit | None:
    """Return a limit with the options of the command line; None if it is 0 or neither has one."""
    from bltybench.scenario.target import RateLimit  # noqa: PLC0415 - see above

    if count == 0 or (limit is None and count is None):
        return None
    fields = {} if limit is None else limit.model_dump()
    if limit is not None and algorithm not in {None, limit.algorithm}:
        # Settings in the file for another algorithm don't apply to this one.
        fields = {name: fields[name] for name in ("limit", "period_s", "also")}
    options = {"limit": count, "period_s": period_s, "algorithm": algorithm}
    return RateLimit.model_validate(
        fields | {key: value for key, value in options.items() if value is not None}
    )


def _greeting(settings: SandboxSettings, host: str, port: int, ca_file: str | None = None) -> str:
    """Return the start-up text, with a command to paste."""
    from bltybench.limits.models.families import in_words  # noqa: PLC0415 - see above

    name = f"[{host}]" if ":" in host else host
    base_url = f"{'https' if ca_file else 'http'}://{name}:{port}/v1"
    key, model = settings.keys[0].key, settings.models[0]
    limits = settings.limits
    lines = [f"  {in_words(rate, unit)}" for unit, rate in limits.per_period.items()]
    if limits.concurrency is not None:
        lines.append(f"  {limits.concurrency:,} concurrent requests")
    keys = [
        f"{key.key} ({'all models' if key.models is None else ', '.join(key.models)})"
        for key in settings.keys
    ]
    message = {"role": "user", "content": "Hello"}
    body = json.dumps({"model": model, "messages": [message], "max_tokens": 20, "stream": True})
    trust = f"--cacert {ca_file} " if ca_file else ""
    return "\n".join(
        [
            f"Base URL  {base_url}",
            f"Keys      {', '.join(keys)}",
            f"Models    {', '.join(settings.models)}",
            "Limits    per key:" if lines else "Limits    none",
            *lines,
            "Try",
            f"  curl -N {trust}{base_url}/chat/completions -H 'Authorization: Bearer {key}' "
            f"-H 'Content-Type: application/json' -d '{body}'",
            "Press Ctrl-C to stop.",
        ]
    )
