"""What does not change the loss of a language model, for every loss.

Four texts are one batch in several layouts: in a row each, with more padding,
packed into two rows, in parts (`accumulate`) and on several devices. Value and
gradient of every loss are those of the first layout to 1e-6. The lists of
losses are those that docs/losses.md publishes. Some are tried too with logits
as factors, and with the largest of a teacher, which come in the batch.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import distill, losses
from jaxkd.distill import accumulation, api
from jaxkd.errors import UserError
from jaxkd.logits import Factored, SparseLogits
from jaxkd.losses import _docs
from jaxkd.types import Context, Net

K, J, WIDTH = 7, 9, 5  # a vocabulary and another one, hidden units
random = np.random.default_rng(0)
# The labels of a text are its next tokens; the first so many are its prompt.
TEXTS = [random.integers(1, K, size) for size in (6, 4, 5, 3)]
PROMPTS = 2, 0, 1, 1
KINDS = _docs.REDUCTIONS


def laid_out(rows, length):
  """A batch with these texts in each row, filled up to a length."""
  shape = len(rows), length
  batch = {
    'inputs': {
      'tokens': np.full(shape, 3, np.int32),  # padding that means something
      'segments': np.zeros(shape, np.int32),
      'positions': np.zeros(shape, np.int32),
    },
    'labels': np.full(shape, 4, np.int32),
    'valid': np.zeros(shape, bool),
  }
  for row, texts in enumerate(rows):
    start = 0
    for number, text in enumerate(texts):
      tokens = TEXTS[text]
      size = len(tokens) - 1
      there = row, slice(start, start + size)
      batch['inputs']['tokens'][there] = tokens[:-1]
      batch['inputs']['segments'][there] = number + 1
      batch['inputs']['positions'][there] = np.arange(size)
      batch['labels'][there] = tokens[1:]
      batch['valid'][there] = np.arange(size) >= PROMPTS[text]
      start += size
  if all(len(texts) == 1 for texts in rows):  # inputs are the tokens alone
    batch['inputs'] = batch['inputs']['tokens']
  return batch


ALONE = laid_out([[0], [1], [2], [3]], 6)
PACKED = laid_out([[0, 1], [2, 3]], 8)
LAYOUTS = {  # batch, parts, devices
  'alone': (ALONE, 1, 1),
  'with more padding': (laid_out([[3], [0], [2], [1]], 9), 1, 1),
  'packed': (laid_out([[0, 1], [2, 3]], 8), 1, 1),
  'in parts': (ALONE, 2, 1),
  'on four devices': (ALONE, 1, 4),
}
# The losses that a layout allows, where that is not all.
GIVEN = {
  'packed': {kind: x for kind, x in KINDS.items() if 'rows' not in kind},
  'in parts': {kind: x for kind, x in KINDS.items() if 'batch' not in kind},
}


def causal(scale, width=WIDTH):
  """A net that looks at earlier tokens of a text, as a decoder does."""

  def init(key):
    keys = jax.random.split(key, 4)
    draw = lambda key, *shape: scale * jax.random.normal(key, shape)  # noqa: E731
    params = {
      'embed': draw(keys[0], K, width),
      'place': draw(keys[1], 9, width),
      'head': draw(keys[2], width, K),
      'other': draw(keys[3], width, J),
    }
    return {'params': params, 'state': {}}

  def apply(variables, inputs, *, key=None, train=False):
    params = variables['params']
    if not isinstance(inputs, dict):
      ones = jnp.ones_like(inputs)
      places = jnp.arange(inputs.shape[1])[None] * ones
      inputs = {'tokens': inputs, 'segments': ones, 'positions': places}
    segments = inputs['segments']
    x = params['embed'][inputs['tokens']]
    x += params['place'][inputs['positions']]
    seen = segments[:, :, None] == segments[:, None]
    seen &= np.tri(segments.shape[1], dtype=bool)[None]
    amounts = seen / jnp.maximum(seen.sum(-1, keepdims=True), 1)
    hidden = jnp.tanh(jnp.einsum('blm,bmd->bld', amounts, x) + x)
    outputs = {
      'hidden': hidden,
      'logits': hidden @ params['head'],
      'factors': Factored(hidden, params['head'].T, chunk=3),
      'other': hidden @ params['other'],
    }
    return outputs, {}

  return Net(init, apply)


KW = {
  'top_k_kl': dict(k=3, tail='bucket'),
  'cross_entropy': dict(label_smoothing=0.1),
  'variational_information': dict(adapter='variational'),
}


def term(name, mask='valid'):
  loss = getattr(losses, name)
  of_logits = loss.__module__ == losses.kl.__module__
  at = ('logits', 'logits') if of_logits else ('hidden', 'hidden')
  if name == 'universal_logit_distance':
    at = ('logits', 'other')
  taught = 'teacher' in inspect.signature(loss).parameters
  return distill.term(
    loss,
    teacher='main' if taught else '',
    at=at,
    mask=mask,
    entry=f'distill.{name}',
    **KW.get(name, {}),
  )


def held(loss, *, of='main', **at):
  """A term of logits that are not held as a whole array."""
  at = at.get('student', 'logits'), at.get('teacher', 'logits')
  teacher = '' if loss is losses.cross_entropy else of
  return distill.term(loss, teacher=teacher, at=at, mask='valid')


FACTORS = {'student': 'factors', 'teacher': 'factors'}
HELD = {
  'factors': held(losses.kl, **FACTORS),
  'factors and labels': held(losses.cross_entropy, **FACTORS),
  'largest': held(losses.kl, of='cached'),
  'factors and largest': held(losses.kl, of='cached', student='factors'),
}


def kept(parts):
  """An optimiser that moves nothing and keeps the gradient of each part."""

  def init(params):
    return {part: jax.tree.map(jnp.zeros_like, params) for part in parts}

  def update(gradients, state, params=None, *, parts):
    return jax.tree.map(jnp.zeros_like, gradients), dict(parts)

  return optax.GradientTransformationExtraArgs(init, update)


@functools.cache
def found(layout):
  """The value of each loss, and the gradient of each kind of losses' sum."""
  parts = GIVEN.get(layout, KINDS)
  names = [name for kind in parts.values() for name in kind]
  return stepped(layout, {name: term(name) for name in names}, parts)


