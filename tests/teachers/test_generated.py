"""Examples that are made of a teacher."""

import contextlib

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest

from jaxkd.data.examples import ArrayExamples, StreamedExamples
from jaxkd.errors import UserError
from jaxkd.teachers import generated
from jaxkd.teachers import generator as generator_lib

SHAPE, CLASSES = (2, 2, 1), 3
KEY = jax.random.key(0)
NUMBERS = np.arange(12, dtype=np.int32)
DATA = ArrayExamples(
  np.arange(28, dtype=np.float32).reshape(7, *SHAPE), np.arange(7) % 3
)


def variables(lead=()):
  random = np.random.default_rng(0)
  kernel = random.normal(size=(*lead, 4, CLASSES)).astype(np.float32)
  bias = np.zeros((*lead, CLASSES), np.float32)
  return {'params': {'head': {'kernel': kernel, 'bias': bias}}, 'state': {}}


def logits(variables, inputs):
  return inputs.reshape(len(inputs), -1) @ variables['params']['head']['kernel']


def teacher(own=None):
  own = variables() if own is None else own
  return generated.Teacher(
    lambda x: logits(own, x),
    lambda x: {'logits': logits(own, x)},
    own['params'],
    SHAPE,
    CLASSES,
  )


def generator(own=None, *, seeds=(0, 1), **entry):
  given = {'name': 'impressions', 'count': 6, 'dir': '', 'kw': {'steps': 3}}
  own = variables((len(seeds),)) if own is None else own
  return generator_lib.Generator(
    {**given, **entry},
    logits,
    lambda variables, x: ({'logits': logits(variables, x)}, {}),
    own,
    DATA,
    input_shape=SHAPE,
    num_classes=CLASSES,
    seeds=seeds,
  )


@contextlib.contextmanager
def progress(steps):
  yield lambda done, values: None


def test_how_alike_classes_are():
  # Cosines of columns (1, 0), (3, 3) and (0, 2), from the least to the most.
  found = generated.concentrations(jnp.array([[1.0, 3.0, 0.0], [0, 3, 2]]))
  half = 0.5**0.5
  want = np.array([[1, half, 0], [0, 1, 0], [0, half, 1]]) + 1e-4
  np.testing.assert_allclose(found, want, atol=1e-6)


@pytest.mark.parametrize('alpha', [(0.5, 1.0, 2.5), (0.02, 0.05, 0.13)])
def test_moments_of_dirichlet_draws(alpha):
  alpha, n = np.array(alpha), 40_000
  draw = jax.jit(jax.vmap(generated.dirichlet, (0, None)))
  drawn = np.asarray(draw(jax.random.split(KEY, n), jnp.asarray(alpha)))
  total = alpha.sum()
  mean = alpha / total
  variance = mean * (1 - mean) / (total + 1)
  np.testing.assert_allclose(drawn.sum(1), 1, rtol=1e-5)
  error = np.sqrt(variance / n)
  np.testing.assert_array_less(np.abs(drawn.mean(0) - mean), 4 * error)
  np.testing.assert_allclose(drawn.var(0), variance, rtol=0.05)


def test_tiny_concentrations_give_one_class_and_no_nan():
  alpha = jnp.array([1e-5, 3e-5])
  draw = jax.jit(jax.vmap(generated.dirichlet, (0, None)))
  drawn = np.asarray(draw(jax.random.split(KEY, 4000), alpha))
  assert np.isfinite(drawn).all()
  assert (drawn.max(1) > 0.999).mean() > 0.998
  assert drawn[:, 1].mean() == pytest.approx(0.75, abs=0.03)


def test_impressions_reach_what_is_asked_of_them(monkeypatch):
  asked = jnp.array([0.2, 0.7, 0.1])
  monkeypatch.setattr(generated, 'dirichlet', lambda key, alpha: asked)
  options = dict(temperature=2.0, steps=1500, learning_rate=0.03, clip=False)
  found = generated.impressions(teacher(), NUMBERS, KEY, **options)
  said = jax.nn.softmax(teacher().logits(found['inputs']) / 2)
  np.testing.assert_allclose(said, np.tile(asked, (12, 1)), atol=1e-3)


