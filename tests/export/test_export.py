"""Exported files give what the net gives and say what they take."""

import errno
import importlib.util
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import Primitive

import jaxkd
from jaxkd import models
from jaxkd.data import inputs as inputs_lib
from jaxkd.data import sources
from jaxkd.errors import UserError
from jaxkd.export import __main__ as command
from jaxkd.export import (
  api,
  check,
  exportable,
  hf,
  onnx,
  program,
  safetensors,
)
from jaxkd.run import checks, provenance, stored_nets
from jaxkd.run import config as configs
from jaxkd.students import compression, stored

SPLITS = 'train', 'validation', 'test'
CLASSES = [str(digit) for digit in range(10)]
QUANTIZE = 'wrpn(8, scaled=True, only="stages/*kernel")|uniform(4)'
MODELS = {
  # Its view makes 6 by 6 pixels of the data's 8 by 8.
  'plain': dict(model='mlp', kw={'widths': (16,)}, view='resize(6)'),
  'quantised': dict(
    model='convnet',
    kw={'stages': ((4,), (4,)), 'hidden': (), 'kernel': 3},
    quantize=f'{QUANTIZE}|activations(8, high=4.0)',
  ),
}


def has(*packages):
  return all(importlib.util.find_spec(package) for package in packages)


needs_onnx = pytest.mark.skipif(
  not has('jax2onnx', 'onnxruntime'), reason=f'needs {onnx.INSTALL}'
)
needs_tflite = pytest.mark.skipif(
  not has('litert_converter', 'ai_edge_litert'), reason='needs LiteRT'
)
# What these packages say of themselves is not for us to put right.
quiet = pytest.mark.filterwarnings('ignore')


def put(directory, model, kw, quantize='', view=''):
  """A folder as a run leaves it, of a student that has not trained."""
  side = 6 if view else 8
  net = models.build(model, num_classes=10, input_shape=(side, side, 1), **kw)
  variables = jax.vmap(net.init)(jax.random.split(jax.random.key(0), 2))
  made = compression.compression(net, quantize, '', steps=1, at='student')
  source = sources.load('digits')
  spec = dict(
    model=model,
    kw=kw,
    num_classes=10,
    classes=CLASSES,
    inputs=inputs_lib.as_json(inputs_lib.of(source)),
    input_shape=[side, side, 1],
    dtype='float32',
    param_dtype='float32',
    view=view,
    specialist=False,
    quantize=quantize,
    logit_shift=False,
    members=2,
  )
  folder = directory / 'nets/students/student/student'
  stored.export(folder, compression.apply_once(made, variables), spec)
  data = dict(
    source='digits', dir='', kw={}, layout='', classes=dict.fromkeys(SPLITS, ())
  )
  report = dict(compare=dict(better='student', than='student'))
  config = dict(task='classification', data=data, report=report)
  (directory / 'config.json').write_text(json.dumps(config))
  return directory


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  top = tmp_path_factory.mktemp('runs')
  return {name: put(top / name, **how) for name, how in MODELS.items()}


@pytest.fixture(scope='module')
def images():
  return sources.load('digits').splits['test'].fetch(np.arange(5))['inputs']


def logits(run, images, **which):
  net, variables = jaxkd.load(run, **which)
  return net.apply(variables, images)[0]['logits']


def card(path):
  return json.loads(path.with_name(f'{path.name}.json').read_text())


