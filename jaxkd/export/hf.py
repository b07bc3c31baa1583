"""A folder of Hugging Face, of a decoder: for what reads Llama and Qwen.

The tokenizer's files go with it where the run's data name one,
``data.kw.tokens='tokenizer:PATH'``.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import logging

from jaxkd import files, models, shapes
from jaxkd.errors import UserError
from jaxkd.export.given import Given
from jaxkd.models import hugging_face

ENDING = ''  # a folder
RUNTIME = 'jaxkd, from the folder'
NEEDS: dict[str, str] = {}
TOKENIZER = 'tokenizer:'  # of the path of one, in data.kw.tokens

# What a tokenizer of Hugging Face may consist of.
_TOKENIZER = (
  *('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'),
  *('added_tokens.json', 'chat_template.jinja', 'tokenizer.model'),
  *('vocab.json', 'merges.txt'),
)


def write(
  given: Given,
  outputs: Sequence[str],
  path: Path,
  *,
  dtype: str = 'float32',
) -> tuple[None, dict]:
  """Writes the folder; returns what is to be said of it.

  Args:
    given: the net.
    outputs: of no use, as the weights alone are written.
    path: a folder that is not there yet, or is empty.
    dtype: of the weights, 'float32' or 'bfloat16'.

  Raises:
    UserError: it is no decoder, or the folder holds something.
  """
  del outputs  # of the whole net
  spec = given.spec
  family = models.resolve(spec['model'])[0] if 'model' in spec else None
  changed = [name for name in ('quantize', 'logit_shift') if spec.get(name)]
  if family is not models.families()[models.HUGGING_FACE].Model or changed:
    kind = ' with '.join([spec.get('model', 'net of no run'), *changed])
    raise UserError(
      f'{given.name}: it is a {kind}, and folders of Hugging Face are written '
      f'of the model {models.HUGGING_FACE} alone; export it with --to '
      'safetensors or --to onnx'
    )
  fixed = models.resolve(spec['model'])[1]
  kw = {**models.defaults(models.HUGGING_FACE), **fixed, **spec['kw']}
  rows = jax.tree.leaves(shapes.from_json(spec['input_shape']))
  hugging_face.write(
    path,
    kw,
    jax.tree.map(np.asarray, given.variables['params']),
    length=max(x.shape[0] for x in rows),
    dtype=dtype,
  )
  _add_tokenizer(path, given)
  return None, {'dtype': dtype}


def run(
  given: Given, path: Path, names: Sequence[str], inputs: list[np.ndarray]
) -> list[np.ndarray]:
  """What the net gives that is read from the folder."""
  net = models.build(
    f'{hugging_face.PREFIX}{path}',
    num_classes=given.spec['num_classes'],
    input_shape=shapes.from_json(given.spec['input_shape']),
  )
  like = jax.eval_shape(net.init, jax.random.key(0))
  variables = hugging_face.load(path, like)
  found = given.like(net, variables).outputs(inputs)
  return [found[name] for name in names]


def _add_tokenizer(path: Path, given: Given) -> None:
  """Copies the files of the tokenizer that the run's data name, if any."""
  data = given.config.get('data', {})
  name = str(data.get('kw', {}).get('tokens', ''))
  if not name.startswith(TOKENIZER):
    logging.warning(
      '%s has no tokenizer: the data of the run name none of Hugging Face',
      path,
    )
    return
  origin = files.path(name.removeprefix(TOKENIZER), at='data.kw.tokens')
  if origin.is_file():
    shutil.copy(origin, path / 'tokenizer.json')
    return
  for part in _TOKENIZER:
    if (origin / part).is_file():
      shutil.copy(origin / part, path / part)