@functools.cache
def found_held(layout):
  """The same for `HELD`, with the gradient of each."""
  return stepped(layout, HELD, {name: (name,) for name in HELD})


def stepped(layout, terms, parts):
  """The value of each term, and the gradient of each part of them."""
  batch, accumulate, devices = LAYOUTS[layout]
  example, teacher = batch['inputs'], causal(1.0)
  variables = teacher.init(jax.random.key(1))
  logits = teacher.apply(variables, example)[0]['logits']
  largest = SparseLogits.of(logits[:, None], 3)
  batch = {**batch, 'cached_outputs': {'cached': {'logits': largest}}}
  step = distill.step(
    distill.net(causal(0.5), example),
    {'main': distill.net((teacher, variables), example)},
    terms,
    kept(parts),
    parts=parts,
    accumulate=accumulate,
    example=batch,
    mesh=distill.mesh(1, len(batch['labels']), data=devices),
  )
  state, measured = step(step.init(seed=0), batch)
  values = {name: float(measured[f'loss/{name}']) for name in terms}
  return values, jax.tree.map(np.asarray, state['opt'])


@pytest.fixture(autouse=True)
def _no_trial(monkeypatch):
  """`accumulate` tries each term beforehand, which is tested elsewhere."""
  monkeypatch.setattr(api, 'check_adds_up', lambda *_: None)


EACH = pytest.mark.parametrize(
  'layout',
  [
    pytest.param(name, marks=[pytest.mark.all_devices] if 'dev' in name else [])
    for name in LAYOUTS
    if name != 'alone'
  ],
)


# Losses that take tokens and are none of these, and why.
OTHERS = {
  'standardize': 'gives logits',
  'reverse_gradient': 'gives what it is given',
  'wasserstein_critic': 'is of the term `critic`',
  'teacher_is_correct': 'gives truths',
  'flow_of_solution': 'takes no `valid`, so a mask is refused',
  'overhaul': 'takes a margin, whose adapter refuses a mask',
  'ctc': 'is between sequences of unequal lengths',
  'sampled_reverse_kl': 'is of tokens that the student draws',
}