def test_stablehlo_takes_any_batch_and_the_data_as_it_is(
  runs, images, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  assert command.main([str(runs['plain']), '--to', 'stablehlo']) == 0
  path = tmp_path / 'plain.stablehlo'
  read = jax.export.deserialize(bytearray(path.read_bytes()))
  for batch in (images[:1], images):
    (found,) = read.call(batch)
    np.testing.assert_allclose(
      found, logits(runs['plain'], batch), rtol=1e-4, atol=1e-5
    )
  about = card(path)
  assert about['net'] == 'students/student/student (member 0 of 2)'
  assert about['classes'] == CLASSES
  assert about['inputs']['images']['shape'] == ['batch', 8, 8, 1]
  assert about['preprocessing']['in the file'] == [
    'the view of evaluation is applied: resize(6)'
  ]
  assert about['outputs']['logits']['shape'] == ['batch', 10]
  assert about['bytes'] == path.stat().st_size
  assert about['check']['of'] == 'test examples'
  assert about['check']['agree'] == about['check']['counted'] == 64
  said = capsys.readouterr().out
  assert (
    'plain.stablehlo: stablehlo of students/student/student (member' in said
  )
  assert 'images [batch, 8, 8, 1] of float32 → logits [batch, 10]' in said
  assert 'the class is the same in 64 of 64' in said


def test_a_file_of_weights_is_loaded_again(runs, images, tmp_path):
  path = jaxkd.export(runs['quantised'], tmp_path / 'x.safetensors', member=1)
  net, variables = jaxkd.load(path)
  np.testing.assert_array_equal(
    net.apply(variables, images)[0]['logits'],
    logits(runs['quantised'], images, member=1),
  )
  assert net.classes == tuple(CLASSES)
  assert exportable.of(path).task == 'classification'
  assert stored.description(path)['members'] == 1
  with pytest.raises(UserError, match='holds 1 members, so member 1'):
    jaxkd.load(path, member=1)
  whole = path.read_bytes()
  for damaged, said in (
    (whole[:-10], 'not fully covered'),
    (whole[:-1] + bytes([whole[-1] ^ 1]), 'its bytes have changed'),
    (whole.replace(b'\\"model\\"', b'\\"midel\\"'), 'its header lacks model'),
    (whole.replace(b'\\"model\\":', b'\\"model\\" '), 'Expecting'),
  ):
    assert damaged != whole
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=f'damaged or cut short.*{said}'):
      jaxkd.load(path)


def test_nothing_is_written_over_or_left_behind(runs, tmp_path, monkeypatch):
  (tmp_path / 'a.stablehlo').write_text('mine')
  (tmp_path / 'b.stablehlo.json').write_text('mine')
  for name, to, message in (
    ('a.stablehlo', '', 'a.stablehlo exists already'),
    ('b.stablehlo', '', 'b.stablehlo.json exists already'),
    ('x.tflite', 'stablehlo', "is that of tflite, and to='stablehlo'"),
    ('x' * 300 + '.stablehlo', '', 'cannot be written: File name too long'),
    ('/', 'hf', 'is not the name of a file'),
  ):
    with pytest.raises(UserError, match=message):
      jaxkd.export(runs['plain'], tmp_path / name, to)

  def full(path, about):
    api.card.beside(path).write_text('{')
    raise OSError(errno.ENOSPC, 'no room')

  monkeypatch.setattr(api.card, 'write', full)
  with pytest.raises(UserError, match='No space left on device'):
    jaxkd.export(runs['plain'], tmp_path / 'c.safetensors')
  left = {file.name: file.read_text() for file in tmp_path.iterdir()}
  assert left == {'a.stablehlo': 'mine', 'b.stablehlo.json': 'mine'}


def test_weights_of_another_program_are_not_ours(tmp_path):
  from safetensors.numpy import save_file

  save_file({'x': np.zeros(3)}, tmp_path / 'x.safetensors')
  with pytest.raises(UserError, match='write pytorch:FILE'):
    jaxkd.load(tmp_path / 'x.safetensors')
  with pytest.raises(UserError, match='there is no file'):
    jaxkd.load(tmp_path / 'y.safetensors')


def test_it_is_traced_with_operations_of_xla_alone(runs):
  loaded = exportable.of(jaxkd.load(runs['quantised']))
  assert loaded.net.classes == tuple(CLASSES)
  assert exportable.examples(loaded)[1] == 'drawn examples'
  traced = program.trace(loaded, ('logits',))
  shapes = (
    jax.ShapeDtypeStruct((3, *x.shape[1:]), x.dtype)
    for x in traced.inputs.values()
  )
  text = str(jax.make_jaxpr(traced.function)(*shapes))
  assert 'conv_general_dilated[' in text
  assert 'random' not in text and ' convolution[' not in text


