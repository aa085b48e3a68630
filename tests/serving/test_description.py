"""The server does what its OpenAPI description says: schemathesis makes requests from it and checks the answers."""

import hypothesis
import pytest
from hypothesis import HealthCheck, strategies

from helpers.bundles import make_bundle, make_info
from helpers.damaged_files import sound
from serving.test_server import server

schemathesis = pytest.importorskip("schemathesis")
SOUNDS = strategies.sampled_from([sound("wav PCM_16", 0), sound("flac", 0), b"RIFF", b""])


@pytest.fixture(scope="module")
def description(tmp_path_factory):
    folder = tmp_path_factory.mktemp("described")
    make_bundle(folder / "model", make_info())
    schemathesis.openapi.media_type("application/octet-stream", SOUNDS)
    # some requests are for windows of one sample: they end at this limit, and the next ones wait for a new worker
    with server(folder, "--max-megabytes", "1", "--max-seconds", "3") as (port, _):
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")


def test_answers_are_those_of_the_description(description):
    unknowable = schemathesis.checks.CHECKS.get_one("positive_data_acceptance")  # it can't say what a sound is
    paths = []
    for operation in (result.ok() for result in description.get_all_operations()):

        @hypothesis.settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=HealthCheck)
        @hypothesis.given(case=operation.as_strategy())
        def check(case):
            case.call_and_validate(excluded_checks=[unknowable], timeout=60)

        check()
        paths.append(operation.path)
    assert {"/v1/tag", "/v1/segments", "/v1/embed", "/v1/search", "/v1/labels", "/v1/model"} <= set(paths)
