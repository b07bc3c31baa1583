"""Steps on mixtures of examples, and what takes none."""

import functools
import io

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from jaxkd import losses
from jaxkd.data import augment
from jaxkd.data.augment import Augment
from jaxkd.distill.contexts import shown
from jaxkd.distill.roles import Role
from jaxkd.distill.step import learner
from jaxkd.distill.system import Recipe, System
from jaxkd.errors import UserError
from jaxkd.run import checks, jobs, overview, pipeline, terms, train_job
from jaxkd.run import config as configs
from jaxkd.tasks import classification
from jaxkd.train import sharding

MIX = functools.partial(augment.apply, Augment('mixup(1.0)'), num_classes=3)
BOTH = {
  'labels': dict(loss='cross_entropy', weight=0.5),
  'soft': dict(loss='kl', teacher='main', kw=dict(temperature=2.0)),
}


def build(make_net, batch, accumulate=1, mix=MIX):
  complete = configs.plain(
    configs.complete(
      {'teachers': {'main': {}}, 'students': {'student': {}}, 'distill': BOTH}
    )
  )['distill']
  made = learner(
    System(
      {'student': Role(make_net())},
      {'main': Role(make_net(), view='noise(0.5)')},
      lambda hyper: Recipe(
        terms.build(complete, ['student']), optax.sgd(0.1), accumulate
      ),
      jax.eval_shape(lambda: batch),
      classification.metrics('abc'),
      augment=mix,
    )
  )
  one = make_net().init(jax.random.key(9))
  frozen = {'main': jax.tree.map(lambda x: x[None], one)}
  return made, made.init(jnp.uint32(5), {}, frozen), frozen


def test_student_and_teacher_see_one_mixture_before_their_views(
  make_net, batch
):
  made, carry, frozen = build(make_net, batch)
  new, measured = made.step(carry, batch, frozen, {})
  found = MIX(batch, seed=jnp.uint32(5))
  seen = shown({'main': 'noise(0.5)'}, found, jnp.uint32(5))['main']
  teacher = seen @ frozen['main']['params']['w'][0]
  p = found['label_probabilities']
  assert ((p > 0).sum(1) == 2).any()

  def loss(w):
    logits = found['inputs'] @ w
    truth = -(p * jax.nn.log_softmax(logits)).sum(-1)
    return (0.5 * truth + losses.kl(logits, teacher, temperature=2.0)).mean()

  w = carry['train']['nets']['student']['w']
  value, gradient = jax.value_and_grad(loss)(w)
  np.testing.assert_allclose(
    new['train']['nets']['student']['w'], w - 0.1 * gradient, rtol=1e-4
  )
  np.testing.assert_allclose(measured['loss'][0], value, rtol=1e-5)


def test_what_is_mixed_is_the_whole_batch_and_not_its_parts(make_net, batch):
  whole, carry, frozen = build(make_net, batch)
  parts, _, _ = build(make_net, batch, accumulate=3)
  want, in_one = whole.step(carry, batch, frozen, {})
  got, in_three = parts.step(carry, batch, frozen, {})
  chex.assert_trees_all_close(got['train'], want['train'], rtol=1e-5)
  np.testing.assert_allclose(in_three['loss'][0], in_one['loss'][0], rtol=1e-5)


def test_nothing_is_mixed_in_evaluation(make_net, batch):
  made, carry, _ = build(make_net, batch)
  plain, _, _ = build(make_net, batch, mix=None)
  chex.assert_trees_all_equal(
    made.evaluate(carry, batch, {}), plain.evaluate(carry, batch, {})
  )


def small(**changes):
  """A config of which the mixed arm's students see mixtures."""
  given = dict(
    name='small',
    data=dict(source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3)),
    teachers=dict(
      main=dict(model='mlp', kw=dict(widths=(4,)), train=dict(steps=2))
    ),
    students=dict(student=dict(model='mlp', kw=dict(widths=(4,)))),
    distill=BOTH,
    arms=dict(
      student={}, distilled=dict(data=dict(augment=dict(students='mixup(1)')))
    ),
    train=dict(steps=3, seeds=2, batch_size=8, members='vmap'),
  )
  for entry, value in changes.items():
    given = set_in(given, entry.split('__'), value)
  return configs.plain(configs.complete(given))


def set_in(tree, path, value):
  first, *rest = path
  below = set_in(tree.get(first, {}), rest, value) if rest else value
  return {**tree, first: below}


