"""A net for clean images adapted to noise (Meng et al., 2019).

Work [10] of the survey, domain adaptation: the teacher sees clean images, the
student starts as the teacher, sees the same images with noise, and learns from
the teacher where that is right and from the labels where it is wrong. Beside it
are plain teacher-student learning, labels alone, a fixed mixture of both, and
the teacher itself, not adapted, on noisy images. All are tested with noise.

Simplified: digits with Gaussian noise and MLPs instead of speech in street
noise and LSTMs. The teacher learned from a tenth of the images and is wrong on
some of the others; the adaptation sees half of them.

With :paper, CHiME-3 (https://www.chimechallenge.org), which has no ready-made
form: make a file chime3.npz with x_train, x_validation and x_test, float32 [N,
1, F, 2], the F log-Mel values of a frame and its neighbours on both sides, in
channel 0 of the clean recording and in channel 1 of the noisy one, and y_train,
y_validation and y_test, int32 [N], the senones (numbered from 0) of a forced
alignment; set data.dir to its folder. The paper's LSTMs of 3,012 senones become
MLPs of six layers; its word error rates would take a decoder, so the row has
the accuracy of frames.

  python experiments/distill.py \
      --config configs/meng2019_conditional_noise.py \
      --workdir runs/meng2019_conditional_noise

A minute on one core. The teacher has 91.9 % without noise and 58.0 % with it;
conditional 76.5 %, labels alone 76.5 %, mixture 75.2 %, teacher-student 75.0 %:
the student should not follow the teacher where it is wrong, and gains nothing
over labels where it is right. All but the mixture took the largest rate of
their grid, 4e-3; the mixture has 2e-3.
"""

from jaxkd.run import config

BASE = 'meng2019_conditional.py'


def get_config(arg=None):
  size = config.size(arg)
  small = 'tiny' if size == 'tiny' else None
  base = config.beside(__file__, BASE).get_config(small)
  c = config.plain(base)
  noisy = 'noise(0.5)'
  seen = dict(train=noisy, eval=noisy)
  c['data']['fraction'] = dict(teachers=0.1, students=0.5)
  c['teachers']['unadapted'] = c['teachers'].pop('hindered') | dict(views=seen)
  c['students']['student'].update(views=seen, init='main')
  c['distill']['soft']['teacher'] = 'main'
  c['survey'].update(
    data='modify: noise',
    student='single, initialised by the teacher',
    claim='adapted to noise, a student does best to follow the teacher where '
    'it is right',
  )
  c['report']['controls']['adapted'] = dict(
    better='conditional', than='teacher unadapted'
  )
  c['report']['notes'] = ()
  if size == 'paper':
    _as_in_the_paper(c)
  return config.complete(c)


def _as_in_the_paper(c):
  """Frames of CHiME-3, of which the teacher hears the clean channel."""
  clean, noisy = (
    dict(train=f'channel({i})', eval=f'channel({i})') for i in (0, 1)
  )
  c['data'].update(
    source='npz:chime3.npz',
    layout='make it of CHiME-3, as the head of the config says',
    kw=dict(layout='features'),
    fraction={},
  )
  nets = c['teachers']['main'], c['students']['student']
  for entry, heard in zip(nets, (clean, noisy), strict=True):
    entry['kw']['widths'] = (2048,) * 6
    entry['views'] = heard
  c['teachers']['main']['train'] = dict(steps=300_000)
  c['teachers']['unadapted']['views'] = noisy
  c['train'].update(
    learning_rate=1e-3, steps=100_000, batch_size=1024, seeds=5, save_every=0
  )
