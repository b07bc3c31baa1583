"""What every public name of ``jaxkd.losses`` has to keep, the next one too."""

import functools
import inspect
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses
from jaxkd.losses import _docs

ROOT = pathlib.Path(__file__).parents[2]
NAMES = losses.__all__
EVERY = pytest.mark.parametrize('name', NAMES)

# Positional arguments, in the order in which they may come.
PREDICTIONS = (
  *('student', 'student_pair', 'student_maps', 'logits', 'mean', 'raw_scale'),
  *('anchor', 'x', 'real_scores', 'critic', 'scale', 'errors', 'generalist'),
)
TARGETS = (
  *('teacher', 'teacher_pair', 'teacher_maps', 'positive', 'negatives'),
  *('real', 'fake', 'fake_scores', 'bias', 'teachers', 'specialists'),
  *('subsets', 'labels', 'margin', 'mask', 'sampled_log_probs'),
)

# An example of the positional arguments, with a batch of 4.
B, K, D = 4, 3, 5
random = np.random.default_rng(0)


def draw(*shape):
  return jnp.asarray(random.normal(size=shape), jnp.float32)


LOGITS, OTHER, LABELS = draw(B, K), draw(B, K), jnp.array([0, 2, 1, 1])
MAP, MAP2 = draw(B, 4, 4, D), draw(B, 4, 4, D)
ROWS, ROWS2 = draw(B, D), draw(B, D)
BY_MODULE = {
  'responses': (LOGITS, OTHER),
  'features': (MAP, MAP2),
  'relations': (ROWS, ROWS2),
}
INPUTS = {
  'decoupled_kl': (LOGITS, OTHER, LABELS),
  'permuted_soft_cross_entropy': (jax.random.key(0), LOGITS, OTHER),
  'noisy_logit_mse': (jax.random.key(0), LOGITS, OTHER),
  'triplet_votes': (ROWS, (ROWS2, draw(B, 3))),
  'standardize': (LOGITS,),
  'weighted_soft_labels': (LOGITS, OTHER, LABELS),
  'virtual_teacher': (LOGITS, LABELS),
  'cross_entropy': (LOGITS, LABELS),
  'binary_cross_entropy': (LOGITS, (OTHER > 0).astype(jnp.int32)),
  'squared_error': (ROWS, ROWS2),
  'teacher_bounded': (ROWS, ROWS2, 2 * ROWS2),
  'flow_of_solution': ((MAP, MAP2), (MAP2, MAP)),
  'overhaul': (MAP, MAP2, -abs(draw(D))),
  'overhaul_margin': (abs(draw(D)), draw(D)),
  'hierarchical_context': ((MAP, MAP2), (MAP2, MAP)),
  'masked_imitation': (MAP, MAP2, abs(draw(B, 4, 4)) > 0.5),
  'maximum_mean_discrepancy': (ROWS, ROWS2),
  'inter_channel_correlation': (MAP, MAP2),
  'pairwise_affinity': (MAP, MAP2),
  'triplet': (ROWS, LABELS),
  'variational_information': (MAP, draw(D), MAP2),
  'info_nce': (ROWS, ROWS2),
  'contrastive': (ROWS, ROWS2, draw(B, 2, D)),
  'contrastive_normalizer': (ROWS, ROWS2, draw(B, 2, D)),
  'reverse_gradient': (ROWS,),
  'wasserstein_critic': (draw(B), draw(B)),
  'gradient_penalty': (
    jax.random.key(0),
    lambda x: jnp.sum(x**3, axis=1),
    ROWS,
    ROWS2,
  ),
  'ctc': (draw(B, 4, 6), jnp.array([[1, 4, 3]] * B)),
  'sampled_reverse_kl': (LOGITS, OTHER, LABELS, -abs(draw(B))),
  'teacher_is_correct': (LOGITS, LABELS),
  'teacher_confidence': (LOGITS,),
  'permute_dark_knowledge': (jax.random.key(0), LOGITS),
  'error_weights': (abs(draw(B)) / 4,),
  'confidence_weights': (draw(2, B, K), LABELS),
  'mean_probabilities': (draw(2, B, K),),
  'mean_logits': (draw(2, B, K),),
  'geometric_mean': (draw(2, B, K),),
  'majority_vote': (draw(2, B, K),),
  'fuse_specialists': (
    LOGITS,
    draw(2, B, 3),
    jnp.array([[True, True, False], [False, True, True]]),
  ),
}
OPTIONS = {
  'top_k_kl': dict(k=2),
  'contrastive': dict(normalizer=9.0, num_data=8),
  'contrastive_normalizer': dict(num_data=8),
  'error_weights': dict(gamma=1.0),
  'fuse_specialists': dict(steps=3),
}

