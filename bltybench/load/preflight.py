"""A few requests before a load, so that a wrong address, key, or model ends the run with one message."""

import time
from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from urllib.parse import urlsplit

from bltybench.check import models
from bltybench.check.client import CheckResponse, Client, refuse_key
from bltybench.check.evidence import MODELS, PROMPT_TOKENS, SHORT, chat
from bltybench.check.reach import reach, speaks_tls
from bltybench.errors import UserError
from bltybench.scenario.api.access import Access
from bltybench.scenario.api.request_options import choices
from bltybench.scenario.prompts.tokens import count_definitions
from bltybench.scenario.target import Target

VERSION = "/v1"
MAX_WAIT_S = 10.0
"""Maximum wait for each response of the preflight, in seconds. A slow server is no mistake of the user."""
TRIES = 3
PAUSE_S = 0.2
"""Maximum attempts to connect, and seconds between them."""
UNKNOWN = frozenset({400, 403, 404})
"""Statuses with which servers answer a request for a model that they don't have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a preflight tests."""

    name: str
    target: Target
    models: list[str]
    """The models of the load; none if the locustfile chooses them."""
    can_request: bool
    """Whether the preflight may send requests. A limiter can count each of them, ``GET /models`` too."""
    can_answer: bool
    """Whether the preflight may request one answer of one token for each key and model."""


def answer_tokens(target: Target) -> int:
    """Return the maximum tokens of the preflight's answer."""
    return PROMPT_TOKENS + count_definitions(target.body) + choices(target.body)


def preflight(subject: Subject) -> str:
    """Test the name, the connection, TLS, the keys, the path, and the models. Return what was found.

    An answer is requested only if ``GET /models`` does not settle a key and a model. A server that
    does not support ``GET /models``, or is slow or busy, passes. Raise UserError for a mistake.
    """
    name, target = subject.name, subject.target
    access = target.access(name)
    _reach(target, access)
    if not subject.can_request:
        return "the server accepts a connection; a probe's limits must count no other request"
    waits = target.timeouts
    patient = waits.model_copy(
        update={key: min(getattr(waits, key), MAX_WAIT_S) for key in ("headers_s", "total_s")}
    )
    quick = target.model_copy(update={"timeouts": patient})
    with closing(Client(quick, access)) as client:
        found: dict[str, list[str]] = {}
        for variable in (*access.keys,) or (None,):
            if variable is not None:
                client.key = access.keys[variable]
            found.setdefault(_test_key(client, subject, variable), []).append(variable or "")
        if len(found) == 1:
            return next(iter(found))
        return "; ".join(f"{', '.join(keys)}: {text}" for text, keys in found.items())


def _test_key(client: Client, subject: Subject, variable: str | None) -> str:
    """Test one key with each model. Return what was found, or raise UserError for a mistake."""
    name, target, models_used = subject.name, subject.target, subject.models
    listing = client.get(MODELS)
    _require_scheme(target, listing)
    refuse_key(name, target, listing, variable)
    listed = models.listed(listing)
    if not listed:
        _require_version(client, target)
    unknown = [model for model in models_used if model not in listed]
    keyed = client.key is None or client.get_without_key(MODELS).status in {401, 403}
    if listed and keyed and not unknown:
        plural = "s" if len(models_used) > 1 else ""
        return f"the API accepts the key and lists {f'the model{plural}' if models_used else 'models'}"
    if not models_used or not subject.can_answer:
        return f"the API responds, GET {MODELS} with {listing.summary()}"
    for model in unknown or models_used[:1]:
        answer = client.post(target.path_of_chat(model), chat(target, model, SHORT, 1))
        refuse_key(name, target, answer, variable)
        if answer.status == 404 or (listed and model in unknown and answer.status in UNKNOWN):
            raise _unknown_model(model, listed, target, answer)
    return f"the API responds, one answer of at most one token with {answer.summary()}"


def _reach(target: Target, access: Access) -> None:
    """Connect, a few times if necessary: one lost connection is no mistake. Raise UserError."""
    for _ in range(TRIES - 1):
        try:
            reach(target, access)
        except UserError:
            time.sleep(PAUSE_S)
        else:
            return
    reach(target, access)


def _require_scheme(target: Target, listing: CheckResponse) -> None:
    """Raise UserError if an HTTP request was sent to an HTTPS port."""
    parts = urlsplit(target.base_url)
    no_http = listing.status is None or listing.status == 400
    if parts.scheme == "http" and no_http and speaks_tls(target):
        raise UserError(
            f"the server speaks HTTPS on this port, and GET {MODELS} got {listing.summary()}",
            where=target.base_url,
            remedy="let base_url begin with https://",
        )


def _require_version(client: Client, target: Target) -> None:
    """Raise UserError if the API is below /v1, and base_url does not end there."""
    if VERSION.strip("/") in urlsplit(target.base_url).path.split("/"):
        return
    below = client.get(VERSION + MODELS)
    if below.status == 401 or models.listed(below):
        raise UserError(
            "base_url has no /v1, below which the API responds",
            where=target.base_url,
            remedy=f"set base_url to {target.base_url}{VERSION}",
        )


def _unknown_model(model: str, listed: list[str], target: Target, answer: CheckResponse) -> UserError:
    near = get_close_matches(model, listed, n=3) or listed[:3]
    remedy = "check the scenario's model and base_url"
    if near:
        remedy = f"choose a model that the API lists: {answer.show(', '.join(near))}"
    return UserError(
        f"the API has no model '{answer.show(model)}' ({answer.summary()})",
        where=target.base_url,
        remedy=remedy,
    )
