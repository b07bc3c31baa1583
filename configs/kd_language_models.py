"""Language models: which divergence, from whose text, at which capacity?

A decoder of 5.0 million parameters is distilled into two students, of 0.4 and
1.3 million, in eight ways that differ in what they learn from and on whose
text:

- `labels`: the text of the data;
- `forward_kl`, `reverse_kl`, `jsd`, `skewed_kl`: the teacher's probabilities of
  each token, by the divergence of this name, on the text of the data (JSD and
  skewed KL lie between the two directions: Agarwal et al., 2024; Ko et al.,
  2024);
- `sequence`: labels that the teacher wrote, going on from the beginnings of the
  rows (Kim & Rush, 2016);
- `on_policy_half`, `on_policy`: reverse KL on rows of which the student writes
  half, or all, as it is in that step (GKD with λ = 0.5 and 1).

`bits_per_byte` is about the text of others. What a student writes itself is
judged by the teacher: `written_teacher_nll` is how unlikely that finds it, and
`written_kl` how far the student's texts are from the teacher's, by token.

All are trained on the same rows in the same order, from the same initial
values, with the same rate; no arm but labels sees a label. The three seeds of
an arm share the batches, so that the teacher looks at each once, and intervals
are over initial values alone.

In the row, forward KL wins at both sizes, by 0.19 bits per byte over labels and
by 0.27 to 0.35 over reverse KL, also where the teacher judges what students
write. All students begin with drawn values and were still getting better after
their 800 steps, those of reverse KL and on-policy most of all: those of JSD,
skewed and reverse KL spread widely by seed. GKD continues students that have
been trained on text; so no more is said of on-policy here than that it is no
way to begin. Labels that the teacher wrote are worse than those of the data.

Simplified: the King James Bible in 2,000 pieces, and rows of 64 tokens, with
students that see a part of it once.

  python experiments/distill.py --config configs/kd_language_models.py \
      --workdir runs/kd_language_models

The text is in Debian's packages bible-kjv and bible-kjv-text. The row takes two
hours and a half on one CPU core, of which writing labels takes half an hour.
"""

from ml_collections import ConfigDict

from jaxkd.run import config

TEACHER = dict(width=256, depth=6, heads=8, kv_heads=4, mlp_width=704)
STUDENTS = {
  'small': dict(width=80, depth=3, heads=4, mlp_width=192),
  'large': dict(width=144, depth=4, heads=4, mlp_width=384),
}
LENGTH, PROMPT = 64, 16
DIVERGENCES = {
  'forward_kl': dict(loss='kl'),
  'reverse_kl': dict(loss='reverse_kl'),
  'jsd': dict(loss='jensen_shannon', kw=dict(beta=0.5)),
  'skewed_kl': dict(loss='skewed_kl', kw=dict(alpha=0.1)),
}


def get_config(arg=None):
  size = config.size(arg, no_paper='it compares methods of several papers')
  tiny = size == 'tiny'
  c = ConfigDict()
  c.survey = dict(
    objective='accuracy',
    data='none',
    teacher='single',
    knowledge='soft labels, sequences',
    method='plain, on-policy',
    student='single, simplified',
    claim='soft targets of a larger language model beat the text alone',
    cite='Agarwal et al., 2024',
    url='https://arxiv.org/abs/2306.13649',
  )
  c.task = 'writing'
  c.data = dict(
    source='kjv',
    kw=dict(
      tokens='pieces', vocabulary=2000, length=LENGTH, validation=20, test=60
    ),
    draw='shared',
    order='shared',
  )
  prompt, length, students = PROMPT, LENGTH - PROMPT, STUDENTS
  if tiny:
    c.data = dict(source='markov', draw='shared', order='shared')
    prompt, length = 4, 8
    students = dict(small=dict(width=8, depth=1, heads=2, mlp_width=8))
  c.teachers = dict(
    main=dict(
      model='decoder',
      kw=dict(**TEACHER, dropout=0.1),
      train=dict(steps=2000, batch_size=16),
    )
  )
  c.students = dict(student=dict(model='decoder', kw=students['small']))
  c.distill = dict(
    labels=dict(loss='cross_entropy', mask='valid'),
    **{
      name: dict(**divergence, teacher='main', mask='valid', weight=0.0)
      for name, divergence in DIVERGENCES.items()
    },
  )
  written = dict(prompt=prompt, length=length)

  def by(name):
    return dict(distill={'labels': dict(weight=0.0), name: dict(weight=1.0)})

  def on_policy(share):
    rollout = dict(name='on_policy', kw=dict(**written, share=share))
    return dict(**by('reverse_kl'), data=dict(rollout=rollout))

  generated = dict(name='continuations', count=0, kw=written)
  ways = dict(
    labels={},
    **{name: by(name) for name in DIVERGENCES},
    sequence=dict(data=dict(generated=generated, order='own')),
    on_policy_half=on_policy(0.5),
    on_policy=on_policy(1.0),
  )
  c.arms = {
    f'{student}_{way}': {**changes, 'students': dict(student=dict(kw=kw))}
    for student, kw in students.items()
    for way, changes in ways.items()
  }
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(b2=0.98)),
    learning_rate=2e-3,
    clip=1.0,
    steps=800,
    batch_size=8,
    seeds=3,
    members='vmap',
    eval_every=400,
    save_every=400,
  )
  c.report = dict(
    metric='bits_per_byte',
    rank=True,
    compare=dict(better='small_forward_kl', than='small_labels'),
    controls={
      name: pair for student in students for name, pair in _questions(student)
    },
  )
  if tiny:
    c.teachers.main.kw = students['small']
    c.teachers.main.train = dict(steps=4)
    c.train.update(steps=4, batch_size=8, seeds=2, eval_every=4, save_every=4)
  return config.complete(c)


def _questions(student):
  """What is compared of one student: name and pair of arms."""
  arm = lambda way: f'{student}_{way}'  # noqa: E731
  for way in ('reverse_kl', 'jsd', 'skewed_kl', 'sequence', 'on_policy'):
    yield arm(way), dict(better=arm(way), than=arm('labels'))
  for metric in ('bits_per_byte', 'written_teacher_nll', 'written_kl'):
    yield (
      f'{student}_direction_{metric}',
      dict(better=arm('reverse_kl'), than=arm('forward_kl'), metric=metric),
    )
  for way in ('on_policy_half', 'on_policy'):
    yield (
      f'{student}_{way}_writes',
      dict(better=arm(way), than=arm('reverse_kl'), metric='written_kl'),
    )
  if student == 'large':
    yield 'large_forward_kl', dict(better=arm('forward_kl'), than=arm('labels'))