# What is not one value, or one row, for each example.
NOT_PER_EXAMPLE = {
  'maximum_mean_discrepancy': (),
  'contrastive_normalizer': (),
  'overhaul_margin': (D,),
}
# Arguments that no gradient reaches, as their documentation says.
NO_GRADIENT = {
  ('pseudo_label', 'teacher'),
  ('activation_boundary', 'teacher'),
  ('teacher_bounded', 'teacher'),  # a bound, and no target
  ('teacher_is_correct', 'teacher'),
  ('sampled_reverse_kl', 'teacher'),
  ('sampled_reverse_kl', 'sampled_log_probs'),
  ('majority_vote', 'teachers'),
  ('triplet_votes', 'teachers'),
}
DTYPES = {'teacher_is_correct': jnp.bool_, 'majority_vote': jnp.int32}


def parameters(name):
  return list(inspect.signature(getattr(losses, name)).parameters.values())


def positional(name):
  return [p.name for p in parameters(name) if p.kind is not p.KEYWORD_ONLY]


def example(name):
  """The function of its positional arguments, and these."""
  function = getattr(losses, name)
  module = function.__module__.rpartition('.')[2]
  arrays = INPUTS[name] if name in INPUTS else BY_MODULE[module]
  assert len(arrays) == len(positional(name)), f'add {name} to INPUTS'
  return functools.partial(function, **OPTIONS.get(name, {})), list(arrays)


def is_floats(x):
  return all(
    hasattr(leaf, 'dtype') and jnp.issubdtype(leaf.dtype, jnp.floating)
    for leaf in jax.tree.leaves(x)
  )


def shape_of(function, arrays):
  """What a call gives, by tracing alone; what is no array is closed over."""
  at = [i for i, x in enumerate(arrays) if not callable(x)]

  def of_arrays(*given):
    full = list(arrays)
    for i, x in zip(at, given, strict=True):
      full[i] = x
    return function(*full)

  return jax.eval_shape(of_arrays, *(arrays[i] for i in at))


def test_the_names_are_all_there_and_public():
  assert len(set(NAMES)) == len(NAMES)
  for module in _docs.MODULES.values():
    own = {
      name
      for name, f in vars(module).items()
      if inspect.isfunction(f)
      and f.__module__ == module.__name__
      and not name.startswith('_')
    }
    assert own <= set(NAMES), own - set(NAMES)
  listed = {f.__module__ for f in (getattr(losses, n) for n in NAMES)}
  assert listed == {m.__name__ for m in _docs.MODULES.values()}


@EVERY
def test_arguments(name):
  """Predictions, then targets, a key before both; options by keyword."""
  given = positional(name)
  order = ('key', 'critic', *PREDICTIONS, *TARGETS)
  assert set(given) <= set(order), 'name it as the others do, or add it here'
  assert given == sorted(given, key=order.index)
  for p in parameters(name):
    assert p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    assert p.annotation is not p.empty
    if p.name in given:
      assert p.default is p.empty, f'{p.name} should be keyword-only'
  assert inspect.signature(getattr(losses, name)).return_annotation is jax.Array


