import io
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxkd import losses
from jaxkd.errors import UserError
from jaxkd.run import config as configs
from jaxkd.run import pipeline, terms
from jaxkd.train import checkpoint
from jaxkd.types import Context

QUEUE = """
import jax
import jax.numpy as jnp

from jaxkd import Term


def queue(*, at, teacher, size=8, temperature=0.5):
  '''How alike a teacher's last outputs are to both, at a learnt temperature.'''

  def init(key, context):
    width = context.teachers[teacher[0]][at[1]].shape[-1]
    params = {'log_temperature': jnp.log(jnp.float32(temperature))}
    return params, {
      'queue': jax.random.normal(key, (size, width)),
      'next': jnp.zeros((), jnp.int32),
    }

  def loss(params, state, context):
    student = context.student[at[0]]
    target = context.teachers[teacher[0]][at[1]][0]
    sharpness = jnp.exp(-params['log_temperature'])
    alike = lambda x: jax.nn.log_softmax(sharpness * x @ state['queue'].T)
    p, q = alike(target), alike(student)
    rows = (state['next'] + jnp.arange(len(target))) % size
    after = {
      'queue': state['queue'].at[rows].set(target),
      'next': (state['next'] + len(target)) % size,
    }
    return (jnp.exp(p) * (p - q)).sum(-1), after

  return Term(init, loss)
"""


def complete(**distill):
  config = configs.complete(
    dict(
      name='one',
      teachers=dict(main={}, other={}),
      students=dict(student={}),
      distill=distill,
      arms=dict(student={}),
      report=dict(compare=dict(better='student', than='student')),
    )
  )
  return configs.plain(config)['distill']


def entry(**given):
  return terms.build(complete(term=given), ['student'])['term']


def drawn(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def context(nets=1, **teacher):
  """Logits of six examples, of a student and of the group `main`."""
  return Context(
    batch={'labels': np.array([0, 1, 2, 0, 1, 2], np.int32)},
    student={'logits': drawn(0, 6, 3)},
    teachers={'main': {'logits': drawn(1, nets, 6, 3), **teacher}},
    step=jnp.zeros((), jnp.int32),
    key=jax.random.key(2),
  )


def value(term, context):
  return term.loss(*term.init(jax.random.key(0), context), context)[0]


def test_a_teacher_can_weigh_the_examples_of_a_loss_that_has_none():
  made = entry(
    loss='cross_entropy', teacher='main', example_weight='teacher_confidence'
  )
  assert made.teachers == ('main',)
  one = context()
  expected = losses.teacher_confidence(one.teachers['main']['logits'][0])
  expected *= losses.cross_entropy(one.student['logits'], one.batch['labels'])
  np.testing.assert_allclose(value(made, one), expected, rtol=1e-6)


def test_other_examples_see_the_teachers_that_a_fusion_puts_together():
  """The term of the rest is shown what it names itself, fused or not."""
  distill = complete(
    soft=dict(
      loss='kl',
      teacher='main',
      fuse='mean_logits',
      when='teacher_is_correct',
      otherwise='each',
    ),
    each=dict(loss='logit_mse', teacher='main', weight=0.0),
  )
  seen = context(nets=2)
  student, teachers = seen.student['logits'], seen.teachers['main']['logits']
  mean = teachers.mean(0)
  right = np.asarray(mean).argmax(-1) == seen.batch['labels']
  assert 0 < right.sum() < 6
  want = np.where(
    right,
    losses.kl(student, mean),
    np.mean([losses.logit_mse(student, one) for one in teachers], axis=0),
  )
  made = terms.build(distill, ['student'])['soft']
  np.testing.assert_allclose(value(made, seen), want, rtol=1e-5)
  one = complete(**{**distill, 'soft': dict(distill['soft'], fuse='sampled')})
  assert terms.build(one, ['student'])['soft'].teachers == ('main',)


def test_a_condition_may_look_at_another_output():
  """And the net is built so that it gives it."""
  given = dict(
    loss='kl', teacher='main', when='teacher_is_correct', when_at='early',
    otherwise='labels',
  )  # fmt: skip
  distill = complete(term=given, labels=dict(loss='cross_entropy', weight=0.0))
  assert terms.outputs_of(distill['term']) == ({'logits'}, {'logits', 'early'})
  early = 5 * jax.nn.one_hot(jnp.array([[0, 1, 2, 1, 2, 0]]), 3)
  seen = context(early=early)
  made = terms.build(distill, ['student'])['term']
  assert made.layers[1] == {'logits', 'early'}
  student, teacher = seen.student['logits'], seen.teachers['main']['logits'][0]
  want = np.where(
    np.arange(6) < 3,
    losses.kl(student, teacher),
    losses.cross_entropy(student, seen.batch['labels']),
  )
  np.testing.assert_allclose(value(made, seen), want, rtol=1e-5)


def test_inputs_say_where_arguments_come_from():
  given = dict(
    loss='jaxkd.losses:logit_mse',
    inputs=dict(student='student.embedding', teacher='teacher.hidden'),
    teacher='main',
  )
  distill = complete(term=given)
  student, taught = terms.outputs_of(distill['term'])
  assert student == {'logits', 'embedding'} and taught == {'logits', 'hidden'}
  seen = context(nets=2, hidden=drawn(3, 2, 6, 5))
  seen = seen._replace(student={**seen.student, 'embedding': drawn(4, 6, 5)})
  made = terms.build(distill, ['student'])['term']
  hidden = seen.teachers['main']['hidden']
  each = [losses.logit_mse(seen.student['embedding'], one) for one in hidden]
  np.testing.assert_allclose(
    value(made, seen), np.mean(each, axis=0), rtol=1e-5
  )


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (
      dict(loss='contrastive', memory=dict(negatives=3)),
      r"^distill\.x\.memory: write term='memory' .* kw=dict\(negatives=",
    ),
    (
      dict(loss='wasserstein_critic', critic=dict(model='critic')),
      r"^distill\.x\.critic: write term='critic' .* kw=dict\(model=",
    ),
    (
      dict(loss='kl', adversary=dict(option='temperature')),
      r"^distill\.x\.adversary: write term='adversary' .* kw=dict\(loss=",
    ),
    (dict(loss='contrastive'), r"^distill\.x\.loss: .* write term='memory' in"),
    (
      dict(loss='kl', term='critic'),
      r"^distill\.x\.term: .*distill\.x\.loss='kl",
    ),
    (dict(term='critc'), r"^distill\.x\.term: there is no term 'critc'"),
    (
      dict(loss='kl', teacher='main', inputs=dict(labels='batch.labels')),
      r"^distill\.x\.inputs: there is no argument of kl 'labels'",
    ),
  ],
)
def test_what_terms_are_not_told_so(given, message):
  with pytest.raises(UserError, match=message):
    terms.build(complete(x=given), ['student'])
  if 'memory' in given:
    whole = {'distill': complete(x=dict(loss='kl', teacher='main'))}
    with pytest.raises(UserError, match=r'^arms\.a\.distill\.x\.memory: write'):
      configs.override(whole, dict(distill=dict(x=dict(memory={}))), 'arms.a')


