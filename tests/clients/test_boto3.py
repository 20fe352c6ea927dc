"""boto3 against the server of moto."""

import contextlib
import sys

import pytest

from shared import calls, servers

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto")
pytest.importorskip("flask")

MANY = 100
CONNECTIONS = 20
BUCKET = "bucket"


@pytest.fixture(scope="module")
def url():
    port = servers.free_port()
    with servers.serving(port, sys.executable, "-m", "moto.server", "-p", port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def client(url):
    from botocore.config import Config

    settings = Config(max_pool_connections=CONNECTIONS, retries={"total_max_attempts": 1})
    client = boto3.client(
        *["s3", "us-east-1"],
        endpoint_url=url,
        aws_access_key_id="id",
        aws_secret_access_key="secret",
        config=settings,
    )
    with contextlib.closing(client):
        client.create_bucket(Bucket=BUCKET)
        yield client


def test_all_at_once(client):
    def call(n):
        key = f"all/{n}"
        client.put_object(Bucket=BUCKET, Key=key, Body=b"%d " % n * 1000)
        reply = client.get_object(Bucket=BUCKET, Key=key)
        assert reply["Body"].read() == b"%d " % n * 1000

    calls.all_at_once(call, MANY)
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix="all/", PaginationConfig={"PageSize": 30}
    )
    assert {item["Key"] for page in pages for item in page["Contents"]} == {
        f"all/{n}" for n in range(MANY)
    }


def test_called_off(client, rng):
    client.put_object(Bucket=BUCKET, Key="one", Body=b"x" * 1000)

    def call(n):
        start = n % 500
        reply = client.get_object(Bucket=BUCKET, Key="one", Range=f"bytes={start}-{start + n % 99}")
        assert reply["Body"].read() == b"x" * (n % 99 + 1)

    calls.CallingOff(rng)(call)
    calls.all_at_once(call, MANY)