@EVERY
def test_documentation(name):
  function = getattr(losses, name)
  parts = _docs.sections(function)
  assert tuple(parts) == ('', *_docs.SECTIONS)
  line, _, idea = parts[''].partition('\n\n')
  assert '\n' not in line
  assert line.endswith('.')
  assert idea, 'one line, then the idea'
  described = re.findall(r'^(\w+):', parts['Args'], re.MULTILINE)
  assert described == [p.name for p in parameters(name)]
  for p in parameters(name):
    about = re.search(
      rf'^{p.name}:(.*?)(?=^\w|\Z)', parts['Args'], re.MULTILINE | re.DOTALL
    ).group(1)
    if p.name in positional(name) and p.name not in ('key', 'errors', 'x'):
      assert re.search(r'\[|same shape|as wide', about), (
        f'the shape of {p.name}'
      )
  assert re.search(r'\[.*\]|shape', parts['Returns'])
  assert re.search(r'`[^`]+<https://[^>]+>`_,\s+\d{4}', parts['References'])
  assert parts['Example'].startswith('>>> ')
  assert name in parts['Example']
  assert parts['Variants'].startswith('- ')


def test_the_page_of_the_docs_is_that_of_the_docstrings():
  written = (ROOT / 'docs' / 'losses.md').read_text()
  assert written == _docs.page(), (
    'python -m jaxkd.losses._docs > docs/losses.md'
  )
  for name in NAMES:
    assert f'\n### {name}\n' in written


def test_the_check_of_the_page(tmp_path, capsys):
  page = tmp_path / 'losses.md'
  page.write_text(_docs.page())
  assert _docs.main(['--check', str(page)]) == 0
  page.write_text(_docs.page() + '\n')
  assert _docs.main(['--check', str(page)]) == 1
  assert 'is stale' in capsys.readouterr().err
  assert _docs.main([]) == 0
  assert capsys.readouterr().out == _docs.page()


@EVERY
def test_is_tested(name):
  here = pathlib.Path(__file__)
  tests = [p for p in here.parent.glob('test_*.py') if p != here]
  assert any(re.search(rf'\b{name}\b', p.read_text()) for p in tests)


@EVERY
def test_is_not_reduced(name):
  function, arrays = example(name)
  found = shape_of(function, arrays)
  if name in NOT_PER_EXAMPLE:
    assert found.shape == NOT_PER_EXAMPLE[name]
  else:
    assert found.shape[:1] == (B,)
  assert not found.weak_type  # or a step would be traced twice


@EVERY
def test_computes_in_float32_at_least(name, strict_dtypes):
  function, arrays = example(name)
  for dtype in jnp.bfloat16, jnp.float16, jnp.float32:
    low = jax.tree.map(
      lambda x, d=dtype: x.astype(d) if is_floats(x) else x, arrays
    )
    expected = dtype if name == 'reverse_gradient' else DTYPES.get(name)
    assert shape_of(function, low).dtype == (expected or jnp.float32)


@EVERY
def test_integers_are_an_error_that_names_the_argument(name):
  function, arrays = example(name)
  for i, argument in enumerate(positional(name)):
    if is_floats(arrays[i]) and not callable(arrays[i]):
      wrong = jax.tree.map(lambda x: x.astype(int), arrays[i])
      with pytest.raises(ValueError, match=rf'^{argument}\b.* float'):
        shape_of(function, [*arrays[:i], wrong, *arrays[i + 1 :]])


def reached(jaxpr, inputs):
  """Which variables of a jaxpr are computed from some of its inputs."""
  seen = set(inputs)
  for equation in jaxpr.eqns:
    if any(not hasattr(v, 'val') and v in seen for v in equation.invars):
      seen.update(equation.outvars)
  return [not hasattr(v, 'val') and v in seen for v in jaxpr.outvars]


