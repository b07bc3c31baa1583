"""All methods of configs/methods, side by side: who beats soft targets?

Every method trains students of the same architecture on the same 5 % of
Fashion-MNIST with the same teacher, seeds and steps. Each has two arms: one
with its published weight and `..._tuned` with the best on validation of 0.1,
0.3, 1, 3 and 10 times that. Each is compared with soft targets tuned in as many
trials.

Simplified: published weights were mostly found for CIFAR-100 and larger nets;
300 steps of SGD; one teacher for all seeds. See each method's own file for what
else differs from its paper.

  python experiments/distill.py --config configs/methods_compared.py \
      --workdir runs/methods_compared

It takes about two hours on two CPU cores, and goes on where it was stopped.
"""

from pathlib import Path

from jaxkd.run import config

FOLDER = Path(__file__).parent / 'methods'
BASELINE = 'soft_targets'
FACTORS = '0.1,0.3,1.0,3.0,10.0'

# Terms that are not part of the method, and whose weight is not tuned.
KEPT = {'simple_recipe': ('soft',)}


def get_config(arg=None):
  names = sorted(file.stem for file in FOLDER.glob('*.py'))
  methods = {
    name: config.beside(FOLDER / f'{name}.py').get_config(arg) for name in names
  }
  base = methods[BASELINE]
  c = base.copy_and_resolve_references()
  c.arms = dict(student=c.arms.student)
  c.tune = ()
  for name, method in methods.items():
    c.teachers.update(method.teachers)
    # All methods use the baseline's teacher, even if their files change it.
    c.teachers.main = base.teachers.main
    # All of them is said, so that nothing is left as the baseline has it.
    terms = config.complete(method).distill.to_dict()
    unused = {term: dict(weight=0.0) for term in c.distill if term not in terms}
    arm = dict(
      distill={**unused, **terms},
      students=dict(student=_changed(method, base, 'students.student')),
      train=_changed(method, base, 'train'),
    )
    c.arms[name] = arm
    c.arms[f'{name}_tuned'] = arm
    own = [
      f'distill.{term}.weight'
      for term in terms
      if term not in ('labels', *KEPT.get(name, ()))
    ]
    c.tune += (f'{name}_tuned:{",".join(own)}*={FACTORS}',)
  c.survey.update(claim='soft targets beat hard labels', knowledge='all kinds')
  c.report = dict(
    compare=dict(better=BASELINE, than='student'),
    controls={
      f'{name}{column}': dict(
        better=f'{name}{column}', than=f'{BASELINE}{column}'
      )
      for name in names
      if name != BASELINE
      for column in ('', '_tuned')
    },
  )
  return c


def _changed(method, base, section):
  """What a method changes of a section, so that all else stays shared."""
  ours, theirs = (config.get(config.plain(c), section) for c in (method, base))
  return {
    name: value
    for name, value in ours.items()
    if name not in theirs or theirs[name] != value
  }
