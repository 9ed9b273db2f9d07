"""The command line: thin.  Data on standard output, everything else on standard error.

Nothing heavy is imported before a command needs it: `--help` loads no torch, no NumPy and no
Elasticsearch client.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from es_imgsearch.errors import EXIT_DIFFERENCE, EXIT_DONE, ImgSearchError, UsageError

if TYPE_CHECKING:
    from es_imgsearch.indexer import Indexer
    from es_imgsearch.search import Hits, Query
    from es_imgsearch.settings import Settings
    from es_imgsearch.store import Store

F = TypeVar("F", bound=Callable[..., Any])

_SETTINGS_OPTIONS = (
    click.option("--index", metavar="NAME", help="Alias of the index.  [default: images]"),
    click.option("--es-url", metavar="URL", help="Address of Elasticsearch.  [ES_URL]"),
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="Settings file.  [default: es-imgsearch.toml here, if there is one]",
    ),
)


class _Group(click.Group):
    """Ends with the exit code of an error of ours, and one line instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ImgSearchError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            # `es-imgsearch search … | head`
            _drop_output()
            ctx.exit(EXIT_DONE)


# Options that only some commands have and that are settings all the same.
_AS_SETTINGS = ("encoder", "exclude", "metrics_port")


def _command(function: F) -> F:
    """Add the options every command has and hand the settings over as the first argument."""

    @functools.wraps(function)
    def with_settings(
        *, index: str | None, es_url: str | None, config: Path | None, **given: Any
    ) -> Any:
        from es_imgsearch.settings import load_settings

        settings = load_settings(
            {
                "index": index,
                "es_url": es_url,
                **{name: given.pop(name) for name in _AS_SETTINGS if name in given},
            },
            config=config,
        )
        return function(settings, **given)

    for option in reversed(_SETTINGS_OPTIONS):
        with_settings = option(with_settings)
    return with_settings  # type: ignore[return-value]


_exclude = click.option(
    "--exclude",
    metavar="GLOB",
    multiple=True,
    callback=lambda _context, _parameter, value: value or None,
    help="Leave out files or folders, besides the usual ones; may be repeated.",
)
_allow_deletes = click.option(
    "--allow-deletes", is_flag=True, help="Carry out deletions that would otherwise pause."
)
_roots = click.argument("roots", metavar="[NAME=]DIR...", nargs=-1, required=True)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON value.")


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let what is under way end in order, its workers with it, when the system asks for that."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="es-imgsearch")
@click.option("-v", "--verbose", is_flag=True, help="Say more on standard error.")
def main(verbose: bool) -> None:
    """Find pictures by words, by another picture or by a piece of one, on Elasticsearch 8."""
    logging.basicConfig(
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(message)s",
        level=logging.DEBUG if verbose else logging.WARNING,
    )
    for foreign in ("elastic_transport", "urllib3", "PIL", "asyncio", "sentence_transformers"):
        logging.getLogger(foreign).setLevel(logging.ERROR)


@main.command()
@_command
@click.option("--encoder", metavar="NAME", help="Encoder of the index.  [default: clip]")
@click.option("--profile", metavar="NAME", default=None, help="Vector profile: exact, balanced,"
              " compact or binary.  [default: balanced]")  # fmt: skip
@click.option("--similarity", metavar="NAME", default=None, help="cosine, dot_product or l2_norm."
              "  [default: cosine]")  # fmt: skip
def init(settings: Settings, profile: str | None, similarity: str | None) -> None:
    """Make the index, its alias and its templates.

    Safe to repeat: an index that is there already is checked, and only fields that it lacks are
    added.
    """
    from es_imgsearch.creation import create_index

    store = _store(settings)
    outcome = create_index(store, settings, profile=profile, similarity=similarity)
    click.echo(outcome, err=True)


@main.command()
@_command
@_roots
@_exclude
@_allow_deletes
@click.option("--metrics-port", metavar="N", type=int, help="Serve /metrics and /healthz there.")
def watch(settings: Settings, roots: tuple[str, ...], allow_deletes: bool) -> None:
    """The daemon: keep the index like the folders until it is stopped (Ctrl-C, SIGTERM)."""
    from es_imgsearch.daemon import Daemon

    _log_as_daemon(settings)
    with ExitStack() as stack:
        indexer = stack.enter_context(_indexer(settings, roots, allow_deletes, warm_up=True))

        def ready() -> None:
            names = ", ".join(f"{root.name}={root.path}" for root in indexer.roots)
            logging.getLogger("es_imgsearch").info("Watching %s.", names)

        if settings.metrics_port is not None:
            from es_imgsearch.metrics import MetricsServer

            stack.callback(MetricsServer(indexer, settings.metrics_port).close)
        daemon = Daemon(indexer, settings, on_ready=ready)
        _stop_on_signals(daemon.stop)
        drained = daemon.run()
        left = "" if drained else "; some files were left for the next start"
        click.echo(f"Stopped: {indexer.summary()}{left}.", err=True)


