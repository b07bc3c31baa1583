import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses
from jaxkd.distill.term import term as make
from jaxkd.errors import UserError
from jaxkd.run import config, terms

LENGTHS = (4, 2, 0)  # of three sentences of five tokens
VALID = np.arange(5)[None] < np.array(LENGTHS)[:, None]

BY_POSITION = ['hint', 'cosine']
BY_EXAMPLE = [
  'attention_transfer',
  'neuron_selectivity',
  'activation_boundary',
  'factor_transfer',
  'channel_wise',
  'log_sum',
  'maximum_mean_discrepancy',
  'inter_channel_correlation',
  'pairwise_affinity',
]


def hidden(seed, width=3, lead=()):
  values = np.random.default_rng(seed).normal(size=(*lead, 3, 5, width))
  return jnp.asarray(values, jnp.float32)


@pytest.fixture
def sentences(context):
  """Hidden states [3, 5, 3] of a student and of one teacher."""
  return context._replace(
    batch={'id': np.arange(3), 'valid': VALID},
    student={
      'hidden': hidden(0),
      'embedding': hidden(2)[:, 0],
      'short': hidden(3)[:, :2],
      'counts': VALID & (np.arange(5)[None] != 1),
    },
    teachers={
      'main': {
        'hidden': hidden(1, lead=(1,)),
        'embedding': hidden(4)[None, :, 0],
        'short': hidden(5)[None, :, :2],
        'counts': (VALID & (np.arange(5)[None] != 2))[None],
      }
    },
  )


def term(loss, mask='valid', at='hidden', **options):
  if isinstance(loss, str):
    loss = getattr(losses, loss)
  return make(
    loss,
    teacher=('main',),
    at=(at, at),
    mask=mask,
    entry='distill.x',
    **options,
  )


def value(term, context, student=None):
  if student is not None:
    outputs = {**context.student, 'hidden': student}
    context = context._replace(student=outputs)
  params, state = jax.tree.map(
    lambda x: x, term.init(jax.random.key(0), context)
  )
  return term.loss(params, state, context)[0]


def cut_out(name, context):
  """The loss of each sentence without its padding, and its length."""
  loss = getattr(losses, name)
  student, (teacher,) = (
    context.student['hidden'],
    context.teachers['main']['hidden'],
  )
  each = [
    loss(student[i : i + 1, :n], teacher[i : i + 1, :n])[0]
    for i, n in enumerate(LENGTHS)
    if n
  ]
  return np.array(each), np.array([n for n in LENGTHS if n])


def with_padding(context, fill):
  """The context with something where nothing counts, on both sides."""
  student = jnp.where(VALID[..., None], context.student['hidden'], fill)
  main = context.teachers['main']
  teacher = jnp.where(VALID[None, ..., None], main['hidden'], fill)
  return context._replace(
    student={**context.student, 'hidden': student},
    teachers={'main': {**main, 'hidden': teacher}},
  )


@pytest.mark.parametrize('name', BY_POSITION + BY_EXAMPLE)
def test_padding_is_as_if_it_were_cut_out(sentences, name):
  each, lengths = cut_out(name, sentences)
  # Of a mean over tokens all count alike, of the whole batch.
  want = each.mean()
  if name in BY_POSITION:
    want = (each * lengths).sum() / lengths.sum()
  of = term(name)
  for fill in (0.0, 7.0, np.nan, -np.inf):
    padded = with_padding(sentences, fill)
    got, gradient = jax.value_and_grad(
      lambda student, padded=padded: value(of, padded, student).mean()
    )(padded.student['hidden'])
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert np.isfinite(gradient).all()
    assert not np.any(np.where(VALID[..., None], 0, gradient))
  per_example = value(of, sentences)
  assert per_example.shape == (3,)
  assert per_example[2] == 0


@pytest.mark.parametrize('name', ['kl', 'pearson_feature'])
def test_tokens_of_the_whole_batch_count_alike(sentences, name):
  """As those that count, one behind the other, without their sentences."""
  loss = getattr(losses, name)
  tokens = (
    sentences.student['hidden'][VALID],
    sentences.teachers['main']['hidden'][0][VALID],
  )
  got = value(term(name), with_padding(sentences, np.nan))
  np.testing.assert_allclose(got.mean(), loss(*tokens).mean(), rtol=1e-5)


def test_what_a_student_predicts_for_padding_is_no_likelihood(sentences):
  """VID, whose variance has no positions, behind its trained adapter."""
  of = term(
    'variational_information',
    adapter='variational',
    adapter_kw=dict(fixed=True),
  )
  params, state = of.init(jax.random.key(0), sentences)
  clean, dirty = (
    jax.grad(lambda p, c=c: of.loss(p, state, c)[0].mean())(params)
    for c in (with_padding(sentences, 0.0), with_padding(sentences, np.nan))
  )
  for one, other in zip(
    jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True
  ):
    np.testing.assert_array_equal(one, other)
  got = of.loss(params, state, sentences)[0]
  layers = params['adapter']
  x = sentences.student['hidden'][VALID]
  for name in ('first', 'second'):
    x = jax.nn.relu(x @ layers[name])
  raw = jnp.full((3,), np.log(np.expm1(5 - 1e-5)), jnp.float32)
  teacher = sentences.teachers['main']['hidden'][0][VALID]
  want = losses.variational_information(x @ layers['third'], raw, teacher)
  np.testing.assert_allclose(got.mean(), want.mean(), rtol=1e-5)


