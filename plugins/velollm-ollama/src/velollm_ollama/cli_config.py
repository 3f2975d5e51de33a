"""`velollm ollama config`: what the server runs with, written, merged, judged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from velollm_core.errors import BackendUnreachable, VeloError
from velollm_core.options import connection_options, json_option, output_option, use_connection
from velollm_core.render import console, document, print_json, write_text
from velollm_ollama import views
from velollm_ollama.config import OllamaConfig
from velollm_ollama.effective import effective
from velollm_ollama.evidence import Evidence
from velollm_ollama.gather import gather
from velollm_ollama.log import read_log
from velollm_ollama.log_source import read_log_file
from velollm_ollama.reach import backend_here, reach
from velollm_ollama.readers import read_settings
from velollm_ollama.version import Version, parse_version
from velollm_ollama.writers import write

if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES = {
    "sh": ".sh",
    "env": ".env",
    "systemd": ".conf",
    "launchctl": ".launchctl",
    "powershell": ".ps1",
    "docker": ".docker",
    "compose": ".yaml",
}
files_argument = click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
log_option = click.option("--log", metavar="FILE", help="The server's log, `-` for standard input.")
version_option = click.option("--for", "wanted", metavar="VERSION", help="Judge for this version, not the server's.")
form_option = click.option("--as", "form", type=click.Choice(list(NAMES)), help="The form to write; default: sh.")


@click.group()
def config() -> None:
    """The server's settings: what is in force, and how to write it down."""


@config.command(epilog="Example: velollm ollama config show")
@log_option
@connection_options
@json_option
def show(log: str | None, url: str | None, api_key: str | None, binary: str | None, as_json: bool) -> None:
    """Show every setting that matters, its value, and where that was read.

    The sources are the server's log, its process, its child's command line, /props and /slots, /api/ps, and the
    defaults of its version. An export in this shell that the server does not run with is said.
    """
    use_connection("ollama", url=url, api_key=api_key, binary=binary)
    evidence = _evidence(log)
    found = effective(evidence)
    if as_json:
        version = str(evidence.version) if evidence.version else None
        print_json(document("ollama.config", version=version, settings=found.settings, findings=found.findings,
                            notes=found.notes))  # fmt: skip
    else:
        views.show_effective(console(), evidence, found)


@config.command(epilog="Example: velollm ollama config export --as systemd")
@files_argument
@form_option
@version_option
@output_option
@connection_options
def export(
    files: tuple[Path, ...],
    form: str | None,
    wanted: str | None,
    output: Path | None,
    url: str | None,
    api_key: str | None,
    binary: str | None,
) -> None:
    """Write the running server's settings, or those in FILES, for the place where Ollama reads them."""
    use_connection("ollama", url=url, api_key=api_key, binary=binary)
    version = _version(wanted)
    found = _merged(files, version) if files else _running(None)
    _write(found, form, output, version or found.version)


@config.command(epilog="Example: velollm ollama config merge")
@files_argument
@form_option
@version_option
@output_option
@connection_options
def merge(
    files: tuple[Path, ...],
    form: str | None,
    wanted: str | None,
    output: Path | None,
    url: str | None,
    api_key: str | None,
    binary: str | None,
) -> None:
    """Lay the settings in FILES over those of the running server, the last one winning."""
    use_connection("ollama", url=url, api_key=api_key, binary=binary)
    running = _running(None)
    version = _version(wanted) or running.version
    _write(running.merge(_merged(files, version)) if files else running, form, output, version)


@config.command(name="lint", epilog="Example: velollm ollama config lint")
@files_argument
@version_option
@log_option
@connection_options
@json_option
def lint_command(
    files: tuple[Path, ...],
    wanted: str | None,
    log: str | None,
    url: str | None,
    api_key: str | None,
    binary: str | None,
    as_json: bool,
) -> None:
    """Name every setting that Ollama would misread, ignore or fall over: of the running server, or in FILES.

    The exit code is 1 where there is an error.
    """
    use_connection("ollama", url=url, api_key=api_key, binary=binary)
    version = _version(wanted)
    if files:
        found = tuple(finding for file in files for finding in read_settings(file, version).lint())
    else:
        found = effective(_evidence(log)).findings
    if as_json:
        print_json(document("ollama.lint", findings=found))
    else:
        views.show_findings(console(), found)
    if any(finding.severity == "error" for finding in found):
        raise SystemExit(1)


def _evidence(log: str | None) -> Evidence:
    """The server's, or what a named log alone says where the server does not answer."""
    try:
        return reach(lambda backend: gather(backend, log))
    except BackendUnreachable:
        if log is None:
            raise
    text, source = read_log_file(log)
    said = read_log(text)
    if not said.values:
        raise VeloError(f'{source}: holds no start of an Ollama server (no line with msg="server config")')
    return Evidence(said.version, said, source, notes=("the server does not answer now: this is from its log alone",))


def _running(log: str | None) -> OllamaConfig:
    """The settings of the running server; raises `VeloError` where neither its process nor its log can be read."""
    evidence = _evidence(log)
    if evidence.process is not None:
        return evidence.process
    if evidence.log is not None:
        return OllamaConfig.from_log(evidence.log, evidence.log_source)
    raise VeloError(f"{backend_here().client}: its settings cannot be read from here; {'; '.join(evidence.notes)}")


def _merged(files: Iterable[Path], version: Version | None) -> OllamaConfig:
    found = OllamaConfig("nothing", version)
    for file in files:
        found = found.merge(read_settings(file, version))
    return found


def _version(text: str | None) -> Version | None:
    if text is None:
        return None
    found = parse_version(text)
    if found is None:
        raise click.UsageError(f"--for {text}: not a version such as 0.33.0")
    return found


def _write(found: OllamaConfig, form: str | None, output: Path | None, version: Version | None) -> None:
    suffix = NAMES[form] if form else output.suffix if output is not None and output.suffix else ".sh"
    text = write(found.settings, suffix, version)
    if output is None:
        click.echo(text.rstrip("\n"))
    else:
        write_text(output, text)
        click.echo(f"Wrote {len(found.settings)} settings to {output}.")