@main.command()
@_command
@_roots
@_exclude
@_allow_deletes
@_sigterm_as_ctrl_c()
def sync(settings: Settings, roots: tuple[str, ...], allow_deletes: bool) -> None:
    """Bring the index up to date with the folders once, then end.

    Ends with 1 if a file failed or deletions are paused.
    """
    from es_imgsearch.indexer import sync as run_sync
    from es_imgsearch.progress import progress

    started = time.monotonic()
    if allow_deletes:
        roots = _release_gone(settings, roots)
        if not roots:
            return
    with _indexer(settings, roots, allow_deletes) as indexer:
        with progress(indexer):
            run_sync(indexer)
        indexer.pipeline.close()
        click.echo(f"{indexer.summary()} in {time.monotonic() - started:.1f} s.", err=True)
        for root in indexer.roots:
            if (pause := indexer.paused.get(root.name)) is not None:
                click.echo(pause.words(root, settings.index), err=True)
        if indexer.counts.failed or indexer.paused:
            sys.exit(EXIT_DIFFERENCE)


@main.command()
@_command
@click.argument("text", nargs=-1)
@click.option("--image", type=click.Path(path_type=Path), help="Search with this picture.")
@click.option("--box", metavar="X,Y,W,H", help="Only this part of it, in pixels.")
@click.option("--not", "unwanted", metavar="TEXT", multiple=True, help="Away from these words.")
@click.option("-k", default=10, show_default=True, help="How many hits.")
@click.option("--num-candidates", type=int, help="Neighbours weighed a shard.  [default: as tuned]")
@click.option("--filter", "filters", metavar="FIELD=VALUE", multiple=True,
              help="Only pictures with this value; may be repeated.")  # fmt: skip
@click.option("--since", metavar="DATE", help="Taken on this day or later.")
@click.option("--until", metavar="DATE", help="Taken on this day or earlier.")
@click.option("--exact", is_flag=True, help="Compare every picture, walk no graph.")
@_json
@click.option("--sheet", type=click.Path(path_type=Path), help="Write a contact sheet (PNG).")
def search(
    settings: Settings,
    text: tuple[str, ...],
    image: Path | None,
    box: str | None,
    unwanted: tuple[str, ...],
    k: int,
    num_candidates: int | None,
    filters: tuple[str, ...],
    since: str | None,
    until: str | None,
    exact: bool,
    as_json: bool,
    sheet: Path | None,
) -> None:
    """Find pictures by words, by a picture, or by both."""
    from es_imgsearch.queries import parse_filters
    from es_imgsearch.search import ImageSearch

    wanted: list[Query] = []
    if text:
        wanted.append(" ".join(text))
    if image is not None:
        wanted.append(image)
    if not wanted:
        raise UsageError("Give words to search for, or a picture with --image FILE.")
    if box is not None and image is None:
        raise UsageError("--box is a part of the picture given with --image.")
    hits = ImageSearch(settings=settings).search(
        wanted,
        list(unwanted),
        k,
        box=None if box is None else _parse_box(box),
        num_candidates=num_candidates,
        filters=parse_filters(filters),
        since=since,
        until=until,
        exact=exact,
    )
    _show(hits, as_json, sheet)


@main.command()
@_command
@click.argument("image_id")
@click.option("-k", default=10, show_default=True, help="How many hits.")
@click.option("--filter", "filters", metavar="FIELD=VALUE", multiple=True,
              help="Only pictures with this value; may be repeated.")  # fmt: skip
@_json
@click.option("--sheet", type=click.Path(path_type=Path), help="Write a contact sheet (PNG).")
def similar(
    settings: Settings,
    image_id: str,
    k: int,
    filters: tuple[str, ...],
    as_json: bool,
    sheet: Path | None,
) -> None:
    """Find pictures like a stored one; loads no model."""
    from es_imgsearch.queries import parse_filters
    from es_imgsearch.search import ImageSearch

    hits = ImageSearch(settings=settings).similar(image_id, k, filters=parse_filters(filters))
    _show(hits, as_json, sheet)


@main.command()
@_command
@_json
def status(settings: Settings, as_json: bool) -> None:
    """What the index holds, for whom, and whether deletions wait."""
    from es_imgsearch.status import index_status

    found = index_status(_store(settings))
    if as_json:
        _print_json(found)
        return
    _print(
        f"{found['index']} ({found['generation']}): {found['pictures']} pictures,"
        f" {found['failures']} failures\n"
        f"encoder {found['encoder']['name']}, {found['encoder']['dims']} dims, profile"
        f" {found['profile']}, {found['similarity']}; Elasticsearch {found['elasticsearch']}"
    )
    for name, root in found["roots"].items():
        _print(
            f"  {name}: {root['pictures']} pictures, {root['failures']} failures in {root['path']}"
            f" on {root['host']}"
        )
        if root["deletions_paused"]:
            pause = root["deletions_paused"]
            _print(f"    deletions paused since {pause['since']}: {pause['reason']}")


