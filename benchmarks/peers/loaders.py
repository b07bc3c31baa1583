"""A child that reads a folder of images as batches, by one of several loaders.

``python loaders.py LOADER FOLDER SIDE BATCH WORKERS`` goes through the images
in ``FOLDER/train/CLASS/`` three times in random order, as batches of uint8 of
SIDE x SIDE pixels, and prints how many images a second it gave after the first
time. Beside its loader it needs NumPy and Pillow alone.
"""

import itertools
import json
import pathlib
import sys
import time

EPOCHS = 3  # of which the first is not timed


def jaxkd(folder, side, batch, workers):
  """Batches of all epochs by threads of Grain."""
  import numpy as np

  from jaxkd.data import examples, loader, sources

  examples.IN_MEMORY = 0  # images are decoded each time
  loader.workers = lambda: workers
  source = sources.load(f'folder:{folder}', resize=side, validation=0)
  train = source.splits['train']
  made = loader.Loader(train, np.ones((1, len(train))), [0], batch)
  steps = EPOCHS * (len(train) // batch)
  for found in made.iterate(0, steps):
    yield found['inputs'][0]


def torch(folder, side, batch, workers):
  """Batches of all epochs by processes of PyTorch's DataLoader."""
  import numpy as np
  from PIL import Image
  from torch.utils import data

  files = sorted((folder / 'train').glob('*/*'))

  class Images(data.Dataset):
    def __len__(self):
      return len(files)

    def __getitem__(self, i):
      with Image.open(files[i]) as image:
        resized = image.convert('RGB').resize(
          (side, side), Image.Resampling.BILINEAR
        )
      return np.array(resized), 0

  loader = data.DataLoader(
    Images(),
    batch,
    shuffle=True,
    drop_last=True,
    num_workers=workers,
    persistent_workers=True,
  )
  for images, _ in itertools.chain(*[loader] * EPOCHS):
    yield images


def tfds(folder, side, batch, workers):
  """Batches of all epochs by threads of TensorFlow Datasets' ImageFolder."""
  import tensorflow as tf
  import tensorflow_datasets as datasets

  tf.config.set_visible_devices([], 'GPU')

  def resized(image):
    image = tf.image.resize(image, (side, side), antialias=True)
    return tf.cast(tf.round(image), tf.uint8)

  found = datasets.ImageFolder(str(folder)).as_dataset(
    split='train', shuffle_files=True
  )
  options = tf.data.Options()
  options.threading.private_threadpool_size = workers
  found = found.map(
    lambda one: resized(one['image']), num_parallel_calls=workers
  )
  found = found.batch(batch, drop_remainder=True).repeat(EPOCHS).prefetch(2)
  yield from found.with_options(options).as_numpy_iterator()


LOADERS = {'jaxkd': jaxkd, 'torch': torch, 'tfds': tfds}


def main(loader, folder, side, batch, workers):
  """Prints images a second, of all epochs but the first."""
  folder, side, batch = pathlib.Path(folder), int(side), int(batch)
  count = len([*(folder / 'train').glob('*/*')]) // batch
  if not count:
    sys.exit(f'{folder} has fewer than {batch} images')
  batches = LOADERS[loader](folder, side, batch, int(workers))
  for number in range(EPOCHS * count):
    if number == count:
      begun = time.perf_counter()
    images = next(batches)
    assert tuple(images.shape) == (batch, side, side, 3)
  taken = time.perf_counter() - begun
  print(json.dumps((EPOCHS - 1) * count * batch / taken), flush=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
