"""Model download: fetches a judge's files from the Hub before a server loads them; ``python -m`` this module.

How long a download takes depends on the network and says nothing about whether the server will start; so it is a step
of its own, with a deadline of its own (`pool.download_deadline_s`).
"""

import contextlib
import sys
import threading
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import typer

from speciarl.verifier_server.config import PoolConfig, VerifierConfig

REPORT_EVERY_S = 15.0
_SMALL = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.py")
_SKIPPED = ("original/*", "metal/*")
"""Other formats of the same weights, which vLLM skips as well."""

# Plain tracebacks: standard error is a log, whose last line is shown to the user.
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def download_command(config: VerifierConfig, pool: PoolConfig) -> list[str] | None:
    """Command line that downloads a judge's model; None for one in a local directory."""
    model = config.model
    if not model or Path(model).is_dir():
        return None
    command = [sys.executable, "-m", "speciarl.verifier_server.pool.model_download", model]
    if config.revision:
        command += ["--revision", config.revision]
    folder = pool.engine_args.get("download_dir", pool.engine_args.get("download-dir"))
    return [*command, "--cache-dir", str(folder)] if folder else command


def wanted_files(names: Sequence[str]) -> list[str]:
    """Files of a repository that vLLM loads: the weights, as safetensors where there are any, and all small
    files."""
    kept = [name for name in names if not any(fnmatch(name, pattern) for pattern in _SKIPPED)]
    weights = next((kind for kind in ("*.safetensors", "*.bin") if any(fnmatch(name, kind) for name in kept)), "")
    return [name for name in kept if any(fnmatch(name, pattern) for pattern in (weights, *_SMALL))]


@app.command()
def download(
    model: Annotated[str, typer.Argument(help="Its name on the Hub, e.g. Qwen/Qwen3-8B.")],
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit (default: main).")] = None,
    cache_dir: Annotated[
        str | None, typer.Option("--cache-dir", help="Folder to put it in (default: the Hub's cache).")
    ] = None,
) -> None:
    """Download a judge model into the Hub's cache. Files that are in the cache are not downloaded again.

    \b
      python -m speciarl.verifier_server.pool.model_download Qwen/Qwen3-8B --cache-dir /data/models

    The exit code is 1 when it cannot be downloaded.
    """
    import httpx
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.file_download import repo_folder_name

    try:
        info = HfApi().model_info(model, revision=revision, files_metadata=True)
    except (httpx.HTTPError, OSError, ValueError) as error:
        # A model that is in the cache does not need the Hub. If it is not there, the server says so.
        typer.echo(f"the Hub does not tell of {model} ({_line(error)}); what is in the cache has to do")
        return
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    wanted = wanted_files(list(sizes))
    folder = Path(cache_dir or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model, repo_type="model")
    done = threading.Event()
    watch = (model, folder / "blobs", sum(sizes[name] for name in wanted), done)
    threading.Thread(target=_report, args=watch, daemon=True).start()
    try:
        path = snapshot_download(model, revision=revision, cache_dir=cache_dir, allow_patterns=wanted)
    except (httpx.HTTPError, OSError, ValueError) as error:
        typer.echo(f"error: {model} cannot be downloaded: {_line(error)}")
        raise typer.Exit(1) from error
    finally:
        done.set()
    typer.echo(f"{model} is in {path}")


def _report(model: str, blobs: Path, total: int, done: threading.Event) -> None:
    while not done.wait(REPORT_EVERY_S):
        have = 0
        for file in list(blobs.glob("*")):
            with contextlib.suppress(FileNotFoundError):  # partial files are renamed when they are complete
                have += file.stat().st_size
        typer.echo(f"downloading {model}: {have / 1e9:.1f} of {total / 1e9:.1f} GB")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


if __name__ == "__main__":
    app()
