r"""Writes the images of a config into TFDS's data directory.

python experiments/prepare.py --config configs/liu2019_structured.py \
    --name scenes

They are the TFDS data set of that name then, which the source ``tfds:scenes``
reads, and so does whoever has TFDS. TensorFlow is not needed.
"""

from absl import flags
from rich.console import Console

from jaxkd.data import builder, prepared, sources
from jaxkd.errors import UserError
from jaxkd.run import launch

FLAGS = flags.FLAGS
flags.DEFINE_string('name', '', 'what the TFDS data set is to be called')
flags.DEFINE_string('data_dir', '', "TFDS's data directory; '' for its default")


def main(stop):
  if not FLAGS.name:
    raise UserError('--name: say what the data set is to be called')
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
