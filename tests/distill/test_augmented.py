"""Steps on moved images and labels, and what takes none."""

import numpy as np
import pytest
from rich.console import Console

from jaxkd.data import augment, sources
from jaxkd.data.examples import ArrayExamples
from jaxkd.data.sources import Source
from jaxkd.errors import UserError
from jaxkd.run import build, checks, jobs, pipeline, recipe, train_job
from jaxkd.run import config as configs
from jaxkd.train.fit import Fault

ALL = 'flip|pad_and_crop(2)|scale(0.8, 1.2)'


def small(**given):
  """A config of maps, whose students and teachers see moved examples."""
  net = dict(model='segmenter', kw=dict(width=4, pyramid=4))
  usual = dict(
    name='small',
    task='segmentation',
    data=dict(
      source='scenes',
      kw=dict(count=16, test=8, validation=8, size=24),
      augment=dict(students=ALL, teachers='dihedral|random_crop(16)'),
    ),
    teachers=dict(main=dict(**net, train=dict(steps=2))),
    students=dict(student=net),
    distill=dict(
      labels=dict(loss='cross_entropy', mask='valid'),
      soft=dict(loss='kl', teacher='main', mask='all'),
    ),
    arms=dict(student=dict(distill=dict(soft=dict(weight=0.0))), distilled={}),
    train=dict(steps=2, seeds=1, batch_size=4, members='vmap'),
    report=dict(metric='nll'),
  )
  return configs.plain(configs.complete({**usual, **given}))


def test_a_run_on_moved_maps(tmp_path):
  alone = dict(better='distilled', than='distilled')
  config = small(
    arms=dict(distilled={}), report=dict(metric='nll', compare=alone)
  )
  row = pipeline.run(config, tmp_path / 'run', console=Console(quiet=True))
  assert np.isfinite(row['arms']['distilled']['values']).all()


def job_of(config, folder):
  """The students' job, with its session, of shapes of teachers."""
  source, (part,) = checks.prepare(config, folder)
  session = jobs.session_of(part, source, folder, progress=None)
  groups = jobs.shapes_of(part)
  return session, jobs.of_arm(part, 'distilled', source, groups)


def test_nets_may_train_on_crops_and_are_evaluated_on_whole_images(tmp_path):
  config = configs.put(small(), 'data.augment.students', 'random_crop(16)')
  session, job = job_of(config, tmp_path)
  _, (_, batch, *_) = train_job.member_shapes(session, job)
  assert batch['labels'].shape == (4, 24, 24)
  made = augment.check(job.augment, batch, session.source.num_classes)
  assert made['inputs'].shape == (4, 16, 16, 3)
  assert made['valid'].shape == (4, 16, 16)
  assert job.students['student'].shape == (24, 24, 3)


@pytest.mark.parametrize(
  ('entry', 'value', 'said'),
  [
    (
      'teachers.main.cache.outputs',
      ('logits',),
      ('data.augment.students: ', 'as augmented', 'main.cache.outputs'),
    ),
    (
      'data.augment.students',
      'flip|cutmix',
      ('data.augment.students: ', 'one class each'),
    ),
    (
      'data.augment.teachers',
      'rotate(5.0)',
      ('data.augment.teachers: ', "no augmentation 'rotate'"),
    ),
    (
      'teachers.main.data.augment',
      'random_crop(30)',
      ('teachers.main.data.augment: random_crop: ', 'at most 24 and 24'),
    ),
    (
      'students.student.views.train',
      'flip',
      ('students.student.views.train: ', 'not their labels', 'data.augment'),
    ),
    (
      'teachers.main.views.eval',
      'centre(20)',
      ('teachers.main.views.eval: ', 'not their labels', 'data.augment'),
    ),
  ],
)
def test_what_is_refused_before_the_run(entry, value, said, tmp_path):
  with pytest.raises(UserError) as error:
    checks.prepare(configs.put(small(), entry, value), tmp_path)
  assert str(error.value).startswith(said[0])
  for part in said[1:]:
    assert part in str(error.value)
  assert not list(tmp_path.iterdir())


