"""Nets that a run has exported, written for other tools."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
from absl import logging

from jaxkd import files, models, shapes
from jaxkd.errors import UserError
from jaxkd.models import hugging_face
from jaxkd.run import workdir
from jaxkd.students import stored

TOKENIZER = 'tokenizer:'  # of the path of one, in data.kw.tokens
# What a tokenizer of Hugging Face may consist of.
_TOKENIZER = (
  *('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'),
  *('added_tokens.json', 'chat_template.jinja', 'tokenizer.model'),
  *('vocab.json', 'merges.txt'),
)


def export(
  where: str | Path,
  to: str,
  *,
  arm: str = '',
  role: str = '',
  member: int = 0,
  dtype: str = 'float32',
) -> Path:
  """Writes a net as a folder of Hugging Face, which other tools load.

  The tokenizer's files are written beside it where the run's data name one,
  ``data.kw.tokens='tokenizer:PATH'``.

  Args:
    where: as `jaxkd.load` takes it.
    to: ``'hf:FOLDER'``, a folder that is not there yet.
    arm: as `jaxkd.load` takes it.
    role: as `jaxkd.load` takes it.
    member: as `jaxkd.load` takes it.
    dtype: of the weights, 'float32' or 'bfloat16'.

  Returns:
    The folder.

  Raises:
    UserError: there is no such net, it is no decoder, or the folder holds
      something.

  Examples::

    jaxkd.export('runs/mine', 'hf:mine', dtype='bfloat16')
  """
  if not hugging_face.is_folder(to):
    raise UserError(
      f"jaxkd.export: {to!r} should be 'hf:FOLDER', as folders of Hugging Face "
      'are the only format'
    )
  path = hugging_face.folder(to, at='jaxkd.export')
  found = workdir.find_net(where, arm=arm, role=role)
  variables, spec = stored.load(found)
  family = models.resolve(spec['model'])[0]
  changed = [name for name in ('quantize', 'logit_shift') if spec.get(name)]
  if family is not models.families()[models.HUGGING_FACE].Model or changed:
    kind = ' with '.join([spec['model'], *changed])
    raise UserError(
      f'{found}: it is a {kind}, and folders of Hugging Face are written of '
      f'the model {models.HUGGING_FACE} alone'
    )
  if not 0 <= member < spec['members']:
    raise UserError(
      f'{found} holds {spec["members"]} members, so member {member} is not '
      'one of them'
    )
  fixed = models.resolve(spec['model'])[1]
  kw = {**models.defaults(models.HUGGING_FACE), **fixed, **spec['kw']}
  rows = jax.tree.leaves(shapes.from_json(spec['input_shape']))
  hugging_face.write(
    path,
    kw,
    jax.tree.map(lambda x: np.asarray(x[member]), variables['params']),
    length=max(x.shape[0] for x in rows),
    dtype=dtype,
  )
  _add_tokenizer(path, found)
  return path


def _add_tokenizer(path: Path, net: Path) -> None:
  """Copies the files of the tokenizer that the run's data name, if any."""
  configs = [p / workdir.CONFIG for p in net.parents]
  file = next(filter(Path.is_file, configs), None)
  data = json.loads(file.read_text())['data'] if file else {}
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
