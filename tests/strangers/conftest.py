"""What the tests of strangers' files share."""

from pathlib import Path

import pytest

from tests.strangers.world import World


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that rows and the watched home share, so that rows can lead there."""
    return tmp_path_factory.mktemp("strangers")


@pytest.fixture(scope="session")
def world(place: Path, tiny_generator) -> World:
    """Nobody may change it."""
    (place / "world").mkdir()
    return World.make(place / "world", tiny_generator)
