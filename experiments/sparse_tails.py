r"""Measures what of a gradient the largest probabilities of a teacher keep.

python experiments/sparse_tails.py --config configs/NAME.py \
    --teacher runs/NAME/nets/teachers/main \
    --student runs/NAME/nets/students/ARM/student

Prints a table for the validation split of the config's data: the cosine with
the gradient of all classes by the number of classes that are kept and by what
goes for the others, for a student that has not trained and for the one named.
"""

import json

import jax
from absl import flags
from rich.console import Console

from benchmarks import sparse_tails
from jaxkd import files
from jaxkd.errors import UserError
from jaxkd.run import checks, launch, stored_nets

FLAGS = flags.FLAGS
flags.DEFINE_string('teacher', '', 'a folder below the nets of a run')
flags.DEFINE_string('student', '', 'another; empty for an untrained one alone')
flags.DEFINE_list('k', list(map(str, sparse_tails.SIZES)), 'classes to keep')
flags.DEFINE_integer('tokens', 2048, 'how many to measure', lower_bound=1)
flags.DEFINE_string('out', '', 'a JSON file to write what was measured to')


def main(stop):
  del stop
  if not FLAGS.teacher:
    raise UserError('--teacher: name a folder below the nets of a run')
  if not all(k.isdigit() and int(k) for k in FLAGS.k):
    raise UserError(
      f'--k: {",".join(FLAGS.k)} should be numbers from 1, e.g. 4,16,64'
    )
  folders = {'teacher': FLAGS.teacher, sparse_tails.TRAINED: FLAGS.student}
  nets = {name: _logits(at) for name, at in folders.items() if at}
  examples = checks.load(launch.config()).splits['validation']
  found = sparse_tails.measure(
    sparse_tails.tokens(nets, examples, FLAGS.tokens),
    'teacher',
    [int(k) for k in FLAGS.k],
  )
  Console().print(sparse_tails.table(found), soft_wrap=True, markup=False)
  if FLAGS.out:
    out = files.path(FLAGS.out, at='--out')
    files.write_text(out, json.dumps(found, indent=1))


def _logits(folder):
  """The logits of an exported net, as a function of inputs."""
  net, variables = stored_nets.load(folder)
  return jax.jit(lambda inputs: net.apply(variables, inputs)[0]['logits'])


if __name__ == '__main__':
  launch.main(main)
