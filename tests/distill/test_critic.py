"""A critic and a student in one step, against the two losses they are."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxkd import losses, models
from jaxkd.distill.roles import Role
from jaxkd.distill.step import learner
from jaxkd.distill.system import Recipe, System
from jaxkd.errors import UserError
from jaxkd.keys import fold
from jaxkd.run import config, terms
from jaxkd.train import optimizer as optimizers
from jaxkd.train.checkpoint import Checkpoints
from jaxkd.types import Context, Net

SMALL = dict(model='critic', kw=dict(widths=(4,), attention=1))
BLIND = dict(sees_inputs=False)


class Plain(nnx.Module):
  """Scores by two layers, of anything."""

  def __init__(self, *, input_shape, width: int = 16, rngs):
    self.first = nnx.Linear(int(np.prod(input_shape)), width, rngs=rngs)
    self.last = nnx.Linear(width, 1, rngs=rngs)

  def __call__(self, x):
    x = nnx.leaky_relu(self.first(x.reshape(len(x), -1)), 0.1)
    return {'score': self.last(x)[:, 0]}


class Nameless(Plain):
  def __call__(self, x):
    return super().__call__(x)['score']


class Pooled(Plain):
  def __call__(self, x):
    return {'score': super().__call__(x)['score'].mean()}


PLAIN = dict(model=f'{__name__}:Plain', **BLIND)


def hinge(real_scores, fake_scores, *, margin=1.0):
  return jax.nn.relu(margin - real_scores) + jax.nn.relu(margin + fake_scores)


def reduced(real_scores, fake_scores):
  return (fake_scores - real_scores).mean()


def complete(critic, train=None, **entry):
  entry = dict(term='critic', teacher='main', kw=critic) | entry
  return config.plain(
    config.complete(
      dict(
        teachers=dict(main={}),
        students=dict(student={}),
        distill=dict(game=entry),
        train=train or {},
      )
    )
  )


def term_of(critic, **entry):
  distill = complete(critic, **entry)['distill']
  return terms.build(distill, ['student'])['game']


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def given(teachers=1, student=(6, 6, 3), teacher=(6, 6, 3), image=(12, 12, 1)):
  """Maps of a batch of three, and the image that the student sees."""
  return Context(
    batch={'id': jnp.arange(3)},
    student={'logits': normal(0, 3, *student)},
    teachers={'main': {'logits': 1 + normal(1, teachers, 3, *teacher)}},
    step=jnp.zeros((), jnp.int32),
    key=jax.random.key(2),
    inputs=normal(3, 3, *image),
  )


def start(term, context):
  return term.init(jax.random.key(4), jax.eval_shape(lambda: context))


@pytest.mark.parametrize('sees', [True, False])
def test_each_player_has_the_gradient_of_its_own_loss(sees):
  context = given()
  term = term_of(dict(SMALL, penalty=3.0, sees_inputs=sees))
  params, state = start(term, context)
  params['attentions']['0']['gamma'] = jnp.float32(0.5)
  fake = context.student['logits']
  real = context.teachers['main']['logits'][0]
  shape = {'maps': (6, 6, 3), 'image': (12, 12, 1)} if sees else (6, 6, 3)
  net = models.build('critic', num_classes=1, input_shape=shape, **SMALL['kw'])

  def scores(params, maps):
    x = {'maps': maps, 'image': context.inputs} if sees else maps
    found, after = net.apply({'params': params, 'state': state}, x, train=True)
    return found['score'], after

  def of_critic(params):
    own = losses.wasserstein_critic(
      scores(params, real)[0], scores(params, fake)[0]
    )
    slope = losses.gradient_penalty(
      fold(context.key, 'penalty'), lambda x: scores(params, x)[0], real, fake
    )
    return (own + 3.0 * slope).mean()

  def of_student(fake):
    return -scores(params, fake)[0].mean()

  def ours(params, fake):
    changed = context._replace(student={'logits': fake})
    value, after = term.loss(params, state, changed)
    return value.mean(), (value, after)

  (got, (value, after)) = jax.jit(jax.grad(ours, (0, 1), has_aux=True))(
    params, fake
  )
  want = (
    jax.jit(jax.grad(of_critic))(params),
    jax.jit(jax.grad(of_student))(fake),
  )
  chex.assert_trees_all_close(got, want, rtol=1e-3, atol=1e-6)
  assert all(np.abs(x).max() > 1e-5 for x in jax.tree.leaves(got[1]))
  moved = [np.abs(x).max() > 1e-5 for x in jax.tree.leaves(got[0])]
  assert sum(moved) > 9  # constants in a softmax, say, have none
  (of_real, want), (of_fake, _) = scores(params, real), scores(params, fake)
  np.testing.assert_allclose(value, of_real - of_fake, rtol=1e-4, atol=1e-5)
  chex.assert_trees_all_close(after, want, rtol=1e-5)


def test_of_several_teachers_it_is_the_mean():
  """With a loss of one's own, which need not be linear in the scores."""
  own = dict(PLAIN, loss=f'{__name__}:hinge', margin=0.3)
  term = term_of(dict(own, penalty=0.0))
  both = given(teachers=2)
  params, state = start(term, both)

  @jax.jit
  @jax.value_and_grad
  def of(params, real):
    context = both._replace(teachers={'main': {'logits': real}})
    return term.loss(params, state, context)[0].mean()

  real = both.teachers['main']['logits']
  each = [of(params, real[i : i + 1]) for i in range(2)]
  mean = jax.tree.map(lambda a, b: (a + b) / 2, *each)
  chex.assert_trees_all_close(of(params, real), mean, rtol=1e-4, atol=1e-6)
  kernel = [g['first']['kernel'] for _, g in each]
  assert np.abs(kernel[0] - kernel[1]).max() > 1e-3


