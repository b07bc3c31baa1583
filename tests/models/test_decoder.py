"""Decoders: causal, packed, cached, and the options of the families."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import models
from jaxkd.data.text.tokens import shifted
from jaxkd.errors import UserError
from jaxkd.logits import Factored
from jaxkd.models import decoder
from jaxkd.paths import by_path
from jaxkd.students import inherit
from jaxkd.tasks import decoding
from jaxkd.types import Idle

KEY = jax.random.key(0)
VOCABULARY, LENGTH = 11, 7
SHAPE = jax.ShapeDtypeStruct((LENGTH,), jnp.int32)
PACKED = dict.fromkeys(('tokens', 'segments', 'positions'), SHAPE)
SMALL = {'width': 8, 'depth': 2, 'heads': 4, 'mlp_width': 12, 'init': 0.5}
# What Gemma 3 has besides, in blocks of which the last sees all tokens.
WINDOWS = {
  **{**SMALL, 'kv_heads': 2, 'head_width': 6, 'qk_norm': True},
  **{'activation': 'gelu', 'post_norm': True, 'zero_centered': True},
  **{'scaled_embedding': True, 'window': 2, 'window_period': 2},
  **{'window_theta': 10.0, 'query_scalar': 5},
}
# Every feature of the other families, in one net.
ALL = {
  **SMALL,
  **{'kv_heads': 2, 'head_width': 6, 'qkv_bias': True, 'qk_norm': True},
}
ROWS = np.array([[4, 5, 6, 7, 8, 9, 10], [5, 4, 10, 9, 8, 8, 3]], np.int32)


def build(kw=ALL, shape=SHAPE, **options):
  return models.build(
    'decoder', num_classes=VOCABULARY, input_shape=shape, **kw, **options
  )


def compiled(net):
  return jax.jit(
    lambda v, x: net.apply(v, x)[0],
    compiler_options={'xla_backend_optimization_level': 0},  # compiles faster
  )


def own_state(outputs):
  """The state among outputs, for the next step."""
  return {
    name.removeprefix('state/'): x
    for name, x in outputs.items()
    if name.startswith('state/')
  }


@pytest.fixture(scope='module')
def made():
  """A net, its variables, its forward pass, and what that gives."""
  return varied(build(length=3))


@pytest.fixture(scope='module')
def windowed():
  """The same with windows."""
  return varied(build(WINDOWS, length=3))


def varied(net):
  variables = jax.jit(net.init)(KEY)
  # Biases and scales begin at 0 and 1, where many an error would be hidden.
  leaves, structure = jax.tree.flatten(variables)
  draws = np.random.default_rng(0)
  leaves = [x + 0.3 * draws.normal(size=x.shape) for x in leaves]
  variables = jax.tree.unflatten(structure, [np.float32(x) for x in leaves])
  apply = compiled(net)
  return net, variables, apply, apply(variables, ROWS)


def reference(params, tokens, *, theta=1e4, eps=1e-6):
  """The same in NumPy, a row and a head at a time."""
  params = jax.tree.map(np.float64, params)

  def normal(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * scale

  def turned(x):  # [L, d], as complex numbers
    half = x.shape[-1] // 2
    rate = theta ** -(np.arange(half) / half)
    z = x[:, :half] + 1j * x[:, half:]
    z = z * np.exp(1j * np.arange(len(x))[:, None] * rate)
    return np.concatenate([z.real, z.imag], -1)

  found = []
  for row in tokens:
    x = params['embed']['embedding'][row]
    for block in params['blocks'].values():
      own, y = block['attention'], normal(x, block['norm1']['scale'])
      width, outputs = len(own['query_norm']['scale']), []
      projected = {
        name: y @ own[name]['kernel'] + own[name]['bias']
        for name in ('query', 'key', 'value')
      }
      for head in range(SMALL['heads']):
        at = head * width
        shared = head // 2 * width  # two heads of queries have one of keys
        q = projected['query'][:, at : at + width]
        k, v = (
          projected[n][:, shared : shared + width] for n in ('key', 'value')
        )
        q = turned(normal(q, own['query_norm']['scale']))
        k = turned(normal(k, own['key_norm']['scale']))
        scores = np.exp(q @ k.T / np.sqrt(width)) * np.tri(len(row))
        outputs.append(scores / scores.sum(-1, keepdims=True) @ v)
      x = x + np.concatenate(outputs, -1) @ own['output']['kernel']
      y, mlp = normal(x, block['norm2']['scale']), block['mlp']
      gate = y @ mlp['gate']['kernel']
      gated = gate / (1 + np.exp(-gate)) * (y @ mlp['up']['kernel'])
      x = x + gated @ mlp['down']['kernel']
    found.append(normal(x, params['norm']['scale']))
  hidden = np.stack(found)
  return hidden @ params['embed']['embedding'].T, hidden


def test_is_what_it_is_in_numpy(made):
  net, variables, _, outputs = made
  logits, hidden = reference(variables['params'], ROWS)
  np.testing.assert_allclose(outputs['logits'], logits, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(outputs['hidden'], hidden, rtol=1e-4, atol=1e-4)
  assert net.idle() == Idle()


def test_does_not_see_what_follows(made):
  _, variables, apply, outputs = made
  other = ROWS.copy()
  other[:, 4:] = 1
  found = apply(variables, other)['logits']
  np.testing.assert_array_equal(found[:, :4], outputs['logits'][:, :4])
  assert (found[:, 4:] != outputs['logits'][:, 4:]).any()


@pytest.mark.parametrize(('kind', 'kw'), [('made', ALL), ('windowed', WINDOWS)])
def test_packed_segments_are_rows_of_their_own(kind, kw, request):
  _, variables, _, outputs = request.getfixturevalue(kind)
  packed = {
    'tokens': [
      [*ROWS[0, :3], *ROWS[1, :3], 0],
      [0, *ROWS[0, :2], *ROWS[1, :4]],
    ],
    'segments': [[1, 1, 1, 2, 2, 2, 0], [0, 1, 1, 2, 2, 2, 2]],
    'positions': [[0, 1, 2, 0, 1, 2, 0], [0, 0, 1, 0, 1, 2, 3]],
  }
  packed = {name: np.array(x, np.int32) for name, x in packed.items()}
  found = compiled(build(kw, shape=PACKED))(variables, packed)['logits']
  one, two = outputs['logits']
  wanted = [[one[:3], two[:3]], [one[:2], two[:4]]]
  for row, begin, parts in zip(found, (0, 1), wanted, strict=True):
    parts = np.concatenate(parts)
    np.testing.assert_allclose(
      row[begin : begin + len(parts)], parts, rtol=1e-5, atol=1e-5
    )
  assert np.isfinite(found).all()  # padding too


@pytest.mark.parametrize(
  ('kind', 'padding'), [('made', 0), ('made', 2), ('windowed', 2)]
)
def test_continues_sources_as_it_reads_whole_rows(kind, padding, request):
  """Sources of 2 and 3 tokens, with a cache and without."""
  _, variables, apply, outputs = request.getfixturevalue(kind)
  sources, more = np.zeros((2, 3 + padding), np.int32), []
  for row, number in enumerate((2, 3)):
    sources[row, :number] = ROWS[row, :number]
    more.append(ROWS[row, number : number + 3])
  wanted = [
    outputs['logits'][row, n - 1 : n + 3] for row, n in ((0, 2), (1, 3))
  ]
  prefix = np.concatenate([np.full((2, 1), 2), more], axis=1).astype(np.int32)
  found = apply(variables, {'source': sources, 'prefix': prefix})['logits']
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
  state = own_state(apply(variables, {'source': sources}))
  for i in range(4):
    given = apply(variables, {'state': state, 'token': prefix[:, i]})
    np.testing.assert_allclose(
      given['logits'], np.stack(wanted)[:, i], rtol=1e-5, atol=1e-5
    )
    state = own_state(given)


def test_a_window_ends_what_a_token_sees(windowed):
  """Of one block alone; the last one sees the whole text."""
  _, variables, _, outputs = windowed
  other = ROWS.copy()
  other[:, 0] = 1
  params = variables['params']
  local = {**params, 'blocks': {'0': params['blocks']['0']}}
  own = {**variables, 'params': local}
  apply = compiled(build({**WINDOWS, 'depth': 1}))
  one, two = (apply(own, x)['logits'] for x in (ROWS, other))
  assert (one[:, 1] != two[:, 1]).any()
  np.testing.assert_array_equal(one[:, 2:], two[:, 2:])
  all_of_it = compiled(build(WINDOWS))(variables, other)['logits']
  assert (all_of_it[:, -1] != outputs['logits'][:, -1]).any()


def test_an_empty_source_begins_with_bos(made):
  _, variables, apply, _ = made
  written = np.array([[5, 6, 3]], np.int32)
  given = {'source': np.zeros((1, 2), np.int32), 'prefix': shifted(written)}
  found = apply(variables, given)['logits']
  row = np.array([[2, 5, 6, 0, 0, 0, 0]], np.int32)
  wanted = apply(variables, row)['logits'][:, :3]
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_what_it_writes_has_the_likelihood_that_it_says(made):
  net, variables, *_ = made
  apply = lambda x: net.apply(variables, x)[0]  # noqa: E731

  @jax.jit
  def run(source):
    tokens, _ = decoding.greedy(apply, source, 3)
    return tokens, decoding.log_likelihood(apply, source, tokens)

  source = np.array([[4, 5, 6], [5, 0, 0]], np.int32)
  tokens, found = run(source)
  for row, (prompt, number) in enumerate(((source[0], 3), (source[1], 1))):
    text = [*prompt[:number], *tokens[row]]
    logits, _ = reference(variables['params'], np.array([text]))
    logs = logits[0] - np.log(np.exp(logits[0]).sum(-1, keepdims=True))
    wanted = sum(
      logs[number - 1 + i, token]
      for i, token in enumerate(tokens[row])
      if token
    )
    np.testing.assert_allclose(found[row], wanted, rtol=1e-4)


def test_beyond_its_room_logits_are_nan(made):
  _, variables, apply, _ = made
  state, finite = own_state(apply(variables, {'source': ROWS[:, :2]})), []
  for _ in range(5):
    given = apply(variables, {'state': state, 'token': ROWS[:, 3]})
    state = own_state(given)
    finite.append(bool(np.isfinite(given['logits']).all()))
  assert finite == [True] * 4 + [False]


def test_its_room_ends_with_the_context(made):
  _, variables, *_ = made
  net = build(length=9, context=LENGTH)
  given = compiled(net)(variables, {'source': ROWS[:, :2]})
  assert given['state/keys/0'].shape[1] == LENGTH


def test_the_cache_is_in_the_type_that_it_computes_in(made):
  _, variables, _, outputs = made
  apply = compiled(build(dtype='bfloat16'))
  state = own_state(apply(variables, {'source': ROWS[:, :2]}))
  assert {x.dtype.name for x in state.values()} == {'int32', 'bfloat16'}
  given = apply(variables, {'state': state, 'token': ROWS[:, 1]})
  assert given['logits'].dtype == jnp.float32
  assert own_state(given)['keys/1'].dtype == jnp.bfloat16
  spread = np.abs(outputs['logits']).max()
  wanted = outputs['logits'][:, 1]
  np.testing.assert_allclose(given['logits'], wanted, atol=0.1 * spread)


def test_padded_vocabularies_give_the_logits_of_their_tokens(made):
  _, variables, _, outputs = made
  net = build(vocabulary=16)
  table = np.zeros((16, 8), np.float32)
  table[:VOCABULARY] = variables['params']['embed']['embedding']
  params = {**variables['params'], 'embed': {'embedding': table}}
  found = compiled(net)({**variables, 'params': params}, ROWS)['logits']
  np.testing.assert_allclose(found, outputs['logits'], rtol=1e-6)


def test_factored_logits_are_the_same(made):
  _, variables, _, outputs = made
  net = build(vocabulary=11, logits='factored')
  found = compiled(net)(variables, ROWS)['logits']
  assert isinstance(found, Factored)
  np.testing.assert_allclose(
    found.dense(), outputs['logits'], rtol=1e-5, atol=1e-5
  )
  state = own_state(compiled(net)(variables, {'source': ROWS[:, :2]}))
  given = {'state': state, 'token': ROWS[:, 1]}
  one = compiled(net)(variables, given)['logits']
  np.testing.assert_allclose(one, outputs['logits'][:, 1], rtol=1e-5, atol=1e-5)


def test_computes_in_bfloat16_but_for_norms_and_logits():
  net = build(dtype='bfloat16', remat='blocks/*')
  variables = jax.eval_shape(net.init, KEY)

  def loss(params):
    outputs, _ = net.apply(
      {**variables, 'params': params}, ROWS, key=KEY, train=True
    )
    return outputs['logits'].sum()

  gradient = jax.eval_shape(jax.grad(loss), variables['params'])
  assert {x.dtype.name for x in jax.tree.leaves(gradient)} == {'float32'}
  text = jax.jit(loss).lower(variables['params']).as_text()
  products = [x for x in text.splitlines() if 'stablehlo.dot_general' in x]
  assert len([line for line in products if 'bf16' not in line]) == 1  # head


def test_remat_changes_nothing(made):
  net, variables, _, _ = made

  def gradient(net):
    def loss(params):
      own = {**variables, 'params': params}
      return net.apply(own, ROWS, key=KEY, train=True)[0]['logits'].std()

    return jax.jit(jax.grad(loss))(variables['params'])

  one, two = map(gradient, (net, build(remat='blocks/*')))
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
    one,
    two,
  )


def test_llama3_scales_the_long_wavelengths_alone():
  scaling = {**decoder.LLAMA3_SCALING, 'factor': 8.0}
  plain, scaled = (decoder.frequencies(128, 5e5, s) for s in (None, scaling))
  turns = 8192 * plain / (2 * np.pi)
  fast, slow = turns > 4, turns < 1
  assert fast.any() and slow.any() and not (fast | slow).all()
  np.testing.assert_array_equal(scaled[fast], plain[fast])
  np.testing.assert_allclose(scaled[slow], plain[slow] / 8)
  between = ~(fast | slow)
  assert (scaled[between] < plain[between]).all()
  assert (scaled[between] > plain[between] / 8).all()
  half = decoder.frequencies(8, 1e4, {'rope_type': 'linear', 'factor': 2.0})
  np.testing.assert_allclose(half, decoder.frequencies(8, 1e4) / 2)


@pytest.mark.parametrize(
  ('name', 'tokens', 'number'),
  [
    ('smollm2_135m', 49_152, 134_515_008),
    ('smollm2_360m', 49_152, 361_821_120),
    ('smollm2_1_7b', 49_152, 1_711_376_384),
    ('qwen2_5_0_5b', 151_936, 494_032_768),
    ('qwen2_5_1_5b', 151_936, 1_543_714_304),
    ('qwen2_5_7b', 152_064, 7_615_616_512),
    ('qwen3_0_6b', 151_936, 596_049_920),
    ('qwen3_1_7b', 151_936, 1_720_574_976),
    ('qwen3_8b', 151_936, 8_190_735_360),
    ('llama3_2_1b', 128_256, 1_235_814_400),
    ('llama3_2_3b', 128_256, 3_212_749_824),
    ('llama3_1_8b', 128_256, 8_030_261_248),
    ('gemma3_270m', 262_144, 268_098_176),
    ('gemma3_1b', 262_144, 999_885_952),
    ('gemma3_4b', 262_208, 3_880_263_168),
  ],
)
def test_published_names_have_as_many_parameters(name, tokens, number):
  options = decoder.NAMED[name]
  net = build({**options, 'depth': 1, 'vocabulary': tokens})
  params = jax.eval_shape(net.init, KEY)['params']
  more = (options['depth'] - 1) * models.count(params['blocks'])
  assert models.count(params) + more == number


@pytest.mark.parametrize(
  ('kw', 'message'),
  [
    ({'heads': 3}, 'heads=3 does not divide width=8'),
    ({'kv_heads': 3}, 'kv_heads=3 does not divide heads=4'),
    ({'head_width': 3}, 'head_width: 3 should be even'),
    ({'vocabulary': 9}, 'the head has 9 rows, and there are 11 tokens'),
    ({'pad': 11}, 'pad: 11 should be a token, from 0 to below 11'),
    ({'rope_scaling': {'rope_type': 'yarn', 'factor': 2.0}}, 'yarn'),
    ({'rope_theta': 0.0}, 'rope_theta: 0.0 should be a number above 0'),
    ({'lora': {'rank': True}}, 'lora.rank: True should be a whole number'),
    ({'lora': {'rank': 0}}, 'lora.rank: 0 should be a whole number above 0'),
    ({'window': -1}, 'window: -1 should be 0 or more'),
    ({'window': 2, 'window_period': 0}, 'window_period: 0 should be 1 or more'),
    ({'activation': 'relu'}, "no activation 'relu'"),
    ({'rope_scaling': {'rope_type': 'llama3'}}, "'llama3' takes factor, low"),
    ({'rope_scaling': {'rope_type': ['linear']}}, 'no rope_type'),
    (
      {'rope_scaling': {'rope_type': 'linear', 'factor': True}},
      "'linear' takes factor, as numbers above 0",
    ),
    (
      {
        'rope_scaling': {
          **decoder.LLAMA3_SCALING,
          **{'factor': 8.0, 'low_freq_factor': 4.0},
        }
      },
      'low_freq_factor, 4.0, should be below high_freq_factor, 4.0',
    ),
    ({'lora': {}}, 'lora.rank: None should be a whole number above 0'),
    ({'lora': {'rank': 2, 'alpha': True}}, 'lora.alpha: True should be a num'),
    ({'lora': {'rank': 2, 'targets': 3}}, 'lora.targets: 3 should be a list'),
    (
      {'rope_scaling': {'rope_type': 'linear', 'factor': 0.0}},
      "'linear' takes factor, as numbers above 0",
    ),
  ],
)
def test_refuses_sizes_that_do_not_fit(kw, message):
  with pytest.raises(UserError, match=message):
    build({**SMALL, **kw})


@pytest.mark.parametrize('shape', [(4,), {'tokens': (4,)}, {'frames': SHAPE}])
def test_refuses_inputs_that_are_no_tokens(shape):
  with pytest.raises(UserError, match='it takes rows of tokens'):
    build(shape=shape)


def test_merged_adapters_compute_what_they_did_apart(made):
  lora = {
    'rank': 2,
    'alpha': 3.0,
    'targets': ('query', 'value', 'up', 'output'),
  }
  net = build({**ALL, 'lora': lora})
  shapes = jax.eval_shape(net.init, KEY)['params']
  known, draws = by_path(made[1]['params']), np.random.default_rng(1)
  params = {
    path: known[path]
    if path in known
    else np.float32(0.3 * draws.normal(size=x.shape))
    for path, x in by_path(shapes).items()
  }
  params = jax.tree.unflatten(jax.tree.structure(shapes), params.values())
  apart = compiled(net)({'params': params, 'state': {}}, ROWS)['logits']
  kw, merged = models.merged(
    'decoder', {**ALL, 'lora': lora}, {'params': params, 'state': {}}
  )
  found = compiled(build(kw))(merged, ROWS)['logits']
  np.testing.assert_allclose(found, apart, rtol=1e-5, atol=1e-5)
  assert np.abs(found - made[3]['logits']).max() > 0.1


def test_adapters_begin_at_nothing_and_train_alone(made):
  net = build({**ALL, 'lora': {'rank': 2}})
  shapes = jax.eval_shape(net.init, KEY)['params']
  untrained = inherit.of_role('main', '', at='net', adapted=True)['untrained']
  rest = by_path(shapes).keys() - untrained(shapes)
  assert len(rest) == 2 * len(decoder.LINEAR) * SMALL['depth']
  assert all(path.split('/')[-2] == decoder.ADAPTER for path in rest)
  start = inherit.of_role('main', '', at='net', adapted=True)['start']
  frozen = {'main': jax.tree.map(lambda x: x[None], made[1])}
  own = jax.jit(lambda key: start(net.init(key), frozen))(KEY)
  found = compiled(net)(own, ROWS)['logits']
  np.testing.assert_allclose(found, made[3]['logits'], rtol=1e-5, atol=1e-5)
