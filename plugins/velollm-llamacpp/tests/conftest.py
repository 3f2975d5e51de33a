"""What the tests of this plugin share: the test models, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from velollm_llamacpp.library import find_library

from velollm_core.testing.test_model import write_test_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small test model."""
    return write_test_model(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture(scope="session")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The draft of the small test model."""
    return write_test_model(tmp_path_factory.mktemp("models") / "draft.gguf", draft=True)


@pytest.fixture(scope="session")
def library() -> Path:
    """The embedded llama.cpp."""
    path = find_library()
    if path is None:
        pytest.skip("xllamacpp is not installed")
    return path