def test_each_pair_of_several_teachers_is_penalised():
  """Teachers that are alike differ by where on the line it looks."""
  own = dict(PLAIN, loss=f'{__name__}:hinge')
  term, free = (term_of(dict(own, penalty=by)) for by in (5.0, 0.0))
  context = given(teachers=2)
  params, state = start(term, context)

  def slopes(term):
    return jax.grad(lambda p: term.loss(p, state, context)[0].mean())(params)

  def want(params):
    net = models.build(PLAIN['model'], num_classes=1, input_shape=(6, 6, 3))
    real = context.teachers['main']['logits'].reshape(6, 6, 6, 3)
    fake = jnp.concatenate([context.student['logits']] * 2)
    score = lambda x: net.apply({'params': params, 'state': {}}, x)[0]['score']  # noqa: E731
    key = fold(context.key, 'penalty')
    return 5 * losses.gradient_penalty(key, score, real, fake).mean()

  got = jax.tree.map(jnp.subtract, slopes(term), slopes(free))
  chex.assert_trees_all_close(got, jax.grad(want)(params), rtol=1e-3, atol=1e-5)


def map_net():
  """Logits of a linear map of each pixel, [B, 4, 4, 3]."""

  def init(key):
    kernel = jax.random.normal(key, (2, 3))
    return {
      'params': {'kernel': kernel, 'bias': jnp.zeros((3,))},
      'state': {},
    }

  def apply(variables, inputs, *, key=None, train=False):
    params = variables['params']
    maps = inputs @ params['kernel']
    return {'logits': maps + jnp.broadcast_to(params['bias'], maps.shape)}, {}

  return Net(init, apply)


def batch_of(size=32):
  return {
    'inputs': np.random.default_rng(0)
    .normal(size=(size, 4, 4, 2))
    .astype(np.float32),
    'id': np.arange(size, dtype=np.int32),
    'epoch': np.zeros(size, np.int32),
  }


def game(critic, train, batch, role=None, **entry):
  """A student that is to be taken for a teacher of other biases."""
  made = complete(critic, dict(schedule='constant', **train), **entry)
  learned = learner(
    System(
      {'student': role or Role(map_net())},
      {'main': Role(map_net())},
      lambda hyper: Recipe(
        terms.build(made['distill'], ['student']),
        optimizers.optimizer(made['train']),
      ),
      jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch),
    )
  )
  one = map_net().init(jax.random.key(9))
  one['params']['bias'] = jnp.array([2.0, -1.0, 0.5])
  frozen = {'main': jax.tree.map(lambda x: x[None], one)}
  return learned, frozen


ADAM = dict(name='adam', kw=dict(b1=0.0, b2=0.9))


