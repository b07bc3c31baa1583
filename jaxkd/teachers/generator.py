"""Makes the examples of a generator, for all seeds, and keeps them on disk.

They are kept shard by shard, so that a run that was stopped goes on where it
was.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import image

from jaxkd import compilation, files, shapes, source_code
from jaxkd import options as options_lib
from jaxkd.data import cache, fingerprint
from jaxkd.data.examples import (
  ArrayExamples,
  Examples,
  StreamedExamples,
  held,
)
from jaxkd.errors import UserError, blamed
from jaxkd.keys import fold
from jaxkd.paths import by_path
from jaxkd.teachers.generated import AT, Teacher, find, takes_examples

_NEAR = 64  # examples that are read together


class Generator:
  """The examples of all seeds of an arm.

  Args:
    entry: the config's ``data.generated``.
    logits: ``(variables, inputs) -> logits`` of the teacher's net, of inputs
      as the data has them.
    apply: that of the net.
    variables: of the teacher of each seed, [S, ...], or of the one of all, [1,
      ...]; or their shapes.
    examples: the training examples.
    input_shape: of one example.
    num_classes: K.
    seeds: of the members.
    of: what the net is and how it sees, as text.
    classes: what the classes are called.
    defaults: of options that depend on the data, such as its special tokens,
      for a generator that takes them.

  Raises:
    UserError: an unknown generator or option, or a teacher that it cannot use.
  """

  def __init__(
    self,
    entry: Mapping[str, Any],
    logits: Callable,
    apply: Callable,
    variables: dict,
    examples: Examples,
    *,
    input_shape: Any,
    num_classes: int,
    seeds: Sequence[int],
    of: str = '',
    classes: Sequence[str] = (),
    defaults: Mapping[str, Any] = MappingProxyType({}),
  ):
    self._entry, self._variables = entry, variables
    self._classes = tuple(classes)
    self._root = entry['dir'] and files.path(
      entry['dir'], at=f'{AT}.dir', remote=True
    )
    self._net = of
    name = entry['name']
    function = find(name)
    self._given = examples if takes_examples(function) else None
    self._count = _count(entry['count'], self._given)
    self._weigh = getattr(function, 'weigh', None)
    own, later = (_keywords(f) for f in (function, self._weigh))
    options_lib.check(entry['kw'], {**later, **own}, name=name, at=f'{AT}.kw')
    given = {**defaults, **entry['kw']}
    self._options, self._weighing = (
      {n: given.get(n, p.default) for n, p in takes.items()}
      for takes in (own, later)
    )

    def made_of(variables, key, number, given):
      teacher = Teacher(
        functools.partial(logits, variables),
        lambda inputs: apply(variables, inputs)[0],
        variables['params'],
        input_shape,
        num_classes,
      )
      made = dict(function(teacher, number, key, *given, **self._options))
      if 'labels' not in made:
        made['labels'] = teacher.logits(made['inputs']).argmax(-1)
      return {**made, 'labels': made['labels'].astype(jnp.int32)}

    def make(variables, seed, number, given):
      key = fold(jax.random.key(seed), 'generated')
      return made_of(variables, key, number, given)

    self._make = compilation.jit(make)
    one = np.zeros(1, np.int32)
    with blamed(f'{AT}.name'):
      traced, fields = jax.make_jaxpr(made_of, return_shape=True)(
        self._of(0), jax.random.key(0), one, self._fetch(one)
      )
    self._structure = jax.tree.structure(fields)
    # Where nothing is drawn, seeds that share the teacher share the examples.
    key = traced.jaxpr.invars[len(jax.tree.leaves(variables))]
    draws = any(key is x for eqn in traced.eqns for x in eqn.invars)
    alone = not draws and len(jax.tree.leaves(variables)[0]) == 1
    self._seeds = [0] if alone else list(seeds)
    rows = {
      path: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
      for path, x in by_path(fields).items()
    }
    self.layout = cache.Layout(rows, len(self._seeds), self._count, _NEAR)
    self._each = rows['labels'].shape[0] if self._weigh else 1
    if self._weigh:  # options are refused here, before a teacher trains
      right = np.repeat(self._fetch(one)[0]['labels'][:, None], self._each, 1)
      self._weigh(right, self._classes, **self._weighing)
    self.rows = self._count * self._each  # examples of a seed

  def __str__(self) -> str:
    """The generator and its options, in words."""
    return f'{self.rows:,} examples made by {self._entry["name"]}'

  def shapes(self) -> Examples:
    """Zeros in their place."""
    layout = self.layout
    count = layout.lines * layout.rows
    return self._examples(
      {
        path: np.broadcast_to(np.zeros((), x.dtype), (count, *x.shape))
        for path, x in layout.arrays.items()
      },
      known=False,
    )

  def weights(self, members: Sequence[int]) -> np.ndarray:
    """Sampling weights over them: each member sees those of one seed.

    Args:
      members: of which seed, by its place.

    Returns:
      float32 [members, S · count].
    """
    line = np.asarray(members) % self.layout.lines
    own = np.arange(self.layout.lines)[None] == line[:, None]
    return np.repeat(own, self.rows, axis=1).astype(np.float32)

  def make(
    self,
    root: Path,
    progress: Callable,
    say: Callable[[str], None] = lambda text: None,
    stop: Callable[[], None] = lambda: None,
  ) -> Examples:
    """Makes the examples, resumes making them, or reads those made before.

    Args:
      root: where they are kept.
      progress: ``(steps) -> context manager``, see `Session` of
        `jaxkd.run.types`.
      say: prints a line.
      stop: called after each shard but the last; raises where the run should
        end.

    Returns:
      Those of the first seed, those of the second, and so on; or those of all.
    """
    facts = {
      'generator': self._entry['name'],
      'options': repr(sorted(self._options.items())),
      'seeds': self._seeds,
      'model': self._net,
      'teacher': cache.fingerprint(map(self._of, range(self.layout.lines))),
      **source_code.fact([self._entry['name'], self._net]),
    }
    if self._given is not None:
      facts['examples'] = self._fingerprint()
    parts = (*facts.values(), self.layout)
    digest = cache.fingerprint([np.frombuffer(repr(parts).encode(), np.uint8)])
    folder = files.absolute(self._root or root) / digest[:12]
    sought = folder, self.layout, facts, AT
    if not cache.find(*sought):
      say(f'{AT}: {self}, {cache.size(self.layout.on_disk)}')
      with cache.drafted(*sought) as draft:
        if draft is not None:
          self._write(draft, progress, stop)
      cache.find(*sought)
    kept = cache.Cache(folder, self.layout, AT)
    found = kept.span(0, self.layout.rows)
    return self._examples(
      {path: x.reshape(-1, *x.shape[2:]) for path, x in found.items()}
    )

  def _fingerprint(self) -> str:
    """Tells the training examples from others; by a sample if streamed."""
    if isinstance(self._given, ArrayExamples):
      return cache.fingerprint([self._fetch(np.arange(self._count))])
    return repr(sorted(fingerprint.of_examples(self._given).items()))

  def _write(self, draft: cache.Draft, progress, stop) -> None:
    size = min(cache.BLOCK, self.layout.rows)
    missing = draft.missing()
    with progress(len(missing)) as show:
      for done, (line, begin, end) in enumerate(missing, 1):
        parts, seed = [], np.uint32(self._seeds[line])
        for start in range(begin, end, size):
          number = np.arange(start, start + size, dtype=np.int32)
          made = self._make(self._of(line), seed, number, self._fetch(number))
          parts.append(by_path(jax.device_get(made)))
        rows = {
          path: np.concatenate([part[path] for part in parts])[: end - begin]
          for path in parts[0]
        }
        draft.write(line, begin, rows)
        show(done, {})
        if done < len(missing):
          stop()

  def _fetch(self, number: np.ndarray) -> tuple[dict, ...]:
    """The training examples of these numbers, if the generator takes any."""
    if self._given is None:
      return ()
    return (self._given.fetch(np.minimum(number, self._count - 1)),)

  def _of(self, line: int) -> dict:
    """The variables of the teacher of one seed."""
    return shapes.mapped(lambda x: x[line % len(x)], self._variables)

  def _examples(
    self, fields: Mapping[str, np.ndarray], *, known: bool = True
  ) -> Examples:
    """The examples of these fields, [S · count, ...].

    Args:
      fields: by their paths.
      known: whether they are more than zeros, so that they can be weighed.
    """
    leaves = [fields[path] for path in self.layout.arrays]
    made = jax.tree.unflatten(self._structure, leaves)
    if not self._weigh:
      return ArrayExamples(**made)
    rows, lines = self.layout.rows, self.layout.lines
    weight = np.ones((lines * rows, self._each), np.float32)
    for start in range(0, lines * rows if known else 0, rows):
      labels = made['labels'][start : start + rows]
      own = self._weigh(labels, self._classes, **self._weighing)
      weight[start : start + rows] = own
    numbers = np.tile(np.repeat(np.arange(rows), self._each), lines)
    flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    fields = jax.tree.map(flat, {**made, 'weight': weight})
    found = _replaced(self._given, numbers, fields)
    return held(found) if known else found


def _count(count: int, given: Examples | None) -> int:
  """The number of examples to make; 0 for as many as the data has."""
  most = sys.maxsize if given is None else len(given)
  if given is not None and count == 0:
    return most
  if not 1 <= count <= most:
    least = 'be 1 or more' if given is None else f'be from 1 to {most}, or 0'
    raise UserError(f'{AT}.count: {count} should {least}')
  return count


def _keywords(function: Callable | None) -> dict[str, inspect.Parameter]:
  """The options of a function."""
  found = options_lib.parameters_of(function) if function else {}
  return {n: p for n, p in found.items() if p.kind is p.KEYWORD_ONLY}


def _replaced(
  examples: Examples, numbers: np.ndarray, fields: Mapping[str, Any]
) -> StreamedExamples:
  """Examples with other fields in place of some of their own.

  Args:
    examples: in memory, or streamed.
    numbers: which of them, int [n].
    fields: [n, ...]; of ``inputs`` those that are not here stay.
  """

  def read(places):
    now = jax.tree.map(lambda x: x[places], dict(fields))
    old = examples.fetch(numbers[places])
    if 'inputs' in now:
      now['inputs'] = {**old['inputs'], **now['inputs']}
    return {**old, **now}

  def read_labels(places):
    names = fields.keys() & {'labels', 'valid'}
    return {name: fields[name][places] for name in names}

  return StreamedExamples(len(numbers), read, read_labels=read_labels)


def picture(
  examples: ArrayExamples, count: int, path: Path, *, columns: int = 10
) -> None:
  """Draws the first examples of each class, a line for each class.

  Nothing is drawn if the examples are not images of one class each.

  Args:
    examples: of all seeds.
    count: how many are the first seed's; the others are not shown.
    path: the PNG file to write.
    columns: the most of each class.

  Raises:
    UserError: the file cannot be written.
  """
  one = examples.fetch(np.arange(1))
  shape = np.shape(one['inputs'])[1:]
  if one['labels'].ndim > 1 or len(shape) != 3 or shape[-1] not in (1, 3):
    return
  fields = examples.fetch(np.arange(count))
  inputs, labels = fields['inputs'], fields['labels']
  lines = []
  for label in range(labels.max() + 1):
    own = inputs[labels == label][:columns]
    blank = np.ones((columns - len(own), *shape), np.float32)
    cells = [np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=1.0)
             for x in (*np.clip(own, 0, 1), *blank)]  # fmt: skip
    lines.append(np.concatenate(cells, axis=1))
  grid = np.concatenate(lines)
  larger = max(1, 32 // shape[0])
  grid = grid.repeat(larger, axis=0).repeat(larger, axis=1)
  with files.replacing(path) as draft:
    pixels = grid if shape[-1] == 3 else grid[..., 0]
    options = {'cmap': 'gray', 'vmin': 0.0, 'vmax': 1.0}
    image.imsave(draft, pixels, format='png', **options)
