"""Damaged run folders: each command gives its result, or one message, and no record is lost.

python -m benchmarks.damaged_folders --cases 10000 --json folders.json

Case N damages a copy of a run (reports/sample, or --run), sealed or not, at random places: missing, cut, and
changed files, other values and types in JSON and Parquet, and pipes, devices, folders, or links as files.
``bltybench runs`` and one other command then read it. A case fails if a command has another exit code than
0, 1, or 2, a traceback, a message of more than MAX_LINES lines, if it takes more than MAX_COMMAND_S, or if a
file is gone whose records are not in a Parquet file.
"""

import contextlib
import io
import json
import os
import resource
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.campaign import Batch, parser, run, time_limit
from bltybench.cli import main
from bltybench.runs.folder import RunFolder
from bltybench.runs.store import load_attempts, read_generator

SAMPLE = Path(__file__).resolve().parents[1] / "reports" / "sample"
BATCH = 100
MAX_COMMAND_S = 60.0
"""Maximum time of a command, in seconds."""
MAX_LINES = 3
"""Maximum lines of a message: what is wrong, and what to do."""
NUMBERS = (10**400, -(10**400), 10**18, -(10**18), 2**63, 2**63 - 1, 2**53, -1, 0, 1e308, 5e-324, 0.5)
OTHERS: tuple[Any, ...] = (
    None,
    True,
    "",
    "x" * 5000,
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    [],
    {},
    "\x1b[2J",
)
FORMATS = (*("json,junit", "md,prom", "json") * 4, "html,csv")
"""Most commands take the formats that are quick to write."""


def base(source: Path, folder: Path) -> None:
    """Create the two runs to damage: ``sealed`` with a report, and ``spooled`` as a kill leaves it."""
    shutil.copytree(source, folder / "sealed", ignore=shutil.ignore_patterns("figures"))
    sealed, spooled = RunFolder(folder / "sealed"), RunFolder(folder / "spooled")
    spooled.path.mkdir()
    shutil.copy(sealed.manifest_json, spooled.manifest_json)
    records: dict[Path, list[Any]] = {
        spooled.attempts_spool: load_attempts(sealed),
        spooled.generator_spool: read_generator(sealed).to_pylist(),
    }
    for spool, rows in records.items():
        spool.mkdir()
        half = len(rows) // 2
        for name, part in (("w0", rows[:half]), ("w1", rows[half:])):
            (spool / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in part))


# Mutations of one file. Each returns nothing and may leave the file as it is.


def _delete(_: Random, path: Path) -> None:
    path.unlink()


def _cut(rng: Random, path: Path) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size + 1))