def test_one_hot_targets_take_turns_and_pixels_stay_pixels():
  options = dict(targets='one_hot', steps=300, learning_rate=0.1)
  found = generated.impressions(teacher(), NUMBERS, KEY, **options)['inputs']
  assert found.shape == (12, *SHAPE)
  assert found.min() >= 0 and found.max() <= 1
  # The best within bounds, whatever the start: a corner for each class.
  for label in range(CLASSES):
    own = found[label::CLASSES]
    np.testing.assert_allclose(own, np.broadcast_to(own[0], own.shape))
  assert len(np.unique(found.reshape(12, -1), axis=0)) == CLASSES


def test_classes_and_scales_take_turns(monkeypatch):
  monkeypatch.setattr(generated, 'dirichlet', lambda key, alpha: alpha)
  ask = lambda t: generated.asked(  # noqa: E731
    NUMBERS, KEY, teacher(), t, (1.0, 0.1), 'head/kernel'
  )
  rows = generated.concentrations(variables()['params']['head']['kernel'])
  want = np.concatenate([rows, 0.1 * rows, rows, 0.1 * rows])
  np.testing.assert_allclose(ask('similar_classes'), want, rtol=1e-6)
  want = np.repeat([1.0, 0.1, 1, 0.1], CLASSES)[:, None] * np.ones(CLASSES)
  np.testing.assert_allclose(ask('alike_classes'), want, rtol=1e-6)
  np.testing.assert_array_equal(ask('one_hot'), np.eye(CLASSES)[NUMBERS % 3])


@pytest.mark.parametrize('name', ['noise', 'impressions'])
def test_an_example_depends_on_its_number_alone(name):
  make = getattr(generated, name)
  options = {'steps': 3} if name == 'impressions' else {}
  whole = make(teacher(), NUMBERS, KEY, **options)['inputs']
  parts = [
    make(teacher(), part, KEY, **options)['inputs']
    for part in (NUMBERS[:5], NUMBERS[5:])
  ]
  np.testing.assert_allclose(whole, np.concatenate(parts), atol=1e-6)
  assert len(np.unique(np.asarray(whole).reshape(12, -1), axis=0)) == 12


def test_each_seed_has_its_own_of_its_own_teacher(tmp_path):
  made = generator(kw={'steps': 3, 'targets': 'one_hot'})
  found = made.make(tmp_path, progress)
  assert len(found) == 12 and found.labels.dtype == np.int32
  inputs = found.fetch(np.arange(12))['inputs']
  for line in range(2):
    own = jax.tree.map(lambda x, line=line: x[line], variables((2,)))
    mine = inputs[6 * line : 6 * line + 6]
    np.testing.assert_array_equal(
      found.labels[6 * line : 6 * line + 6], logits(own, mine).argmax(1)
    )
  assert not np.allclose(inputs[:6], inputs[6:])
  np.testing.assert_array_equal(
    made.weights([1, 0, 1])[:, [0, 5, 6, 11]],
    [[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]],
  )
  zeros = made.shapes()
  assert len(zeros) == 12 and not zeros.fetch(np.arange(3))['inputs'].any()


def test_a_teacher_of_all_seeds_gives_each_its_own_draws(tmp_path):
  found = generator(variables((1,))).make(tmp_path, progress)
  inputs = found.fetch(np.arange(12))['inputs']
  assert not np.allclose(inputs[:6], inputs[6:])


def test_stopped_it_goes_on_and_finished_it_is_found(tmp_path, monkeypatch):
  want = generator().make(tmp_path / 'whole', progress).fetch(np.arange(12))

  class StoppedError(Exception):
    pass

  def stop():
    raise StoppedError

  with pytest.raises(StoppedError):
    generator().make(tmp_path / 'broken', progress, stop=stop)
  # What is missing is the second seed's alone: nothing stops it any more.
  found = generator().make(tmp_path / 'broken', progress, stop=stop)
  jax.tree.map(np.testing.assert_array_equal, found.fetch(np.arange(12)), want)
  again = generator()
  monkeypatch.setattr(again, '_make', None)
  again.make(tmp_path / 'broken', progress)
  # Of another teacher, or made in another way, they are others.
  other = generator(kw={'steps': 4}).make(tmp_path / 'broken', progress)
  assert not np.allclose(other.fetch(np.arange(12))['inputs'], want['inputs'])


