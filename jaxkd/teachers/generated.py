"""Examples generated from a teacher, which students see instead of the data.

What makes them is a function of this file by its name, or
``package.module:function``: ``(teacher, number, key, **options) -> fields``,
which gives the examples of these numbers as a split would, ``inputs`` and what
else a batch should hold, each [n, ...]. It is jitted, and what it draws for an
example is keyed by its number, so that examples can be made in any portions.
Where it gives no ``labels``, they are the teacher's first choice. One that
takes ``examples`` after the key has the fields of the training examples of
these numbers too, and makes others of them. One that is `weighed_by` a function
makes k examples of each, [n, k, ...], in fields that take the place of its own;
that function gives them weights, on the host, when all of them are known.

They are kept on disk, shard by shard, so that a run that was stopped goes on
where it was.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib import image

from jaxkd import compilation, files, lookup, source_code
from jaxkd import options as options_lib
from jaxkd.data import cache, fingerprint, tokens
from jaxkd.data.examples import (
  ArrayExamples,
  Examples,
  StreamedExamples,
  held,
)
from jaxkd.errors import UserError, blamed, unknown, within
from jaxkd.keys import fold
from jaxkd.paths import by_path
from jaxkd.tasks import decoding
from jaxkd.teachers import hypotheses as hypotheses_lib

AT = 'data.generated'
_NEAR = 64  # examples that are read together
TARGETS = ('similar_classes', 'alike_classes', 'one_hot')
SMALLEST = 1e-4  # of a concentration, which must be above 0


class Teacher(NamedTuple):
  """The teacher that examples are made from: a frozen net, in evaluation mode.

  Attributes:
    logits: ``(inputs) -> logits [n, K]``, of inputs as the data has them.
    apply: ``(inputs) -> outputs``, of inputs as the net takes them.
    params: its parameters.
    input_shape: of one example.
    num_classes: K.
  """

  logits: Callable[[Any], Array]
  apply: Callable[[Any], dict[str, Array]]
  params: dict
  input_shape: Any
  num_classes: int


def noise(teacher: Teacher, number: Array, key: Array) -> dict[str, Array]:
  """Inputs drawn uniformly from 0 to 1."""
  shape = _image(teacher.input_shape)
  draw = lambda key: jax.random.uniform(key, shape)  # noqa: E731
  return {'inputs': jax.vmap(draw)(_each(key, 'start', number))}


def impressions(
  teacher: Teacher,
  number: Array,
  key: Array,
  *,
  targets: str = 'similar_classes',
  beta: Sequence[float] = (1.0, 0.1),
  temperature: float = 20.0,
  steps: int = 1500,
  learning_rate: float = 1e-3,
  clip: bool = True,
  head: str = 'head/kernel',
) -> dict[str, Array]:
  """Data impressions: inputs that give drawn predictions of the teacher.

  The target predictions are drawn from a Dirichlet distribution for each class;
  its concentration is the similarity of the classes, by the weights of the
  teacher's last layer. Adam then finds inputs with these predictions, from
  uniform noise (Nayak et al., 2019). The classes take turns, and so do the
  scales.

  Args:
    teacher: the teacher.
    number: which examples, int [n].
    key: of the draws.
    targets: 'similar_classes'; 'alike_classes', for concentrations of 1; or
      'one_hot', for inputs that are one class alone.
    beta: scales of the concentrations, each for as many examples. They apply
      after the normalisation, as in the paper; in its code they come before,
      and cancel.
    temperature: of the teacher's softmax.
    steps: of Adam.
    learning_rate: of Adam.
    clip: whether inputs are kept between 0 and 1, as pixels are.
    head: path of the last layer's weights, [D, K].

  Returns:
    ``inputs`` [n, ...].
  """
  wanted = asked(number, key, teacher, targets, beta, head)
  optimizer = optax.adam(learning_rate)

  def loss(inputs):
    logs = jax.nn.log_softmax(teacher.logits(inputs) / temperature)
    return -(wanted * logs).sum()  # a sum: no example moves another

  def step(_, carry):
    inputs, state = carry
    updates, state = optimizer.update(jax.grad(loss)(inputs), state)
    inputs = optax.apply_updates(inputs, updates)
    return jnp.clip(inputs, 0, 1) if clip else inputs, state

  start = noise(teacher, number, key)['inputs']
  inputs, _ = jax.lax.fori_loop(0, steps, step, (start, optimizer.init(start)))
  return {'inputs': inputs}


def translations(
  teacher: Teacher,
  number: Array,
  key: Array,
  examples: Mapping[str, Any],
  *,
  beam: int = 5,
) -> dict[str, Any]:
  """The training examples, as translated by the teacher (sequence-level).

  Found by beam search, as in evaluation (Kim & Rush, 2016).

  Args:
    teacher: who translates; see `jaxkd.tasks.decoding` for what it must be.
    number: which examples, int [n].
    key: nothing is drawn.
    examples: their fields, of which ``inputs['source']`` [n, L] counts.
    beam: how many hypotheses are kept, at most K - 2.

  Returns:
    ``inputs``, ``labels`` and ``valid`` as the data has them.
  """
  del number, key
  found, _ = _hypotheses(teacher, examples, beam)
  return _as_examples(examples, found[:, 0])


def closest_translations(
  teacher: Teacher,
  number: Array,
  key: Array,
  examples: Mapping[str, Any],
  *,
  beam: int = 35,
) -> dict[str, Any]:
  """Of the teacher's best translations, the one that is closest to the label.

  Closeness is smoothed sentence BLEU (sequence-level interpolation, Kim & Rush,
  2016); of several as close the likeliest.

  Args:
    teacher: who translates.
    number: which examples, int [n].
    key: nothing is drawn.
    examples: their fields.
    beam: how many hypotheses are kept, and chosen from, at most K - 2.

  Returns:
    ``inputs``, ``labels`` and ``valid`` as the data has them.
  """
  del number, key
  found, _ = _hypotheses(teacher, examples, beam)
  close = decoding.sentence_bleu(found, examples['labels'][:, None])
  best = close.argmax(1)[:, None, None]
  return _as_examples(examples, jnp.take_along_axis(found, best, 1)[:, 0])


def generators() -> dict[str, Callable]:
  """The generators that there are, by name."""
  here = sys.modules[__name__]
  return {
    public: getattr(here, public)
    for public in lookup.public(here)
    if [*inspect.signature(getattr(here, public)).parameters][:3]
    == ['teacher', 'number', 'key']
  }


def continuations(
  teacher: Teacher,
  number: Array,
  key: Array,
  examples: Mapping[str, Any],
  *,
  length: int = 64,
  prompt: int = 1,
  temperature: float = 1.0,
  top_k: int = 0,
  top_p: float = 1.0,
  stop: int | Sequence[int] = tokens.EOS,
  pad: int = tokens.PAD,
) -> dict[str, Any]:
  """The training texts, continued by the teacher: sequence-level distillation.

  For language models: the teacher goes on from the beginning of each row, and
  what it has written are the labels that count (Kim & Rush, 2016). Texts are
  drawn, as the likeliest ones of a language model repeat themselves.

  Args:
    teacher: who writes; see `jaxkd.tasks.sampling` for what it must be.
    number: which examples, int [n].
    key: of the draws.
    examples: their fields, of which ``inputs``, ``labels`` and ``valid`` [n, L]
      count, and ``prompt_length`` where it is there.
    length: the most tokens that are written in a row.
    prompt: the least tokens of a beginning; it ends before the first label that
      counts.
    temperature: divides the logits; 0 takes the likeliest token.
    top_k: how many of the likeliest tokens may be drawn; 0 for all.
    top_p: the share of the mass of the tokens that may be drawn.
    stop: the token that ends a text, or several; by default, as the next one,
      that of the data's tokenizer.
    pad: fills up rows.

  Returns:
    ``inputs``, ``labels`` and ``valid`` as the data has them.
  """
  from jaxkd.tasks import on_policy

  batch = {**examples, 'id': number, 'epoch': jnp.zeros_like(number)}
  options = dict(length=length, prompt=prompt, temperature=temperature)
  options |= dict(top_k=top_k, top_p=top_p, stop=stop, pad=pad)
  try:
    made = on_policy.on_policy(teacher.apply, batch, key, **options)
  except UserError as error:
    with within(f'{AT}.kw.' if error.entry in options else f'{AT}.name: '):
      raise
  return {name: made[name] for name in ('inputs', 'labels', 'valid')}


def weighed_by(weigh: Callable) -> Callable:
  """Says what weighs the examples that a generator makes, see `Generator`.

  Args:
    weigh: ``(labels [N, k, ...], classes, **options) -> weights [N, k]``, of
      all examples of a seed, on the host. Its options are the generator's too,
      but do not change what is kept on disk.
  """

  def mark(function):
    function.weigh = weigh
    return function

  return mark


@weighed_by(hypotheses_lib.weights)
def hypotheses(
  teacher: Teacher,
  number: Array,
  key: Array,
  examples: Mapping[str, Any],
  *,
  beam: int = 5,
  best: int = 1,
) -> dict[str, Any]:
  """The training examples, and the teacher's best hypotheses of each.

  Each example is there as often as it has hypotheses, so that one half of what
  a student sees is true and the other is the teacher's (Kim et al., 2019). How
  much a hypothesis counts, the field ``weight``, is for
  `jaxkd.teachers.hypotheses.weights` to say, and counts in the terms whose
  ``example_weight`` is 'batch.weight'.

  Args:
    teacher: who writes; see `jaxkd.tasks.decoding` for what it must be.
    number: which examples, int [n].
    key: nothing is drawn.
    examples: their fields.
    beam: how many hypotheses are searched with, at most K - 2.
    best: how many of them are taken.

  Returns:
    ``inputs``, with ``prefix`` alone, ``labels`` and ``valid``, [n, 2 best, L].
  """
  del number, key
  found, _ = _hypotheses(teacher, examples, beam)
  if not 1 <= best <= beam:
    raise UserError(
      f'{AT}.kw.best: {best} should be from 1 to {beam}, as many as are '
      'searched with'
    )
  true = jnp.repeat(examples['labels'][:, None], best, axis=1)
  labels = jnp.concatenate([true, found[:, :best]], axis=1)
  made = _as_examples(examples, labels)
  return {**made, 'inputs': {'prefix': made['inputs']['prefix']}}


def keeps_data(name: str) -> bool:
  """Whether the training examples themselves are among what it makes."""
  return hasattr(_find(name), 'weigh')


def _hypotheses(teacher, examples, beam) -> tuple[Array, Array]:
  """Tokens [n, beam, L] and their scores [n, beam], the best first."""
  inputs = examples['inputs']
  if not isinstance(inputs, Mapping) or inputs.keys() != {'source', 'prefix'}:
    raise UserError(
      f'{AT}.name: the examples are no sentences to translate or transcribe; '
      'see jaxkd.data.sources.pairs for what they look like'
    )
  # All but `PAD` and `BOS` can come first: of so many, none is impossible.
  most = teacher.num_classes - 2
  if type(beam) is not int or not 1 <= beam <= most:
    raise UserError(
      f'{AT}.kw.beam: {beam!r} should be a whole number from 1 to {most}, as '
      'many tokens as a translation can begin with'
    )
  length = inputs['prefix'].shape[1]
  return decoding.beam(teacher.apply, inputs['source'], length, beam)


def _as_examples(examples, labels: Array) -> dict[str, Any]:
  """Examples with the same source sentences and other translations."""
  inputs = {**examples['inputs'], 'prefix': tokens.shifted(labels)}
  return {'inputs': inputs, 'labels': labels, 'valid': labels != tokens.PAD}


def asked(
  number: Array,
  key: Array,
  teacher: Teacher,
  targets: str,
  beta: Sequence[float],
  head: str,
) -> Array:
  """The target predictions of examples, probabilities [n, K].

  See `impressions`.
  """
  if targets not in TARGETS:
    raise unknown('kind of targets', targets, TARGETS, f'{AT}.kw.targets')
  classes, scales = teacher.num_classes, jnp.asarray(beta, jnp.float32)
  own = number % classes
  if targets == 'one_hot':
    return jax.nn.one_hot(own, classes)
  alpha = jnp.ones((classes, classes))
  if targets == 'similar_classes':
    alpha = concentrations(_weights(teacher, head))
  scale = scales[number // classes % len(scales)]
  keys = _each(key, 'targets', number)
  return jax.vmap(dirichlet)(keys, alpha[own] * scale[:, None])


def concentrations(weights: Array) -> Array:
  """The similarity of classes, as concentrations of Dirichlet distributions.

  Args:
    weights: of the last layer, [D, K].

  Returns:
    Of each class, a row: the cosines of its weights with those of all, from
    the least to the greatest brought to 0 to 1, and 1e-4 more, [K, K].
  """
  unit = weights / jnp.linalg.norm(weights, axis=0, keepdims=True)
  alike = unit.T @ unit
  least, most = alike.min(1, keepdims=True), alike.max(1, keepdims=True)
  return (alike - least) / (most - least) + SMALLEST


def dirichlet(key: Array, alpha: Array) -> Array:
  """A draw from a Dirichlet distribution, [K] of sum 1.

  By logarithms of gamma variables, which tiny concentrations do not underflow.

  Args:
    key: of the draw.
    alpha: concentrations, [K], above 0.
  """
  return jax.nn.softmax(jax.random.loggamma(key, alpha))


def _weights(teacher: Teacher, head: str) -> Array:
  """The weights of the teacher's last layer, [D, K]."""
  found = by_path(teacher.params)
  if head not in found:
    raise unknown('parameter', head, found, f'{AT}.kw.head')
  if found[head].ndim != 2 or found[head].shape[1] != teacher.num_classes:
    raise UserError(
      f'{AT}.kw.head: {head} is {found[head].shape}, and how alike classes are '
      'is read off a linear layer, '
      f'(width, {teacher.num_classes}); name it, or set '
      f"{AT}.kw.targets='alike_classes'"
    )
  return found[head]


