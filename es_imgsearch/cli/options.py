"""Options that commands share, and how settings reach a command.

Nothing heavy is imported before a command needs it: `--help` loads no torch, no NumPy and no
Elasticsearch client.
"""

from __future__ import annotations

import functools
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.shell_completion import CompletionItem

from es_imgsearch.cli.printing.access import naming_the_role, warn_of_password
from es_imgsearch.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from es_imgsearch.cli.printing.hits import Format
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.settings import Settings


F = TypeVar("F", bound=Callable[..., Any])


def examples(*lines: str) -> str:
    """Format the epilog of a command's help: examples, one a line, as typed."""
    return "\b\nExamples:\n" + "\n".join(f"  es-imgsearch {line}" for line in lines)


es_url_option = click.option("--es-url", metavar="URL", callback=warn_of_password,
                             help="Address of Elasticsearch.  [ES_URL]")  # fmt: skip
config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Settings file.  [default: es-imgsearch.toml here, if there is one]",
)


def _log_more(_context: click.Context, _option: click.Parameter, is_given: bool) -> None:
    if is_given:
        from es_imgsearch.cli.printing.logs import log_more

        log_more()


_SETTINGS_OPTIONS = (
    click.option("--index", metavar="NAME", help="Alias of the index.  [default: images]"),
    es_url_option,
    config_option,
    click.option("-v", "--verbose", is_flag=True, expose_value=False, callback=_log_more,
                 help="Log more on standard error, such as a line a file."),
)  # fmt: skip


# Options that only some commands have and that are settings all the same.
_AS_SETTINGS = (
    "encoder",
    "encoder_url",
    "exclude",
    "follow_links",
    "describers",
    "kibana_url",
    "metrics_address",
    "metrics_port",
    "ray_address",
    "service",
    "service_token",
    "service_url",
    "workers",
)


class Choice(click.Choice[str]):
    """A choice whose error names the value that was meant."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        return (
            f"{super().get_invalid_choice_message(value, ctx)}{did_you_mean(value, self.choices)}"
        )


class Group(click.Group):
    """A group that explains where an option goes that was typed before its command.

    Its help lists the commands under `headings`, each with the first sentence of its help.
    """

    headings: Mapping[str, Sequence[click.Command]] = {}

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections = self.headings or {"Commands": [*self.commands.values()]}
        for heading, commands in sections.items():
            rows = [(str(each.name), _first_sentence(each)) for each in commands]
            with formatter.section(heading):
                # One width for all sections.
                formatter.write_dl(
                    rows, col_max=14, col_spacing=14 - max(len(name) for name, _ in rows)
                )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            option = error.option_name
            if not any(
                option in each.opts for one in self.commands.values() for each in one.params
            ):
                raise
            raise click.UsageError(
                f"{option} goes after the command: `{ctx.command_path} COMMAND {option} ...`.", ctx
            ) from None


def _first_sentence(command: click.Command) -> str:
    text = " ".join((command.help or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.;]) ", text, maxsplit=1)[0].rstrip(".;")


def with_settings_options(function: F) -> F:
    """Add the options of every command; pass the settings as the first argument."""

    @functools.wraps(function)
    def with_settings(
        *, index: str | None, es_url: str | None, config: Path | None, **given: Any
    ) -> Any:
        from es_imgsearch.settings import load_settings

        # What asks a service first imports the client itself, if it needs it.
        if "service" not in given:
            import_client()
        settings = load_settings(
            {
                "index": index,
                "es_url": es_url,
                **{name: given.pop(name) for name in _AS_SETTINGS if name in given},
            },
            config=config,
        )
        with naming_the_role(settings.index):
            return function(settings, **given)

    for option in reversed(_SETTINGS_OPTIONS):
        with_settings = option(with_settings)
    return with_settings  # type: ignore[return-value]


def import_client() -> None:
    """Import Elasticsearch's client without its optional libraries.

    No command uses aiohttp, httpx, pyarrow or requests, but elastic_transport and
    elasticsearch.serializer import those that are installed, and have no option against it. This
    import takes 200 ms of CPU; requests adds 10 ms, httpx 40, aiohttp 90, pyarrow 160.
    """
    if "es_imgsearch.elastic.error_mapping" in sys.modules:
        return
    left_out = {"aiohttp", "httpx", "pyarrow", "requests"} - sys.modules.keys()
    # With None in sys.modules, an import raises ModuleNotFoundError (Python reference, 5.3.1).
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]
    try:
        import es_imgsearch.elastic.error_mapping  # noqa: F401
    finally:
        for name in left_out:
            del sys.modules[name]


since_option = click.option(
    "--since", metavar="DATE", help="Taken on this day or later, by the camera's own clock."
)
until_option = click.option(
    "--until", metavar="DATE", help="Taken on this day or earlier, by the camera's own clock."
)
when_option = click.option(
    "--when",
    metavar="TEXT",
    help="The same in words, such as 'last summer', 'june 2023' or 'last 30 days'.",
)


def dates_of(options: dict[str, Any]) -> None:
    """Replace `when` among the options by the dates that it says, and print these."""
    when = options.pop("when")
    if when is None:
        return
    if options["since"] is not None or options["until"] is not None:
        raise UsageError("--when says the dates: leave --since and --until out, or --when.")
    from es_imgsearch.search.filtering.periods import parse_period

    options["since"], options["until"] = map(str, parse_period(when, date.today()))  # noqa: DTZ011
    click.echo(f"{when}: {options['since']} to {options['until']}.", err=True)


exclude_option = click.option(
    "--exclude",
    metavar="PATTERN",
    multiple=True,
    callback=lambda _context, _parameter, value: value or None,
    help="Leave out files or folders, besides the usual ones, by a pattern as in a .gitignore; with"
    " '!' before it, take them back in.  May be repeated.",
)
follow_links_option = click.option(
    "--follow-links",
    is_flag=True,
    default=None,
    help="Index what links to folders lead to, too; loops are no danger.",
)
describers_option = click.option(
    "--describers",
    metavar="NAMES",
    help="Run only these describers, separated by commas; with a dash before a name, all but that."
    "  [default: all]",
)
allow_deletes_option = click.option(
    "--allow-deletes",
    is_flag=True,
    help="Carry out deletions that would otherwise pause, such as of more than max_delete_share (a"
    " fifth) of a folder's pictures within 48 hours.",
)
take_over_option = click.option(
    "--take-over",
    is_flag=True,
    help="Continue a folder that the index knows on another host, such as a container that was made"
    " anew; it must not be watched there any more.",
)
workers_option = click.option(
    "--workers", metavar="N", type=int, help="Processes that embed pictures.  [default: 1]"
)


def paths_of(kind: Literal["file", "dir"]) -> Callable[..., list[CompletionItem]]:
    """Return a `shell_complete` that has the shell complete paths."""
    return lambda _context, _parameter, incomplete: [CompletionItem(incomplete, type=kind)]


def _filter_fields(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Complete the field of `--filter`, without asking Elasticsearch."""
    from es_imgsearch.elastic.mapping import load_json

    fields = load_json("mappings", "common.json")["mappings"]["properties"]
    return [
        f"{name}="
        for name, mapping in sorted(fields.items())
        if name.startswith(incomplete) and mapping.get("type") != "dense_vector"
    ]


