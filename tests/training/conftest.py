"""What tests of training share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def small_net() -> Iterator[str]:
    """Name of a backbone that trains in a moment, among those of ``keras.applications`` meanwhile."""
    import keras
    from backbones import SmallNet

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "SmallNet", SmallNet, raising=False)
        yield "SmallNet"
