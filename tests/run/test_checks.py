"""What does not fit together is found before anything trains."""

import functools
import io
import math

import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from jaxkd.errors import UserError
from jaxkd.models import cost, mlp
from jaxkd.run import build, checks, jobs, overview
from jaxkd.run import config as configs
from jaxkd.run.plan import called, ensembled


def small(**changes):
  """A config of nets that take no time, with entries changed by name."""
  made = configs.plain(
    configs.complete(
      dict(
        name='small',
        data=dict(source='synthetic', kw=dict(shape=(8, 8, 1), num_classes=3)),
        teachers=dict(
          main=dict(model='mlp', kw=dict(widths=(8, 8)), train=dict(steps=2))
        ),
        students=dict(student=dict(model='mlp', kw=dict(widths=(4,)))),
        distill=dict(
          labels=dict(loss='cross_entropy'),
          soft=dict(loss='kl', teacher='main'),
        ),
        arms=dict(
          student=dict(distill=dict(soft=dict(weight=0.0))), distilled={}
        ),
        train=dict(steps=2, seeds=2, batch_size=8, members='vmap'),
      )
    )
  )
  for entry, value in changes.items():
    *above, last = entry.split('__')
    section = made
    for name in above:
      section = section[name]
    section[last] = value
  return configs.plain(configs.complete(made))


def test_a_sound_config_passes(tmp_path):
  source, (part,) = checks.prepare(small(), tmp_path)
  assert set(part.arms) == {'student', 'distilled'}
  assert part.seeds == [0, 1]
  steps = overview.steps(part, source)
  assert steps['student'].teachers == 0
  assert 0 < steps['distilled'].teachers < 1
  assert steps['distilled'].flops > steps['student'].flops > 0
  # Beside the same carry there is a frozen teacher.
  shape = source.input_shape
  frozen = cost.cost(part.teachers['main'].net, shape).bytes
  assert steps['distilled'].bytes == steps['student'].bytes + frozen
  assert not list(tmp_path.iterdir())


def test_a_teacher_that_a_student_only_starts_from_takes_no_part_of_a_step(
  tmp_path,
):
  student = dict(kw=dict(widths=(8, 8)), init='main')
  config = small(**{f'students__student__{k}': v for k, v in student.items()})
  source, (part,) = checks.prepare(config, tmp_path)
  assert overview.steps(part, source)['student'].teachers == 0


def test_nets_are_traced_once_for_all_that_they_are_part_of(
  tmp_path, monkeypatch
):
  """Two arms, what trains and what is looked at: by shape and mode alone."""
  traced, call = [], mlp.Model.__call__

  def counted(self, x):
    traced.append((self.head.in_features, x.shape))
    return call(self, x)

  monkeypatch.setattr(mlp.Model, '__call__', counted)
  config = small(
    teachers__main__kw=dict(widths=(6,)),
    arms__smaller=dict(train=dict(learning_rate=0.5)),
  )
  source, (part,) = checks.prepare(config, tmp_path)
  overview.steps(part, source)
  one, batch = (1, 8, 8, 1), (8, 8, 8, 1)
  # The shapes of the outputs; training; and the teacher in evaluation mode.
  assert sorted(traced) == [(4, one), (4, batch), (6, one), *[(6, batch)] * 2]


def test_explains_the_loss_and_every_layer(tmp_path):
  console = Console(record=True, width=100, file=io.StringIO())
  source, rounds = checks.prepare(
    small(
      distill__hint=dict(
        loss='hint', at=('layers/0', 'layers/1'), teacher='main',
        adapter='linear', weight=0.5,
      )
    ),
    tmp_path,
  )  # fmt: skip
  overview.describe(console, source, rounds)
  overview.explain(console, source, rounds)
  text = console.export_text()
  for expected in (
    'hint = 0.5 · hint(linear(layers/0), layers/1 of main)',
    'soft = 1 · kl(logits, logits of main, temperature=1.0)',
    'labels = 1 · cross_entropy(logits, labels, every=False, '
    'label_smoothing=0.0)',
    'layers/1',
    '[B, 8]',
  ):
    assert expected in text


class Scores(nnx.Module):
  """A critic of logits."""

  def __init__(self, *, input_shape, rngs):
    self.layer = nnx.Linear(*input_shape, 1, rngs=rngs)

  def __call__(self, x):
    return {'score': self.layer(x)[:, 0]}


class Half(nnx.Module):
  """Computes in float16, in the middle."""

  def __init__(self, *, num_classes, input_shape, rngs):
    dense = functools.partial(nnx.Linear, rngs=rngs)
    self.first = dense(math.prod(input_shape), 4, dtype='float16')
    self.last = dense(4, num_classes, dtype='float32')

  def __call__(self, x):
    return self.last(nnx.remat(nnx.Linear.__call__)(self.first, _flat(x)))


def _flat(x):
  return x.reshape(len(x), -1)