def test_ones_own_generator_may_give_labels_and_other_fields(monkeypatch):
  def sequences(teacher, number, key, *, length: int = 2):
    source = jnp.tile(number[:, None], (1, length))
    return {'inputs': {'source': source}, 'labels': number, 'mask': source > 0}

  monkeypatch.setattr(generated, 'sequences', sequences, raising=False)
  own = generator(name='jaxkd.teachers.generated:sequences', kw={'length': 3})
  assert {p: x.shape for p, x in own.layout.arrays.items()} == {
    'inputs/source': (3,), 'labels': (), 'mask': (3,),
  }  # fmt: skip


def test_others_are_made_of_the_training_examples(monkeypatch, tmp_path):
  def doubled(teacher, number, key, examples, *, by: float = 2.0):
    inputs = by * examples['inputs']
    said = teacher.apply(examples['inputs'])['logits'].argmax(-1)
    return {'inputs': inputs, 'labels': said, 'number': number}

  monkeypatch.setattr(generated, 'doubled', doubled, raising=False)
  name = 'jaxkd.teachers.generated:doubled'
  made = generator(variables((1,)), name=name, count=0, kw={})
  data = DATA.fetch(np.arange(7))['inputs']
  found = made.make(tmp_path, progress)
  # Nothing is drawn and the teacher is that of all seeds: so are they.
  assert len(found) == 7
  np.testing.assert_array_equal(made.weights([0, 1]), np.ones((2, 7)))
  np.testing.assert_array_equal(found.fetch(NUMBERS[:7])['inputs'], 2 * data)
  np.testing.assert_array_equal(found.fetch(NUMBERS[:7])['number'], range(7))
  said = logits(variables(), data).argmax(1)
  np.testing.assert_array_equal(found.labels, said)
  two = generator(name=name, count=5, kw={})
  assert len(two.make(tmp_path, progress)) == 10
  # Of other examples they are others, though all else is the same.
  monkeypatch.setitem(globals(), 'DATA', ArrayExamples(data + 1, np.arange(7)))
  other = generator(variables((1,)), name=name, count=0, kw={})
  found = other.make(tmp_path, progress).fetch(NUMBERS[:7])
  np.testing.assert_array_equal(found['inputs'], 2 * data + 2)
  with pytest.raises(UserError, match='count: 8 should be from 1 to 7, or 0'):
    generator(name=name, count=8, kw={})


@pytest.mark.parametrize(
  ('name', 'row'), [('translations', 0), ('closest_translations', 2)]
)
def test_translations_take_the_place_of_the_labels(name, row, monkeypatch):
  found = jnp.array([[[4, 5, 6, 3], [4, 4, 3, 0], [5, 6, 4, 3]]] * 2)
  asked = []

  def beam(apply, source, length, width):
    asked.append((apply, source.shape, length, width))
    return found, jnp.array([[-1.0, -2.0, -3.0]] * 2)

  monkeypatch.setattr(generated.decoding, 'beam', beam)
  examples = {
    'inputs': {'source': np.ones((2, 5)), 'prefix': np.ones((2, 4))},
    'labels': np.array([[5, 6, 4, 3], [5, 6, 4, 6]]),
  }
  function = getattr(generated, name)
  own = teacher()._replace(num_classes=7)
  made = function(own, NUMBERS[:2], KEY, examples, beam=3)
  want = found[0, row]
  np.testing.assert_array_equal(made['labels'], [want, want])
  np.testing.assert_array_equal(made['valid'], made['labels'] > 0)
  prefix = [2, *want[:3]]
  np.testing.assert_array_equal(made['inputs']['prefix'], [prefix, prefix])
  np.testing.assert_array_equal(made['inputs']['source'], np.ones((2, 5)))
  assert asked[0][1:] == ((2, 5), 4, 3)
  with pytest.raises(UserError, match='no sentences to translate'):
    function(own, NUMBERS[:2], KEY, DATA.fetch(NUMBERS[:2]))
  for odd in (0, -1, 6, 2.5, 'x', True):
    message = rf'^data\.generated\.kw\.beam: {odd!r} .* from 1 to 5, '
    with pytest.raises(UserError, match=message):
      function(own, NUMBERS[:2], KEY, examples, beam=odd)