def _image(shape: Any) -> tuple[int, ...]:
  """The shape of an example that is one array of numbers."""
  if not (isinstance(shape, tuple) and all(isinstance(n, int) for n in shape)):
    raise UserError(
      f'{AT}.name: examples of {shape} are no images; name a generator of your '
      'own, package.module:function'
    )
  return shape


def _each(key: Array, name: str, number: Array) -> Array:
  """A key for each example, [n]."""
  base = fold(key, name)
  return jax.vmap(lambda n: jax.random.fold_in(base, n))(number)


def _find(name: str) -> Callable:
  """The generator of a name: a function of a teacher, a number and a key."""
  if ':' in name:
    return lookup.attribute(name, kind='generator', at=f'{AT}.name')
  known = generators()
  if name not in known:
    raise unknown('generator', name, known, f'{AT}.name')
  return known[name]


def _takes_examples(function: Callable) -> bool:
  """Whether a generator takes training examples to make its own from."""
  return 'examples' in [*inspect.signature(function).parameters][3:4]


def _count(count: int, given: Examples | None) -> int:
  """The number of examples to make; 0 for as many as the data has."""
  most = sys.maxsize if given is None else len(given)
  if given is not None and count == 0:
    return most
  if not 1 <= count <= most:
    least = 'be 1 or more' if given is None else f'be from 1 to {most}, or 0'
    raise UserError(f'{AT}.count: {count} should {least}')
  return count


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
    function = _find(name)
    self._given = examples if _takes_examples(function) else None
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
        `jaxkd.run.train_job`.
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

    def own(x):
      if isinstance(x, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
      return x[line % len(x)]

    return jax.tree.map(own, self._variables)

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