@EVERY
def test_no_gradient_is_stopped(name):
  """By tracing: where it is, the slope is a constant 0."""
  function, arrays = example(name)
  at = [
    i
    for i, x in enumerate(arrays)
    if is_floats(x) and not callable(x) and positional(name)[i] != 'key'
  ]
  assert at

  def total(*floats):
    full = list(arrays)
    for i, x in zip(at, floats, strict=True):
      full[i] = x
    found = function(*full)
    return jnp.sum(jnp.sin(found.astype(jnp.float32)))  # no constant slope

  slope = jax.grad(total, argnums=tuple(range(len(at))))
  for i, place in enumerate(at):
    only = jax.make_jaxpr(lambda *x, i=i: jax.tree.leaves(slope(*x)[i]))(
      *(arrays[i] for i in at)
    )
    flows = all(reached(only.jaxpr, only.jaxpr.invars))
    argument = positional(name)[place]
    assert flows == ((name, argument) not in NO_GRADIENT), argument


# What takes where although it looks at each example alone: the negatives are
# given, or it is a relation inside an example.
ALONE = {'contrastive', 'inter_channel_correlation', 'pairwise_affinity'}


@pytest.mark.parametrize('name', sorted(set(NAMES) - set(NOT_PER_EXAMPLE)))
def test_an_example_is_on_its_own_or_the_loss_takes_where(name):
  """And where it is not on its own, there is a ``where`` to leave it out."""
  function, arrays = example(name)
  given = positional(name)

  def change(argument, x):
    if not is_floats(x) or argument in ('critic', 'raw_scale', 'margin'):
      return x
    axis = 1 if argument in ('teachers', 'specialists') else 0
    at = (slice(None),) * axis + (0,)
    return jax.tree.map(lambda leaf: leaf.at[at].multiply(-2), x)

  run = lambda arrays: function(*arrays)  # noqa: E731
  if name != 'gradient_penalty':
    run = jax.jit(run, compiler_options={'xla_backend_optimization_level': 0})
  before = run(arrays)
  after = run([change(*pair) for pair in zip(given, arrays, strict=True)])
  alone = np.allclose(before[1:], after[1:], rtol=1e-6, atol=1e-6)
  takes_where = any(p.name == 'where' for p in parameters(name))
  assert alone != takes_where or name in ALONE


def test_importing_the_losses_imports_nothing_else_of_the_project():
  heavy = 'flax', 'orbax', 'tensorflow_datasets', 'grain', 'matplotlib'
  code = (
    'import sys, jaxkd.losses; '
    'print(*sorted({m.partition(".")[0] for m in sys.modules}), '
    '*(m for m in sys.modules if m.startswith("jaxkd.")))'
  )
  found = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
    cwd=ROOT,
  ).stdout.split()
  assert 'jax' in found
  assert not set(heavy) & set(found)
  assert all(
    m.startswith(('jaxkd.losses', 'jaxkd.logits', 'jaxkd.errors'))
    for m in found
    if m.startswith('jaxkd.')
  )


# More ways to call some of them, for what looks at every one.
VARIANTS = {
  'jensen_shannon': [dict(beta=0.0), dict(beta=1.0)],
  'skewed_kl': [dict(alpha=0.0)],
  'skewed_reverse_kl': [dict(alpha=0.0)],
  'top_k_kl': [
    dict(k=3),
    dict(k=2, tail='renormalize'),
    dict(k=2, tail='uniform'),
    dict(k=2, tail='drop'),
  ],
  'virtual_teacher': [dict(variant='code')],
  'cross_entropy': [
    dict(label_smoothing=0.1),
    dict(label_smoothing=0.1, class_weights=(1.0, 0.5, 2.0)),
  ],
  'binary_cross_entropy': [
    dict(label_smoothing=0.1, positive_weights=(1.0, 0.5, 2.0)),
  ],
  'squared_error': [dict(scale=(1.0, 0.5, 2.0, 1.0, 1.0))],
  'attention_transfer': [dict(variant='paper'), dict(power=1)],
  'overhaul_margin': [dict(variant='code')],
  'factor_transfer': [dict(power=2, channel_power=1)],
  'maximum_mean_discrepancy': [dict(kernel='linear'), dict(kernel='rbf')],
  'correlation_congruence': [dict(variant='code', kernel='bilinear')],
  'pairwise_affinity': [dict(pool=('max', 2)), dict(pool=('average', 2))],
  'ctc': [dict(zero_infinity=True)],
  'triplet': [
    dict(negatives='semi_hard'),
    dict(negatives='distance_weighted'),
  ],
}
CALLS = [
  pytest.param(name, options, id=f'{name}{i or ""}')
  for name in NAMES
  for i, options in enumerate([OPTIONS.get(name, {}), *VARIANTS.get(name, [])])
]
# Where the formula has a finite value for an argument that is infinite.
FINITE_AT_INFINITY = {
  ('sampled_reverse_kl', 'sampled_log_probs'),
  ('binary_kl', 'teacher'),  # its sigmoid is 1 there
  ('activation_boundary', 'teacher'),  # its sign counts
  ('error_weights', 'errors'),  # an error rate counts as 1 at most
  ('overhaul_margin', 'bias'),  # of no negative values the limit is 0
}
quick = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)