def test_an_arm_may_name_a_term_in_place_of_a_loss_and_a_loss_again():
  soft = complete(
    soft=dict(loss='kl', teacher='main', kw=dict(temperature=3.0))
  )
  arm = dict(soft=dict(term='adversary'))
  made = configs.override(soft, arm, 'arms.a.distill')['soft']
  assert made['loss'] == '' and made['kw']['option'] == 'temperature'
  back = dict(soft=dict(loss='kl'))
  assert configs.override({'soft': made}, back, 'arms.b.distill') == complete(
    soft=dict(loss='kl', teacher='main')
  )
  new = configs.override({}, dict(own=dict(term='memory')), 'arms.c.distill')
  assert new['own']['kw']['negatives'] == 4096


def test_the_loss_of_a_term_is_one_of_its_options(tmp_path):
  """Named anew, it brings no options of its own."""
  held = complete(soft=dict(term='adversary'))['soft']['kw']
  at = 'distill.soft.kw'
  assert configs.options_after(held, 'loss', 'reverse_kl', at) == {}
  file = tmp_path / 'own.py'
  file.write_text(
    'def get_config(arg=None):\n'
    "  soft = dict(term='adversary', teacher='main', kw=dict(loss='kl'))\n"
    '  return dict(teachers=dict(main={}), distill=dict(soft=soft))\n'
  )
  made = configs.load(str(file), {f'{at}.loss': 'reverse_kl'})
  assert configs.plain(made)['distill']['soft']['kw'] == {
    **held,
    'loss': 'reverse_kl',
  }


class After(threading.Event):
  """Set once, after being looked at so many times."""

  def __init__(self, looks):
    super().__init__()
    self.looks = looks

  def is_set(self):
    self.looks -= 1
    return self.looks == 0


def test_a_users_term_with_a_queue_and_a_parameter(tmp_path, monkeypatch):
  """From a config; it trains, and goes on exactly where it was cut short."""
  (tmp_path / 'my_terms.py').write_text(QUEUE)
  monkeypatch.syspath_prepend(tmp_path)
  config = configs.plain(
    configs.complete(
      dict(
        name='queue',
        data=dict(
          source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3, size=60)
        ),
        teachers=dict(
          main=dict(model='mlp', kw=dict(widths=(4,)), train=dict(steps=2))
        ),
        students=dict(student=dict(model='mlp', kw=dict(widths=(4,)))),
        distill=dict(
          labels=dict(loss='cross_entropy'),
          queue=dict(term='my_terms:queue', teacher='main', kw=dict(size=12)),
        ),
        arms=dict(distilled={}),
        report=dict(compare=dict(better='distilled', than='distilled')),
        train=dict(
          steps=6, seeds=2, batch_size=8, members='vmap', save_every=2
        ),
      )
    )
  )
  assert config['distill']['queue']['kw'] == dict(size=12, temperature=0.5)

  def run(name, **kw):
    console = Console(file=io.StringIO())
    return pipeline.run(config, tmp_path / name, console=console, **kw)

  def nets(name):
    steps = (tmp_path / name / 'nets').rglob('*')
    folders = sorted({p.parent for p in steps if p.name.isdigit()})
    return [checkpoint.load(folder)[0] for folder in folders]

  row = run('whole')
  with pytest.raises(pipeline.Stopped, match='after step 3 of 6'):
    run('broken', stop=After(2 + 3))
  assert run('broken')['arms'] == row['arms']
  assert len(nets('whole')) == 2
  jax.tree.map(np.testing.assert_array_equal, nets('broken'), nets('whole'))
