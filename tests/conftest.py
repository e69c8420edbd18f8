"""Every test has its own, empty place for datasets, and draws without a display."""

import os
from itertools import count

import hub_server
import pytest

# Read by mujoco when it is first imported.
os.environ.setdefault("MUJOCO_GL", "egl")


@pytest.fixture(autouse=True)
def datasets(tmp_path, monkeypatch):
    """Every test has its own, empty place for datasets, and works in an empty folder."""
    root = tmp_path / "datasets"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    monkeypatch.setenv("FEEDBACKGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return root


BUCKETS = count()


@pytest.fixture
def hub(monkeypatch):
    """A hub on loopback that huggingface_hub talks to, with a token that may write."""
    server = hub_server.HubServer()
    _point_hub_at(server.url, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", hub_server.WRITER)
    yield server
    server.close()


def _point_hub_at(url: str, monkeypatch) -> None:
    # Read when huggingface_hub is first imported, which another test may have done.
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", url)  # for processes that we start
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def bucket(monkeypatch):
    """The URL of an empty bucket on an S3 server on loopback."""
    import boto3
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    # The server keeps what it holds as long as the process lives.
    name = f"bucket-{next(BUCKETS)}"
    boto3.client("s3").create_bucket(Bucket=name)
    yield f"s3://{name}/datasets"
    server.stop()
