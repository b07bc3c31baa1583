"""Writes what a language model goes on with after the beginnings of texts.

Sequence-level distillation between tokenizers: the teacher writes in its own
tokens, what it has written is kept as text, and the students read that text in
theirs. (Where both have the same tokens, `data.generated` does it in one run.)
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import files, lookup, models
from jaxkd.data import sources
from jaxkd.data.sources import Source
from jaxkd.data.text import text_files
from jaxkd.errors import UserError
from jaxkd.keys import fold
from jaxkd.models import hugging_face
from jaxkd.run import stored_nets
from jaxkd.teachers import generated, groups, vocabularies
from jaxkd.types import Net

BATCH = 32  # texts that are written side by side


def write(
  data: Mapping[str, Any],
  net: str,
  out: str,
  *,
  split: str = 'train',
  seed: int = 0,
  say: Callable[[str], None] = lambda text: None,
) -> Path:
  """Writes a file of JSON Lines with a ``prompt`` and a ``completion`` each.

  ``text:FILE`` with ``kw=dict(format='completions')`` reads it, in the tokens
  of any tokenizer.

  Args:
    data: the entry of a config: where the beginnings of the texts come from, in
      the tokens of the net, and in ``generated.kw`` the options of
      `jaxkd.teachers.generated.continuations`.
    net: what writes: a folder below the ``nets`` of a run, or 'hf:FOLDER'.
    out: the file.
    split: of the data.
    seed: of the draws.
    say: prints a line.

  Returns:
    The path of the file, which is there when all of it is.

  Raises:
    UserError: data whose tokens are not those of the net, or cannot become text
      again; or weights that are not finite.
  """
  path = files.path(out, at='--out')
  if path.suffix != text_files.JSON_LINES:
    raise UserError(
      f'--out: {out} is read as JSON Lines by its ending alone; call it '
      f'{path.stem}{text_files.JSON_LINES}'
    )
  options = dict(data['generated']['kw'])
  lookup.check_options(
    generated.continuations, options, name='continuations',
    at=f'{generated.AT}.kw',
  )  # fmt: skip
  source = sources.load(data['source'], dir=data['dir'], **data['kw'])
  tokenizer = getattr(source, 'tokenizer', None)
  if tokenizer is None:
    raise UserError(
      f'data.source: the tokens of {source.name} cannot be decoded to text; '
      "take a source of text with data.kw.tokens='tokenizer:PATH'"
    )
  if split not in source.splits:
    raise UserError(
      f'--split: {source.name} has no split {split!r}; take one of '
      f'{", ".join(source.splits)}'
    )
  made, variables = _loaded(net, source)
  special = tokenizer.special
  given = dict(stop=special.eos, pad=special.pad)
  rows = _rows(made, variables, source, split, seed, {**given, **options})
  count = passed = 0
  with files.replacing(path) as draft, draft.open('w', encoding='utf8') as file:
    for tokens, labels, valid in rows:
      texts = {
        'prompt': tokenizer.decode(tokens[: 1 + valid.argmax()]),
        'completion': tokenizer.decode(labels[valid]),
      }
      if not texts['completion'].strip():  # no room, or the end came at once
        passed += 1
        continue
      file.write(json.dumps(texts, ensure_ascii=False) + '\n')
      count += 1
  left = (
    f', {passed:,} rows in which nothing is written left out' if passed else ''
  )
  say(
    f'{count:,} texts in {path}{left}; read them with data.source=text:{path} '
    "and data.kw.format='completions'"
  )
  return path


def _rows(
  net: Net,
  variables: dict,
  source: Source,
  split: str,
  seed: int,
  options: Mapping[str, Any],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Tokens, labels and which of these are written, of each row of a split."""
  examples = source.splits[split]

  def made(variables, number, given):
    apply = lambda inputs: net.apply(variables, inputs)[0]  # noqa: E731
    teacher = generated.Teacher(
      lambda inputs: apply(inputs)['logits'],
      apply,
      variables['params'],
      source.input_shape,
      source.num_classes,
    )
    key = fold(jax.random.key(seed), 'generated')
    return generated.continuations(teacher, number, key, given, **options)

  make = jax.jit(made)
  for start in range(0, len(examples), BATCH):
    number = np.arange(start, start + BATCH, dtype=np.int32)
    given = examples.fetch(np.minimum(number, len(examples) - 1))
    if isinstance(given['inputs'], Mapping):
      raise UserError(
        f'data.source: rows of {source.name} are packed with several texts, of '
        "which one would be written; take data.kw.packing='none' or 'windows'"
      )
    found = jax.device_get(make(variables, number, given))
    fields = (found[name] for name in ('inputs', 'labels', 'valid'))
    yield from list(zip(*fields, strict=True))[: len(examples) - start]


def _loaded(net: str, source: Source) -> tuple[Net, dict]:
  """A net that writes the tokens of a source, and its variables."""
  at = '--net'
  if hugging_face.is_folder(net):
    folder = hugging_face.folder(net, at=at)
    special = source.tokenizer.special  # by which prompts are filled up
    made = models.build(
      net,
      num_classes=source.num_classes,
      input_shape=source.input_shape,
      at=at,
      pad=special.pad,
      bos=special.bos,
      eos=special.eos,
    )
    like = jax.eval_shape(made.init, jax.random.key(0))
    variables = hugging_face.load(folder, like)
    groups.check_finite(variables, f'{at}: {folder}')
    pieces = vocabularies.of_folder(folder) or source.classes
  else:
    made, variables = stored_nets.load(net)
    pieces = made.classes
  if tuple(pieces)[: len(source.classes)] != tuple(source.classes):
    raise UserError(
      f'{at}: {net} has other tokens than {source.name}; take its tokenizer, '
      'data.kw.tokens'
    )
  return made, jax.tree.map(jnp.asarray, variables)