@needs_onnx
@quiet
def test_onnx_holds_quantised_weights_as_integers(runs, images, tmp_path):
  import onnx as library

  path = jaxkd.export(runs['quantised'], tmp_path / 'x.onnx')
  graph = library.load(path).graph
  kinds = [node.op_type for node in graph.node]
  assert kinds.count('QuantizeLinear') == 3  # what goes into three layers
  assert kinds.count('DequantizeLinear') == 6 and 'MaxPool' in kinds
  assert {'Conv', 'Add'} <= {*kinds}
  of = {x.name.split('.')[0]: [] for x in graph.initializer}
  for x in graph.initializer:
    of[x.name.split('.')[0]].append(x.data_type)
  integers = {library.TensorProto.INT8, library.TensorProto.UINT8}
  for layer in ('stages/0/convs/0', 'stages/1/convs/0', 'head'):
    assert integers & {*of[f'params/{layer}/kernel']}
  assert card(path)['check']['difference'] < 1e-4
  assert '3 arrays of weights' in card(path)['notes'][0]


@needs_onnx
@quiet
@pytest.mark.parametrize('quantize', ['points(3)', 'ternary()', 'wrpn(2)'])
def test_onnx_decodes_weights_of_any_levels(quantize, tmp_path):
  run = put(tmp_path / 'run', 'mlp', {'widths': (40,)}, quantize)
  path = jaxkd.export(run, tmp_path / 'x.onnx')
  assert card(path)['check']['difference'] < 1e-5
  assert card(path)['inputs'].keys() == {'images'}


@needs_onnx
@quiet
def test_onnx_pools_images(images, tmp_path):
  class Pools(nnx.Module):
    def __init__(self, *, rngs):
      self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
      x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding='SAME')
      x = nnx.avg_pool(x, (3, 2), strides=(2, 2), padding=((1, 1), (0, 0)))
      return self.head(x.reshape(x.shape[0], -1))

  net = net_of(Pools)
  path = jaxkd.export(net, tmp_path / 'x.onnx', inputs=images)
  assert card(path)['check']['difference'] < 1e-5


@needs_onnx
@quiet
def test_an_operation_that_onnx_lacks_is_named(images, tmp_path):
  mine = Primitive('my_own_operation')
  mine.def_abstract_eval(lambda x: x)

  class Odd(nnx.Module):
    def __init__(self, *, rngs):
      self.head = nnx.Linear(1, 1, rngs=rngs)

    def __call__(self, x):
      return self.head(mine.bind(x))

  with pytest.raises(UserError, match=r'my_own_operation\).*--to stablehlo'):
    jaxkd.export(net_of(Odd), tmp_path / 'x.onnx', inputs=images)
  assert not list(tmp_path.iterdir())


@needs_onnx
@quiet
def test_what_the_checker_of_onnx_refuses_is_named(images, tmp_path):
  def spectrum(variables, x):
    return jnp.abs(jnp.fft.fft(x.reshape(x.shape[0], -1))) * variables['w']

  net = models.net.from_function(spectrum, 'spectrum')
  mine = net, {'params': {'w': np.ones((), np.float32)}, 'state': {}}
  with pytest.raises(UserError, match=r'Cast.*complex64.*--to stablehlo') as e:
    jaxkd.export(mine, tmp_path / 'x.onnx', inputs=images)
  assert '\n' not in str(e.value)
  assert not list(tmp_path.iterdir())


@needs_onnx
@quiet
def test_onnx_holds_decoders_of_tokens(tmp_path):
  shape = jax.ShapeDtypeStruct((6,), jnp.int32)
  kw = dict(width=16, depth=1, heads=2)
  net = models.build('decoder', num_classes=7, input_shape=shape, **kw)
  tokens = np.random.default_rng(0).integers(0, 7, (5, 6)).astype(np.int32)
  path = jaxkd.export(
    (net, net.init(jax.random.key(0))),
    tmp_path / 'x.onnx',
    inputs=tokens,
    outputs=('logits',),
  )
  about = card(path)
  assert about['inputs']['tokens']['shape'] == ['batch', 6]
  assert about['outputs']['logits']['shape'] == ['batch', 6, 7]
  assert about['check']['agree'] == 30


