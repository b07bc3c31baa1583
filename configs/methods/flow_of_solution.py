"""The flow of the solution procedure (FSP, Yim et al., 2017).

Two phases as in the paper: for the first eighth of the steps, as in
RepDistiller, only the FSP matrices are matched, from then on only the labels
count. (RepDistiller's published weight of 50 is never applied.) Its third
pair, with the stem, is left out.

  python experiments/distill.py \
      --config configs/methods/flow_of_solution.py \
      --workdir runs/flow_of_solution
"""

from jaxkd.run import config

base = config.beside(__file__, 'soft_targets.py')


def get_config(arg=None):
  first = base.steps(arg) // 8
  return base.method(
    arg,
    knowledge='relations between layers',
    claim='starting from the flow between layers helps a student',
    cite='Yim et al., 2017',
    url='https://openaccess.thecvf.com/content_cvpr_2017/html/'
    'Yim_A_Gift_From_CVPR_2017_paper.html',
    distill={
      'labels': dict(loss='cross_entropy', schedule=base.from_step(first)),
      **{
        f'pair{i}': dict(
          loss='flow_of_solution',
          teacher='main',
          at=(base.STAGES[i : i + 2], base.STAGES[i : i + 2]),
          schedule=base.until_step(first),
        )
        for i in range(2)
      },
    },
  )
