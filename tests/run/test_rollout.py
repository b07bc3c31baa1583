"""Students that write what they learn from, from a config."""

import jax
import numpy as np
import pytest

import jaxkd
from jaxkd.errors import UserError

NET = dict(model='mlp', kw=dict(widths=(4,)))


def opposite(student, batch, key, *, scale=1.0):
  """Examples that move against what the student is sure of."""
  logits = student(batch['inputs'])['logits']
  noise = jax.random.normal(key, batch['inputs'].shape)
  sure = jax.nn.softmax(logits).max(-1).reshape(-1, 1, 1, 1)
  return {**batch, 'inputs': batch['inputs'] + scale * sure * noise}


def nothing(student, batch, key):
  return None


def config(name, **given):
  rollout = dict(name=name and f'{__name__}:{name}', **given)
  return dict(
    data=dict(source='digits', rollout=rollout),
    teachers=dict(main=NET),
    students=dict(student=NET),
    distill=dict(soft=dict(loss='kl', teacher='main')),
    train=dict(steps=3, batch_size=8, seeds=2, members='vmap'),
    report=dict(compare=dict(better='student', than='student')),
  )


def test_a_run_with_a_rollout_is_another_and_is_reproducible(tmp_path):
  found = [
    jaxkd.run(config(name), tmp_path / str(i))['metrics']['student']
    for i, name in enumerate(['opposite', 'opposite', ''])
  ]
  np.testing.assert_equal(found[0], found[1])
  assert found[0]['nll'] != found[2]['nll']


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (config('opposit'), r"^data\.rollout\.name.*no rollout 'opposit'"),
    (config('nothing'), r'data\.rollout\.name: nothing should give a batch'),
    (
      config('opposite', kw=dict(scal=2.0)),
      r"^data\.rollout\.kw.*no option of opposite 'scal'",
    ),
    (
      {
        **config('opposite'),
        'teachers': dict(main={**NET, 'cache': dict(outputs=('logits',))}),
      },
      r'^data\.rollout\.name: the cached outputs of main',
    ),
  ],
)
def test_what_cannot_be_is_refused_before_the_run(given, message, tmp_path):
  with pytest.raises(UserError, match=message):
    jaxkd.run(given, tmp_path)
  assert not list(tmp_path.iterdir())
