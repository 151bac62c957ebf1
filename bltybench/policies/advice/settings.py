"""Settings of clients that others wrote, to copy: each paces one client as prescribed."""

from math import ceil
from textwrap import dedent

from bltybench.policies.advice.gateways import gateways
from bltybench.policies.advice.own_times import TURN_S
from bltybench.policies.advice.prescription import Prescription
from bltybench.policies.advice.setting import Setting, Values, quoted, rounded_down
from bltybench.policies.advice.window import Window

MIN_TIMEOUT_S, DEFAULT_TIMEOUT_S = 30, 120
"""Shortest timeout, and that without a measured latency, in seconds."""
TIMEOUT_FACTOR = 3
"""Timeout, as a multiple of the slowest response."""


def settings(prescription: Prescription, *, model: str, base_url: str, timeout_s: int) -> list[Setting]:
    """Return the settings that pace a client as prescribed. Keys are read from the environment."""
    values = Values(prescription, model, base_url, timeout_s)
    python = [_openai(values), *_aiolimiter(values), _litellm(values), _langchain(values), _tenacity(values)]
    return [*python, *gateways(values)]


def timeout_s(slowest_s: float | None) -> int:
    """Return a timeout in whole seconds, by the slowest response that was measured."""
    if slowest_s is None:
        return DEFAULT_TIMEOUT_S
    return max(MIN_TIMEOUT_S, 10 * ceil(TIMEOUT_FACTOR * slowest_s / 10))


PACE_CLASS = '''

class Window:
    """At most ``amount`` in any ``period_s`` seconds."""

    def __init__(self, counts, amount, period_s):
        self.counts, self.amount, self.period_s = counts, amount, period_s
        self.sent, self.used = deque(), 0

    def wait_s(self, costs, now):
        while self.sent and self.sent[0][0] <= now - self.period_s:
            self.used -= self.sent.popleft()[1]
        fits = not self.sent or self.used + costs[self.counts] <= self.amount
        return 0.0 if fits else self.sent[0][0] + self.period_s - now

    def take(self, costs, now):
        self.sent.append((now, costs[self.counts]))
        self.used += costs[self.counts]
{further}

windows = [
{windows}
]
turn = asyncio.Lock()  # requests are sent in order


async def pace(**costs):
    async with turn:
        while wait_s := max(window.wait_s(costs, time.monotonic()) for window in windows):
            await asyncio.sleep(wait_s)
        for window in windows:
            window.take(costs, time.monotonic())

'''
"""Sliding windows for an asyncio client. A request that is larger than a window is sent if it is empty."""


SPACED_CLASS = '''

class Spaced:
    """Requests at a distance that is proportional to what they cost: ``amount`` in ``period_s`` seconds."""

    def __init__(self, counts, amount, period_s):
        self.counts, self.s_per_unit, self.free = counts, period_s / amount, 0.0

    def wait_s(self, costs, now):
        return max(0.0, self.free - now)

    def take(self, costs, now):
        self.free = max(now, self.free) + costs[self.counts] * self.s_per_unit
'''
"""Tokens of limiters that accept no bursts."""
TURNS_CLASS = '''

class Turns:
    """``amount`` requests each ``period_s`` seconds, at this client's own times by the machine's clock."""

    def __init__(self, counts, amount, period_s):
        self.amount, self.period_s, self.phase = amount, period_s, CLIENT / {clients} * period_s
        self.due, self.left, self.until = None, amount, float("inf")

    def wait_s(self, costs, now):
        wall = time.time()
        if self.due is None or wall > self.until:
            self.due = ((wall - self.phase) // self.period_s + 1) * self.period_s + self.phase
            self.left, self.until = self.amount, float("inf")
        return max(0.0, self.due - wall)

    def take(self, costs, now):
        self.left -= 1
        self.until = min(self.until, time.time() + {turn_s:g})
        if self.left == 0:
            self.due = None
'''
"""Turns of clients that share a limit without bursts."""


def _openai(values: Values) -> Setting:
    prescription, slots = values.prescription, values.prescription.in_flight
    windows, keys = prescription.windows, prescription.keys_per_client
    lines = ["import asyncio"] if windows or slots is not None else []
    lines += ["import time", "from collections import deque"] if windows else []
    lines += [""] if lines else []
    lines.append("from openai import AsyncOpenAI")
    takes_turns = any(window.by_clock for window in windows)
    if takes_turns or prescription.in_flight_more or any(window.more for window in windows):
        lines += ["", f"CLIENT = 0  # number of this client, from 0 to {prescription.sharing - 1}"]
    rows = (
        f'    {_class(one)}("{one.counts}", {_amount(keys * one.amount, one.more)}, {one.period_s:g}),'
        for one in windows
    )
    further = SPACED_CLASS if any(window.spaced for window in windows) else ""
    further += TURNS_CLASS.format(clients=prescription.sharing, turn_s=TURN_S) if takes_turns else ""
    pace = PACE_CLASS.format(windows="\n".join(rows), further=further)
    lines += pace.splitlines() if windows else [""]
    if slots is not None:
        lines.append(f"slots = asyncio.Semaphore({_amount(slots, prescription.in_flight_more)})")
    lines += [
        "client = AsyncOpenAI(",
        f"    base_url={values.base_url}, max_retries={values.retries}, timeout={values.timeout_s}",
        ")",
        "",
        "",
    ]
    counts_tokens = any(window.counts == "tokens" for window in windows)
    if counts_tokens:
        lines.append("async def chat(tokens, **request):  # tokens of the prompt, plus max_tokens")
    else:
        lines.append("async def chat(**request):")
    held = []
    if windows:
        held.append(f"await pace(requests=1{', tokens=tokens' if counts_tokens else ''})")
    held.append("return await client.chat.completions.create(**request)")
    if slots is not None:
        lines += ["    async with slots:", *(f"        {line}" for line in held)]
    else:
        lines += [f"    {line}" for line in held]
    return Setting(
        name="openai",
        language="python",
        text="\n".join(lines) + "\n",
        note="Keeps every limit and sends bursts if they allow them. The SDK's own retries are not paced.",
    )


