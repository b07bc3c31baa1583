"""Speech: ten nets in one, and 3 % of the data (Hinton et al., 2015).

Work [1] of the survey, algorithms A and D, on what the paper did them with:
frames of speech, each of which is to be given its state of a hidden Markov
model. The table of the paper's section 4 is here a net that learns from labels
(`student`), the ten of them together (`teacher ten ensemble`) and a net that
learns from the ten (`distilled`); beside them one that learns from a single
net. That of section 6 are nets of the same size that see 3 % of the data, with
labels alone or with the soft targets of a net that has seen all of it. The
paper does not say whether these 3 % are frames or recordings, so both are here:
`frames` of all utterances, and whole `utterances`, which are fewer words and
fewer sounds. In the paper only hard targets need early stopping; so the row has
what it would have gained of each arm.

Simplified: 16 minutes of prompts by one speaker instead of 2,000 hours, three
states of each of 39 phones instead of 14,000 of phones in context, windows of
15 frames of 40 Mel bands instead of 26, and nets of three layers of 256 units
instead of eight of 2,560; no words are decoded. Temperature and weights are
those of the paper, T = 2 and one half. Students have the best of four learning
rates on the validation split.

With :paper, whose recordings were never published, make a file
speech_frames.npz with x_train, x_validation and x_test, float32 [N, 26, 40],
y_train, y_validation and y_test, int32 [N], below 14,000, and utterance_train,
utterance_validation and utterance_test, [N], the recordings' names or numbers;
set data.dir to its folder.

  python experiments/distill.py --config configs/hinton2015_speech.py \
      --workdir runs/hinton2015_speech

It needs `apt-get install asterisk-core-sounds-en-g722 asterisk-core-sounds-en`
and `pip install 'jaxkd[speech]'`; the first run aligns the prompts, which takes
a minute or two.
"""

from ml_collections import ConfigDict

from jaxkd.run import config

FEW = 0.03  # of the data


def get_config(arg=None):
  size = config.size(arg)
  c = ConfigDict()
  c.survey = dict(
    work=1,
    objective='accuracy, limited data',
    data='decrease training data',
    teacher='many',
    knowledge='soft labels',
    method='aggregated',
    student='single, as the teachers',
    claim='on speech, one net distilled from ten beats one trained on labels',
    cite='Hinton et al., 2015',
    url='https://arxiv.org/abs/1503.02531',
  )
  c.data = dict(source='speech_frames')
  net = dict(model='mlp', kw=dict(widths=(256, 256, 256)))
  c.teachers = dict(
    ten=dict(**net, count=10, per_seed=True, cache=dict(outputs=('logits',))),
    one=dict(**net, per_seed=True, cache=dict(outputs=('logits',))),
  )
  c.students = dict(student=net)
  c.distill = dict(
    labels=dict(loss='cross_entropy', weight=0.5),
    soft=dict(
      loss='kl',
      teacher='ten',
      weight=0.5,
      kw=dict(temperature=2.0),
      fuse='mean_probabilities',
    ),
  )
  hard = dict(labels=dict(weight=1.0), soft=dict(weight=0.0))
  single = dict(soft=dict(teacher='one', fuse=''))
  few = dict(fraction=dict(students=FEW))
  parts = dict(
    frames=few, utterances=few | dict(unit=dict(students='utterance'))
  )
  c.arms = dict(
    student=dict(distill=hard),
    distilled=dict(),
    one_teacher=dict(distill=single),
  )
  controls = dict(
    ensemble_beats_one=dict(better='teacher ten ensemble', than='teacher ten'),
    distilled_keeps_the_gain=dict(
      better='distilled', than='teacher ten ensemble'
    ),
    ten_beat_one=dict(better='distilled', than='one_teacher'),
  )
  seen = 'top1', 'nll'
  for part, data in parts.items():
    c.arms[f'hard_{part}'] = dict(data=data, distill=hard)
    c.arms[f'soft_{part}'] = dict(data=data, distill=single)
    pair = dict(better=f'soft_{part}', than=f'hard_{part}')
    controls[f'few_{part}'] = pair
    controls[f'as_good_as_all_{part}'] = dict(pair, than='student')
    for metric in seen:
      controls[f'no_early_stopping_{part}_{metric}'] = dict(
        **pair, metric=f'early_stopping_{metric}'
      )
  c.tune, c.tune_seeds = ('train.learning_rate=3e-4,1e-3,3e-3,1e-2',), 2
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=3e-3,
    steps=4000,
    batch_size=128,
    seeds=5,
    members='sequence',
    save_every=4000,
  )
  c.report = dict(
    compare=dict(better='distilled', than='student'),
    controls=controls,
    early_stopping=seen,
  )
  if size == 'tiny':
    c.data.kw = dict(speech='made_up', bins=8, context=3)
    for role in (*c.teachers.values(), c.students.student):
      role.kw.widths = (8,)
    c.teachers.ten.count = 3
    c.tune = ()
    c.train.update(steps=6, batch_size=16, seeds=2, members='vmap')
  if size == 'paper':
    _as_in_the_paper(c)
  return config.complete(c)


def _as_in_the_paper(c):
  """Eight layers of 2,560 units; how long they train is not known."""
  c.data = dict(
    source='npz:speech_frames.npz',
    layout='the recordings were never published; put a file like theirs there, '
    'as the head of the config says',
    kw=dict(layout='features', unit='utterance', num_classes=14_000),
  )
  for role in (*c.teachers.values(), c.students.student):
    role.kw.widths = (2560,) * 8
  for group in c.teachers.values():
    group.cache = dict(outputs=())  # of 700 million frames
  c.train.update(steps=1_000_000, batch_size=256, members='auto', save_every=0)