SPOKEN = ArrayExamples(
  {
    'source': np.arange(12, dtype=np.float32).reshape(3, 4),
    'prefix': np.zeros((3, 4), np.int32),
  },
  np.array([[4, 6, 5, 3], [5, 3, 0, 0], [4, 6, 4, 3]]),
  valid=np.ones((3, 4), bool),
)
PIECES = ('<pad>', '<unk>', '<s>', '</s>', 'a', 'b', '▁')  # a word each
# Of 'a b', 'b' and 'a a': right and one wrong; a word more and none; wrong.
WRITTEN = np.array([
  [[4, 6, 5, 3], [5, 6, 5, 3]], [[5, 6, 4, 3], [3, 0, 0, 0]],
  [[5, 6, 5, 3], [4, 6, 4, 3]],
])  # fmt: skip


class TestHypotheses:
  @pytest.fixture
  def made(self, monkeypatch, tmp_path):
    """The examples of an arm, and how often the teacher was asked."""
    asked = []

    def beam(apply, source, length, width):
      jax.debug.callback(lambda: asked.append(width))
      number = source[:, 0].astype(jnp.int32) // 4
      return jnp.asarray(WRITTEN)[number][:, :width], None

    monkeypatch.setattr(generated.decoding, 'beam', beam)

    def make(seeds=(0, 1), **kw):
      own = generator_lib.Generator(
        {'name': 'hypotheses', 'count': 0, 'dir': '', 'kw': {'beam': 2, **kw}},
        lambda variables, inputs: jnp.zeros((len(inputs['prefix']), 4, 7)),
        lambda variables, inputs: ({}, {}),
        variables((1,)),
        SPOKEN,
        input_shape={},
        num_classes=7,
        seeds=seeds,
        classes=PIECES,
      )
      found = own.make(tmp_path, progress)
      shapes = own.shapes()
      assert len(shapes) == len(found) == own.rows
      assert own.weights([0, 1]).tolist() == [[1.0] * own.rows] * 2
      zeros = shapes.fetch(np.arange(2))
      fields = found.fetch(np.arange(len(found)))
      assert jax.tree.map(lambda x: (x.shape[1:], x.dtype), zeros) == (
        jax.tree.map(lambda x: (x.shape[1:], x.dtype), fields)
      )
      return fields, asked

    return make

  def test_stand_beside_the_transcripts(self, made):
    fields, _ = made()
    labels = SPOKEN.fetch(np.arange(3))['labels']
    np.testing.assert_array_equal(fields['labels'][::2], labels)
    np.testing.assert_array_equal(fields['labels'][1::2], WRITTEN[:, 0])
    source = np.arange(12, dtype=np.float32).reshape(3, 4)
    for start in (0, 1):
      np.testing.assert_array_equal(
        fields['inputs']['source'][start::2], source
      )
    np.testing.assert_array_equal(fields['valid'], fields['labels'] != 0)
    np.testing.assert_array_equal(
      fields['inputs']['prefix'][:, 1:], fields['labels'][:, :-1]
    )
    # Without γ all count 1, to the last bit.
    assert (fields['weight'] == 1).all()

  def test_count_by_their_errors(self, made):
    # Errors 0, one word too many of one, two wrong of two: 0, 1 and 1.
    weight = made(gamma=2.0, normalize=False)[0]['weight']
    low = np.exp(-2)
    np.testing.assert_allclose(weight, [1, 1, 1, low, 1, low], rtol=1e-6)
    weight = made(gamma=2.0)[0]['weight']
    assert weight[1::2].mean() == pytest.approx(1)
    assert weight[1] / weight[3] == pytest.approx(1 / low)
    weight = made(error_free=True)[0]['weight']
    np.testing.assert_allclose(weight, [1, 3, 1, 0, 1, 0])
    # By letters: ' a' after 'b' is two of one; two of three are wrong.
    weight = made(gamma=1.0, unit='character', normalize=False)[0]['weight']
    want = np.exp([0, -1, -2 / 3])
    np.testing.assert_allclose(weight[1::2], want, rtol=1e-6)

  def test_of_several_each_has_its_own_weight(self, made):
    fields, _ = made(best=2, gamma=1.0, normalize=False)
    assert len(fields['labels']) == 12
    weight = fields['weight'].reshape(3, 4)
    assert (weight[:, :2] == 1).all()  # each transcript twice
    # 'b b' of 'a b' is half wrong, nothing of 'b' is all, 'a a' is right.
    want = np.exp([[0, -0.5], [-1, -1], [-1, 0]])
    np.testing.assert_allclose(weight[:, 2:], want, rtol=1e-6)
    np.testing.assert_array_equal(
      fields['labels'].reshape(3, 4, 4)[:, 2:], WRITTEN
    )

  def test_shuffled_weights_are_the_same_ones_of_others(self, made):
    kw = dict(best=2, gamma=3.0)
    own, shuffled = (made(**kw, shuffle=x)[0]['weight'] for x in (False, True))
    # The weights of transcripts stay, as do the hypotheses.
    own, shuffled = (x.reshape(3, 4) for x in (own, shuffled))
    assert (shuffled[:, :2] == 1).all()
    assert sorted(own[:, 2:].flat) == sorted(shuffled[:, 2:].flat)
    assert (own != shuffled).any()

  def test_of_streamed_examples_are_the_same(self, made, monkeypatch):
    want, _ = made(gamma=1.0)
    streamed = StreamedExamples(3, SPOKEN.fetch)
    monkeypatch.setitem(globals(), 'SPOKEN', streamed)
    found, _ = made(gamma=1.0)
    jax.tree.map(np.testing.assert_array_equal, found, want)

  def test_are_decoded_once_for_all_ways_to_weigh(self, made):
    _, asked = made()
    once = len(asked)
    for kw in (dict(gamma=1.0), dict(error_free=True), dict(shuffle=True)):
      assert len(made(**kw)[1]) == once
    assert len(made(best=2)[1]) > once

  @pytest.mark.parametrize(
    ('kw', 'message'),
    [
      ({'gamma': -1.0}, r'kw\.gamma: -1.0'),
      ({'gama': 1.0}, "'gama'; did you mean 'gamma'"),
      ({'unit': 'letter'}, "unit: 'letter' should be 'word' or 'character'"),
      ({'best': 3}, r'kw\.best: 3 should be from 1 to 2'),
      ({'error_free': True, 'beam': 1}, r'kw\.error_free: .* of its 3 hypo'),
      ({'gamma': 1e4, 'beam': 1}, r'kw\.gamma: .* of its 3 hypotheses'),
    ],
  )
  def test_what_cannot_be_weighed(self, kw, message, made, monkeypatch):
    if kw.get('beam') == 1:
      monkeypatch.setitem(globals(), 'WRITTEN', WRITTEN[[1, 2, 1]])
    with pytest.raises(UserError, match=message):
      made(**kw)

  @pytest.mark.parametrize('kw', [{'gamma': -1.0}, {'unit': 'letter'}])
  def test_options_are_refused_before_anything_is_made(
    self, kw, made, monkeypatch
  ):
    make = lambda *_: pytest.fail('hypotheses were made')  # noqa: E731
    monkeypatch.setattr(generator_lib.Generator, 'make', make)
    with pytest.raises(UserError, match=next(iter(kw))):
      made(**kw)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'name': 'impresions'}, "no generator.*mean 'impressions'"),
    ({'kw': {'step': 3}}, r"generated\.kw: .*'step'; did you mean 'steps'"),
    ({'count': 0}, r'generated\.count: 0'),
    ({'kw': {'targets': 'alike'}}, "targets 'alike'.*'alike_classes'"),
    ({'kw': {'head': 'had/kernel'}}, r"kw\.head: .*'head/kernel'"),
    ({'kw': {'head': 'head/bias'}}, r'head/bias is \(3,\).*a linear layer'),
  ],
)
def test_what_cannot_be_made(change, message):
  with pytest.raises(UserError, match=message):
    generator(**change)


def test_only_images_have_impressions():
  own = teacher()._replace(input_shape={'source': (3,)})
  with pytest.raises(UserError, match='no images'):
    generated.noise(own, NUMBERS, KEY)


def test_a_picture_has_a_line_for_each_class(tmp_path):
  labels = np.array([0, 2, 2, 0])
  inputs = np.linspace(-1, 2, 4 * 64, dtype=np.float32).reshape(4, 8, 8, 1)
  examples = ArrayExamples(inputs, labels)
  path = tmp_path / 'r01' / 'arm.png'
  generator_lib.picture(examples, 3, path, columns=4)
  pixels = matplotlib.image.imread(path)
  assert pixels.shape[:2] == (3 * 10 * 4, 4 * 10 * 4)
  flat = ArrayExamples(inputs.reshape(4, 64), labels)
  generator_lib.picture(flat, 4, tmp_path / 'none.png')
  assert not (tmp_path / 'none.png').exists()