def with_slopes(function, arrays):
  """``(arrays) -> value, slopes`` by all that are floats, compiled once.

  The slopes are those of the sum of sines, of which that of NaN is NaN; of
  -inf, which a class may be at, there is none.
  """
  at = [i for i, x in enumerate(arrays) if is_floats(x) and not callable(x)]

  def total(floats):
    full = list(arrays)
    for i, x in zip(at, floats, strict=True):
      full[i] = x
    value = function(*full)
    seen = jnp.where(jnp.isneginf(value), 0, value.astype(jnp.float32))
    return jnp.sum(jnp.sin(seen)), value

  compiled = quick(jax.value_and_grad(total, has_aux=True))

  def run(arrays):
    (_, value), slopes = compiled([arrays[i] for i in at])
    return np.asarray(value), dict(zip(at, slopes, strict=True))

  return run


@pytest.mark.parametrize(('name', 'options'), CALLS)
def test_what_is_no_number_gets_through(name, options):
  """NaN in an argument, or in one example of it, and infinity.

  Then what depends on it is not finite, and of what is NaN throughout, neither
  is the gradient with regard to the first argument.
  """
  _, arrays = example(name)
  function = functools.partial(getattr(losses, name), **options)
  run, given = with_slopes(function, arrays), positional(name)
  unknown = {'teacher_is_correct': False, 'majority_vote': -1}.get(name)

  def hidden(value):
    return np.isfinite(value) if unknown is None else value != unknown

  def changed(i, value, rows):
    axis = 1 if given[i] in ('teachers', 'specialists') else 0
    axis = 0 if isinstance(arrays[i], tuple) else axis
    at = (slice(None),) * axis + (rows,)
    leaves, structure = jax.tree.flatten(arrays[i])
    for j, leaf in enumerate(leaves):
      one = [*leaves[:j], leaf.at[at].set(value), *leaves[j + 1 :]]
      x = jax.tree.unflatten(structure, one)
      yield [*arrays[:i], x, *arrays[i + 1 :]]

  floats = [i for i, x in enumerate(arrays) if is_floats(x) and not callable(x)]
  for i in floats:
    argument = given[i]
    for all_nan in changed(i, jnp.nan, slice(None)):
      value, slopes = run(all_nan)
      assert not hidden(value).any(), argument
      # The slope of a maximum is that of the largest, and none is.
      pools = options.get('pool', '')[:1] == ('max',)
      if (name, given[floats[0]]) not in NO_GRADIENT and not pools:
        of_first = jax.tree.leaves(slopes[floats[0]])
        assert not all(np.isfinite(x).all() for x in of_first), argument
    values = [jnp.nan]
    if (name, argument) not in FINITE_AT_INFINITY:
      values.append(jnp.inf)
    for value in values:
      for one in changed(i, value, 0):
        found, _ = run(one)
        assert not hidden(found[:1] if found.ndim else found).all(), (
          argument,
          value,
        )