def _bytes(rng: Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(3)
        # Change a byte, delete it, or insert one.
        data[at : at + (kind < 2)] = b"" if kind == 1 else rng.randbytes(1)
    path.write_bytes(data)


def _garbage(rng: Random, path: Path) -> None:
    path.write_bytes(
        rng.choice((b"", b"\0" * 4096, b"PAR1", b"\xff\xfe", b"[" * 200_000, rng.randbytes(3000)))
    )


def _special(rng: Random, path: Path) -> None:
    """Put a pipe, a folder, a device, a socket's remains, or a link in place of the file."""
    path.unlink()
    kind = rng.randrange(7)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        path.symlink_to("missing")
    else:
        path.symlink_to(rng.choice(("/dev/zero", "/dev/full", "/dev/null", "/proc/self/mem", "/dev/tty")))


def _protect(_: Random, path: Path) -> None:
    path.chmod(0)


def _json(rng: Random, path: Path) -> None:
    """Change a value in a JSON file, or in one line of a spool."""
    lines = path.read_bytes().splitlines(keepends=True) if path.suffix == ".jsonl" else [path.read_bytes()]
    at = rng.randrange(len(lines))
    try:
        document = json.loads(lines[at])
    except (ValueError, RecursionError):
        return
    _change(rng, document)
    lines[at] = json.dumps(document).encode() + b"\n"
    path.write_bytes(b"".join(lines))


def _change(rng: Random, document: Any) -> None:
    """Change one value in a document."""
    while isinstance(document, dict | list) and document:
        key: Any = rng.choice(list(document)) if isinstance(document, dict) else rng.randrange(len(document))
        value = document[key]
        if isinstance(value, dict | list) and value and rng.random() < 0.8:
            document = value
            continue
        kind = rng.randrange(8)
        if kind < 3:
            document[key] = rng.choice(NUMBERS)
        elif kind < 6:
            document[key] = rng.choice(OTHERS)
        elif kind == 6:
            del document[key]
        elif isinstance(document, dict):
            document[rng.choice(("unknown", "run_id", "outcome"))] = value
        return


def _nest(rng: Random, path: Path) -> None:
    """Nest a value deeply."""
    text = path.read_text(encoding="latin-1")
    place = text.find(":", rng.randrange(len(text) + 1)) + 1
    depth = rng.choice((200, 2000, 100_000))
    path.write_text(text[:place] + "[" * depth + "]" * depth + text[place:], encoding="latin-1")


def _lines(rng: Random, path: Path) -> None:
    """Repeat, drop, join, or shuffle the lines of a spool."""
    lines = path.read_bytes().splitlines(keepends=True)
    kind = rng.randrange(4)
    if kind == 0:
        lines *= 2
    elif kind == 1:
        del lines[rng.randrange(len(lines) + 1) :]
    elif kind == 2:
        lines = [line.rstrip(b"\n") for line in lines]
    else:
        rng.shuffle(lines)
    path.write_bytes(b"".join(lines))


def _parquet(rng: Random, path: Path) -> None:
    """Rewrite a Parquet file with other values, types, or columns."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError):
        return
    if not table.num_rows or not table.num_columns:
        return
    at = rng.randrange(table.num_columns)
    field, values = table.schema.field(at), table.column(at).to_pylist()
    kind = rng.randrange(6)
    if kind == 0:
        table = table.drop_columns([field.name])
    elif kind == 1:
        table = table.set_column(at, field.name, pa.array([str(value) for value in values]))
    elif kind == 2:
        table = table.slice(0, rng.choice((0, 1, 2, 7)))
    else:
        for _ in range(rng.choice((1, 5, len(values)))):
            new = None if kind == 3 else rng.choice((*NUMBERS, *OTHERS, *values))
            values[rng.randrange(len(values))] = new
        with contextlib.suppress(pa.ArrowException, OverflowError, UnicodeError):
            changed = pa.array(values, type=field.type)
            table = table.set_column(at, pa.field(field.name, field.type), changed)
    pq.write_table(table, path)


Mutation = Callable[[Random, Path], None]
ANY: tuple[Mutation, ...] = (
    _delete,
    _cut,
    _bytes,
    _bytes,
    _garbage,
    _special,
    _protect,
)


def damage(rng: Random, folder: Path) -> None:
    """Damage a run at one to three places."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
        inputs = [path for path in files if path.suffix in {".json", ".jsonl", ".parquet"}]
        if not inputs:
            return
        path = rng.choice(inputs if rng.random() < 0.9 else files)
        special: tuple[Mutation, ...] = ()
        if path.suffix == ".parquet":
            special = (_parquet,) * 14
        elif path.suffix == ".json":
            special = (_json,) * 12 + (_nest,)
        elif path.suffix == ".jsonl":
            special = (_json,) * 12 + (_nest, _lines)
        if path.stat().st_size:
            rng.choice((*ANY, *special))(rng, path)


def command(rng: Random, reports: Path, run_id: str) -> list[str]:
    """Return a command that reads the run."""
    kind = rng.randrange(10)  # compare takes the most time, and reads runs like the others
    if kind < 5:
        return ["report", run_id, "--format", rng.choice(FORMATS), "--reports", str(reports)]
    if kind < 9:
        return ["limits", run_id, "--reports", str(reports), *rng.choice(([], ["--json"]))]
    sides = rng.choice((["good", run_id], [run_id, "good"]))
    return ["compare", *sides, "--allow-invalid", "--reports", str(reports)]


def play(first: int, cases: int, source: Path = SAMPLE) -> Batch:
    """Run the cases from ``first`` on."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bltybench-", ignore_cleanup_errors=True) as folder:
        bases, reports = Path(folder) / "bases", Path(folder) / "reports"
        base(source, bases)
        good = RunFolder(shutil.copytree(bases / "sealed", reports / "good"))
        # Two runs with one ID can't be compared.
        good.write_manifest(msgspec.structs.replace(good.manifest(), run_id="good"))
        for number in range(first, first + cases):
            rng = Random(number)
            run_folder = reports / f"case-{number}"
            kind = rng.choice(("sealed", "spooled"))
            shutil.copytree(bases / kind, run_folder)
            try:
                damage(rng, run_folder)
                counts[f"{kind}: {_case(rng, reports, run_folder)}"] += 1
            except Exception as error:  # noqa: BLE001 - any exception is a finding
                counts["failed"] += 1
                failures.append(f"{number}: {type(error).__name__}: {str(error)[-600:]}")
            shutil.rmtree(run_folder)
    return Batch(cases, counts, failures, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def _case(rng: Random, reports: Path, folder: Path) -> str:
    """Read one damaged run and return the command and its exit code, or raise AssertionError."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if _is_plain(path)}
    code, out, err = _call("runs", "--reports", str(reports))
    assert code == 0, f"runs exited with {code}: {err}"
    assert "good" in out, f"runs does not list the other run: {out}"
    arguments = command(rng, reports, folder.name)
    code, out, err = _call(*arguments)
    assert code in {0, 1, 2}, f"{arguments} exited with {code}: {err}"
    assert "Traceback" not in out + err, f"{arguments}: {err}"
    assert len(err.splitlines()) <= MAX_LINES, f"{arguments} printed {err}"
    assert (code == 2) == bool(err), f"{arguments} exited with {code} and printed {err!r}"
    _check_kept(folder, before)
    return f"{arguments[0]} exited with {code}"


def _is_plain(path: Path) -> bool:
    return not path.is_symlink() and path.is_file()


def _check_kept(folder: Path, before: dict[Path, bytes]) -> None:
    """Check that records are where they were, or in a Parquet file."""
    spooled = Counter[str]()
    for path, data in before.items():
        if path.suffix == ".jsonl" and not path.exists():
            spooled[path.parent.name] += data.count(b"\n")
        elif path.name == "manifest.json" or (path.suffix == ".parquet" and not spooled):
            assert path.read_bytes() == data, f"{path.name} was changed"
    for name, rows in spooled.items():
        found = pq.ParquetFile(folder / f"{name}.parquet").metadata.num_rows
        assert found >= rows, f"{rows} records were spooled, but {name}.parquet has {found}"


def _call(*arguments: str) -> tuple[int, str, str]:
    """Run a command in this process. Return its exit code and output."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["bltybench", *arguments]
    try:
        limit = time_limit(MAX_COMMAND_S, f"{arguments}", cpu=False)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), limit:
            code = main()
    finally:
        sys.argv = argv
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    options = parser(__doc__, 10_000, BATCH)
    options.add_argument("--run", type=Path, default=SAMPLE, help="sealed run to damage")
    given = options.parse_args()
    sys.exit(run(partial(play, source=given.run), given).code)
