"""A labelled dataset, made without a simulator, and servers on loopback to send it to."""

import sys
from itertools import count
from pathlib import Path

import pytest
from samples import DATASET, make_dataset

from feedbackgen.label import LabelConfig, label
from feedbackgen.sharing.transfer import publish

sys.path.insert(0, str(Path(__file__).parent))
import hub_server

NUMBERS = count()


@pytest.fixture
def dataset(datasets):
    """Id of a dataset of twelve episodes with feedback."""
    make_dataset()
    label(DATASET, LabelConfig(n_pairs=60, segment_length=8))
    return DATASET


@pytest.fixture
def published(dataset, tmp_path):
    """The folder of a published bundle."""
    return Path(publish(dataset, str(tmp_path / "published")).place)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Another machine's Minari folder, empty."""
    root = tmp_path / "elsewhere"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    return root


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
    name = f"bucket-{next(NUMBERS)}"
    boto3.client("s3").create_bucket(Bucket=name)
    yield f"s3://{name}/datasets"
    server.stop()