@needs_tflite
@quiet
def test_tflite_takes_any_batch(runs, tmp_path):
  path = jaxkd.export(runs['quantised'], tmp_path / 'x.tflite')
  assert card(path)['check']['agree'] == 64
  assert 'floats' in card(path)['notes'][0]


def test_a_classifier_is_compared_where_transformers_is(
  tmp_path, monkeypatch, capsys
):
  kw = dict(patch=4, width=8, depth=1, heads=1, pool='token')
  run = put(tmp_path / 'run', 'vit', kw)
  monkeypatch.setattr(hf, 'TRANSFORMERS', ('no_such_package',))
  out = tmp_path / 'out'
  assert command.main([str(run), '--to', 'hf', '--out', str(out)]) == 0
  assert 'not compared with the net' in capsys.readouterr().out
  assert card(out)['check'] is None
  names = ('config.json', 'model.safetensors', 'preprocessor_config.json')
  assert {file.name for file in out.iterdir()} == {*names}
  with pytest.raises(UserError, match='exists already'):
    jaxkd.export(run, f'hf:{out}')
  with pytest.raises(UserError, match='is for decoders; leave it out'):
    jaxkd.export(run, tmp_path / 'half', 'hf', dtype='bfloat16')
  assert {file.name for file in tmp_path.iterdir()} == {
    *('run', 'out', 'out.json')
  }


def test_a_teacher_is_restored_from_a_file(runs, tmp_path):
  path = jaxkd.export(runs['plain'], tmp_path / 'x.safetensors')
  found = []
  for where in (
    str(path),
    str(runs['plain'] / 'nets/students/student/student'),
  ):
    kw = MODELS['plain']['kw']
    view = dict(train='resize(6)', eval='resize(6)')
    main = dict(model='mlp', kw=kw, restore=where, views=view)
    student = dict(model='mlp', kw=dict(widths=(4,)))
    config = configs.complete(
      dict(
        data=dict(source='digits'),
        teachers=dict(main=main),
        students=dict(student=student),
        distill=dict(soft=dict(loss='kl', teacher='main')),
        report=dict(compare=dict(better='student', than='teacher')),
        train=dict(steps=2, seeds=1),
      )
    )
    prepared = checks.prepare(configs.plain(config), 'unused')[0]
    assert prepared.notes == ()
    found.append(provenance.of(configs.plain(config), sources.load('digits')))
  # The folder holds two nets and the file one.
  entry = 'teachers.main.restore'
  assert found[0][entry] != found[1][entry]


def net_of(kind):
  """A net of one's own with its variables."""
  net = models.net.from_nnx(
    lambda rngs: kind(rngs=rngs), jnp.zeros((1, 8, 8, 1))
  )
  return net, net.init(jax.random.key(0))


def test_a_net_of_ones_own_needs_examples(images, tmp_path):
  class Counts(nnx.Module):
    def __init__(self, *, rngs):
      self.head = nnx.Linear(64, 2, rngs=rngs)

    def __call__(self, x):
      return self.head(x.reshape(len(x), -1))

  net, path = net_of(Counts), tmp_path / 'x.stablehlo'
  with pytest.raises(UserError, match='give inputs=, a batch'):
    jaxkd.export(net, path)
  with pytest.raises(UserError, match=r'write x.shape\[0\] in place of len'):
    jaxkd.export(net, path, inputs=images)
  with pytest.raises(UserError, match='no description to go with'):
    jaxkd.export(net, tmp_path / 'x.safetensors', inputs=images)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('path', 'options', 'message'),
  [
    ('', {}, 'name the format; set to= .* one of hf, onnx, safetensors,'),
    ('x', {}, "'.*x' does not say the format"),
    ('x.onnxx', {}, 'does not say the format'),
    ('x', {'to': 'onxx'}, "no format 'onxx'; did you mean 'onnx'"),
    ('x.stablehlo', {'arm': 'y'}, "there is no arm 'y'"),
    ('x.stablehlo', {'member': 2}, 'holds 2 members, so member 2'),
    ('x.stablehlo', {'dtype': 'bfloat16'}, 'leave it out'),
    ('x.stablehlo', {'outputs': ('logit',)}, "no output 'logit'.*'logits'"),
    ('x', {'to': 'hf'}, 'it is a mlp, and folders of Hugging Face .*vit'),
    ('there.stablehlo', {}, 'exists already; choose another'),
  ],
)
def test_what_cannot_be_exported_leaves_nothing(
  runs, tmp_path, path, options, message
):
  (tmp_path / 'there.stablehlo').write_text('mine')
  with pytest.raises(UserError, match=message):
    jaxkd.export(runs['plain'], path and tmp_path / path, **options)
  assert [x.name for x in tmp_path.iterdir()] == ['there.stablehlo']
  assert (tmp_path / 'there.stablehlo').read_text() == 'mine'