def takes_tokens(function):
  """Whether a loss takes logits or features by token, and labels by token."""
  tokens = jax.ShapeDtypeStruct((4, 6, K), jnp.float32)
  of = {'labels': jax.ShapeDtypeStruct((4, 6), jnp.int32)}
  parameters = inspect.signature(function).parameters.values()
  names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
  try:
    found = jax.eval_shape(function, *(of.get(name, tokens) for name in names))
  except (TypeError, ValueError):
    return False
  return found.shape[:1] == (4,)  # and puts no teachers together


def test_every_loss_of_tokens_is_published():
  """The next one too: this fails until it is in one of the lists."""
  published = {name for names in KINDS.values() for name in names}
  for name in set(losses.__all__) - published - set(OTHERS):
    assert not takes_tokens(getattr(losses, name)), name


# Nats: T² = 400 times a small difference of large numbers.
ROUNDED = {'virtual_teacher': 1e-6}


@EACH
def test_losses_do_not_depend_on_the_layout(layout):
  alone, other = found('alone')[0], found(layout)[0]
  kinds = GIVEN.get(layout, KINDS)
  assert other.keys() == {name for names in kinds.values() for name in names}
  for name, value in other.items():
    near = pytest.approx(alone[name], rel=1e-6, abs=ROUNDED.get(name, 1e-12))
    assert value == near, name
    assert value, name


@EACH
def test_gradients_do_not_depend_on_the_layout(layout):
  alone, other = found('alone')[1], found(layout)[1]
  for kind, slopes in other.items():
    wanted, given = jax.tree.leaves(alone[kind]), jax.tree.leaves(slopes)
    largest = max(np.abs(x).max() for x in wanted)
    assert largest > 0
    for one, two in zip(wanted, given, strict=True):
      np.testing.assert_allclose(two, one, rtol=0, atol=1e-6 * largest)


@EACH
def test_logits_that_are_not_whole_arrays_do_not_either(layout):
  (alone, wanted), (values, given) = found_held('alone'), found_held(layout)
  assert values == pytest.approx(alone, rel=1e-6) and all(values.values())
  for name, slopes in given.items():
    one, two = jax.tree.leaves(wanted[name]), jax.tree.leaves(slopes)
    largest = max(np.abs(x).max() for x in one)
    assert largest > 0
    for x, y in zip(one, two, strict=True):
      np.testing.assert_allclose(y, x, rtol=0, atol=1e-6 * largest)


def drawn(batch):
  """A context of the batch, for terms that are asked without a step."""
  nets = [causal(scale) for scale in (0.5, 1.0)]
  outputs = [
    net.apply(net.init(jax.random.key(i)), batch['inputs'])[0]
    for i, net in enumerate(nets)
  ]
  return Context(
    batch=batch,
    student=outputs[0],
    teachers={'main': jax.tree.map(lambda x: x[None], outputs[1])},
    step=jnp.int32(0),
    key=jax.random.key(0),
    inputs=batch['inputs'],
  )


def traced(made, context):
  def loss(context):
    return made.loss(*made.init(jax.random.key(0), context), context)[0]

  return jax.eval_shape(loss, context)


@pytest.mark.parametrize(
  'name', [*KINDS['rows'], *KINDS['rows of a whole batch']]
)
def test_a_value_by_row_is_refused_where_rows_are_packed(name):
  assert traced(term(name), drawn(ALONE)).shape == (4,)
  with pytest.raises(UserError, match=rf'^distill\.{name}\.loss: .* packed'):
    traced(term(name), drawn(LAYOUTS['packed'][0]))


@pytest.mark.parametrize(
  'name',
  [name for kind, names in KINDS.items() if 'batch' in kind for name in names],
)
def test_what_compares_a_whole_batch_is_refused_in_parts(name):
  assert not accumulation.adds_up(term(name), drawn(ALONE))
