"""A net for clean images adapted to noise (Meng et al., 2019).

Work [10] of the survey, domain adaptation: the teacher sees clean images, the
student starts as the teacher, sees the same images with noise, and learns from
the teacher where that is right and from the labels where it is wrong. Beside
it are plain teacher-student learning, labels alone, and the teacher itself,
not adapted, on noisy images. All are tested with noise.

Simplified: Fashion-MNIST with Gaussian noise and MLPs instead of speech in
street noise and LSTMs. The teacher saw a tenth of the data, the adaptation all.

  python experiments/distill.py \
      --config configs/meng2019_conditional_noise.py \
      --workdir runs/meng2019_conditional_noise
"""

from jaxkd import config

BASE = 'meng2019_conditional.py'


def get_config(arg=None):
  c = config.plain(config.beside(__file__, BASE).get_config(arg))
  noisy = 'noise(0.5)'
  seen = dict(train=noisy, eval=noisy)
  c['teachers']['unadapted'] = dict(made_of=('main',), views=seen)
  c['students']['student'].update(views=seen, init='main')
  c['survey'].update(
    data='modify: noise',
    student='single, initialised by the teacher',
    claim='adapted to noise, a student does best to follow the teacher where '
    'it is right',
  )
  for name in [arm for arm in c['arms'] if arm.startswith('mixture')]:
    del c['arms'][name], c['report']['controls'][name]
  c['report']['controls']['adapted'] = dict(
    better='conditional', than='teacher unadapted'
  )
  return config.complete(c)