def test_packages_that_are_missing_are_named(runs, tmp_path, monkeypatch):
  packages = {'onnx': 'jax2onnx', 'tflite': 'litert_converter'}
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name, *a: None if name in packages.values() else find(name, *a),
  )
  for ending, package in packages.items():
    with pytest.raises(UserError, match=f'{package}, which .*: pip install'):
      jaxkd.export(runs['plain'], tmp_path / f'x.{ending}')


def test_the_command_says_what_is_wrong(runs, tmp_path, capsys):
  where = ['--out', str(tmp_path / 'x.y')]
  assert command.main([str(runs['plain']), *where]) == 2
  assert capsys.readouterr().err.startswith('error: jaxkd.export: ')


def test_a_file_that_gives_something_else_is_removed(
  runs, tmp_path, monkeypatch
):
  kept = safetensors.run
  for spoil, message in (
    (lambda x: x + 1.0, 'logits differs by 1'),
    (lambda x: x.at[0].set(jnp.nan), 'one of them gives NaN'),
    (lambda x: x[:, :3], r'logits is \[3, 3\] and not \[3, 10\]'),
  ):
    monkeypatch.setattr(
      safetensors,
      'run',
      lambda *a, spoil=spoil: {
        name: spoil(jnp.asarray(x)) for name, x in kept(*a).items()
      },
    )
    with pytest.raises(UserError, match=message):
      jaxkd.export(runs['plain'], tmp_path / 'x.safetensors')
    assert not list(tmp_path.iterdir())


def test_differences_are_measured_against_the_largest_output():
  ours = {'logits': np.array([[0.0, 1000.0], [3.0, 1.0]])}
  theirs = {'logits': ours['logits'] + [[0.5, 0.0], [0.0, 0.0]]}
  found = check.compare(ours, theirs, 'rows', rounded=False, at='x')
  assert (found.difference, found.largest, found.agree) == (0.5, 1000.0, 2)
  given = dict(rounded=False, at='x')
  assert check.compare(ours, theirs, '', one_class=False, **given).agree is None
  ours['logits'][0, 1] = 100.0
  with pytest.raises(UserError, match=r'x: .*differs by 9e\+02'):
    check.compare(ours, theirs, 'rows', rounded=True, at='x')
  nothing = {'boxes': np.full((2, 4), np.nan)}
  found = check.compare(nothing, nothing, 'rows', rounded=False, at='x')
  assert found.agree is None and 'class' not in found.said('it')


def test_a_run_whose_data_is_not_here_is_checked_on_drawn_examples(
  runs, tmp_path
):
  one = exportable.of(runs['plain'])
  data = {**one.config['data'], 'source': f'folder:{tmp_path}'}
  (drawn,), said = exportable.examples(
    one._replace(config={**one.config, 'data': data})
  )
  assert drawn.shape == (64, 8, 8, 1) and 'not here' in said
  assert drawn.min() >= 0 and 0.9 < drawn.max() <= 1
  words = inputs_lib.Array((3,), 'int32', 0, 6)
  tokens = SimpleNamespace(arrays=lambda: {'tokens': words}, config={})
  (drawn,), _ = exportable.examples(tokens)
  assert {*np.unique(drawn)} == {*range(7)} and drawn.dtype == np.int32


def test_export_is_a_function_and_a_package(runs, tmp_path):
  assert jaxkd.export.api is api
  assert stored_nets.find_net(tmp_path) == tmp_path
  with pytest.raises(UserError, match='no exported network'):
    jaxkd.export(tmp_path, tmp_path / 'x.stablehlo')