def test_a_path_may_be_of_a_term_that_an_arm_leaves_out(tmp_path):
  """But it names something in the arms that have the term."""
  game = dict(
    term='critic',
    teacher='main',
    weight=0.1,
    kw=dict(model=f'{__name__}:Scores', sees_inputs=False, penalty=5.0),
  )

  def made(path):
    return small(
      distill=dict(labels=dict(loss='cross_entropy'), game=game),
      arms=dict(
        student=dict(distill=dict(game=dict(weight=0.0))), distilled={}
      ),
      train__by_path={path: dict(learning_rate=0.1)},
    )

  source, rounds = checks.prepare(made('terms/game'), tmp_path)
  console = Console(record=True, width=200, file=io.StringIO())
  overview.explain(console, source, rounds)
  assert (
    'game = 0.1 · critic(logits, logits of main, loss=wasserstein_critic, '
    f'model={__name__}:Scores, penalty=5.0, sees_inputs=False)'
  ) in console.export_text()
  with pytest.raises(UserError, match=r"^train\.by_path: .*'terms/game'"):
    checks.prepare(made('terms/gane'), tmp_path)


HINT = dict(loss='hint', at=('layers/0', 'layers/1'), teacher='main')
LAYERS = HINT | dict(adapter='linear')
WHEN = dict(when='teacher_is_correct', otherwise='labels')
FASTER = dict(better='distilled', than='student', metric='steps_to_0.9')
ALONE = dict(loss='cross_entropy')
FEW = dict(shape=(8, 8, 1), num_classes=3, size=12)


