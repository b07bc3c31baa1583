r"""Writes the images of a config into TFDS's data directory.

python experiments/prepare.py --config configs/liu2019_structured.py \
    --name scenes

This makes a TFDS data set of that name, which the source ``tfds:scenes`` reads,
and TFDS itself too. TensorFlow is not needed.
"""

from absl import flags
from rich.console import Console

from jaxkd.data import prepared, sources
from jaxkd.data.images import builder
from jaxkd.errors import UserError
from jaxkd.run import launch

FLAGS = flags.FLAGS
flags.DEFINE_string('name', '', 'name of the TFDS data set')
flags.DEFINE_string('data_dir', '', "TFDS's data directory; '' for its default")


def main(stop):
  if not FLAGS.name:
    raise UserError('--name: give the data set a name')
  place = prepared.folder(FLAGS.data_dir, at='--data_dir')
  data = launch.config()['data']
  source = sources.load(data['source'], dir=data['dir'], **data['kw'])
  folder = builder.build(source, FLAGS.name, str(place))
  Console().print(
    f'Read it with --config.data.source=tfds:{FLAGS.name}: {folder}',
    soft_wrap=True,
  )


if __name__ == '__main__':
  launch.main(main)
