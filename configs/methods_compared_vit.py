"""The methods of methods_compared.py that fit transformers, ViT to ViT.

The setting is that of methods_compared.py, but for the nets: a vision
transformer of three blocks on 4×4 patches of 16×16 pixels learns from one of
four blocks that is twice as wide, both with AdamW.
`methods_compared_conv_to_vit.py` has the conv net of methods_compared.py as
teacher. Here are the methods that look at logits and embeddings alone, with
their published weights and tuned as there. Not here: what compares maps of conv
nets, the reused classifier, which needs a net with a neck, and DOT, which is a
form of SGD. Ramps take as many steps as there, of three times as many.

On validation, with two seeds and a teacher of 84.4 % (2,000 steps), the student
alone had 80.2, 80.0 and 80.6 % after a half, three quarters and all of its
3,000 steps, soft targets 83.4 %; after 1,000, where both were still learning,
80.8 and 81.2 %.

  python experiments/distill.py --config configs/methods_compared_vit.py \
      --workdir runs/methods_compared_vit

What the search found is in methods_compared_vit_tuned.json; set `tuned` to {}
in `get_config` to search again. It took 85 minutes on one CPU core, and the run
itself an hour; hence three seeds and not five. Three methods have chosen the
edge of the grid: relations and MLKD the largest weights, 30 times the published
ones, and mean teacher the least, 0.03 times.
"""

from pathlib import Path

from jaxkd.run import config

base = config.beside(__file__, 'methods_compared.py')

AT = {'logits', 'embedding'}
RATE, STEPS, SEEDS = 2e-3, 3000, 3
FOUND = Path(__file__).with_name('methods_compared_vit_tuned.json')


def get_config(arg=None):
  tiny = config.size(arg) == 'tiny'
  c = compared(
    arg,
    model='vit',
    kw=dict(_vit(tiny), width=8 if tiny else 64, depth=1 if tiny else 4),
    train=_adamw(),
  )
  if not tiny:
    c.tuned = config.tuned(FOUND)
  return c


def compared(arg, *, train=None, **teacher):
  """The config with a teacher of one's choice, whose students are ViTs.

  Args:
    arg: the size asked for.
    train: changes of how the teacher trains.
    **teacher: changes of the teacher.
  """
  methods = {n: c for n, c in base.methods(arg).items() if _fits(c)}
  tiny = config.size(arg) == 'tiny'
  for method in methods.values():
    for role in (method.students.student, method.teachers.main):
      role.views = {
        split: view.replace('resize(14)', 'resize(16)')
        for split, view in role.views.items()
      }
    method.students.student.update(model='vit')
    method.students.student.kw = _vit(tiny)
    # A method whose rate is not the common one keeps its part of that.
    part = method.train.learning_rate / base.SGD_RATE
    _set(method.train, **_adamw())
    method.train.learning_rate = RATE * part
    if not tiny:
      method.train.update(steps=STEPS, seeds=SEEDS)
    _set(method.teachers.main.train, **(train or {}))
    _set(method.teachers.main, **teacher)
  return base.compared(methods)


def _fits(method):
  """Whether a method looks at logits and embeddings alone, with any optimiser.

  What reads a layer in another way, as a second teacher does, does not fit.
  """
  terms = config.complete(method).distill.values()
  return (
    all(set(term.at) <= AT for term in terms)
    and method.train.optimizer.name == 'sgd'
    and set(method.teachers) == {'main'}
  )


def _set(section, **entries):
  """Sets entries, with nothing left of what was in them."""
  for name, value in entries.items():
    section[name] = value


def _vit(tiny):
  """A small transformer."""
  return dict(
    patch=4,
    width=8 if tiny else 32,
    depth=1 if tiny else 3,
    heads=2,
    mlp_ratio=2.0,
  )


def _adamw():
  """What transformers are trained with."""
  return dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=0.05)),
    learning_rate=RATE,
    weight_decay=0.0,
  )