def test_similarities_of_examples_leave_out_their_padding(sentences):
  batch = {**sentences.batch, 'valid': np.arange(5)[None] < [[2], [2], [2]]}
  context = sentences._replace(batch=batch)
  got = value(term('similarity_preserving'), context)
  want = losses.similarity_preserving(
    context.student['hidden'][:, :2],
    context.teachers['main']['hidden'][0][:, :2],
  )
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_where_nothing_counts_the_loss_is_zero(sentences):
  batch = {**sentences.batch, 'valid': np.zeros((3, 5), bool)}
  context = with_padding(sentences._replace(batch=batch), np.nan)
  for name in ('hint', 'channel_wise'):
    np.testing.assert_array_equal(value(term(name), context), 0)


def test_a_mask_of_examples_leaves_some_out_of_relations(context):
  valid = np.array([True, True, False, True, True, False])
  batch = {**context.batch, 'valid': valid}
  student = {'logits': context.student['logits'].at[2].set(jnp.nan)}
  context = context._replace(batch=batch, student=student)
  got = value(term('rkd_distance', at='logits'), context)
  want = np.mean(
    [
      losses.rkd_distance(student['logits'][valid], logits[valid]).mean()
      for logits in context.teachers['main']['logits']
    ]
  )
  np.testing.assert_allclose(got.mean(), want, rtol=1e-5)
  assert not np.any(got[~valid])


def test_a_net_gives_its_own_mask(sentences):
  """Of the student, or of both sides: then where it counts for both."""
  student = sentences.student['hidden']
  teacher = sentences.teachers['main']['hidden'][0]
  each = jnp.square(student - teacher).mean(-1)
  mine = sentences.student['counts']
  both = mine & sentences.teachers['main']['counts'][0]
  for mask, counts in (
    ('counts', mine),
    (('counts', 'counts'), both),
    (('valid', 'counts'), sentences.teachers['main']['counts'][0]),
  ):
    got = value(term('hint', mask=mask), sentences).mean()
    np.testing.assert_allclose(got, each[counts].mean(), rtol=1e-5)


def test_everything_counts_where_it_is_said(sentences):
  got = value(term('hint', mask='all'), sentences)
  want = losses.hint(
    sentences.student['hidden'], sentences.teachers['main']['hidden'][0]
  )
  np.testing.assert_array_equal(got, want)


def pooled(student, teacher):
  return jnp.square(student - teacher).mean((1, 2))


def pooled_embedding(student, teacher):
  return jnp.square(student - teacher).mean(1)


