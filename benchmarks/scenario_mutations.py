"""Damaged copies of scenarios.toml: each loads, or gives one message that names the line or the key.

python -m benchmarks.scenario_mutations --cases 100000 --json mutations.json

Case N changes a small valid file, one scenario of scenarios.toml and a target, at random places: values,
keys, types, tables, encodings, extreme numbers, and missing parts. What loads is then planned for a run:
resolved, checked for a budget, and counted (``make_plan``). A case fails if there is another exception than
UserError, a message without a place or without a bound, or more than MAX_CASE_S.
"""

import re
import resource
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random

from benchmarks.campaign import Batch, parser, run, time_limit
from bltybench.errors import UserError
from bltybench.scenario.arrivals.arrivals import expected_arrivals
from bltybench.scenario.file.resolve import require_budget, resolve
from bltybench.scenario.file.scenario_file import load_book
from bltybench.scenario.file.starter import starter_file
from bltybench.scenario.plan import MAX_ARRIVALS, make_plan

BATCH = 250
MAX_CASE_S = 5.0
"""Maximum CPU time of a case, in seconds."""
MAX_COUNTED = 200_000
"""Arrivals of a schedule that is counted here. A longer one takes time, but nothing new happens in it."""
MAX_TEXT_CHARS = 8_000
MAX_LINE_CHARS = 1_500
TARGETS = """
[targets.sandbox]
base_url = "http://127.0.0.1:8910/v1"
api_key_env = "BLTYBENCH_UNSET_KEY"
verify_tls = false
[targets.sandbox.limits]
requests_per_min = 60
tokens_per_min = 100_000
concurrency = 50
[targets.sandbox.budget]
requests = 2_000
tokens = 5_000_000
money = 40.0
[targets.sandbox.prices."deepseek-chat"]
input_per_million = 0.30
output_per_million = 1.20
[targets.sandbox.timeouts]
connect_s = 10
headers_s = 60.5
[targets.sandbox.sandbox]
seed = 1
ttft = { median_ms = 180, p95_ms = 420 }
queue = { slots = 2, service_ms = 160 }
keys = [{ name = "public", key = "sk-sandbox" }]
[targets.sandbox.sandbox.limits]
requests = { limit = 60, period_s = 60, algorithm = "first_hit_window" }
tokens = false
per = ["key", "model"]
"""
"""A target with every kind of table."""
ARRIVALS = (
    '{ kind = "closed", think_s = 0.5 }',
    '{ kind = "ladder", users = [1, 2, 4] }',
    '{ kind = "constant", rate_per_min = 120 }',
    '{ kind = "poisson", rate_per_min = 45 }',
    '{ kind = "gamma", rate_per_min = 25, burstiness = 2.0 }',
    '{ kind = "ramp", from_per_min = 10, to_per_min = 90, spacing = "poisson" }',
    '{ kind = "ramp", from_per_min = 1e4, to_per_min = 0, unit = "tokens" }',
    '{ kind = "stairs", rates_per_min = [30, 45, 60], unit = "tokens", tokens_per_request = 70 }',
    '{ kind = "bursts", size = 20, every_s = 15, spread_s = 2 }',
    '{ kind = "trace", file = "missing.csv", speed = 0.5, scale = 2 }',
)
NUMBERS = (
    "1",
    "2",
    "3",
    "7",
    "0.01",
    "0.5",
    "45.5",
    "100",
    "999",
    "1_000_000",
    "0",
    "-1",
    "1e-9",
    "1e9",
    "1e12",
)
VALUES = (
    *("0", "-1", "1", "0.5", "3", "1000000", "99999999999", "9223372036854775808", "1e18", "1e308", "1e400"),
    *("-1e400", "1e-320", "5e-324", "nan", "-nan", "inf", "0x7fff", "1_000", "1__0", "01"),
    *("9" * 400, "9" * 5000),
    *("true", "false", '""', '"x"', '"60"', "''", "'''a\nb'''", '"\\ud83d"', '"\\u202e\\u0000"', '"é😀"'),
    *('"' + "a" * 3000 + '"', '"../../etc"', '"http://user:pw@host/v1"', '"http://[::1"'),
    *("[]", "{}", "[[]]", "[1, \"a\", {}]", "{ kind = 3 }", '{ kind = "closed" }', "[" * 2000 + "]" * 2000),
    *("1979-05-27T07:32:00Z", "07:32:00", "2026-13-45", '"<= 5%"', '"< 1e999 ms"', '"== nan"', '"> -1%"'),
)  # fmt: skip
NAMES = (
    "x",
    "",
    '"a b"',
    '"é"',
    "a.b",
    "kind",
    "target",
    "api_key",
    "name",
    '"' + "k" * 300 + '"',
    "0",
    "-",
    "'\"'",
)
CHARACTERS = (
    "\x00",
    "\ufeff",
    "\u2028",
    "\r",
    "\t",
    "é",
    "😀",
    '"',
    "'",
    "[",
    "]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "#",
    "\\",
)
BYTES = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x00", b"\xff\xfe")
_VALUE = re.compile(r"(?<== )(\"[^\"\n]*\"|\[[^\n]*\]|\{[^\n]*\}|[\w.+-]+)|(?<== )[\w.\"<>=% -]+(?=[,\n}])")
_KEY = re.compile(r"[\w-]+(?= = )")
_NUMBER = re.compile(r"(?<![\w.\"])\d[\d_.]*(?![\w.\"])")
_PLACE = re.compile(
    r"line \d+|not UTF-8|targets|scenarios|default_scenario|arrivals|no such (scenario|target)"
)