@pytest.mark.parametrize(
  ('changes', 'parts'),
  [
    (
      dict(distill__hint=HINT),
      ('distill.hint', "'layers/0' of the student", "'layers/1' of teacher",
       '[8, 4]', '[8, 8]', "adapter='linear'"),
    ),
    (
      dict(distill__hint={**HINT, 'at': ('layer/0', 'layers/1')}),
      ('distill.hint.at: ', 'students.student', "'layer/0'", "'layers/0'"),
    ),
    (
      dict(distill__hint={**HINT, 'at': ('layers/0', 'layers/7')}),
      ('distill.hint.at: ', 'teachers.main', "'layers/7'", "'layers/1'"),
    ),
    (
      dict(distill__hint={**HINT, 'teacher': 'mian'}),
      ('distill.hint.teacher', "'mian'", "'main'"),
    ),
    (
      dict(data__source='digit', data__kw={}),
      ('data.source', "'digit'", "'digits'"),
    ),
    (
      dict(students__student__views__train='noize(0.1)'),
      ('students.student.views.train', "'noize'", "'noise'"),
    ),
    (
      dict(students__student__views__eval='resize(4)'),
      ('students.student.views', '(8, 8, 1)', '(4, 4, 1)'),
    ),
    (
      dict(students__student__views__train='flip|standardize(123.7, 58.4)'),
      ('students.student.views.train', '123.7', 'from 0 to 1', 'by 255'),
    ),
    (
      dict(train__optimizer__name='adamx'),
      ('train.optimizer.name', "'adamx'", "'adamax'"),
    ),
    (dict(train__batch_size=-1), ('train.batch_size', '-1')),
    (dict(train__batch_size=4096), ('batch_size', '4096')),
    (dict(train__seeds=0), ('train.seeds', '0')),
    (dict(train__learning_rate=-1.0), ('train.learning_rate', '-1.0')),
    (
      dict(distill__soft__kw=dict(temperature=-1.0)),
      ('distill.soft.kw.temperature', '-1.0'),
    ),
    (dict(distill__soft__weight=-1.0), ('distill.soft.weight', '-1.0')),
    (dict(distill__soft__weight=float('nan')), ('distill.soft.weight', 'nan')),
    (dict(data__fraction__students=0.0), ('data.fraction.students', '0.0')),
    (
      dict(data__kw=FEW, data__fraction__students=0.1),
      ('batch_size', '8'),
    ),
    (dict(distill__soft__at=('logits',)), ('distill.soft.at', 'logits')),
    (
      dict(students__student__kw=dict(widths=(0,))),
      ('students.student.kw.widths: (0,)', 'whole numbers above 0'),
    ),
    (
      dict(students__student__kw=dict(widths=3)),
      ('students.student.kw.widths: 3', 'a list of whole numbers'),
    ),
    (
      dict(students__student__kw=dict(taps=('head',))),
      ('students.student.kw', "'taps'"),
    ),
    (dict(train__seed=-1), ('train.seed', '-1')),
    (dict(survey=dict(work=1.5)), ('survey', 'work')),
    (dict(report__notes=('a', 5)), ('report.notes', '5')),
    (
      dict(report__controls=dict(c=FASTER)),
      ('report.controls.c.metric', "'steps_to_0.9'"),
    ),
    (
      dict(report__early_stopping=('top',)),
      ('report.early_stopping', "did you mean 'top1'"),
    ),
    (
      dict(report__compare=dict(better='distilled', than='teacher')),
      ('report.compare', 'seed by seed'),
    ),
    (
      dict(report__compare=dict(better='student', than='student')),
      ('report.compare', 'student would be compared with itself'),
    ),
    (
      dict(teachers__main__train__batch_size=4096),
      ('teachers.main.train.batch_size', '4096'),
    ),
    (
      dict(arms=dict(teacher={})),
      ('arms.teacher', 'keeps this name'),
    ),
    (
      dict(data__partition__students='disjoint'),
      ('data.partition.students', 'for teachers'),
    ),
    (
      dict(arms=dict(a=dict(data=dict(kw=dict(size=9))))),
      ('arms.a.data.kw', 'all arms share'),
    ),
    (
      dict(rounds=dict(r01=dict(data=dict(source='digits')))),
      ('rounds.r01.data.source', 'all rounds share'),
    ),
    (
      dict(rounds=dict(r01=dict(train=dict(seed=3)))),
      ('rounds.r01.train.seed', 'all rounds share'),
    ),
    (
      dict(students__main=dict(model='mlp')),
      ('students.main', 'a group of teachers'),
    ),
    (
      dict(students__student__init='teacher'),
      ('students.student.init', 'known: main, random'),
    ),
    (dict(train__seed=2**31), ('train.seed', '2147483648')),
    (
      dict(data__kw=dict(num_classes='x')),
      ('data.kw.num_classes', "'x'"),
    ),
    (
      dict(distill__soft__fuse='kl'),
      ('distill.soft.fuse', "no fusion 'kl'", 'known: geometric_mean'),
    ),
    (
      dict(distill__soft__when='teacher_confidence',
           distill__soft__otherwise='labels'),
      ('distill.soft.when', 'gives float32, not true or false'),
    ),
    (
      dict(teachers__main__distill=dict(
        labels=dict(loss='cross_entropy', at=('layers/7', 'logits')))),
      ('teachers.main.distill.labels.at: ', "'layers/7'"),
    ),
    (dict(students={}), ('students: name at least one',)),
    (dict(train__dtype='float31'), ('train.dtype', "'float32'")),
    (
      dict(teachers__main__train__dtype='float31'),
      ('teachers.main.train.dtype', "'float32'"),
    ),
    (dict(train__dtype='float16'), ('train.dtype: in float16', 'bfloat16')),
    (
      dict(train__param_dtype='float16'),
      ('train.param_dtype: there is no', "'float16'", 'bfloat16, float32'),
    ),
    (
      dict(train__param_dtype='bfloat16',
           students__student=dict(quantize='uniform(4)')),
      ('train.param_dtype: students.student.quantize', "to 'float32'"),
    ),
    (
      dict(teachers__main=dict(
        model='svm', train=dict(param_dtype='bfloat16'))),
      ('teachers.main.train.param_dtype: teachers.main.model is fitted',),
    ),
    (
      dict(teachers__main__train__dtype='float16'),
      ('teachers.main.train.dtype: in float16', 'gradients', 'bfloat16'),
    ),
    (
      dict(students__student=dict(model=f'{__name__}:Half')),
      ('students.student.model: in float16', 'bfloat16'),
    ),
    (
      dict(students__student__kw=dict(dropout=1.0)),
      ('students.student.kw.dropout', '1.0'),
    ),
    (
      dict(teachers__main__distill=dict(
        labels=dict(loss='cross_entropy', weight=-1.0))),
      ('teachers.main.distill.labels.weight', '-1.0'),
    ),
    (
      dict(distill__soft__kw=dict(temperature=float('inf'))),
      ('distill.soft.kw.temperature', 'finite'),
    ),
    (
      dict(distill__labels__weight=0.0),
      ('arms.student: distill: no term has a weight above 0',),
    ),
    (
      dict(distill__soft__when='majority_vote',
           distill__soft__otherwise='labels'),
      ('distill.soft.when', 'majority_vote'),
    ),
    (
      dict(distill__soft__kw=dict(temperature=1e200)),
      ('distill.soft', 'overflow'),
    ),
    (dict(task='os.path:sep'), ('task', "'os.path:sep'")),
    (dict(train__members='vamp'), ('train.members', "'vmap'")),
    (dict(task='clasification'), ('task', "'classification'")),
    (dict(name='../mine'), ('name', 'let it have no slash')),
    (dict(report__metric='top2'), ('report.metric', "'top1'")),
    (
      dict(report__compare=dict(better='distiled', than='student')),
      ('report.compare.better', "'distilled'"),
    ),
    (
      dict(arms=dict(distilled=dict(distill=dict(sotf=dict(weight=1.0))))),
      ('arms.distilled.distill', "'sotf'", "'soft'"),
    ),
    (
      dict(arms=dict(distilled=dict(train=dict(steps=9)))),
      ('arms.distilled.train.steps', 'all arms share'),
    ),
    (
      dict(rounds=dict(r01=dict(trian=dict(steps=9)))),
      ('rounds.r01', "'trian'", "'train'"),
    ),
    (
      dict(teachers__main__restore='nowhere'),
      ('teachers.main.restore', 'nowhere'),
    ),
    (
      dict(teachers__main__restore='logits.npy'),
      ('teachers.main.restore', "write 'outputs:logits.npy'"),
    ),
    (
      dict(teachers__main__restore='net.pth'),
      ('teachers.main.restore', "write 'pytorch:net.pth'"),
    ),
    (
      dict(teachers__main__model='vgg',
           teachers__main__kw=dict(widths=(4,), sizes=(1,)),
           teachers__main__restore='pytorch:nowhere.safetensors'),
      ('teachers.main.restore', 'no file nowhere.safetensors'),
    ),
    (
      dict(teachers__main__restore='pytorch:nowhere.safetensors'),
      ('teachers.main.restore', "'mlp' is not known", 'vgg'),
    ),
    (
      dict(distill__dist=dict(loss='dist', teacher='main'),
           train__accumulate=2),
      ('train.accumulate', 'the term dist'),
    ),
    (
      dict(distill__soft__teacher='average'),
      ('distill.soft.teacher', 'no running mean', 'train.average'),
    ),
    (
      dict(distill__soft__teacher='student'),
      ('distill.soft.teacher', 'compared with itself',
       'students.student.count=2'),
    ),
    (
      dict(train__parts=dict(task=('labels',), distill=())),
      ('train.parts', 'the term soft is in 0 of the parts'),
    ),
    (
      dict(train__parts=dict(task=('labels', 'soft'), distill=('soft',))),
      ('train.parts', 'the term soft is in 2 of the parts'),
    ),
    (
      dict(train__parts=dict(task=('labels',), distill=('soft', 'sotf'))),
      ('train.parts', "no term 'sotf'", "'soft'"),
    ),
    (
      dict(train__parts=dict(task=('labels',), distill=('soft',)),
           train__clip=1.0),
      ('train.clip', 'train.parts'),
    ),
    (
      dict(train__optimizer=dict(name='jaxkd.distill.dot:dot', kw={})),
      ('train.parts: dot takes the parts task and distill',),
    ),
    (
      dict(distill__soft__adapter_kw=dict(width=3)),
      ('distill.soft.adapter_kw', 'name the adapter'),
    ),
    (
      dict(
        distill__own=dict(
          term='adversary', teacher='main', kw=dict(option='temperatur')
        )
      ),
      ('distill.own.kw.option', "'temperature'"),
    ),
    (
      dict(distill__contrast={**HINT, 'loss': '', 'term': 'memory'}),
      ('distill.contrast', "distill.contrast.adapter='embed'"),
    ),
    (
      dict(students__student__init='main'),
      ('students.student.init', 'take over what both have', 'main/PATTERN'),
    ),
    (
      dict(students__student__init='main/hed'),
      ('students.student.init', "no parameter 'hed'", "'head/"),
    ),
    (
      dict(students__student__freeze='hed'),
      ('students.student.freeze', "no parameter 'hed'", "'head/"),
    ),
    (
      dict(students__student__reads=('main',)),
      ('students.student.reads', 'a group and one of its layers'),
    ),
    (
      dict(students__student__reads=('mian', 'layers/0')),
      ('students.student.reads', "no teacher 'mian'", "'main'"),
    ),
    (
      dict(students__student__reads=('main', 'layers/9')),
      ('students.student.reads', "'layers/9'", "'layers/0'"),
    ),
    (
      dict(students__student__reads=('main', 'layers/0'),
           teachers__main__count=2),
      ('students.student.reads', 'has 2 nets', 'teachers.main.count=1'),
    ),
    (
      dict(students__student__views__average='resize(4)'),
      ('students.student.views', '(8, 8, 1)', '(4, 4, 1) by average'),
    ),
    (
      dict(students__student__quantize='uniform(9)'),
      ('students.student.quantize: uniform(bits=9)', '1 to 8'),
    ),
    (
      dict(students__student__quantize='uniform(4, only="haed")'),
      ('students.student.quantize', "'haed'", 'head/kernel'),
    ),
    (
      dict(students__student__quantize='features(4, at="layer/*")'),
      ('students.student.quantize', "no layer 'layer/*'"),
    ),
    (
      dict(teachers__main__quantize='unifrom(4)'),
      ('teachers.main.quantize', "'uniform'"),
    ),
    (
      dict(students__student__prune='magnitude(0.5, end=999)'),
      ('students.student.prune', 'an earlier end'),
    ),
    (
      dict(teachers__main__prune='magnitude(1.5)'),
      ('teachers.main.prune', 'below 1'),
    ),
    (
      dict(teachers__both=dict(made_of=('main',), quantize='ternary')),
      ('teachers.both.quantize', 'made of others'),
    ),
    (
      dict(teachers__both=dict(made_of=('main',)),
           distill__soft=dict(loss='binary_kl', teacher='both')),
      ('distill.soft.teacher: both is fused by a softmax', "'mean_logits'"),
    ),
    (
      dict(teachers__average=dict(model='mlp')),
      ('average', 'the running mean', 'rename it'),
    ),
    (
      dict(teachers__main__distill=dict(soft=dict(loss='kl', teacher='main'))),
      ('teachers: main and main depend on each other in a cycle',),
    ),
    (
      dict(teachers__main__distill=dict(soft=dict(loss='kl', teacher='mian'))),
      ('teachers.main.distill.soft.teacher', "'mian'", "'main'"),
    ),
    (
      dict(teachers__main__cache__outputs=('logits', 'layer/0')),
      ('teachers.main.cache.outputs: ', "'layer/0'", "'layers/0'"),
    ),
    (
      dict(teachers__main__cache__outputs=('layers/0',)),
      ('teachers.main.cache.outputs: distill.soft looks at', "'logits'"),
    ),
    (
      dict(teachers__main__cache__outputs=('logits',), distill__hint=LAYERS),
      ('teachers.main.cache.outputs: distill.hint looks at', "'layers/1'"),
    ),
    (
      dict(teachers__main__cache__outputs=('layers/1',),
           distill__soft=ALONE, distill__hint=LAYERS | WHEN),
      ('teachers.main.cache.outputs: distill.hint looks at', "'logits'"),
    ),
    (
      dict(teachers__main__cache__outputs=('logits',),
           students__student__reads=('main', 'layers/0')),
      ('teachers.main.cache.outputs: students.student looks at', "'layers/0'"),
    ),
    (
      dict(teachers__main__cache__outputs=('logits',), distill__soft=ALONE),
      ('teachers.main.cache.outputs: nothing that trains looks at main',),
    ),
    (
      dict(teachers__main__cache__outputs=(1,)),
      ('teachers.main.cache.outputs: (1,)', "('logits',)"),
    ),
    (
      dict(teachers__main__cache__top=2),
      ('teachers.main.cache.top', "add 'logits' to teachers.main.cache.out"),
    ),
    (
      dict(teachers__main__cache=dict(outputs=('logits',), top=4)),
      ('teachers.main.cache.top: there are 3 classes and not 4; use 3',),
    ),
    (
      dict(teachers__main__cache=dict(outputs=('logits',), top=-1)),
      ('teachers.main.cache.top: -1 should be 0 or more',),
    ),
    (
      dict(teachers__main__cache=dict(outputs=('logits',), top_p=0.9)),
      ('teachers.main.cache.top_p: it is about the largest', 'cache.top, or'),
    ),
    (
      dict(teachers__main__cache=dict(outputs=('logits',), top=2, top_p=0.0)),
      ('teachers.main.cache.top_p: 0.0 should be above 0 and at most 1',),
    ),
    (
      dict(teachers__main__cache=dict(outputs=('logits',), top=2,
                                      temperature=0.0)),
      ('teachers.main.cache.temperature: 0.0 should be above 0 and finite',),
    ),
    (
      dict(teachers__main__cache=dict(outputs=('logits',), top=2,
                                      dtype='int8')),
      ("teachers.main.cache.dtype: 'int8' should be one of float16, bfloat16",),
    ),
    (
      dict(teachers__main__cache=dict(outputs=('logits',), top=2),
           distill__soft__kw=dict(temperature=4.0)),
      ('distill.soft.kw.temperature: it is 4, and the mass of the classes',
       'set teachers.main.cache.temperature=4'),
    ),
    (
      dict(teachers__main__cache=dict(outputs=('logits',), top=2),
           distill__soft=dict(loss='logit_mse', teacher='main')),
      ('distill.soft.loss: logit_mse looks at more than the largest',
       'teachers.main.cache.top=0'),
    ),
    (
      dict(teachers__main__cache=dict(outputs=('logits',), top=2),
           students__student__reads=('main', 'logits')),
      ('teachers.main.cache.top: students.student reads all logits of main',),
    ),
    (
      dict(distill__soft__top=4),
      ('distill.soft.top: there are 3 classes and not 4; use 3 or fewer',),
    ),
    (
      dict(distill__soft__tail='rest'),
      ("distill.soft.tail: 'rest' should be one of bucket, renormalize",),
    ),
    (
      dict(distill__labels__top=2),
      ('distill.labels.loss: cross_entropy looks at more than',),
    ),
    (
      dict(teachers__both=dict(made_of=('main',),
                               cache=dict(outputs=('layers/0',))),
           distill__soft=dict(loss='kl', teacher='both',
                              at=('logits', 'layers/0'))),
      ('teachers.both.cache.outputs', "'layers/0'", 'known: logits'),
    ),
    (
      dict(teachers__both=dict(made_of=('main',)),
           students__student__reads=('both', 'layers/0')),
      ('students.student.reads: there is no output', 'known: logits'),
    ),
    (
      dict(distill__hint={**HINT, 'at': ('layers/0', 'layers/0')},
           distill__soft__at=('logits', 'layers/7')),
      ('distill.soft.at: teachers.main: ', "'layers/7'"),
    ),
    (
      dict(distill__soft=dict(loss='kl', teacher='main',
                              when='teacher_is_correct', otherwise='')),
      ('distill.soft.otherwise: name the term of the other examples', 'labels'),
    ),
    (
      dict(train__batch_size=2, train__accumulate=1,
           distill__soft=dict(loss='rkd_angle', teacher='main',
                              at=('embedding', 'embedding'))),
      ('train.batch_size: rkd_angle compares', 'of 2 is', 'set it to 3 or'),
    ),
    (
      dict(report__outputs=('embedding',)),
      ('report.outputs: ', 'with the shape of its logits', "'embedding'"),
    ),
    (
      dict(task='early', report__metric='auc', report__outputs=('logits',)),
      ('report.outputs: auc is not measured of logits',),
    ),
  ],
)  # fmt: skip
def test_what_does_not_fit_is_named(changes, parts, tmp_path):
  with pytest.raises(UserError) as error:
    checks.prepare(small(**changes), tmp_path)
  sentence = str(error.value)
  assert '\n' not in sentence
  for part in parts:
    assert part in sentence