def test_the_critic_tells_them_apart_and_the_student_is_taken_for_the_teacher():
  batch = batch_of()

  def trained(student, steps):
    paths = {'terms/game': dict(learning_rate=0.01)}
    learned, frozen = game(
      PLAIN,
      dict(optimizer=ADAM, learning_rate=student, by_path=paths),
      batch,
    )

    @jax.jit
    def run(carry):
      take = lambda carry, _: learned.step(carry, batch, frozen, {})  # noqa: E731
      return jax.lax.scan(take, carry, None, length=steps)

    first = learned.init(jnp.uint32(0), {}, frozen)
    last, measured = run(first)
    apart = measured['loss/game'][0]
    teacher = jax.tree.map(lambda x: x[0], frozen['main'])
    means, spreads = [], []
    for params in (first['train']['nets'], last['train']['nets']):
      net = {'params': params['student'], 'state': {}}
      maps = [map_net().apply(v, batch['inputs'])[0] for v in (net, teacher)]
      mine, theirs = (np.asarray(m['logits']).reshape(-1, 3) for m in maps)
      means.append(np.linalg.norm(mine.mean(0) - theirs.mean(0)))
      spreads.append(np.linalg.norm(np.cov(mine.T) - np.cov(theirs.T)))
    return np.asarray(apart), means, spreads

  still, _, _ = trained(1e-9, 60)
  assert abs(still[0]) < 2 < 10 < still[-1]
  apart, means, spreads = trained(0.02, 300)
  assert means[1] < 0.25 * means[0]
  assert spreads[1] < 0.5 * spreads[0]
  assert np.abs(apart[-20:]).max() < 0.2 * apart.max()


SGD = dict(optimizer=dict(name='sgd'), learning_rate=0.1)


def moved(before, after):
  return jax.tree.map(lambda a, b: b - a, before['train'], after['train'])


def test_the_critic_has_an_optimiser_and_a_weight_of_its_own():
  batch = batch_of(4)
  updates = {}
  for name, paths, weight in (
    ('one', {}, 1.0),
    ('own', {'terms/game': dict(learning_rate=0.3)}, 1.0),
    ('half', {}, 0.5),
  ):
    learned, frozen = game(
      PLAIN, dict(SGD, by_path=paths), batch, weight=weight
    )
    carry = learned.init(jnp.uint32(0), {}, frozen)
    updates[name] = moved(carry, learned.step(carry, batch, frozen, {})[0])
  one = updates['one']
  close = lambda a, b: chex.assert_trees_all_close(a, b, rtol=1e-3, atol=1e-6)  # noqa: E731
  close(updates['own']['nets'], one['nets'])
  times = lambda tree, by: jax.tree.map(lambda x: by * x, tree)  # noqa: E731
  close(updates['own']['terms'], times(one['terms'], 3))
  close(updates['half'], times(one, 0.5))
  assert all(np.abs(x).max() > 1e-4 for x in jax.tree.leaves(one['nets']))


def test_members_side_by_side_and_what_is_saved(tmp_path):
  """As one by one; and two optimisers' state comes back from disk."""
  batch = batch_of(4)
  train = dict(
    SGD, by_path={'terms/game': dict(optimizer=ADAM, learning_rate=1e-3)}
  )
  learned, frozen = game(SMALL, train, batch)

  def two(seed):
    carry = learned.init(seed, {}, frozen)
    for _ in range(2):
      carry, measured = learned.step(carry, batch, frozen, {})
    return carry, measured

  seeds = jnp.arange(2, dtype=jnp.uint32)
  both = jax.jit(jax.vmap(two))(seeds)
  alone = jax.jit(two)
  for i in range(2):
    mine = jax.tree.map(lambda x, i=i: x[i], both)
    chex.assert_trees_all_close(mine, alone(seeds[i]), rtol=1e-3, atol=1e-5)
  carry, _ = both
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(2, carry, {})
  with Checkpoints(tmp_path) as checkpoints:
    restored = checkpoints.restore(carry)
  chex.assert_trees_all_equal(restored[1], carry)


