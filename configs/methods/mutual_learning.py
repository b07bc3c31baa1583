"""Deep mutual learning (DML, Zhang et al., 2018).

Two students learn from each other and from the labels; the teacher plays no
part. What is reported is the mean of both. They take a step together, where the
authors update one after the other.

  python experiments/distill.py \
      --config configs/methods/mutual_learning.py \
      --workdir runs/mutual_learning
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  return base.method(
    arg,
    knowledge='soft labels of peers',
    claim='students that learn together beat one that learns alone',
    cite='Zhang et al., 2018',
    url='https://arxiv.org/abs/1706.00384',
    students=dict(count=2),
    distill=dict(
      peer=dict(loss='kl', teacher='student', kw=dict(temperature=1.0))
    ),
  )