def test_teacher_and_student_must_have_the_same_classes(tmp_path, monkeypatch):
  (tmp_path / 'my_binary_model.py').write_text(
    'from jaxkd.models import mlp\n\n'
    'def binary(*, input_shape, rngs):\n'
    '  return mlp.Model(num_classes=2, input_shape=input_shape, rngs=rngs)\n'
  )
  monkeypatch.syspath_prepend(tmp_path)
  binary = dict(model='my_binary_model:binary', kw={})
  teacher = dict(model='mlp', classes=2, train=dict(steps=2))
  for changes, parts in (
    (
      dict(teachers__main=teacher),
      ('distill.soft', '[8, 2]', '[8, 3]', 'number of classes'),
    ),
    # Logits of which the data have more, or fewer, than the model gives.
    (
      dict(students__student=binary),
      ('students.student.model: ', 'binary', '[1, 2]', '3 classes; let it'),
    ),
    (
      dict(teachers__main=dict(**binary, train=dict(steps=2))),
      ('teachers.main.model: ', '[1, 2]', 'or set teachers.main.classes to'),
    ),
  ):
    with pytest.raises(UserError) as error:
      checks.prepare(small(**changes), tmp_path)
    for part in parts:
      assert part in str(error.value)


def test_data_that_makes_no_sense_is_refused(tmp_path):
  random = np.random.default_rng(0)
  x = random.random((30, 4, 4, 1)).astype(np.float32)
  y = np.arange(30) % 3
  for change, parts in (
    ((np.where(np.arange(30) == 7, np.nan, 1)[:, None, None, None] * x, y),
     ('nan', '7')),
    ((x, np.where(np.arange(30) == 5, -1, y)), ('5', '-1')),
  ):  # fmt: skip
    file = tmp_path / 'data.npz'
    np.savez(file, x_train=change[0], y_train=change[1], x_test=x, y_test=y)
    with pytest.raises(UserError) as error:
      checks.prepare(
        small(data__source=f'npz:{file}', data__kw={}), tmp_path / 'w'
      )
    for part in parts:
      assert part in str(error.value).lower()


