"""Specialists for clothes that a generalist confuses (Hinton et al., 2015).

Work [1] of the survey, algorithm C, on Fashion-MNIST: the system of
hinton2015_specialists with four specialists of three classes each, where a
class may have two (a generalist mostly confuses shirt, pullover and coat). The
row has the paper's table: the generalist, the generalist with its specialists,
and their relative improvement by the number of specialists that cover the
label; with specialists for random classes as the control, and students of the
generalist and of the system.

Simplified: ten classes instead of 15,000, so most of what can be confused is in
one or two subsets; MLPs; nets learn from 20 % of the images, all of a seed from
the same, which leaves room above the generalist.

  python experiments/distill.py \
      --config configs/hinton2015_specialists_fashion.py \
      --workdir runs/hinton2015_specialists_fashion
"""

from jaxkd.run import config


def get_config(arg=None):
  c = config.beside(__file__, 'hinton2015_specialists.py').get_config(arg)
  if arg != 'tiny':
    c.data = dict(
      c.data.to_dict(),
      source='fashion_mnist',
      fraction=dict(teachers=0.2, students=0.2),
      draw='shared',
    )
  for role in (*c.teachers.values(), c.students.student):
    role.views.train = 'shift(1)|noise(0.1)'
  for group in (c.teachers.specialists, c.teachers.random):
    group.count = 4
    group.specialize.update(size=3, overlap=2)
  return c
