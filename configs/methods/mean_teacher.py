"""Mean teacher (Tarvainen & Valpola, 2017).

The running mean of the student's own parameters is its teacher, sees the
examples with noise of its own, and is what is reported. Weight, consistency and
decay are those of the authors' CIFAR-10 code for 1,000 labels, and so is the
ramp, over a thirty-sixth of the steps; theirs grows as exp(-5 (1 - t)²), ours
as t. The noise is 0.15 of the pixels' deviation, as in the paper, whose
translations and flips are left out: all students see the same images. All
examples of the students are labelled.

  python experiments/distill.py \
      --config configs/methods/mean_teacher.py \
      --workdir runs/mean_teacher
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  view = base.setting(arg).students.student.views.eval
  first = f'{view}|' if view else ''
  return base.method(
    arg,
    knowledge='soft labels of itself',
    claim='the running mean of a net is a teacher for it',
    cite='Tarvainen & Valpola, 2017',
    url='https://arxiv.org/abs/1703.01780',
    students=dict(
      views=dict(
        train=f'{first}noise(0.05)',
        eval=view,
        average=f'{first}redraw|noise(0.05)',
      )
    ),
    train=dict(average=0.97),
    distill=dict(
      consistency=dict(
        loss='probability_mse',
        teacher='average',
        weight=100.0,
        schedule=base.warm_up(base.steps(arg) // 36),
      )
    ),
  )
