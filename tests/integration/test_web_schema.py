"""schemathesis tries the server's own OpenAPI page on it."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import EchoPolicy, running

from segrl import segmenters
from segrl.loading import make_text_to_masks
from segrl.pipeline import Pipeline
from segrl.web.app import create_app

load_all_checks()
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
FEW = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def page():
    """The page of an application like the one that is tried."""
    policy = EchoPolicy()
    return create_app(Pipeline(policy, make_text_to_masks(policy, segmenters.load("box")))).openapi()


schema = schemathesis.openapi.from_dict(page())


@pytest.fixture(scope="module")
def server():
    with running() as one:
        yield one


@schema.parametrize()
@FEW
def test_the_server_keeps_to_its_page(server, case):
    case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=60)