def test_a_group_has_a_part_of_the_data_of_its_own(tmp_path):
  known, few = 'without:2', dict(fraction=0.1, partition='without:0,1')
  config = small(
    data__fraction=dict(teachers=0.5, students=1.0),
    data__partition=dict(teachers=known, students='none'),
    data__classes=dict(train=(), validation=(2,), test=(2,)),
    data__draw='shared',
    teachers=dict(main=NET, few={**NET, 'data': few}),
    train__batch_size=4,
  )
  source, (part,) = checks.prepare(config, tmp_path)
  labels = source.splits['train'].labels
  for split in ('validation', 'test'):
    assert set(source.splits[split].labels) == {2}
  found = {
    name: jobs.of_teachers(part, name, source, {}) for name in ('main', 'few')
  }
  seen = {name: job.weights[0] > 0 for name, job in found.items()}
  assert set(labels[seen['main']]) == {0, 1}
  assert set(labels[seen['few']]) == {2}
  assert abs(seen['main'].sum() - len(labels) / 3) < 3
  assert abs(seen['few'].sum() - len(labels) / 30) < 3
  config['teachers']['few']['data']['fraction'] = 2.0
  with pytest.raises(UserError, match=r'^teachers\.few\.data\.fraction: 2'):
    checks.prepare(config, tmp_path)