# Of the modules of logits: what has none, or draws as many numbers as classes.
NO_LOGITS = {'error_weights'}
DRAWN = {'permuted_soft_cross_entropy', 'permute_dark_knowledge'}
OF_LOGITS = [
  call
  for call in CALLS
  if getattr(losses, call.values[0]).__module__.endswith(
    ('responses', 'targets')
  )
  and call.values[0] not in NO_LOGITS | DRAWN | {'fuse_specialists'}
]
# What is put for a class that does not exist, of outputs by class.
ABSENT = {'mean_probabilities': 0, 'geometric_mean': 0}
COUPLED = {'dist', 'multi_level_logits', 'teacher_confidence'}


def with_absent(arrays, rows=slice(None), at=1):
  """Arguments with one more class, at -inf in some rows."""
  wide = []
  for x in arrays:
    if is_floats(x) and x.ndim > 1:
      x = jnp.insert(x, at, 0.5, axis=-1).at[..., rows, at].set(-jnp.inf)
    elif x.dtype == jnp.int32 and x.ndim > 1:  # a label of each class
      x = jnp.insert(x, at, 0, axis=-1)
    elif x.dtype == jnp.int32:  # labels
      x = jnp.where(x >= at, x + 1, x)
    wide.append(x)
  return wide


def at_temperature(function, *given, **options):
  return function(*given[:-1], temperature=given[-1], **options)


@pytest.mark.parametrize(('name', 'options'), OF_LOGITS)
def test_a_class_at_minus_infinity_does_not_exist(name, options):
  """Values and gradients, that of the temperature too, are as without it."""
  _, arrays = example(name)
  function = getattr(losses, name)
  if name == 'noisy_logit_mse':
    options = dict(share=0.0)
  if any(p.name == 'temperature' for p in parameters(name)):
    arrays.append(jnp.float32(2.0))
    function = functools.partial(at_temperature, function)
  wide = with_absent(arrays)
  function = functools.partial(function, **options)
  if options.get('k') == 3:  # all that exist
    expected, slopes = with_slopes(
      functools.partial(function, tail='renormalize'), arrays
    )(arrays)
  else:
    expected, slopes = with_slopes(function, arrays)(arrays)
  weights = {
    k: (*w[:1], 1.0, *w[1:]) for k, w in options.items() if 'weights' in k
  }
  run = with_slopes(functools.partial(function, **weights), wide)
  found, wide_slopes = run(wide)
  if found.shape == (B, K + 1):
    assert (found[:, 1] == ABSENT.get(name, -np.inf)).all()
    found = np.delete(found, 1, axis=-1)
  elif name == 'majority_vote':
    expected = np.where(expected >= 1, expected + 1, expected)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  for i, slope in wide_slopes.items():
    if slope.ndim:
      assert not np.asarray(slope[..., 1]).any()
      slope = np.delete(slope, 1, axis=-1)
    np.testing.assert_allclose(slope, slopes[i], rtol=1e-4, atol=1e-6)
  if found.ndim == 1 and name not in COUPLED and found.dtype == jnp.float32:
    mixed, mixed_slopes = run(with_absent(arrays, rows=0))
    np.testing.assert_allclose(mixed[0], expected[0], rtol=1e-5, atol=1e-6)
    for slope in mixed_slopes.values():
      assert np.isfinite(slope).all()