@pytest.mark.parametrize(
  ('critic', 'entry', 'message'),
  [
    ({}, {}, r'^distill\.game\.kw\.model: name the net that gives the scores'),
    (
      SMALL,
      dict(loss='kl'),
      r"^distill\.game\.term: .* distill\.game\.loss='kl'",
    ),
    (SMALL, dict(teacher=''), r'^distill\.game\.teacher: .*name a group'),
    (
      SMALL,
      dict(fuse_weights='confidence'),
      r'^distill\.game\.fuse_weights: the term critic does not',
    ),
    (
      SMALL,
      dict(inputs=dict(labels='batch.labels')),
      r'^distill\.game\.inputs: the term critic does not',
    ),
    (SMALL, dict(mask='valid'), r'^distill\.game\.mask: the term critic does'),
    (
      SMALL,
      dict(adapter='linear'),
      r'^distill\.game\.adapter: the term critic',
    ),
    (
      SMALL,
      dict(adversary=dict(option='margin')),
      r"^distill\.game\.adversary: write term='adversary'",
    ),
    (dict(SMALL, margin=1.0), {}, r"^distill\.game\.kw: .*'margin'"),
    (dict(model='critc'), {}, r"^distill\.game\.kw\.model: .*mean 'critic'"),
    (dict(SMALL, penalty=-1.0), {}, r'^distill\.game\.kw\.penalty: -1'),
  ],
)
def test_what_goes_with_no_critic(critic, entry, message):
  with pytest.raises(UserError, match=message):
    term_of(critic, **entry)


@pytest.mark.parametrize(
  ('critic', 'context', 'message'),
  [
    (
      SMALL,
      dict(image=(144,)),
      r'^distill\.game\.kw\.model: a critic takes maps .* an image of',
    ),
    (
      dict(SMALL, **BLIND),
      dict(student=(3,), teacher=(3,)),
      r'^distill\.game\.kw\.model: a critic takes maps .* scores of',
    ),
    (SMALL, dict(teacher=(3, 3, 3)), r'^distill\.game\.at: .*\(3, 3, 3\)'),
    (
      dict(SMALL, kw=dict(widht=(4,))),
      {},
      r"^distill\.game\.kw\.model: .*option .*'widht'.*'widths'",
    ),
    (
      dict(model=f'{__name__}:Nameless', **BLIND),
      {},
      r"^distill\.game\.kw\.model: there is no output 'score'",
    ),
    (
      dict(model=f'{__name__}:Pooled', **BLIND),
      {},
      r'^distill\.game\.kw\.model: .*one for each example',
    ),
  ],
)
def test_what_a_critic_cannot_play_with(critic, context, message):
  term, context = term_of(critic), given(**context)
  with pytest.raises(UserError, match=message):
    term.loss(*start(term, context), context)


def test_a_loss_has_a_value_for_each_pair_of_scores():
  term = term_of(dict(PLAIN, loss=f'{__name__}:reduced'))
  params, state = start(term, given())
  with pytest.raises(
    UserError, match=r'^distill\.game\.kw\.loss: .*reduced gives'
  ):
    term.loss(params, state, given())


def test_a_fused_teacher_and_a_condition_are_of_any_term():
  """The critic compares with the mean, for the examples that are chosen."""
  both = given(teachers=2, student=(3,), teacher=(3,))
  both = both._replace(batch={'labels': jnp.arange(3)})
  distill = config.complete(
    dict(
      teachers=dict(main={}),
      distill=dict(
        game=dict(
          term='critic', teacher='main', kw=PLAIN, fuse='mean_logits',
          when='teacher_is_correct', otherwise='labels',
        ),
        labels=dict(loss='cross_entropy', weight=0.0),
      ),
    )
  )['distill']  # fmt: skip
  term = terms.build(config.plain(distill), ['student'])['game']
  mean = both.teachers['main']['logits'].mean(0)
  params, state = start(term, both)
  alone = term_of(PLAIN)
  one = both._replace(teachers={'main': {'logits': mean[None]}})
  game, _ = alone.loss(params['then'], state['then'], one)
  labels = losses.cross_entropy(both.student['logits'], jnp.arange(3))
  right = np.asarray(mean).argmax(-1) == np.arange(3)
  got, _ = term.loss(params, state, both)
  np.testing.assert_allclose(got, np.where(right, game, labels), rtol=1e-4)