def test_data_that_is_not_there_says_how_to_get_it(tmp_path):
  config = small(
    data__source='npz:none.npz', data__kw={}, data__layout='write to its owner'
  )
  with pytest.raises(UserError, match=r'no file none\.npz; write to its owner'):
    checks.prepare(config, tmp_path)


def test_a_net_of_other_classes_is_read_and_not_measured(tmp_path):
  teachers = dict(
    main=NET, other={**NET, 'classes': 7},
    reader={**NET, 'reads': ('other', 'logits')},
  )  # fmt: skip
  _, (part,) = checks.prepare(small(teachers=teachers), tmp_path)
  assert part.predicts == ('main', 'reader')
  assert part.teachers['reader'].shape == (7,)


SECOND = dict(compare=dict(better='r02/distilled', than='r01/student'))


@pytest.mark.parametrize(
  ('restore', 'changes', 'parts'),
  [
    ('r01/students/student', dict(kw=dict(widths=(4,))), ()),
    ('r01/teachers/main', {}, ()),
    ('r01/students/student', {}, ('another architecture', '(4, 3)', '(8, 3)')),
    ('r01/students/studnet', {}, ("did you mean 'r01/students/student'",)),
    ('r01/students/distiled/student', {}, ("'r01/students/distilled/",)),
    ('r02/students/student', {}, ('no folder or net of an earlier round',)),
    ('r1/students/student', {}, ("'r01/students/student'",)),
    ('r01/teachers/main', dict(count=2), ('makes 1 nets and 2 are wanted',)),
  ],
)  # fmt: skip
def test_what_an_earlier_round_makes(restore, changes, parts, tmp_path):
  again = dict(main=dict(restore=restore, **changes))
  config = small(rounds=dict(r01={}, r02=dict(teachers=again)), report=SECOND)
  if not parts:
    checks.prepare(config, tmp_path)
    return
  with pytest.raises(UserError, match=r'^teachers\.main\.restore: ') as error:
    checks.prepare(config, tmp_path)
  for part in parts:
    assert part in str(error.value)


def test_teachers_of_the_first_round_cannot_be_of_an_earlier_one(tmp_path):
  config = small(
    rounds=dict(r01={}, r02={}),
    report=SECOND,
    teachers=dict(main=dict(restore='r01/students/student')),
  )
  with pytest.raises(UserError, match=r'earlier round.*known: none'):
    checks.prepare(config, tmp_path)


