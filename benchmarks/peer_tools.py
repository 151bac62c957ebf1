"""Published load-testing tools: the command that gives each the same work, and where it reports the TTFT."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

TOKENS = 64


class ToolRun(NamedTuple):
    """The work of one tool."""

    url: str
    streams: int
    requests: int
    seconds: float
    tokenizer: Path
    folder: Path


class Tool(NamedTuple):
    """A published tool: its package, its command, and how to find its TTFT (median, ms) in its output."""

    package: str
    command: Callable[[ToolRun], list[str]]
    ttft_ms: Callable[[Path], float | None]


def _guidellm(run: ToolRun) -> list[str]:
    backend = f"kind=openai_http,target={run.url.removesuffix('/v1')},model=deepseek-chat"
    return [
        *("guidellm", "run", "--backend", backend, "--profile", f"kind=concurrent,streams={run.streams}"),
        *("--constraint", f"kind=max_requests,count={run.requests}"),
        *("--tokenizer", f"kind=huggingface_auto,model={run.tokenizer}"),
        *("--data", f"kind=synthetic_text,prompt_tokens=64,output_tokens={TOKENS}"),
        *("--output", f"kind=json,path={run.folder / 'guidellm.json'}", "--disable-console-interactive"),
    ]


def _aiperf(run: ToolRun) -> list[str]:
    return [
        *("aiperf", "profile", "--model", "deepseek-chat", "--url", run.url.removesuffix("/v1")),
        *("--endpoint-type", "chat", "--streaming", "--tokenizer", str(run.tokenizer)),
        *("--concurrency", str(run.streams), "--request-count", str(run.requests)),
        *("--isl", "64", "--osl", str(TOKENS), "--ui", "none", "--artifact-dir", str(run.folder)),
    ]


def _genai_bench(run: ToolRun) -> list[str]:
    return [
        *("genai-bench", "benchmark", "--api-backend", "openai", "--api-key", "none"),
        *("--api-base", run.url.removesuffix("/v1"), "--api-model-name", "deepseek-chat"),
        *("--task", "text-to-text", "--model-tokenizer", str(run.tokenizer)),
        *("--traffic-scenario", f"D(64,{TOKENS})", "--num-concurrency", str(run.streams)),
        *("--max-time-per-run", "2", "--max-requests-per-run", str(run.requests)),
        *("--experiment-base-dir", str(run.folder), "--metrics-time-unit", "ms"),
    ]


def _evalscope(run: ToolRun) -> list[str]:
    return [
        *("evalscope", "perf", "--model", "deepseek-chat", "--api", "openai"),
        *("--url", f"{run.url}/chat/completions", "--tokenizer-path", str(run.tokenizer)),
        *("--dataset", "random", "--min-prompt-length", "64", "--max-prompt-length", "64"),
        *("--max-tokens", str(TOKENS), "--parallel", str(run.streams), "--number", str(run.requests)),
        *("--stream", "--no-test-connection", "--outputs-dir", str(run.folder), "--name", "peers"),
    ]


def _number_at(folder: Path, pattern: str, *keys: str | int) -> float | None:
    """Return the number at ``keys`` in the first JSON file that matches ``pattern`` and has it."""
    for path in sorted(folder.rglob(pattern)):
        value: Any = json.loads(path.read_bytes())
        try:
            for key in keys:
                value = value[key]
        except (KeyError, IndexError, TypeError):
            continue
        return float(value)
    return None


def _evalscope_ttft(folder: Path) -> float | None:
    for path in sorted(folder.rglob("benchmark_percentile.json")):
        rows = json.loads(path.read_bytes())
        for row in rows:
            if row.get("Percentiles") in {"50%", "50"}:
                return next((float(value) for name, value in row.items() if name.startswith("TTFT")), None)
    return None


def _guidellm_ttft(folder: Path) -> float | None:
    keys = ("benchmarks", 0, "metrics", "time_to_first_token_ms", "successful", "median")
    return _number_at(folder, "guidellm.json", *keys)


def _aiperf_ttft(folder: Path) -> float | None:
    return _number_at(folder, "profile_export_aiperf.json", "time_to_first_token", "p50")


def _genai_bench_ttft(folder: Path) -> float | None:
    return _number_at(folder, "*.json", "aggregated_metrics", "stats", "ttft", "p50")


TOOLS = {
    "guidellm": Tool("guidellm", _guidellm, _guidellm_ttft),
    "aiperf": Tool("aiperf", _aiperf, _aiperf_ttft),
    "genai-bench": Tool("genai-bench", _genai_bench, _genai_bench_ttft),
    "evalscope": Tool("evalscope[perf]", _evalscope, _evalscope_ttft),
}
