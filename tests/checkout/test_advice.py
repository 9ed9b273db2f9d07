"""What a message advises exists, concerns the same index, and was carried out by a test."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import click
import pytest

from es_imgsearch.cli import main
from es_imgsearch.settings import ENVIRONMENT_PREFIX, Settings
from tests.support.advice import advising_messages

TESTS = Path(__file__).resolve().parent.parent
MESSAGES = advising_messages()

# A message that advises something needs a row here: write a test that produces the message and does
# what it says, and name it.  By place, as `module:Class.function`.
ADVICE, CODES, REINDEX = "e2e/test_advice.py", "e2e/test_codes.py", "e2e/test_reindex.py"
EXCHANGE, TAGS, REDUCED = "e2e/test_exchange.py", "e2e/test_tags.py", "e2e/test_reduced.py"
SERVICE, SNAPSHOTS = "e2e/test_service_client.py", "e2e/test_snapshots.py"
API, COMPLETION = "e2e/test_http_api.py", "unit/cli/test_completion.py"
LAYOUT = "e2e/test_layout.py"
VIEWS, RIGHTS = "e2e/test_gallery_views.py", "e2e/test_rights.py"
CARRIED_OUT = {
    "cli.completion:_this_shell": f"{COMPLETION}::test_another_shell_is_refused",
    "cli.completion:completion": f"{COMPLETION}::test_a_start_file_that_cannot_be_written",
    "cli.duplicates:_print_left_out": "e2e/test_duplicates.py"
    "::test_what_is_left_out_is_said_with_the_sync_that_ends_it",
    "cli.duplicates:_print_unconfirmed": "e2e/test_duplicates.py"
    "::test_what_nothing_confirms_is_said_with_the_command_that_lists_it",
    "cli.find:_print_unread": "e2e/test_find.py::test_a_file_that_cannot_be_read_is_a_note",
    "cli.exchange.snapshot:restore": f"{SNAPSHOTS}::test_each_mistake_says_what_to_do",
    "cli.exchange.originals:copy_originals": "e2e/test_originals.py"
    "::test_a_root_moves_into_a_bucket_and_nothing_is_embedded_again",
    "manage.production.roles:role_advice": f"{RIGHTS}::test_what_a_refusal_advises_works",
    "search.relevance.background:_read_stored": f"{RIGHTS}::test_a_search_says_what_it_cannot_do",
    "tags.storage:_warn_of_denial": f"{RIGHTS}::test_tags_that_cannot_be_read_are_said",
    "cli.init:drop": "e2e/test_drop.py::test_it_asks_first",
    "cli.printing.progress:print_costs": "e2e/test_progress.py"
    "::test_what_takes_most_of_the_time_is_said_with_how_to_leave_it_out",
    "cli.printing.lines:print_on_request": "e2e/test_find.py"
    "::test_text_in_pictures_is_read_on_request",
    "cli.search:similar": "e2e/test_find.py::test_similar_takes_a_file",
    "cli.printing.lines:left_out_line": "e2e/test_left_out.py::test_commands_follow_links",
    "cli.sync:_is_on_ray": "e2e/test_sync_ray.py::test_an_address_without_the_engine_is_a_line",
    "cli.status:_print_generations": f"{ADVICE}::test_status_names_what_to_do_with_generations",
    "cli.status:_print_segments": "e2e/test_segments.py"
    "::test_it_is_advised_with_the_command_that_does_it",
    "cli.status:_tuning_line": f"{ADVICE}::test_status_names_what_to_run",
    "cli.status:status": f"{CODES}::test_the_command_line_trains_applies_and_searches",
    "cli.judge.tags:train_command": f"{TAGS}::test_train_and_evaluate_from_the_command_line",
    "cli.judge.tags:vocabulary_command": f"{TAGS}::test_the_commands_from_vocabulary_to_identify",
    "cli.verify:verify": "e2e/test_left_out.py::test_verify_says_that_it_compared_no_contents",
    "codes.apply:apply_codes": f"{ADVICE}::test_an_index_without_codes",
    "codes.coder:Coder.from_document": f"{CODES}"
    "::test_a_coder_that_is_lost_or_another_is_refused_and_trained_anew",
    "codes.storage:read_coder": f"{CODES}"
    "::test_a_coder_that_is_lost_or_another_is_refused_and_trained_anew",
    "cli.production.keys:create": f"{RIGHTS}"
    "::test_a_key_is_printed_once_and_listed_without_its_secret",
    "elastic.error_mapping:_unauthenticated": f"{RIGHTS}"
    "::test_each_bad_credential_is_one_clear_line",
    "manage.production.refreshing:off_words": "e2e/test_refresh_off.py"
    "::test_after_a_kill_it_is_reported_and_the_next_command_mends_it",
    "manage.production.keys:_check_name": f"{RIGHTS}"
    "::test_a_key_is_printed_once_and_listed_without_its_secret",
    "manage.production.keys:_check_owner": f"{RIGHTS}::test_a_key_makes_no_keys",
    "manage.production.keys:revoke_key": f"{RIGHTS}"
    "::test_a_key_is_printed_once_and_listed_without_its_secret",
    "elastic.error_mapping:_no_answer": f"{ADVICE}::test_a_server_elsewhere",
    "elastic.error_mapping:_tls_error": f"{ADVICE}::test_a_server_elsewhere",
    "elastic.generations:Generations.update_meta": "e2e/test_upgrade.py"
    "::test_init_upgrades_schema_2",
    "elastic.naming:no_index": f"{ADVICE}::test_an_index_that_is_missing",
    "elastic.state:State._explained": f"{ADVICE}::test_an_index_that_forgot_its_folders",
    "manage.init:_check_requested": f"{ADVICE}::test_another_profile_of_an_index_that_exists",
    "manage.init:_arrange": f"{LAYOUT}::test_other_shards_are_made_by_a_reindex",
    "manage.doctor.cluster:shards": f"{LAYOUT}::test_other_shards_are_made_by_a_reindex",
    "manage.init:create_index": f"{ADVICE}::test_another_encoder_of_an_index_that_exists",
    "manage.doctor.access:expiry": "e2e/test_doctor_rights.py"
    "::test_a_key_that_expires_soon_is_replaced_as_it_says",
    "manage.doctor.access:rights": "e2e/test_doctor_rights.py"
    "::test_a_key_of_no_role_is_replaced_as_it_says",
    "manage.doctor.cluster:memory": "e2e/test_doctor.py"
    "::test_vectors_that_the_page_cache_does_not_hold_are_made_smaller_as_it_says",
    "manage.doctor.diagnosis:relevance": "e2e/test_doctor.py"
    "::test_relevance_is_calibrated_as_it_says",
    "manage.doctor.hints:hints": f"{VIEWS}::test_an_index_without_pictures_says_what_to_do",
    "manage.doctor.hints:_root": f"{VIEWS}::test_what_status_advises_works",
    "manage.doctor.hints:_partitions": "e2e/test_partitions.py"
    "::test_one_is_killed_in_the_middle_and_another_takes_over",
    "manage.doctor.hints:_files": f"{VIEWS}::test_what_status_advises_works",
    "serve.answers.duplicate_lists:DuplicateLists.find": f"{VIEWS}"
    "::test_a_large_index_is_compared_by_the_command",
    "manage.status:renewing_words": "e2e/test_words.py"
    "::test_an_index_of_before_is_searched_says_so_and_is_renewed_by_reindex",
    "manage.reindex.target:begin_next": f"{ADVICE}::test_a_generation_that_is_kept",
    "manage.reindex.target:check_begun": f"{ADVICE}::test_a_reindex_that_is_begun",
    "cli.verify:_print_failures": "e2e/test_verify_file.py"
    "::test_the_failures_are_mentioned_with_the_command_that_lists_them",
    "manage.moved_folder:note_moved": f"{ADVICE}"
    "::test_a_renamed_folder_is_noticed_before_it_is_indexed_twice",
    "manage.remedies:(module)": "e2e/test_verify.py"
    "::test_a_new_a_changed_and_a_missing_file_are_mended_by_sync",
    "manage.taking_in:release_taken_in": "e2e/test_taken_in.py"
    "::test_it_stays_while_its_files_cannot_be_read",
    "manage.remedies:_command": "e2e/test_verify.py"
    "::test_a_difference_says_where_it_is_and_which_command_ends_it",
    "manage.remedies:remedy": f"{ADVICE}"
    "::test_verify_names_the_option_where_the_deletions_would_pause",
    "manage.remedies:verify_content": "e2e/test_left_out.py"
    "::test_verify_says_that_it_compared_no_contents",
    "manage.transfer.bulk_load:_meta": f"{EXCHANGE}"
    "::test_without_a_seal_an_index_is_made_only_for_a_named_encoder",
    "manage.transfer.importing:_Import._refuse": f"{EXCHANGE}"
    "::test_bad_rows_are_skipped_and_told_whoever_finds_them",
    "manage.transfer.importing:_map_columns": f"{EXCHANGE}"
    "::test_columns_of_other_names_are_renamed",
    "manage.transfer.importing:_plan_rows": f"{EXCHANGE}"
    "::test_columns_that_are_no_fields_are_an_error_attributes_or_ignored",
    "pipeline.heartbeat:_as_options": "e2e/test_other_excludes.py"
    "::test_sync_without_the_excludes_of_the_daemon_is_refused",
    "quality.calibrate:_calibrate": f"{ADVICE}::test_too_few_pictures",
    "quality.tune:_tune": f"{ADVICE}::test_too_few_pictures",
    "search.index_state:IndexState.query_relevance": "e2e/test_relevance_without_labels.py"
    "::test_below_30_pictures_a_note_says_that_there_is_no_relevance",
    "search.index_state:IndexState.coder": f"{ADVICE}::test_an_index_without_codes",
    "search.search_log:SearchLog.write": f"{ADVICE}::test_searches_that_cannot_be_logged",
    "cli.serving.service:_read_token": "e2e/test_search_by_service.py"
    "::test_one_with_tokens_is_asked_with_one",
    "embed.runtime.service:ServiceConnection._absent": f"{SERVICE}"
    "::test_a_service_that_is_not_there",
    "embed.runtime.service:ServiceConnection._error": f"{SERVICE}"
    "::test_a_token_is_sent_and_never_shown",
    "serve.examples:search_by_examples": f"{SERVICE}::test_what_a_service_does_not_have",
    "cli.serving.serve:_listening": "e2e/test_serve.py::test_an_address_that_no_host_can_have",
    "serve.disk_cache:DiskCache._refused": "e2e/test_serve_process.py"
    "::test_another_cache_folder_as_the_warning_says",
    "cli.serving.serve:_networks": "e2e/test_serve_traffic.py::test_options_that_cannot_be",
    "serve.traffic.rate_limit:parse_rate": "e2e/test_serve_traffic.py::test_options_that_cannot_be",
    "serve.traffic.root_path:check_apart": "e2e/test_serve_traffic.py::test_options_that_cannot_be",
    "serve.traffic.root_path:checked_root_path": "e2e/test_serve_traffic.py"
    "::test_options_that_cannot_be",
    "serve.guard:Guard._refusal": f"{API}::test_a_name_that_is_allowed",
    "manage.transfer.snapshots:Snapshots._check_absent": f"{SNAPSHOTS}"
    "::test_each_mistake_says_what_to_do",
    "manage.transfer.snapshots:Snapshots._no_repository": f"{SNAPSHOTS}"
    "::test_each_mistake_says_what_to_do",
    "serve.tokens:read_hashes": f"{API}::test_a_file_without_a_token",
    "serve.originals:state_of": f"{ADVICE}::test_an_original_that_is_gone",
    "pipeline.reporting.daemon_log:DaemonLog._log_failures": "e2e/test_watch_command.py"
    "::test_it_says_what_it_does",
    "watch.commands:permitting_command": f"{ADVICE}::test_paused_deletions",
    "watch.commands:sync_command": f"{ADVICE}::test_paused_deletions",
    "watch.commands:walk_options": f"{ADVICE}::test_paused_deletions",
    "watch.pattern_faults:refuse": "unit/watch/test_excludes.py"
    "::test_a_pattern_that_can_match_nothing_is_refused_with_what_to_write",
    "watch.roots:_check_unused": f"{ADVICE}::test_an_index_that_forgot_its_folders",
    "watch.roots:_way_out": f"{ADVICE}::test_a_container_made_anew_goes_on",
    "watch.roots:check_registered": f"{ADVICE}::test_overlapping_folders",
    "watch.unknown_places:UnknownPlaces._message": f"{ADVICE}::test_an_unmounted_disk",
    "write.deletion_pauses:Pause.message": f"{ADVICE}::test_paused_deletions",
}

# Wrong use of options: the message names the options to give, leave out or change.
OF_OPTIONS = {
    "cli.production.partition:check_one", "cli.sync:sync", "records.partition:Partition.parse",
    "cli.printing.lines:(module)", "cli.search:words_and_pictures",
    "cli.completion:(module)", "cli.help:help_command", "cli.help:_help_of_command",
    "cli.duplicates:_check_output", "cli.printing.hits:HitsOutput.check",
    "cli.printing.preview:check_terminal", "cli.printing.sheets:check_sheet",
    "serve.problems:_sentence",
    "cli.options:(module)", "cli.options:dates_of",  "cli.judge.codes:codes",
    "cli.describe:describe", "cli.options:parse_box", "cli.reindex:reindex",
    "cli.search:_parse_weights", "cli.search:search", "cli.exchange.transfer:_renamed",
    "cli.exchange.transfer:export_command",
    "cli.judge.tune:tune", "cli.watch:watch", "codes.fitting:fit_sign",
    "elastic.mapping:check_reducible", "elastic.mapping:new_meta",
    "embed.index_encoder:_load_sealed", "embed.reduction:fit", "kibana.build:vectorise_query",
    "kibana.upload:Kibana.wait", "manage.init:_sealed_and_fitted",
    "manage.reindex.target:_fit_reduction", "manage.transfer.bulk_load:_check_dims",
    "manage.transfer.bulk_load:_check_encoder", "manage.transfer.importing:_open_index",
    "manage.transfer.region_columns:check_region_columns",
    "manage.transfer.snapshots:Snapshots._find", "manage.vector_sample:_sample_file",
    "manage.vector_sample:_sample_index", "pipeline.reporting.metrics:MetricsServer.__init__",
    "quality.code_training:_check_arguments", "quality.code_training:_train",
    "manage.production.keys:parse_lifetime", "manage.production.plan:make_plan",
    "search.reduced:register_originals",
    "watch.roots:claim_root.entered",
}  # fmt: skip

# "pip install ...": see `test_what_is_to_be_installed_is_an_extra`.
OF_PACKAGES = {
    "pipeline.engines.cluster:check_ray",
    "cli.serving.serve:serve", "describe.ocr:TextInImage.missing", "describe.ocr:_only",
    "duplicates.corners:_opencv", "embed.runtime.network:torch_missing", "embed.timm:_config",
    "embed.weights:package_folder", "files.hdf5:load_h5py", "files.parquet:load_pyarrow",
    "quality.plots:check_can_plot", "search.hits:Hits.to_pandas",
    "search.sheet.drawing:missing_letters_note", "tags.fitting:check_can_train",
    "watch.sources.fsspec_source:file_system_class",
}  # fmt: skip

# Not carried out by a test, and why; what they name exists all the same.
NOT_CARRIED_OUT = {
    "cli.printing.access:_command": "names the command that runs",
    "manage.production.roles:(module)": "names of commands, by which roles are found",
    "manage.doctor.hints:_index": "those of cli.status:_print_generations, which a test does",
    "manage.doctor.hints:_search": "those of cli.status:_tuning_line, _print_segments",
    "cli.find:_make_index": "needs a model hub",
    "cli.status:_print_daemon": "names a file that Elasticsearch refuses for good",
    "describe.registry:mapped_describers": "needs an index of an earlier version",
    "manage.redescribe:redescribe_pictures": "needs an index of an earlier version",
    "cli.exchange.kibana:(module)": "needs a setting first; e2e/test_search_log.py does it",
    "kibana.check_queries:data_view_problems": "as _api_error, of an index beside",
    "manage.production.plan:_of_profile": "a plan before there is an index",
    "manage.taken_local:fill_taken_local": "needs a server that fails midway",
    "manage.upgrade:_map_taken": "needs two keys of a secured server",
    "cli.reindex:_print_outcome": "more missing originals are allowed by the number that is known",
    "cli.judge.tune:_verdict": "advises a way to search, no command",
    "elastic.error_mapping:_not_elasticsearch": "the address is somebody's own",
    "elastic.error_mapping:item_error": "the index went during a write; as _api_error",
    "elastic.generations:Generations.begin_next": "two processes in the same moment",
    "elastic.meta:IndexInfo.from_answer": "another index is somebody's own choice",
    "elastic.meta:Meta.from_body": "another index is somebody's own choice",
    "elastic.meta:Seal.check": "another index is somebody's own choice",
    "elastic.rewrites:check_readable": "another index is somebody's own choice",
    "elastic.store:Companions.replace_all": "another index is somebody's own choice",
    "embed.model_lookup:find_folders": "needs a model hub",
    "embed.reduction:Reduction.from_document": "needs a snapshot",
    "embed.reduction:read_reduction": "needs a snapshot",
    "embed.sentence_transformers:create_clip": "needs a model hub",
    "embed.timm:_weights": "needs a model hub",
    "kibana.upload:_failure": "needs a Kibana; a simulated one in unit/kibana/test_upload.py",
    "manage.reindex.__init__:_check_unchanged": "two processes in the same moment",
    "manage.transfer.region_columns:without_regions": "another index is somebody's own choice",
    "manage.upgrade:_make_state": "needs two keys of a secured server",
    "manage.upgrade:_map_ctime": "needs two keys of a secured server",
    "search.operations:Operations._search": "another index is somebody's own choice",
    "search.query_vectors:QueryVectorizer._read_stored": "needs an index of an earlier version",
    "search.query_vectors:weighted_parts": "needs an index of an earlier version",
    "search.reduced:Originals.__init__": "advises a file's format",
    "serve.thumbnails:PictureFiles._located": "another machine",
    "tags.classifier:TagClassifier.check": "labels are somebody's own",
    "tags.classifier:TagClassifier.from_body": "labels are somebody's own",
    "tags.identify:identify": "needs an index too small for relevance",
    "tags.train:_load_training_data": "labels are somebody's own",
}

# Texts that look like advice.
NO_ADVICE = {"search.sheet.fonts:_of_fontconfig", "settings:(module)"}


def test_each_message_that_advises_something_has_a_row() -> None:
    groups = [set(CARRIED_OUT), OF_OPTIONS, OF_PACKAGES, set(NOT_CARRIED_OUT), NO_ADVICE]
    rows = set().union(*groups)
    assert sorted(MESSAGES.keys() - rows) == [], "add a test that does what the message says"
    assert sorted(rows - MESSAGES.keys()) == [], "such a message is no more"
    assert sum(map(len, groups)) == len(rows), "in two groups"


@pytest.mark.parametrize("test", sorted(set(CARRIED_OUT.values())))
def test_the_test_that_carries_it_out_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((TESTS / file).read_text())
    assert name in {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}


def _lines() -> Iterator[tuple[str, str]]:
    """Yield each advised command line, with its place."""
    for place, texts in MESSAGES.items():
        for text in texts:
            for line in re.findall(r"es-imgsearch ([a-z][^`,:]*)", text):
                yield place, line.removesuffix(".")


LINES = sorted(set(_lines()))

# Of these commands an index is not what the advice is about, or another one is meant.
WITHOUT_INDEX = {
    "cli.exchange.kibana:(module)",
    "kibana.check_queries:data_view_problems",
    "elastic.error_mapping:item_error",  # "with the same --index"
    "elastic.mapping:check_reducible",
    "elastic.meta:IndexInfo.from_answer",
    "kibana.upload:_failure",
    "manage.transfer.region_columns:without_regions",
    "search.operations:Operations._search",
    "search.reduced:Originals.__init__",
    "serve.originals:state_of",
    "serve.thumbnails:PictureFiles._located",
    "cli.serving.serve:serve",
    "serve.tokens:read_hashes",
    "embed.runtime.service:ServiceConnection._absent",
    "embed.runtime.service:ServiceConnection._error",
    # These commands have no index.
    "cli.completion:(module)",
    "cli.completion:_this_shell",
    "cli.completion:completion",
    "cli.help:_help_of_command",
    "serve.problems:_sentence",
    "cli.help:help_command",
}


@pytest.mark.parametrize(("place", "line"), LINES)
def test_an_advised_command_exists_and_names_its_index(place: str, line: str) -> None:
    words = shlex.split(line.replace("{}", "x").replace("%s", "x"))
    command: click.Command = main
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    assert not isinstance(command, click.Group) or command.invoke_without_command, line
    known = {option for each in command.params for option in each.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert "--index" in words or place in WITHOUT_INDEX


OPTIONS = {
    option
    for command in main.commands.values()
    for each in [command, *getattr(command, "commands", {}).values()]
    for parameter in each.params
    for option in parameter.opts
}


@pytest.mark.parametrize("place", sorted(MESSAGES.keys() - NO_ADVICE))
def test_advised_options_and_settings_exist(place: str) -> None:
    for text in MESSAGES[place]:
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text):
            assert option in OPTIONS | {"--help"}, text
        for variable in re.findall(r"\bES_[A-Z_]+\b", text):
            setting = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
            assert setting in Settings.model_fields, text


@pytest.mark.parametrize("place", sorted(OF_PACKAGES))
def test_what_is_to_be_installed_is_an_extra(place: str) -> None:
    project = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    packages = {re.split(r"[^\w.-]", each)[0].lower() for each in required} | {"{}"}
    for text in MESSAGES[place]:
        for found in re.findall(r"pip install '?\"?(\{\}|[\w.-]+)(?:\[(\w+)\])?", text):
            name, extra = found
            if extra:
                assert name == "es-imgsearch"
                assert extra in project["optional-dependencies"]
            else:
                assert name.rstrip(".").lower() in packages
