"""Limiters of gateways from Debian, with the documentation of each."""

from benchmarks.limiters.truth import (
    EVERY_PATH,
    NO_REQUEST_LIMIT,
    PER_KEY,
    Limiter,
    Setting,
    merged,
)

DEBIAN = (
    Limiter(
        "nginx limit_req",
        "Debian",
        "nginx-light",
        "ngx_http_limit_req_module: burst with nodelay",
        ("token_bucket",),
        EVERY_PATH,
        statuses=(503,),
    ),
    Limiter(
        "nginx limit_req, delayed",
        "Debian",
        "nginx-light",
        "ngx_http_limit_req_module: burst with delay",
        ("leaky_queue",),
        EVERY_PATH,
        statuses=(503,),
    ),
    Limiter(
        "nginx limit_conn",
        "Debian",
        "nginx-light",
        "ngx_http_limit_conn_module",
        (),
        merged(NO_REQUEST_LIMIT, {"concurrency_excess": ("refused",), "cancelled_frees_slot": (True,)}),
        settings=(Setting(3, 1), Setting(8, 1)),
        concurrency=True,
    ),
    Limiter(
        "haproxy http_req_rate",
        "Debian",
        "haproxy",
        "src/freq_ctr.c, update_freq_ctr_period_slow: windows follow the first request; refused ones count",
        ("first_hit_counter",),
        merged(EVERY_PATH, {"refused_counts": (True,)}),
    ),
    Limiter(
        "haproxy http_req_rate, accepted only",
        "Debian",
        "haproxy",
        "src/freq_ctr.c, update_freq_ctr_period_slow: windows follow the first request",
        ("first_hit_counter",),
        EVERY_PATH,
    ),
    Limiter(
        "haproxy maxconn",
        "Debian",
        "haproxy",
        "HAProxy's configuration manual, maxconn of a server: excess requests are queued",
        (),
        merged(NO_REQUEST_LIMIT, {"concurrency_excess": ("queued",), "cancelled_frees_slot": (True,)}),
        settings=(Setting(3, 1), Setting(8, 1)),
        concurrency=True,
    ),
    Limiter(
        "varnish vsthrottle",
        "Debian",
        "varnish varnish-modules",
        "vmod_vsthrottle.c, calc_tokens: whole tokens, fractions are lost with each acceptance; builtin.vcl, "
        "vcl_synth: Retry-After is always 5",
        ("whole_token_bucket",),
        merged(PER_KEY, EVERY_PATH, {"retry_after": ("too_long",)}),
    ),
)
