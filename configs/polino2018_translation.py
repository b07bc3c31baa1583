"""Quantized distillation of translation, to 4 and 2 bits (Polino et al., 2018).

Work [2] of the survey on sequences: an attentional LSTM that translates learns
the true words and the teacher's probabilities of them, with its weights rounded
in every step as in polino2018_quantized. Data, nets and training are those of
kim2016_sequence. At 4 and at 2 bits the student (`quantized_BITS`) is compared
with a full-precision student of the same teacher that is rounded when training
is over (`teacher rounded_BITS`) and with a rounded student that learns from the
true words alone (`labels_BITS`). `student` and `distilled` have full precision.
All matrices are rounded, embeddings too, and no biases.

The loss is 0.3 CE + 0.7 KL for each word, given the true words before it, at
T = 1, as in the authors' code. There the loss of a sentence is a sum over its
words; here it is their mean.

Students learn from 5 % of the pairs, the teacher from all of them: with all,
labels taught a student as well as the teacher did (0.67 and 0.66 BLEU), and
nothing was left to gain. Of 3, 5 and 10 % this one was chosen on the validation
split with one seed.

What came out, in BLEU of five seeds: the teacher gains 0.05 at full precision
(0.65 for 0.60), and 0.04 at 4 bits (0.65 for 0.61). So a student of 4 bits that
is rounded while it learns from the teacher is as good as one of full precision,
where rounding afterwards costs 0.08. With 2 bits rounding afterwards leaves
nothing and training gives 0.60, with the teacher or without.

With :paper, what their code calls WMT13: Europarl v7 from German to English, of
which the last tenth is for testing; LSTMs of 2 layers and 500 units teach those
of one layer and 550 units, for 15 and 5 epochs. Their words become pieces of
words, the same 50,000 for both languages, and they leave the first and the last
array in full precision. For OpenNMT's 200,000 pairs, which the paper has too,
set the source to `parallel:` and their folder, and the width of students to
128, 256 or 512.

  python experiments/distill.py --config configs/polino2018_translation.py \
      --workdir runs/polino2018_translation

It needs `pip install 'jaxkd[text]'`.
"""

from ml_collections import ConfigDict

from jaxkd.run import config

base = config.beside(__file__, 'kim2016_sequence.py')

BITS = (4, 2)
FEW = 0.05  # of the pairs
PAIRS = 1_728_000  # in nine tenths of Europarl v7
LAYOUT = (
  'take europarl-v7.de-en.de and .en of training-parallel-europarl-v7.tgz from '
  'statmt.org/wmt13, remove the pairs with an empty line, and write the first '
  'nine tenths of both to train.de and train.en, the rest to test.de and '
  'test.en'
)


def get_config(arg=None):
  size = config.size(arg)
  shared = config.plain(base.get_config('tiny' if size == 'tiny' else None))
  c = ConfigDict({name: shared[name] for name in ('task', 'data', 'train')})
  c.survey = dict(
    work=2,
    objective='simple model',
    data='none',
    teacher='single',
    knowledge='words',
    method='plain',
    student='single, quantised',
    claim='at 4 bits, distilling a rounded translator beats rounding one',
    cite='Polino et al., 2018',
    url='https://arxiv.org/abs/1802.05668',
  )
  main, small = shared['teachers']['main'], shared['students']['student']
  c.distill = dict(
    labels=dict(loss='cross_entropy', mask='valid', weight=0.3),
    words=dict(loss='kl', teacher='main', mask='valid', weight=0.7),
  )
  hard = dict(labels=dict(weight=1.0), words=dict(weight=0.0))
  c.teachers = dict(
    main=main, full=dict(**_net(small), per_seed=True, distill=c.distill)
  )
  # They start as that distilled student and are rounded; nothing trains.
  rounded = dict(
    **_net(small), per_seed=True, init='full', freeze='*', train=dict(steps=1)
  )
  c.students = dict(student=small)
  c.arms = dict(student=dict(distill=hard), distilled=dict())
  for bits in BITS:
    how = f'uniform({bits}, only="*kernel|*embedding")'
    own = dict(students=dict(student=dict(quantize=how)))
    c.teachers[f'rounded_{bits}'] = dict(**rounded, quantize=how)
    c.arms[f'quantized_{bits}'] = own
    c.arms[f'labels_{bits}'] = dict(**own, distill=hard)
  compared = dict(better='quantized_4', than='teacher rounded_4')
  c.report = dict(
    metric='bleu',
    compare=compared,
    controls=dict(
      exactly=dict(**compared, metric='exact'),
      words=dict(**compared, metric='nll'),
      rounding_2=dict(better='quantized_2', than='teacher rounded_2'),
      teacher_helps=dict(better='distilled', than='student'),
      four_bits=dict(better='quantized_4', than='distilled'),
      two_bits=dict(better='quantized_2', than='quantized_4'),
      taught_4=dict(better='quantized_4', than='labels_4'),
      taught_2=dict(better='quantized_2', than='labels_2'),
    ),
  )
  if size == '':
    c.data.fraction = dict(students=FEW)
    for name in ('full', *(f'rounded_{bits}' for bits in BITS)):
      c.teachers[name].data = dict(fraction=FEW)
  if size == 'paper':
    _as_in_the_paper(c)
  return config.complete(c)


def _net(entry):
  """What a student's entry says of its net."""
  return {name: entry[name] for name in ('model', 'kw')}


def _as_in_the_paper(c):
  """Europarl v7 from German to English: 2 x 500 LSTMs into 1 x 550 ones."""
  c.data = dict(
    source='parallel:wmt13',
    dir='data',
    layout=LAYOUT,
    kw=dict(
      languages=('de', 'en'), vocabulary=50_000, length=50, too_long='drop'
    ),
  )
  main, train = c.teachers.main, recipe(epochs=15)
  main.model, main.kw, main.train = 'lstm_2x500', dict(dropout=0.3), train
  for net in (
    c.students.student,
    c.teachers.full,
    *(c.teachers[f'rounded_{bits}'] for bits in BITS),
  ):
    net.model, net.kw = 'seq2seq', dict(width=550, dropout=0.3)
  c.train = dict(**recipe(epochs=5), seeds=3)


def recipe(epochs):
  """SGD, whose rate is halved after each epoch from the eighth on."""
  epoch = PAIRS // 64
  return dict(
    optimizer=dict(name='sgd'),
    learning_rate=1.0,
    schedule='piecewise_constant',
    schedule_kw=dict(
      boundaries_and_scales={n * epoch: 0.5 for n in range(8, epochs)}
    ),
    clip=5.0,
    steps=epochs * epoch,
    batch_size=64,
  )