@pytest.mark.parametrize(
  ('loss', 'options', 'message'),
  [
    ('kl', dict(mask=''), r"mask: it is empty, .* write 'valid' .* 'all'"),
    ('hint', dict(mask=''), r"mask: it is empty, .* write 'valid'"),
    ('hint', dict(mask='', at='short'), r'other positions, \[3, 2, 3\]'),
    ('hint', dict(at='short'), r"mask: 'valid' is \[3, 5\].* \[3, 2, 3\]"),
    (pooled, {}, r'mask: the loss pooled puts the positions .* `valid`'),
    (pooled_embedding, dict(at='embedding'), r'mask: .*leave it empty'),
    ('hint', dict(at='embedding'), r'mask: .*no such positions; leave it emp'),
    ('hint', dict(mask='vallid'), r"mask: .*'vallid'.*'valid'"),
    ('hint', dict(mask=('valid', 'count')), r"mask: .*'count'.*'counts'"),
    ('hint', dict(mask=('valid', 'short')), r"mask: 'valid' of the student"),
    ('hint', dict(mask=('valid',)), r'mask: .* should be one name, or two'),
    (
      'hint',
      dict(adapter='projector'),
      r"mask: adapter='projector' takes statistics",
    ),
    (
      'hint',
      dict(adapter='linear', teacher_adapter='standardize_features'),
      r"mask: teacher_adapter='standardize_features' takes statistics",
    ),
  ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused(sentences, loss, options, message):
  with pytest.raises(UserError, match=rf'^distill\.x.*{message}'):
    value(term(loss, **options), sentences)


def test_weights_are_no_mask_of_what_is_put_together(sentences):
  batch = {**sentences.batch, 'valid': VALID * 0.5}
  with pytest.raises(UserError, match=r'mask: .* is float.*make it a bool'):
    value(term('channel_wise'), sentences._replace(batch=batch))


def test_what_has_no_positions_needs_no_mask_of_them(sentences):
  got = value(term('hint', mask='', at='embedding'), sentences)
  assert got.shape == (3,)


def test_a_loss_may_look_at_the_mask_itself(sentences):
  def own(student, teacher, valid):
    return jnp.where(valid, jnp.square(student - teacher).sum(-1), 0).sum(1)

  assert value(term(own, mask=''), sentences).shape == (3,)


def entry(**distill):
  """The first of the terms of a config, of two groups of teachers."""
  complete = config.plain(
    config.complete({'teachers': {'main': {}, 'other': {}}, 'distill': distill})
  )
  built = terms.build(complete['distill'], ['student'], num_data=3)
  return built[next(iter(distill))]


@pytest.mark.parametrize(
  'given',
  [
    dict(term='critic', kw=dict(model='critic')),
    dict(
      term='memory',
      adapter='embed',
      teacher_adapter='embed',
      teacher_adapter_kw=dict(width=2),
    ),
  ],
)
def test_losses_without_a_place_for_a_mask_are_told_to_take_all(
  sentences, given
):
  given = dict(given, teacher='main', at=('hidden', 'hidden'))
  with pytest.raises(
    UserError, match=r"x\.mask: .* leave out nothing; .*'all'"
  ):
    entry(x=given).init(jax.random.key(0), sentences)
  with pytest.raises(UserError, match=r'x\.mask: .* does not support'):
    entry(x=dict(given, mask='valid'))
  if given['term'] == 'memory':
    allowed = entry(x=dict(given, mask='all'))
    assert allowed.init(jax.random.key(0), sentences)[0]


def test_a_router_learns_from_what_counts(sentences):
  """Its own loss is that of the labels that are some."""
  draw = np.random.default_rng(7)
  labels = draw.integers(0, 3, (3, 5)).astype(np.int32)
  term = entry(
    x=dict(
      loss='kl',
      teacher=('main', 'other'),
      fuse='mean_probabilities',
      fuse_weights='router',
      mask='valid',
    )
  )

  def gradient(fill):
    def logits(seed, lead=()):
      return jnp.where(VALID[..., None], hidden(seed, lead=lead), fill)

    context = sentences._replace(
      batch={
        **sentences.batch,
        'labels': np.where(VALID, labels, 0 if fill == 0 else -1),
      },
      student={'logits': logits(0)},
      teachers={
        'main': {'logits': logits(1, (1,))},
        'other': {'logits': logits(2, (1,))},
      },
    )
    params, state = term.init(jax.random.key(0), context)
    return jax.grad(lambda p: term.loss(p, state, context)[0].mean())(params)

  clean, dirty = gradient(0.0), gradient(np.nan)
  assert np.abs(clean['router']['kernel']).max() > 1e-3
  np.testing.assert_allclose(
    dirty['router']['kernel'], clean['router']['kernel'], rtol=1e-5
  )


def test_conditions_on_labels_do_not_take_everything(context):
  batch = {**context.batch, 'valid': np.arange(6) < 3}
  teachers = {'main': {'logits': context.teachers['main']['logits'][:1]}}
  context = context._replace(batch=batch, teachers=teachers)
  soft = dict(loss='kl', teacher='main', when='teacher_is_correct')
  labels = dict(loss='cross_entropy', mask='valid')
  for mask, message in (('all', r'x\.when: .* labels'), ('valid', None)):
    term = entry(x=dict(soft, mask=mask, otherwise='labels'), labels=labels)
    if message:
      with pytest.raises(UserError, match=message):
        value(term, context)
    else:
      assert not np.any(value(term, context)[3:])


def test_labels_of_some_examples_are_not_learnt_in_silence(context):
  batch = {**context.batch, 'valid': np.arange(6) < 3}
  context = context._replace(batch=batch)
  of = functools.partial(make, losses.cross_entropy, entry='distill.x')
  with pytest.raises(UserError, match=r"^distill\.x\.mask: .* write 'valid'"):
    value(of(), context)
  got = value(of(mask='valid'), context).mean()
  labelled = context.student['logits'][:3], context.batch['labels'][:3]
  want = losses.cross_entropy(*labelled).mean()
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_what_inputs_name_is_masked_too(sentences):
  """And is not learnt in silence where the batch says what counts."""

  def loss(one, other):
    return jnp.square(one - other).sum(-1)

  def of(mask, name='hidden'):
    inputs = dict(one=f'student.{name}', other=f'teacher.{name}')
    return make(loss, teacher='main', inputs=inputs, mask=mask, entry='x')

  with pytest.raises(UserError, match=r"^x\.mask: .* write 'valid'"):
    value(of(''), sentences)
  with pytest.raises(UserError, match=r'^x\.mask: .*other positions'):
    value(of('valid', 'short'), sentences)
  got = value(of('valid'), sentences)
  each = loss(
    sentences.student['hidden'], sentences.teachers['main']['hidden'][0]
  )
  want = np.where(VALID, each, 0).sum() / VALID.sum()
  np.testing.assert_allclose(got.mean(), want, rtol=1e-5)
