"""The table of what the largest probabilities of a teacher keep."""

import jax
import numpy as np
import pytest

from benchmarks import sparse_tails
from jaxkd.data.examples import ArrayExamples
from jaxkd.errors import UserError

K = 300


@pytest.fixture
def logits():
  """A teacher whose probabilities fall as those of words do, and a student."""
  random = np.random.default_rng(0)
  common = -1.2 * np.log1p(np.arange(K))[None]
  teacher = common + random.normal(size=(12, K))
  student = teacher + random.normal(size=teacher.shape)
  each = {'teacher': teacher, 'trained': student}
  return {name: jax.numpy.asarray(x) for name, x in each.items()}


def test_the_bucket_keeps_most(logits):
  halves = [{n: x[i : i + 6] for n, x in logits.items()} for i in (0, 6)]
  found = sparse_tails.measure(halves, 'teacher', (4, 16, K))
  assert (found['tokens'], found['classes']) == (12, K)
  rows = {(row['student'], row['k']): row for row in found['rows']}
  assert len(rows) == 6
  for (_, k), row in rows.items():
    assert row['bytes'] == (4 * k + 4 if k < K else 6 * k + 4)
    if k == K:
      whole = [row[tail] for tail in ('bucket', 'renormalize', 'uniform')]
      np.testing.assert_allclose(whole, 1, atol=1e-4)
    else:
      assert row['bucket'] > max(0.9, row['renormalize'])
      assert row['bfloat16'] == pytest.approx(row['bucket'], abs=0.01)
  text = sparse_tails.table(found)
  assert f'| trained | 16 | 68 | {rows["trained", 16]["mass"]:.3f} | ' in text
  with pytest.raises(UserError, match='there are 300 classes and not 301'):
    sparse_tails.measure(halves, 'teacher', (301,))


def test_padding_is_no_token():
  inputs = np.zeros((20, 5), np.float32)
  valid = np.arange(5)[None] < np.arange(20)[:, None] % 5
  examples = ArrayExamples(inputs, np.zeros((20, 5), int), valid=valid)
  net = lambda x: np.arange(15.0).reshape(1, 5, 3).repeat(len(x), 0)  # noqa: E731
  found = list(sparse_tails.tokens({'teacher': net}, examples, 20))
  assert [len(x['teacher']) for x in found] == [13, 7]
  wide = lambda x: np.zeros((len(x), 5, 4))  # noqa: E731
  both = {'teacher': net, 'trained': wide}
  with pytest.raises(UserError, match=r'--student: the logits are teacher \[8'):
    list(sparse_tails.tokens(both, examples, 20))
