"""A folder of Hugging Face, which transformers and others load.

Of decoders, as Llama or Qwen, with the tokenizer's files where the run's data
name one, ``data.kw.tokens='tokenizer:PATH'``; and of classifiers of images that
are a ViT or a ResNet of transformers.
"""

import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from safetensors.numpy import save_file

from jaxkd import files, models, shapes
from jaxkd.data import views
from jaxkd.data.text import conversations, pretrained, vocabularies
from jaxkd.errors import UserError
from jaxkd.export import hf_images
from jaxkd.export.exportable import Exportable
from jaxkd.models import hugging_face

ENDING = ''  # a folder
RUNTIME = 'what is read from the folder'
TRANSFORMERS = ('transformers', 'torch')  # that classifiers are compared with
NEEDS: dict[str, str] = {}
TOKENIZER = 'tokenizer:'  # of the path of one, in data.kw.tokens

# What transformers makes of logits: their softmax, or the sigmoid of each.
_PROBLEMS = {
  'softmax': 'single_label_classification',
  'sigmoids': 'multi_label_classification',
}
# What a tokenizer of Hugging Face may consist of.
_TOKENIZER = (
  *('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'),
  *('added_tokens.json', 'chat_template.jinja', 'tokenizer.model'),
  *('vocab.json', 'merges.txt'),
)


def write(
  given: Exportable,
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
  family, kw = _model(given)
  if family == models.HUGGING_FACE:
    _write_decoder(given, kw, path, dtype)
  else:
    _write_classifier(given, family, kw, path, dtype)
  return None, {'dtype': dtype}


def run(
  given: Exportable, path: Path, names: Sequence[str], inputs: list[np.ndarray]
) -> dict[str, np.ndarray] | None:
  """What the net gives that is read from the folder.

  Classifiers are read by transformers; None where that is not installed.
  """
  if _model(given)[0] != models.HUGGING_FACE:
    return _run_classifier(given, path, inputs)
  net = models.build(
    f'{hugging_face.PREFIX}{path}',
    num_classes=given.spec['num_classes'],
    input_shape=shapes.from_json(given.spec['input_shape']),
  )
  like = jax.eval_shape(net.init, jax.random.key(0))
  variables = hugging_face.load(path, like)
  found = given.like(net, variables).outputs(inputs)
  return {name: found[name] for name in names}


def _model(given: Exportable) -> tuple[str, dict[str, Any]]:
  """The family of a net, and all of its options.

  Raises:
    UserError: none that transformers has.
  """
  spec = given.spec
  name = spec.get('model', '')
  constructor, fixed = models.resolve(name) if name else (None, {})
  known = (models.HUGGING_FACE, *hf_images.FAMILIES)
  changed = [
    entry
    for entry in ('quantize', 'logit_shift', 'specialist')
    if spec.get(entry)
  ]
  for family in known:
    if constructor is models.families()[family].Model and not changed:
      return family, {**models.defaults(name), **fixed, **spec['kw']}
  kind = ' with '.join([name or 'net of no run', *changed])
  raise UserError(
    f'{given.name}: it is a {kind}, and folders of Hugging Face are written of '
    f'{", ".join(known)} alone; export it with --to safetensors or --to onnx'
  )


def _write_decoder(given: Exportable, kw: dict, path: Path, dtype: str) -> None:
  spec = given.spec
  rows = jax.tree.leaves(shapes.from_json(spec['input_shape']))
  hugging_face.write(
    path,
    kw,
    jax.tree.map(np.asarray, given.variables['params']),
    length=max(x.shape[0] for x in rows),
    dtype=dtype,
  )
  _add_tokenizer(path, given)


def _write_classifier(
  given: Exportable, family: str, kw: dict, path: Path, dtype: str
) -> None:
  shape, at = given.spec['input_shape'], given.name
  if dtype != 'float32':
    raise UserError(
      f'jaxkd.export: dtype={dtype!r} is for decoders; leave it out with a '
      f'{family}'
    )
  if given.net.logits not in _PROBLEMS:
    raise UserError(
      f'{at}: it predicts standardised values, whose means and deviations such '
      'a folder does not have; export it with --to onnx or --to safetensors'
    )
  config = hf_images.config_of(family, kw, shape, given.net.classes, at=at)
  files_of = {
    hugging_face.CONFIG: config | {'problem_type': _PROBLEMS[given.net.logits]},
    'preprocessor_config.json': hf_images.preprocessor_of(
      given.net.view, shape, at=at
    ),
  }
  tensors = hf_images.tensors_of(family, given.variables)
  path.mkdir(exist_ok=True)
  for name, value in files_of.items():
    (path / name).write_text(json.dumps(value, indent=2) + '\n')
  weights = path / hugging_face.WEIGHTS
  save_file(tensors, weights, metadata={'format': 'pt'})
  files.share(weights)


def _run_classifier(
  given: Exportable, path: Path, inputs: list[np.ndarray]
) -> dict[str, np.ndarray] | None:
  if any(importlib.util.find_spec(name) is None for name in TRANSFORMERS):
    return None
  import torch
  from transformers import AutoModelForImageClassification

  view = views.parse(given.net.view, stored=True)
  seen = views.apply_in_evaluation(view, inputs[0])
  pixels = torch.from_numpy(np.array(seen).transpose(0, 3, 1, 2))
  try:
    model = AutoModelForImageClassification.from_pretrained(path).eval()
  except Exception as error:  # of many kinds
    raise UserError(
      f'{path}: transformers does not load it ({error}); export the net with '
      '--to onnx'
    ) from error
  with torch.no_grad():
    return {'logits': model(pixels).logits.numpy()}


def _add_tokenizer(path: Path, given: Exportable) -> None:
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
    shutil.copy(origin, path / pretrained.FILE)
  for part in _TOKENIZER:
    if (origin / part).is_file():
      shutil.copy(origin / part, path / part)
  say(path, name, data['kw'])


def say(path: Path, name: str, kw: Mapping[str, Any]) -> None:
  """Writes what the data say about a tokenizer over what it says itself.

  So what a net is asked is written as in its training, and ends as there.

  Args:
    path: the folder that holds it.
    name: of the vocabulary, as ``data.kw.tokens`` has it.
    kw: ``data.kw``.
  """
  eos, template = kw.get('eos', ''), kw.get('template', '')
  changes = {'eos_token': eos} if eos else {}
  if template:
    vocabulary = vocabularies.of(name, None, eos=eos)
    text = conversations.jinja(template, vocabulary)
    (path / pretrained.TEMPLATE).write_text(text, encoding='utf-8')
    changes['chat_template'] = text
  file = path / pretrained.SAID
  if changes and file.is_file():
    said = json.loads(file.read_text('utf-8')) | changes
    file.write_text(json.dumps(said, indent=2, ensure_ascii=False) + '\n')