OF_CLASSES = dict(
  task='classification',
  distill=dict(labels=dict(loss='cross_entropy')),
  arms=dict(student={}, distilled={}),
  data=dict(source='digits', augment=dict(students='random_crop(6)')),
)


@pytest.mark.parametrize(
  ('model', 'said'),
  [
    ('mlp', r'8 × 8 × 1 alone \(.*\); keep their size$'),
    ('svm', r'student\.model is fitted to the examples as they are'),
    ('resnet8', ''),
  ],
)
def test_classes_of_crops(model, said, tmp_path):
  config = small(
    **OF_CLASSES,
    teachers=dict(main=dict(model='mlp', kw=dict(widths=(4,)))),
    students=dict(student=dict(model=model)),
  )
  if not said:
    checks.prepare(config, tmp_path)
    return
  with pytest.raises(UserError, match=r'^data\.augment\.students: .*' + said):
    checks.prepare(config, tmp_path)


def source_of(labels, fields=None, **arrays):
  inputs = np.zeros((len(labels), 8, 8, 1), np.float32)
  examples = ArrayExamples(inputs, labels, **arrays)
  splits = {'train': examples, 'test': examples}
  return Source('mine', splits, 2, (8, 8, 1), ('a', 'b'), fields=fields or {})


SEVERAL = np.zeros((3, 5), np.int32)
BOXES, POINTS = np.zeros((3, 5, 4), np.float32), np.zeros((3, 5, 2), np.float32)


@pytest.mark.parametrize(
  ('source', 'field'),
  [
    (source_of(SEVERAL, boxes=BOXES, valid=SEVERAL > 0), 'boxes'),
    (source_of(SEVERAL, points=POINTS), 'points'),
    (source_of(SEVERAL[:, 0], points=POINTS), 'points'),
    (source_of(SEVERAL), 'labels'),
    (source_of(np.zeros((3, 8, 8), np.int32)), 'labels'),
    (
      source_of(SEVERAL[:, 0], {'joints': 'points'}, joints=POINTS),
      'joints',
    ),
    (source_of(SEVERAL[:, 0]), ''),
    (source_of(SEVERAL, {'labels': 'fixed'}, valid=SEVERAL > 0), ''),
    (source_of(SEVERAL[:, 0], code=POINTS), ''),
  ],
)
@pytest.mark.parametrize(
  'view', ['pad_and_crop(1)', 'flip', 'resize(4)|resize(8)']
)
def test_views_that_leave_labels_behind(source, field, view):
  entry = {'views': {'train': f'noise(0.1)|{view}', 'eval': ''}}
  if not field:
    assert build.input_shape(entry, source, 'students.a') == (8, 8, 1)
    return
  op = view.partition('(')[0]
  said = (
    rf'^students\.a\.views\.train: {op} moves .*mine and not their {field};'
  )
  with pytest.raises(UserError, match=said):
    build.input_shape(entry, source, 'students.a')


def test_sources_of_ones_own_say_what_their_fields_are():
  def mine():
    return source_of(np.arange(15).reshape(3, 5) % 2, {'labels': 'fixed'})

  made = sources._from_user('mine', mine, {}, 0)
  assert made.fields == {'labels': 'fixed'}
  wrong = lambda: mine()._replace(fields={'labels': 'fixd'})  # noqa: E731
  with pytest.raises(UserError, match=r"^data\.source: mine: .*'fixed'"):
    sources._from_user('mine', wrong, {}, 0)


def test_a_fault_is_sought_in_the_batch_as_it_was_seen(tmp_path, monkeypatch):
  session, job = job_of(small(), tmp_path)
  batches = train_job.batches_of(session, job)

  def explained(found, *, batch, augment, seed, **options):
    return augment(batch, seed=seed)

  monkeypatch.setattr(train_job.fault, 'explained', explained)
  found = Fault(step=2, members=(0,))
  seen = train_job._explained(session, job, batches, found)
  own = {field: x[0] for field, x in batches.batch(1).items()}
  want = recipe.augment_of(session, job)(own, seed=job.seeds[0])
  assert (np.asarray(want['labels']) != own['labels']).any()
  for field, x in want.items():
    np.testing.assert_array_equal(seen[field], x)