def test_a_mistake_in_how_a_teacher_trains_is_the_teachers(tmp_path):
  for change, message in (
    (dict(train=dict(schedule='cosin')), r'train\.schedule: .*cosin'),
    (dict(train=dict(optimizer=dict(name='adm'))), r'train\.optimizer\.name'),
    (
      dict(distill=dict(labels=dict(loss='cross_entropy', adapter='linear'))),
      r'distill\.labels\.adapter',
    ),
    (
      dict(distill=dict(labels=dict(loss='cross_entropy', kw=dict(smooth=1)))),
      r'distill\.labels\.kw',
    ),
  ):
    teacher = dict(model='mlp', kw=dict(widths=(8, 8)), **change)
    with pytest.raises(UserError, match=rf'^teachers\.main\.{message}'):
      checks.prepare(small(teachers=dict(main=teacher)), tmp_path)


NET = dict(model='mlp', kw=dict(widths=(4,)))


def learning(*groups, **changes):
  """A teacher that learns from others as well as from the labels."""
  terms = {g: dict(loss='kl', teacher=g) for g in groups}
  return {**NET, 'distill': dict(labels=LABELS, **terms), **changes}


LABELS = dict(loss='cross_entropy')


def test_teachers_come_in_the_order_that_they_are_needed_in(tmp_path):
  """Whether they are read, learnt from or taken over."""
  config = small(
    teachers=dict(
      a=learning('b'),
      b={**NET, 'reads': ('c', 'layers/0')},
      c={**NET, 'init': 'd'},
      d=learning('main'),
      main=NET,
    )
  )
  _, (part,) = checks.prepare(config, tmp_path)
  assert list(part.teachers) == ['main', 'd', 'c', 'b', 'a']
  assert part.teachers['b'].shape == (4,)
  assert 'layers/0' in _outputs(part.teachers['c'])
  # What it learns from reads another, which has to be there too.
  source = checks.prepare(config, tmp_path)[0]
  job = jobs.of_teachers(part, 'a', source, jobs.shapes_of(part))
  assert set(job.groups) == {'b', 'c'}


def _outputs(role):
  return build.output_shapes(role.net, role.shape)


@pytest.mark.parametrize(
  ('changes', 'circle'),
  [
    (dict(a=learning('main'), main=learning('a')), {'a', 'main'}),
    (
      dict(a={**NET, 'reads': ('b', 'layers/0')}, b={**NET, 'init': 'main'},
           main=learning('a')),
      {'a', 'b', 'main'},
    ),
  ],
)  # fmt: skip
def test_teachers_in_a_cycle_are_refused(changes, circle, tmp_path):
  with pytest.raises(UserError, match=r'^teachers: .* in a cycle') as error:
    checks.prepare(small(teachers=changes), tmp_path)
  names = str(error.value).split(': ')[1].split(' depend')[0].split(' and ')
  assert set(names) == circle


def test_what_a_group_of_each_seed_teaches_is_of_each_seed_too(tmp_path):
  each = dict(main={**NET, 'per_seed': True}, a=learning('main'))
  with pytest.raises(UserError, match=r'^teachers\.a\.per_seed: main has teac'):
    checks.prepare(small(teachers=each), tmp_path)
  each['a']['per_seed'] = True
  checks.prepare(small(teachers=each), tmp_path)
  # The reverse is sound: teachers of each seed learn from one for all.
  each['main'] = NET
  checks.prepare(small(teachers=each), tmp_path)


def test_what_does_not_predict_is_no_arm(tmp_path):
  coder = dict(
    model='paraphraser',
    reads=('main', 'stages/2'),
    distill=dict(
      back=dict(loss='hint', teacher='main', at=('reconstruction', 'stages/2'))
    ),
  )
  resnet = dict(model='resnet', kw=dict(depth=8, widths=(2, 2, 2, 4)))
  teachers = dict(coder=coder, main=resnet)
  _, (part,) = checks.prepare(small(teachers=teachers), tmp_path)
  assert part.predicts == ('main',)
  assert called('main', part) == 'teacher'
  assert called('coder', part) == 'teacher coder'
  assert 'agreement' in part.metrics
  outputs = _outputs(part.teachers['coder'])
  assert outputs['factors'].shape == (1, 2, 2, 2)
  assert outputs['reconstruction'].shape == (1, 2, 2, 4)
  compare = dict(compare=dict(better='distilled', than='teacher coder'))
  with pytest.raises(UserError, match=r"report\.compare\.than: .*'teacher cod"):
    checks.prepare(small(teachers=teachers, report=compare), tmp_path)
  two = dict(main=resnet, second=NET)
  _, (part,) = checks.prepare(small(teachers=two), tmp_path)
  assert part.predicts == ('main', 'second')
  assert called('main', part) == 'teacher main'
  assert {'agreement:main', 'agreement:second'} <= set(part.metrics)


def test_nets_that_embed_are_measured_one_by_one(tmp_path):
  nets = dict(model='embedder', kw=dict(of_kw=dict(widths=(4,)), size=2))
  at = ('embedding', 'embedding')
  config = small(
    task='retrieval',
    teachers=dict(main=dict(**nets, count=2)),
    students=dict(student=nets),
    distill=dict(
      labels=dict(loss='triplet', at=at),
      soft=dict(loss='rkd_distance', at=at, teacher='main'),
    ),
    report__metric='recall_at_1',
  )
  _, (part,) = checks.prepare(config, tmp_path)
  assert part.predicts == ('main',)
  assert set(part.metrics) == {
    'recall_at_1', 'recall_at_2', 'recall_at_4', 'recall_at_8', 'nmi'
  }  # fmt: skip
  assert not ensembled(part, 'main')  # no probabilities to average
  compare = dict(better='distilled', than='teacher ensemble')
  config['report']['compare'] = compare
  with pytest.raises(UserError, match=r"no arm 'teacher ensemble'"):
    checks.prepare(config, tmp_path)