@main.command()
@_command
@_roots
@_exclude
@_json
def verify(settings: Settings, roots: tuple[str, ...], as_json: bool) -> None:
    """Compare the folders with the index, changing nothing; ends with 1 on any difference."""
    from es_imgsearch.roots import parse_roots
    from es_imgsearch.verify import verify as run_verify

    store = _store(settings)
    store.info()
    found = list(run_verify(store, parse_roots(roots), settings))
    if as_json:
        _print_json([each.to_dict() for each in found])
    for each in () if as_json else found:
        _print(f"{each.what:14}  {each.root}/{each.relative_path}")
    click.echo(f"{len(found) or 'No'} difference{'s' * (len(found) != 1)}.", err=True)
    if found:
        sys.exit(EXIT_DIFFERENCE)


@main.command()
@_command
@click.argument("action", type=click.Choice(["list", "retry"]), default="list")
@_json
@_sigterm_as_ctrl_c()
def failures(settings: Settings, action: str, as_json: bool) -> None:
    """List the files that could not be read or stored, and why; or retry them now.

    A retry reads the files that this machine can see once more, and ends with 1 if any of them
    failed again.
    """
    from es_imgsearch.failures import retried_indexer

    store = _store(settings)
    info = store.info()
    if action == "retry":
        with retried_indexer(store, info, settings) as indexer:
            click.echo(f"{indexer.summary()}.", err=True)
            failed = indexer.counts.failed
        sys.exit(EXIT_DIFFERENCE if failed else EXIT_DONE)
    store.refresh()
    found = list(store.failed())
    if as_json:
        _print_json(found)
        return
    for each in found:
        place = f"{each['root']}/{each['relative_path']}"
        _print(f"{each['error_class']:18} {place}: {each['message']}")
    if not found:
        click.echo("No failures.", err=True)


# -- what the commands share ---------------------------------------------------------------


def _store(settings: Settings) -> Store:
    from es_imgsearch.connection import connect
    from es_imgsearch.store import Store

    return Store(connect(settings), settings.index)


@contextmanager
def _indexer(
    settings: Settings, roots: tuple[str, ...], allow_deletes: bool, *, warm_up: bool = False
) -> Iterator[Indexer]:
    from es_imgsearch.describe import mapped_describers
    from es_imgsearch.indexer import Indexer
    from es_imgsearch.roots import parse_roots, register_roots
    from es_imgsearch.sealing import sealed_encoder

    # torch's threads would spin while they wait and take the cores from the reading workers:
    # 200 pictures took 29 s with the default and 17 s so, on two busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parsed = parse_roots(roots)
    store = _store(settings)
    info = store.info()
    encoder = sealed_encoder(info, settings.index, settings)
    register_roots(store, parsed, settings.host, replace_gone=allow_deletes)
    indexer = Indexer(
        store,
        encoder,
        parsed,
        settings,
        allow_deletes=allow_deletes,
        warm_up=warm_up,
        describers=mapped_describers(info.properties, settings.index),
    )
    try:
        yield indexer
    finally:
        indexer.pipeline.close()


def _release_gone(settings: Settings, roots: tuple[str, ...]) -> tuple[str, ...]:
    """Let go of the folders that no longer exist; the others are left to be compared."""
    from es_imgsearch.roots import parse_roots, release_root

    left = []
    for text, root in zip(roots, parse_roots(roots, may_be_gone=True), strict=True):
        if root.path.exists():
            left.append(text)
            continue
        pictures = release_root(_store(settings), root, settings.host)
        click.echo(f"{root.name!r} is released: {pictures} pictures deleted.", err=True)
    return tuple(left)


def _log_as_daemon(settings: Settings) -> None:
    logging.getLogger("es_imgsearch").setLevel(
        min(logging.INFO, logging.getLogger().getEffectiveLevel())
    )
    if settings.log_format == "ecs":
        import ecs_logging

        for handler in logging.getLogger().handlers:
            handler.setFormatter(ecs_logging.StdlibFormatter())


def _stop_on_signals(stop: Callable[[], None]) -> None:
    """The first signal stops in order, the second at once."""

    def handle(number: int, frame: object) -> None:
        _ = frame
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda again, _: os._exit(128 + again))
        _ = number
        stop()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, handle)


def _parse_box(text: str) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--box is four numbers X,Y,W,H in pixels, not {text!r}.") from None
    return x, y, width, height


def _show(hits: Hits, as_json: bool, sheet: Path | None) -> None:
    if as_json:
        _print_json([hit.to_dict() for hit in hits])
    for hit in () if as_json else hits:
        _print(f"{hit.score:6.3f}  {hit.root}/{hit.relative_path}")
    if not hits and not as_json:
        click.echo("Nothing found.", err=True)
    if sheet is None:
        return
    try:
        hits.sheet().save(sheet)
    except (OSError, ValueError) as error:
        raise UsageError(f"The sheet {str(sheet)!r} cannot be written: {error}.") from error
    click.echo(f"Wrote {sheet}.", err=True)


def _print(text: str) -> None:
    """Data, to standard output."""
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise ImgSearchError(f"Standard output cannot be written: {error.strerror}.") from error


def _drop_output() -> None:
    """What is still in the buffer would fail once more when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_json(value: Any) -> None:
    import orjson

    _print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
