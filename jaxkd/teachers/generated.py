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
"""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxkd import lookup
from jaxkd.data.text import tokens
from jaxkd.errors import UserError, unknown, within
from jaxkd.keys import fold
from jaxkd.paths import by_path
from jaxkd.tasks import decoding
from jaxkd.teachers import hypotheses as hypotheses_lib

AT = 'data.generated'
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
  """Says what weighs the examples that a generator makes.

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
  return hasattr(find(name), 'weigh')


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


def find(name: str) -> Callable:
  """The generator of a name: a function of a teacher, a number and a key."""
  if ':' in name:
    return lookup.attribute(name, kind='generator', at=f'{AT}.name')
  known = generators()
  if name not in known:
    raise unknown('generator', name, known, f'{AT}.name')
  return known[name]


def takes_examples(function: Callable) -> bool:
  """Whether a generator takes training examples to make its own from."""
  return 'examples' in [*inspect.signature(function).parameters][3:4]