def _class(window: Window) -> str:
    """Return the name of the class that keeps a window."""
    if window.by_clock:
        return "Turns"
    return "Spaced" if window.spaced else "Window"


def _amount(amount: int, more: int) -> str:
    """Return an expression for what a client has, if the first ones have one more."""
    return f"{amount} + (CLIENT < {more})" if more else f"{amount}"


def _aiolimiter(values: Values) -> list[Setting]:
    if values.spacing_s is None:
        return []
    text = f"""\
from aiolimiter import AsyncLimiter

pace = AsyncLimiter(1, {values.spacing_s:g})  # one request every {values.spacing_s:g} s
# async with pace: await client.chat.completions.create(...)
"""
    return [
        Setting(
            name="aiolimiter",
            language="python",
            text=text,
            note="Spaces requests evenly. AsyncLimiter(1, …) sends no bursts; AsyncLimiter(60, 60) would "
            "send 60 requests immediately.",
        )
    ]


def _litellm(values: Values) -> Setting:
    prescription = values.prescription
    found = {
        "rpm": prescription.requests_per_min or (None if values.spacing_s is None else 1),
        "tpm": prescription.tokens_per_min,
        "max_parallel_requests": prescription.in_flight,
    }
    limits = "".join(f'\n                "{name}": {value},' for name, value in found.items() if value)
    text = f"""\
from litellm import Router

router = Router(
    model_list=[
        {{
            "model_name": {values.model},
            "litellm_params": {{
                "model": {quoted("openai/" + values.model_id)},
                "api_base": {values.base_url},{limits}
            }},
        }}
    ],
    num_retries={values.retries},
    timeout={values.timeout_s},
    optional_pre_call_checks=["enforce_model_rate_limits"],
)
"""
    return Setting(
        name="LiteLLM router",
        language="python",
        text=text,
        note="Without the check, rpm and tpm only choose between deployments. It refuses instead of pacing, "
        "and counts by minutes: limits of other periods can refuse.",
    )


def _langchain(values: Values) -> Setting:
    imports = ["from langchain_openai import ChatOpenAI"]
    pace: list[str] = []
    options = {
        "model": values.model,
        "base_url": values.base_url,
        "max_retries": values.retries,
        "timeout": values.timeout_s,
    }
    if values.spacing_s is not None:
        imports.insert(0, "from langchain_core.rate_limiters import InMemoryRateLimiter")
        per_s, check_s = rounded_down(1 / values.spacing_s), rounded_down(min(0.1, values.spacing_s / 2))
        pace = [
            "pace = InMemoryRateLimiter(",
            f"    requests_per_second={per_s:g}, check_every_n_seconds={check_s:g}, max_bucket_size=1",
            ")",
        ]
        options["rate_limiter"] = "pace"
    lines = [*imports, "", *pace, "model = ChatOpenAI("]
    lines += [f"    {name}={value}," for name, value in options.items()]
    return Setting(
        name="LangChain",
        language="python",
        text="\n".join([*lines, ")"]) + "\n",
        note="The bucket of size 1 sends no bursts. Retries are not paced.",
    )


def _tenacity(values: Values) -> Setting:
    text = dedent(
        f"""\
        from openai import OpenAI, RateLimitError
        from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

        client = OpenAI(base_url={values.base_url}, max_retries=0, timeout={values.timeout_s})
        backoff = wait_random_exponential(multiplier=1, max=60)


        def announced_or_backoff(state):
            announced = state.outcome.exception().response.headers.get("retry-after", "")
            return min(float(announced), 120) if announced.isdigit() else backoff(state)


        @retry(
            retry=retry_if_exception_type(RateLimitError),
            wait=announced_or_backoff,
            stop=stop_after_attempt({values.retries + 1}),
            reraise=True,
        )
        def chat(**request):
            return client.chat.completions.create(**request)
        """
    )
    return Setting(
        name="tenacity",
        language="python",
        text=text,
        note="It decides when to retry, and does not pace: combine it with a pace.",
    )
