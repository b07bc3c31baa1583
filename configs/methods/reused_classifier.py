"""The teacher's classifier reused (SimKD, Chen et al., 2022).

The student's last stage is projected to the teacher's width and matched; what
follows, pooling and classifier, is the teacher's own and does not train. No
label is used. The projector stays in the student: it counts as the student's.

  python experiments/distill.py \
      --config configs/methods/reused_classifier.py \
      --workdir runs/reused_classifier
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  net = base.setting(arg).students.student.kw.to_dict()
  return base.method(
    arg,
    knowledge='features and the classifier',
    claim="with the teacher's classifier, features are all to learn",
    cite='Chen et al., 2022',
    url='https://arxiv.org/abs/2203.14001',
    labels=0.0,
    students=dict(
      kw=dict(**net, neck=net['widths'][-1]), init='main/head', freeze='head'
    ),
    distill=dict(
      features=dict(loss='hint', teacher='main', at=('neck', 'stages/2'))
    ),
  )
