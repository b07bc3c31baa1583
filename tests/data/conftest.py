"""Data of this machine stays out of the tests."""

import pytest

from jaxkd.data import sources


@pytest.fixture(autouse=True)
def no_data_of_this_machine(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, 'DEBIAN_FASHION_MNIST', tmp_path / 'debian')
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