def test_detectors_are_measured_one_by_one(tmp_path):
  net = dict(model='detector', kw=dict(widths=(4,), blocks=0))
  data = dict(labels='boxes', count=16, test=8, validation=8, size=24)
  config = small(
    task='detection',
    data=dict(source='scenes', kw=data),
    teachers=dict(main=dict(**net, count=2)),
    students=dict(student=net),
    distill=dict(
      soft=dict(
        loss='binary_kl', teacher='main', mask='all', fuse='mean_logits'
      )
    ),
    arms=dict(student={}),
    report__metric='ap50',
    report__compare=dict(better='student', than='teacher ensemble'),
  )
  with pytest.raises(UserError, match=r"no arm 'teacher ensemble'"):
    checks.prepare(config, tmp_path)
  config['distill']['soft']['fuse'] = 'mean_probabilities'
  with pytest.raises(UserError, match=r'soft\.fuse: it takes a softmax over'):
    checks.prepare(config, tmp_path)


def test_a_net_that_is_no_detector_is_named(tmp_path):
  data = dict(labels='boxes', count=16, test=8, validation=8, size=24)
  at = ('logits', 'offsets', 'anchors')
  config = small(
    task='detection',
    data=dict(source='scenes', kw=data),
    teachers={},
    distill=dict(
      labels=dict(loss='jaxkd.tasks.detection:focal_and_boxes', at=(at, at))
    ),
    arms={},
  )
  with pytest.raises(
    UserError,
    match=r"^students\.student\.model: it has no output 'anchors', and the "
    r"task detection needs a net with anchors, logits, offsets, such as 'det",
  ):
    checks.prepare(config, tmp_path)


def test_rows_of_other_anchors_are_not_compared(tmp_path):
  def net(side, **kw):
    kw = dict(widths=(4,), blocks=0, anchors=((side, side),), **kw)
    return dict(model='detector', kw=kw)

  def config(ours, theirs, **soft):
    data = dict(labels='boxes', count=16, test=8, validation=8, size=24)
    return small(
      task='detection',
      data=dict(source='scenes', kw=data),
      teachers=dict(main=theirs, other=net(8)),
      students=dict(student=ours),
      distill=dict(
        soft={**dict(loss='binary_kl', teacher='main', mask='all'), **soft}
      ),
      arms=dict(
        student={}, distilled=dict(distill=dict(soft=dict(weight=0.5)))
      ),
      report__metric='ap50',
    )

  def metrics(*of, **soft):
    _, (part,) = checks.prepare(config(*of, **soft), tmp_path)
    return {*part.metrics} - {'ap', 'ap50', 'loss'}

  assert metrics(net(8), net(8, groups=2)) == {
    'teacher_kl:main', 'teacher_kl:other'
  }  # fmt: skip
  hint = dict(loss='hint', at=('features', 'features'))
  assert metrics(net(8), net(9), **hint) == set()
  for at in ('logits', 'offsets'):
    with pytest.raises(
      UserError,
      match=r'^distill\.soft\.at: the nets student and main would be compared '
      'row by row, and their rows stand for other anchors; give',
    ):
      metrics(net(8), net(9), loss='squared_error', at=(at, at))
  both = dict(teacher=('other', 'main'), fuse='mean_logits')
  with pytest.raises(UserError, match='the nets student and main would'):
    metrics(net(8), net(9), **both)
  made = config(net(8), net(9), **hint)
  made['teachers']['both'] = dict(made_of=('other', 'main'), fuse='mean_logits')
  with pytest.raises(
    UserError, match=r'^teachers\.both\.made_of: the nets other and main'
  ):
    checks.prepare(configs.plain(configs.complete(made)), tmp_path)


def test_equal_arms_are_found(tmp_path):
  same = dict(distill=dict(soft=dict(weight=1.0)))
  alone = dict(distill=dict(soft=dict(weight=0.0)))
  config = small(arms=dict(student=alone, distilled={}, again=same))
  _, (part,) = checks.prepare(config, tmp_path)
  assert part.first('again') == part.first('distilled')
  assert part.first('student') == 'student'


def test_sums_of_arms_may_be_compared(tmp_path):
  gain = dict(distilled=1.0, student=-1.0)
  report = dict(
    derived=dict(gain=gain, none=dict(student=0.0)),
    controls=dict(some=dict(better='gain', than='none')),
  )
  checks.prepare(small(report=report), tmp_path)
  for changed, said in (
    (dict(derived=dict(gain=dict(distiled=1.0))), "'distiled'.*'distilled'"),
    (dict(derived=dict(student=gain)), 'report.derived.student: an arm has'),
    (dict(derived=dict(gain={})), 'report.derived.gain: it needs arms'),
    (dict(derived=dict(gain={'student': 'x'})), 'must be a number'),
    (dict(derived=dict(gain={**gain, 'teacher': 1.0})), 'seed by seed'),
    (dict(compare=dict(better='gain', than='student')), 'report.compare.bett'),
  ):
    with pytest.raises(UserError, match=said):
      checks.prepare(small(report={**report, **changed}), tmp_path)
