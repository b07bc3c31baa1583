"""Tasks refuse data that they are not for."""

import numpy as np
import pytest

from jaxkd import tasks
from jaxkd.data.examples import ArrayExamples
from jaxkd.data.sources import Source
from jaxkd.errors import UserError

IMAGES = np.zeros((4, 3, 3, 1), np.uint8)
TOKENS = {name: np.zeros((4, 5), np.int32) for name in ('source', 'prefix')}


def source(inputs, labels, **fields):
  train = ArrayExamples(inputs, np.zeros(labels, np.int32), **fields)
  shape = dict.fromkeys(inputs) if isinstance(inputs, dict) else (3, 3, 1)
  return Source('mine', {'train': train}, 2, shape, ('a', 'b'))


MAPS = source(IMAGES, (4, 3, 3), valid=np.ones((4, 3, 3), bool))
SENTENCES = source(TOKENS, (4, 5), valid=np.ones((4, 5), bool))


def test_what_fits_passes():
  for name in ('classification', 'diagnosis', 'retrieval'):
    tasks.check(name, source(IMAGES, 4))
  tasks.check('segmentation', MAPS)
  tasks.check('translation', SENTENCES)


@pytest.mark.parametrize(
  ('name', 'data', 'message'),
  [
    ('classification', MAPS, r'labels by example, and those .* shape \[3, 3\]'),
    ('retrieval', SENTENCES, r'labels by example, and those .* shape \[5\]'),
    ('segmentation', SENTENCES, 'labels by rows × columns, and'),
    ('translation', MAPS, 'labels by tokens, and'),
    (
      'translation',
      source(IMAGES, (4, 5)),
      'inputs with source and prefix, which mine does not have',
    ),
    ('segmentation', source(IMAGES, (4, 3, 3)), "has no field 'valid'"),
  ],
)
def test_what_does_not_is_named(name, data, message):
  with pytest.raises(UserError, match=message):
    tasks.check(name, data)