CRD = dict(
  term='memory', teacher='main', at=('embedding', 'embedding'),
  adapter='embed', adapter_kw=dict(width=3), teacher_adapter='embed',
  teacher_adapter_kw=dict(width=3), kw=dict(negatives=4),
)  # fmt: skip


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    (
      dict(teachers__main__cache=dict(outputs=('logits',))),
      ('data.augment.students: ', 'teachers.main.cache.outputs'),
    ),
    (
      dict(distill__soft=dict(loss='decoupled_kl', teacher='main')),
      ('distill.soft: ', 'decoupled_kl takes one class', 'data.augment'),
    ),
    (
      dict(distill__soft=dict(loss='weighted_soft_labels', teacher='main')),
      ('distill.soft: ', 'weighted_soft_labels takes one class'),
    ),
    (
      dict(distill__soft__when='teacher_is_correct',
           distill__soft__otherwise='labels'),
      ('distill.soft.when: ', 'teacher_is_correct takes one class'),
    ),
    (
      dict(distill__soft__fuse_weights='confidence',
           teachers__main__count=2),
      ('distill.soft.fuse_weights: ', 'confidence_weights takes one class'),
    ),
    (dict(distill__soft=CRD), ('distill.soft: ', 'single examples')),
    (
      dict(students__student=dict(model='svm'), distill__soft__weight=0.0),
      ('data.augment.students: ', 'students.student.model is fitted'),
    ),
    (dict(train__batch_size=1), ('data.augment.students: ', 'batch_size')),
    (
      dict(arms__distilled=dict(data=dict(augment=dict(students='mixpu(1)')))),
      ('data.augment.students: ', "did you mean 'mixup'"),
    ),
    (
      dict(arms__distilled=dict(data=dict(augment=dict(teachers='mixup(1)')))),
      ('arms.distilled.data.augment.teachers: ', 'all arms share this'),
    ),
    (
      dict(data__augment=dict(teachers='cutmix'),
           data__kw=dict(shape=(4,), num_classes=3)),
      ('data.augment.teachers: ', 'cutmix needs images'),
    ),
    (
      dict(teachers__main__data=dict(augment='cutmix(0.0)')),
      ('teachers.main.data.augment: ', 'alpha above 0'),
    ),
    (
      dict(teachers__main__data=dict(augment='mixup(1)'),
           teachers__main__distill=dict(t=dict(loss='virtual_teacher'))),
      ('teachers.main.distill.t: ', 'virtual_teacher takes one class'),
    ),
  ],
)  # fmt: skip
def test_what_takes_no_mixtures_is_refused_by_name(changes, said, tmp_path):
  with pytest.raises(UserError) as error:
    checks.prepare(small(**changes), tmp_path)
  assert str(error.value).startswith(said[0])
  for part in said[1:]:
    assert part in str(error.value)
  assert not list(tmp_path.iterdir())


def probable(logits, label_probabilities):
  """A loss of one's own that takes mixtures."""
  return losses.cross_entropy(logits, label_probabilities)


@pytest.mark.parametrize(
  'changes',
  [
    dict(distill__soft__fuse='mean_probabilities', teachers__main__count=2,
         distill__soft__fuse_weights='router'),
    dict(distill__labels=dict(loss=f'{__name__}:probable'),
         data__augment=dict(students='mixup(1)|cutmix')),
    dict(distill__labels__weight=0.0),  # function matching
    dict(arms__distilled__data__generated=dict(name='noise', count=16)),
    dict(distill__soft__loss='dist', data__augment=dict(teachers='mixup(1)')),
  ],
)  # fmt: skip
def test_what_takes_mixtures(changes, tmp_path):
  checks.prepare(small(**changes), tmp_path)


def test_teachers_and_students_are_told_apart(tmp_path):
  teachers = dict(
    main=dict(model='mlp', kw=dict(widths=(4,))),
    plain=dict(model='mlp', data=dict(augment='none')),
    own=dict(model='mlp', data=dict(augment='cutmix(1)')),
  )
  config = small(teachers=teachers, data__augment=dict(teachers='mixup(0.4)'))
  source, rounds = checks.prepare(config, tmp_path)
  (part,) = rounds
  shapes = jobs.shapes_of(part)
  found = {
    name: jobs.of_teachers(part, name, source, shapes).augment.text
    for name in teachers
  }
  assert found == {'main': 'mixup(0.4)', 'plain': '', 'own': 'cutmix(1)'}
  found = {
    arm: jobs.of_arm(part, arm, source, shapes).augment.text
    for arm in part.arms
  }
  assert found == {'student': '', 'distilled': 'mixup(1)'}
  console = Console(record=True, width=100, file=io.StringIO())
  overview.explain(console, source, rounds)
  text = console.export_text()
  assert 'student minimises the sum of' in text
  said = 'distilled augments its examples by mixup(1) and minimises'
  assert said in text


@pytest.mark.all_devices
@pytest.mark.parametrize(
  ('order', 'text'),
  [
    ('own', 'mixup(1)'),
    ('shared', 'mixup(1)'),
    ('own', 'flip|pad_and_crop(1)|scale(0.8, 1.2)|mixup(1)'),
  ],
)
def test_members_and_devices_change_no_mixture(order, text, tmp_path):
  """Partners are of the whole batch, of which each device has a part."""
  arm = dict(data=dict(augment=dict(students=text)))
  config = small(data__order=order, arms__distilled=arm)
  source, (part,) = checks.prepare(config, tmp_path)
  session = jobs.session_of(part, source, tmp_path, progress=None)
  groups = jobs.shapes_of(part)
  constant = jax.tree.map(
    lambda x: jnp.full(x.shape, 0.1, x.dtype), groups['main'].variables
  )
  groups['main'] = groups['main']._replace(variables=constant)
  job = jobs.of_arm(part, 'distilled', source, groups)
  batch = train_job.batches_of(session, job).batch(0)
  after = []
  for mode, devices in (('sequence', 1), ('sequence', 8), ('vmap', 8)):
    with sharding.on(jax.devices()[:devices]):
      population = train_job.populations_of(session, job, batch)(mode=mode)
      carry = population.init()
      totals = population.split(population.no_totals(batch))
      carry, _ = population.step(carry, totals, batch)
      after.append(sharding.fetch(population.stacked(carry)['train']))
  for other in after[1:]:
    chex.assert_trees_all_close(other, after[0], rtol=1e-4, atol=1e-6)


def test_a_run_with_mixtures(tmp_path):
  """Both arms have the same losses, and differ in what they see."""
  row = pipeline.run(
    small(report__metric='nll'), tmp_path / 'run', console=Console(quiet=True)
  )
  values = {arm: found['values'] for arm, found in row['arms'].items()}
  assert np.isfinite(values['distilled']).all()
  assert values['student'] != values['distilled']