@cache
def bases() -> tuple[str, ...]:
    """Return valid files: each scenario of scenarios.toml, alone, and each kind of arrivals."""
    text = starter_file("scenarios.toml").read_text(encoding="utf-8")
    text = re.sub(r" *#(?! ?/).*", "", text[text.index("\n[scenarios.quickstart]\n") + 1 :])
    text = re.sub(r'(?<=\ntarget = )".*"', '"sandbox"', text)
    text = text.replace("fallback = true", "fallback = false")  # the only target has one key
    parts = re.split(r"\n(?=\[scenarios\.[\w-]+\]\n(?:title))", re.sub(r"\n\n+", "\n", text))
    files = []
    for part in parts:
        name = part[len("[scenarios.") : part.index("]")]
        files.append(f'default_scenario = "{name}"\n{TARGETS}{part}\n')
    arrivals = re.compile(r"(?<=\narrivals = )\{.*\}")
    return (*files, *(arrivals.sub(lambda _, kind=kind: kind, files[0]) for kind in ARRIVALS))  # type: ignore[misc]


def mutation(number: int) -> bytes:
    """Return the damaged file of case ``number``, always the same."""
    rng = Random(number)
    text = rng.choice(bases())
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
        text = rng.choice(MUTATIONS)(rng, text)
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.02:
        at = rng.randrange(len(data) + 1)
        data = data[:at] + rng.choice(BYTES) + data[at:]
    return data


def _replace(rng: Random, text: str, pattern: re.Pattern[str], new: str) -> str:
    places = list(pattern.finditer(text))
    if not places:
        return text
    place = rng.choice(places)
    return text[: place.start()] + new + text[place.end() :]


def _value(rng: Random, text: str) -> str:
    return _replace(rng, text, _VALUE, rng.choice(VALUES))


def _number(rng: Random, text: str) -> str:
    return _replace(rng, text, _NUMBER, rng.choice(NUMBERS if rng.random() < 0.8 else VALUES))


def _key(rng: Random, text: str) -> str:
    others = _KEY.findall(text) if rng.random() < 0.5 else ()
    return _replace(rng, text, _KEY, rng.choice(others or NAMES))


def _line(rng: Random, text: str) -> str:
    """Delete, repeat, move, or comment a line."""
    lines = text.split("\n")
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(4)
    line = lines[at]
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(to, line)
    elif kind == 2:
        lines.insert(to, lines.pop(at))
    else:
        lines[at] = "# " + line
    return "\n".join(lines)


def _header(rng: Random, text: str) -> str:
    """Rename a part of a table's header, or make it another kind of table."""
    headers = re.compile(r"(?m)^\[+[^\n]*\]+$")
    found = [match.group() for match in headers.finditer(text)]
    if not found:
        return text
    old = rng.choice(found)
    parts = old.strip("[]").split(".")
    parts[rng.randrange(len(parts))] = rng.choice(NAMES)
    new = rng.choice((f"[{'.'.join(parts)}]", f"[[{old.strip('[]')}]]", rng.choice(found), old[:-1], "[]"))
    return text.replace(old, new, 1)


def _character(rng: Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(CHARACTERS) + text[at + rng.randrange(2) :]


def _cut(rng: Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] if rng.random() < 0.3 else text[:at] + text[at + rng.randrange(80) :]


MUTATIONS = (*[_number] * 8, *[_value] * 4, _key, _key, _line, _line, _header, _character, _cut)


def check(path: Path) -> str:
    """Load a file and plan its scenarios. Return the result, or raise AssertionError."""
    try:
        book = load_book(path)
    except UserError as error:
        _check_message(str(error))
        return "rejected by the loader"
    result = "planned"
    for name in book.scenarios:
        try:
            resolved = resolve(book, name)
            require_budget(resolved.target_name, resolved.target)
            resolved.target.read_keys(resolved.target_name)
            arrivals = expected_arrivals(resolved.scenario.arrivals, resolved.scenario.duration_s)
            if MAX_COUNTED < arrivals <= MAX_ARRIVALS:
                result = "planned, without counting a long schedule"
                continue
            plan = make_plan(
                resolved.name, resolved.scenario, resolved.target_name, resolved.target, resolved.base_dir
            )
            assert len(plan.sentence()) + len(str(plan.exceeds(resolved.target))) < MAX_TEXT_CHARS
        except UserError as error:
            _check_message(str(error))
            result = "rejected by the plan"
    return result


def _check_message(text: str) -> None:
    assert len(text) < MAX_TEXT_CHARS, f"a message of {len(text)} characters"
    assert max(map(len, text.splitlines())) < MAX_LINE_CHARS, "a line without a bound"
    assert all(line.isprintable() for line in text.split("\n")), f"not printable: {text!r}"
    assert _PLACE.search(text), f"names neither line nor key: {text!r}"


def play(first: int, cases: int) -> Batch:
    """Run the cases from ``first`` on."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bltybench-") as folder:
        path = Path(folder) / "scenarios.toml"
        for number in range(first, first + cases):
            path.write_bytes(mutation(number))
            try:
                with time_limit(MAX_CASE_S, "a case", cpu=True):
                    counts[check(path)] += 1
            except Exception as error:  # noqa: BLE001 - any exception is a finding
                counts["failed"] += 1
                failures.append(f"{number}: {type(error).__name__}: {str(error)[:300]}")
    return Batch(cases, counts, failures, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


if __name__ == "__main__":
    sys.exit(run(play, parser(__doc__, 100_000, BATCH).parse_args()).code)
