"""Data of this machine stays out of the tests."""

import pytest

from jaxkd.data import glyphs, images, index, speech_frames, voices
from jaxkd.data.sources import images as image_sources


@pytest.fixture(autouse=True)
def no_data_of_this_machine(tmp_path, monkeypatch):
  monkeypatch.setattr(
    image_sources, 'DEBIAN_FASHION_MNIST', tmp_path / 'debian'
  )
  monkeypatch.setattr(glyphs, 'FONTS', tmp_path / 'fonts')
  monkeypatch.setattr(glyphs, 'CACHE', tmp_path / 'glyphs')
  monkeypatch.setattr(speech_frames, 'SOUNDS', tmp_path / 'prompts')
  monkeypatch.setattr(speech_frames, 'CACHE', tmp_path / 'speech')
  monkeypatch.setattr(images, 'CACHE', tmp_path / '.headers')
  monkeypatch.setattr(index, 'CACHE', tmp_path / '.labels')
  monkeypatch.setattr(voices, 'CACHE', tmp_path / '.voices')
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