def test_what_no_class_is_left_of_is_nan():
  """And one side's -inf is a probability of 0."""
  nothing = jnp.full((1, 3), -jnp.inf)
  one, two = nothing.at[0, 1].set(1.0), jnp.array([[0.0, 1.0, -jnp.inf]])
  three, label = jnp.array([[0.0, 1.0, 2.0]]), jnp.array([1])
  for loss in (losses.kl, losses.logit_mse, losses.dist, losses.pseudo_label):
    assert np.isnan(loss(nothing, nothing)).all()
  assert np.isnan(losses.standardize(one)[0, 1])
  assert np.isnan(losses.dist(one, one)).all()
  assert np.isnan(losses.virtual_teacher(one, label)).all()
  assert np.isnan(losses.decoupled_kl(one, one, label)).all()
  gone = jnp.array([2])  # the label's class
  assert np.isnan(losses.decoupled_kl(two, two, gone)).all()
  assert np.isnan(losses.virtual_teacher(two, gone)).all()
  assert np.isposinf(losses.cross_entropy(two, gone)).all()
  assert np.isposinf(losses.kl(two, three)).all()
  assert np.isposinf(losses.reverse_kl(three, two)).all()
  p, q = jax.nn.softmax(two[:, :2]), jax.nn.softmax(three)[:, :2]
  expected = np.sum(p * np.log(p / q))
  np.testing.assert_allclose(losses.kl(three, two)[0], expected, rtol=1e-6)
  # A teacher that rules the label out is believed nothing.
  weights = losses.confidence_weights(jnp.stack([two, three]), gone)
  assert weights.tolist() == [[0.0, 1.0]]


def test_dark_knowledge_is_shuffled_among_the_classes_there_are():
  teacher = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1, 0.0, 0.0]))
  teacher = jnp.broadcast_to(teacher, (200, 6))
  key = jax.random.key(1)
  p = losses.permute_dark_knowledge(key, teacher)
  assert not p[:, 4:].any()
  np.testing.assert_allclose(p[:, 0], 0.4, rtol=1e-6)
  np.testing.assert_allclose(
    np.sort(p[:, 1:4]), [[0.1, 0.2, 0.3]] * 200, rtol=1e-5
  )
  assert len(np.unique(np.round(p, 3), axis=0)) == 6  # all orders of three
  student = jnp.zeros((200, 6)).at[:, 4:].set(-jnp.inf)
  run = with_slopes(losses.permuted_soft_cross_entropy, [key, student, teacher])
  value, slopes = run([key, student, teacher])
  np.testing.assert_allclose(value, np.log(4), rtol=1e-6)
  for slope in slopes.values():
    assert np.isfinite(slope).all()
    assert not slope[:, 4:].any()


def test_a_score_map_of_a_class_that_does_not_exist():
  maps = [MAP, MAP2]
  wide = [jnp.insert(x, 2, -jnp.inf, axis=-1) for x in maps]
  expected, slopes = with_slopes(losses.channel_wise, maps)(maps)
  found, wide_slopes = with_slopes(losses.channel_wise, wide)(wide)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  for i, slope in wide_slopes.items():
    assert not slope[..., 2].any()
    np.testing.assert_allclose(
      np.delete(slope, 2, axis=-1), slopes[i], rtol=1e-4, atol=1e-6
    )


def test_specialists_of_a_class_that_does_not_exist():
  generalist, specialists, subsets = INPUTS['fuse_specialists']
  wide = [
    jnp.insert(generalist, 1, -jnp.inf, axis=-1),
    jnp.insert(specialists, 1, -jnp.inf, axis=-1),
    jnp.insert(subsets, 1, True, axis=-1),
  ]
  # The second specialist's classes are 1 and 2: its new one comes first.
  wide[1] = wide[1].at[1].set(jnp.insert(specialists[1], 0, -jnp.inf, axis=-1))
  arrays = [generalist, specialists, subsets]
  fuse = functools.partial(losses.fuse_specialists, steps=3)
  expected, slopes = with_slopes(fuse, arrays)(arrays)
  found, wide_slopes = with_slopes(fuse, wide)(wide)
  assert np.isneginf(found[:, 1]).all()
  np.testing.assert_allclose(
    np.delete(found, 1, axis=-1), expected, rtol=1e-4, atol=1e-5
  )
  assert not wide_slopes[0][:, 1].any()
  np.testing.assert_allclose(
    np.delete(wide_slopes[0], 1, axis=-1), slopes[0], rtol=1e-3, atol=1e-5
  )
  assert np.isfinite(wide_slopes[1]).all()
