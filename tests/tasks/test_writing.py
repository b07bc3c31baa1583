"""What language models write is judged by their teachers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import models
from jaxkd.data.text.tokens import PAD
from jaxkd.data.text.words import SPECIAL
from jaxkd.errors import UserError
from jaxkd.tasks import language, writing

CLASSES = (*SPECIAL, 'a', 'b', 'c')
ROWS = np.random.default_rng(0).integers(4, 7, (6, 8)).astype(np.int32)
WANTED = {'written', 'written/main'}
NET = models.build(
  'decoder',
  num_classes=len(CLASSES),
  input_shape=jax.ShapeDtypeStruct(ROWS.shape[1:], jnp.int32),
  **{'width': 8, 'depth': 1, 'heads': 2, 'init': 0.5},
)


VARIABLES, OTHER = (NET.init(jax.random.key(seed)) for seed in range(2))


@jax.jit
def decode(rows, variables=VARIABLES, teacher=None):
  def by(variables):
    return lambda inputs: NET.apply(variables, inputs)[0]

  teachers = {'main': by(OTHER if teacher is None else teacher)}
  return writing.decode(by(variables), rows, WANTED, teachers)


@pytest.fixture(scope='module')
def found():
  return decode(ROWS)


def reached(name, outputs, batch=None):
  metric = {**writing.metrics(CLASSES), **writing.fidelity('main')}[name]
  batch = {'labels': ROWS, **(batch or {})}
  return metric.value(*map(np.asarray, metric.measure(outputs, batch, {})))


def test_the_metrics_of_language_are_there_too():
  assert {*language.metrics(())} < {*writing.metrics(CLASSES)}
  assert {*language.fidelity('main')} < {*writing.fidelity('main')}


def test_a_net_is_judged_by_its_teacher(found):
  own, other, between = (
    reached(name, found)
    for name in ('written_nll', 'written_teacher_nll', 'written_kl')
  )
  assert between == pytest.approx(other - own, rel=1e-5)
  assert 0 < own < np.log(len(CLASSES)) < other  # both prefer few tokens


def test_a_net_that_is_its_own_teacher_diverges_from_nothing():
  same = decode(ROWS, teacher=VARIABLES)
  assert reached('written_kl', same) == 0
  assert reached('written_nll', same) > 0


def test_a_teacher_that_knows_nothing_finds_all_texts_equally_likely():
  nothing = jax.tree.map(jnp.zeros_like, OTHER)
  found = decode(ROWS, teacher=nothing)
  expected = pytest.approx(np.log(len(CLASSES)), rel=1e-6)
  assert reached('written_teacher_nll', found) == expected


def test_what_is_written_depends_on_no_other_row(found):
  backwards = decode(ROWS[::-1].copy())
  for name in WANTED:
    np.testing.assert_allclose(backwards[name][::-1], found[name], rtol=1e-5)


def test_rows_that_have_ended_or_only_pad_a_batch_do_not_count(found):
  rows = ROWS.copy()
  rows[0, 3:] = PAD
  ended = decode(rows)['written/main']
  assert ended[0, -1] == 0 and (ended[1:, -1] > 0).all()
  where = np.arange(len(ROWS)) < 3
  first = {name: x[:3] for name, x in found.items()}
  assert reached('written_kl', found, {'where': where}) == pytest.approx(
    reached('written_kl', first), rel=1e-6
  )


def test_a_net_that_diverged_gives_nan():
  lost = jax.tree.map(lambda x: x * jnp.nan, VARIABLES)
  found = decode(ROWS, lost)
  for name in ('written_nll', 'written_teacher_nll', 'written_kl'):
    assert np.isnan(reached(name, found))


def test_nothing_is_written_that_no_metric_asks_for():
  assert writing.decode(None, ROWS, {'written/other'}, {'main': None}) == {}


def test_data_that_cannot_be_continued_are_refused():
  with pytest.raises(UserError, match='own alone'):
    writing.metrics(('a', 'b', 'c', 'd'))
  with pytest.raises(UserError, match='packed row'):
    writing.decode(None, {'tokens': ROWS}, WANTED, {})
  with pytest.raises(UserError, match='1 token'):
    writing.decode(None, ROWS[:, :1], WANTED, {})