roots_argument = click.argument(
    "roots", metavar="[NAME=]DIR|URL...", nargs=-1, required=True, shell_complete=paths_of("dir")
)


def with_root_options(function: F) -> F:
    """Add the folders of `watch` and `sync`, and the options that both have for them."""
    for each in (
        workers_option,
        take_over_option,
        allow_deletes_option,
        describers_option,
        follow_links_option,
        exclude_option,
        roots_argument,
    ):
        function = each(function)
    return function


filter_option = click.option(
    "--filter",
    "filters",
    metavar="FIELD=VALUE",
    multiple=True,
    shell_complete=_filter_fields,
    help="Only pictures with this value, in any case; FIELD!=VALUE: only those without it; may be"
    " repeated.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON value.")

# Ways to print hits: at most one of them is given.
_FORMATS: Sequence[tuple[str, Format, str]] = (
    ("--json", "json", "Print an object: hits, facets, notes, took_ms, relevant."),
    ("--json-hits", "json_hits", "Print the hits as a JSON list."),
    ("--paths", "paths", "Print only the paths of the files, one a line."),
    ("--print0", "print0", "The same, each ended by a NUL byte, for xargs -0."),
)
_OUTPUT_OPTIONS = (
    click.option("--ids", is_flag=True, help="Print the image_id of each hit, too."),
    click.option("--preview", is_flag=True, help="Show the pictures in the terminal."),
    click.option("--sheet", type=click.Path(path_type=Path), help="Write a contact sheet (PNG)."),
    click.option("--open", "open_it", is_flag=True,
                 help="Open the best hit, or with --sheet the sheet, in the system's viewer."),
)  # fmt: skip


def with_output_options(function: F) -> F:
    """Add the options that say how hits are printed; pass them as `output`."""

    @functools.wraps(function)
    def with_output(*arguments: Any, **given: Any) -> Any:
        from es_imgsearch.cli.printing.hits import HitsOutput

        chosen = [(option, name) for option, name, _ in _FORMATS if given.pop(f"as_{name}")]
        if len(chosen) > 1:
            raise UsageError(f"Give {chosen[0][0]} or {chosen[1][0]}, not both.")
        shown = {name: given.pop(name) for name in ("ids", "preview", "sheet", "open_it")}
        output = HitsOutput(chosen[0][1] if chosen else "lines", **shown)
        output.check()
        return function(*arguments, output=output, **given)

    for each in reversed(_OUTPUT_OPTIONS):
        with_output = each(with_output)
    for option, name, words in reversed(_FORMATS):
        names = ["-0", option] if name == "print0" else [option]
        with_output = click.option(*names, f"as_{name}", is_flag=True, help=words)(with_output)
    return with_output  # type: ignore[return-value]


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, so that work and its processes end in order."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def open_store(settings: Settings) -> Store:
    from es_imgsearch.elastic.client import connect
    from es_imgsearch.elastic.store import Store

    return Store(connect(settings), settings.index)


def parse_box(text: str) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--box is four numbers X,Y,W,H in pixels, not {text!r}.") from None
    return x, y, width, height
