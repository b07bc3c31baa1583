"""Soft targets (Hinton et al., 2015), and the setting of all these methods.

The other files of this folder start from this one and change the terms of the
loss, the students or the optimiser, so that they can be compared. A narrow
resnet14 learns from all of Fashion-MNIST at 14×14 pixels, one for each seed;
students are resnet8 of the same widths that see 5 % of it, for a budget in
which the student alone stops improving. So what a teacher knows of the other
95 % is most of what there is to gain. Weights are the published ones, mostly
for CIFAR-100 and resnet32x4 to resnet8x4, where a term's value is the mean over
the batch of what its loss returns.

  python experiments/distill.py \
      --config configs/methods/soft_targets.py \
      --workdir runs/soft_targets
"""

from ml_collections import ConfigDict

from jaxkd.run import config

WIDTHS = (8, 8, 16, 32)
STAGES = ('stages/0', 'stages/1', 'stages/2')
RATE = 0.05
BEFORE_RELU = tuple(f'{stage}/preactivation' for stage in STAGES)


def get_config(arg=None):
  return method(
    arg,
    knowledge='soft labels',
    claim='soft targets beat hard labels',
    cite='Hinton et al., 2015',
    url='https://arxiv.org/abs/1503.02531',
    labels=0.1,
    distill=dict(soft=soft(0.9)),
  )


def method(
  arg,
  *,
  knowledge,
  claim,
  cite,
  url,
  distill,
  labels=1.0,
  teachers=None,
  students=None,
  train=None,
):
  """The config of one method: all that it changes of the setting.

  Args:
    arg: the size asked for.
    knowledge: what is transferred.
    claim: what the paper says of it.
    cite: the paper.
    url: where it is.
    distill: its terms, beside the labels.
    labels: the weight of the labels.
    teachers: groups beside the teacher.
    students: changes of the student.
    train: changes of how it trains.
  """
  c = setting(arg)
  plain = config.plain(config.complete(c))
  c.survey.update(knowledge=knowledge, claim=claim, cite=cite, url=url)
  hard = dict(labels=dict(loss='cross_entropy', weight=labels))
  c.distill = {**hard, **distill}
  c.teachers.update(teachers or {})
  c.students.student.update(students or {})
  c.train.update(train or {})
  always = dict(name='', kw={})
  alone = {name: dict(weight=0.0) for name in c.distill}
  alone['labels'] = dict(weight=1.0, schedule=always)
  c.arms = dict(
    student=dict(
      distill=alone,
      students=dict(student=_before(plain['students']['student'], students)),
      train=_before(plain['train'], train),
    ),
    distilled=dict(),
  )
  return c


def _before(plain, changes):
  """What a method changes, as it was, so that all else stays shared."""
  return {
    name: _before(plain[name], value)
    if isinstance(value, dict)
    else plain[name]
    for name, value in (changes or {}).items()
    if name in plain
  }


def setting(arg):
  """Data, teacher, student and budget, the same for every method."""
  size = config.size(arg, no_paper='the methods are compared at one size')
  c = ConfigDict()
  c.survey = dict(
    objective='limited data',
    data='decrease training data',
    teacher='single',
    method='plain',
    student='single, simplified',
  )
  c.data = dict(source='fashion_mnist', fraction=dict(students=0.05))
  net = dict(model='resnet', views=dict(train='resize(14)', eval='resize(14)'))
  how = dict(
    optimizer=dict(name='sgd', kw=dict(momentum=0.9)),
    learning_rate=RATE,
    weight_decay=5e-4,
    average=0.0,
    batch_size=64,
    members='sequence',
    eval_every=250,
  )
  c.teachers = dict(
    main=dict(
      **net,
      kw=dict(depth=14, widths=WIDTHS),
      per_seed=True,
      train=dict(how, steps=4000, eval_every=1000),
    )
  )
  c.students = dict(student=dict(**net, kw=dict(depth=8, widths=WIDTHS)))
  c.train = dict(**how, steps=steps(arg), seeds=5)
  if size == 'tiny':
    c.data = dict(source='digits', fraction=dict(students=0.2))
    for role in (c.teachers.main, c.students.student):
      role.views = dict(train='', eval='')
      role.kw = dict(depth=8, widths=(4, 4, 4, 8))
    c.teachers.main.train.update(steps=4, batch_size=16)
    c.train.update(batch_size=16, seeds=2)
  return c


def steps(arg):
  """How many steps students take."""
  return 8 if config.size(arg) == 'tiny' else 1000


def soft(weight, temperature=4.0):
  """The term of soft targets, which some methods are added to."""
  return dict(
    loss='kl', teacher='main', weight=weight, kw=dict(temperature=temperature)
  )


def warm_up(over):
  """The schedule of a weight that grows to its value over some steps."""
  return _line(0.0, 1.0, max(over, 1), 0)


def from_step(step):
  """The schedule of a weight that is 0 before a step."""
  return _line(0.0, 1.0, 1, step - 1)


def until_step(step):
  """The schedule of a weight that is 0 from a step on."""
  return _line(1.0, 0.0, 1, step - 1)


def _line(first, last, over, begin):
  return dict(
    name='linear_schedule',
    kw=dict(
      init_value=first,
      end_value=last,
      transition_steps=over,
      transition_begin=begin,
    ),
  )
