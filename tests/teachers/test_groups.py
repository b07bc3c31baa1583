import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxkd import models
from jaxkd.data import inputs, sources
from jaxkd.data.examples import ArrayExamples
from jaxkd.distill.roles import Role
from jaxkd.errors import UserError
from jaxkd.models import given
from jaxkd.run import config as configs
from jaxkd.run import jobs, loaded
from jaxkd.teachers import groups
from jaxkd.train import checkpoint
from jaxkd.types import Net

TRAINING = ArrayExamples(
  np.zeros((60, 1)), np.arange(60) % 3, speaker=np.arange(60) // 6
)


def entry(**given):
  made = configs.plain(configs.complete(dict(teachers=dict(main=given))))
  return made['teachers']['main'], made['data']


def role(width=2):
  def init(key):
    return {'params': {'w': jax.random.normal(key, (width,))}, 'state': {}}

  return Role(Net(init, None))


def job(name='main', seeds=(0, 1), **given):
  made, data = entry(**given)
  return jobs.of_group(
    name,
    made,
    role(),
    stage='s',
    training=TRAINING,
    data=data,
    seeds=list(seeds),
  )


def test_one_group_for_all_seeds_or_one_for_each():
  assert len(job(count=3).seeds) == 3
  each = job(count=3, per_seed=True)
  assert len(set(each.seeds)) == 6
  assert each.weights.shape == (6, 60)
  # The first seed's teachers are the same either way.
  assert each.seeds[:3] == job(count=3).seeds


def test_teachers_share_speakers_out():
  own = dict(partition='disjoint', unit='speaker')
  for_all, data = entry(count=5)
  data = data | dict(unit=dict(teachers='speaker', students=''))
  data['partition'] = dict(teachers='disjoint', students='none')
  alike = jobs.of_group(
    'main', for_all, role(), stage='s', training=TRAINING, data=data, seeds=[0]
  )
  made = job(count=5, data=own)
  np.testing.assert_array_equal(made.weights, alike.weights)
  by_speaker = made.weights.reshape(5, 10, 6)
  assert (by_speaker.sum(-1) % 6 == 0).all()
  np.testing.assert_array_equal(by_speaker.sum(0), np.ones((10, 6)))
  with pytest.raises(
    UserError, match=r'^teachers\.main\.data\.unit: .*speaker'
  ):
    job(data=dict(unit='patient'))


def test_seeds_follow_the_name_and_never_the_position():
  assert job('a').seeds != job('b').seeds
  assert job(count=2).seeds == job(count=5).seeds[:2]


def test_members_of_seeds_lie_behind_their_seed():
  made, _ = entry(count=3, per_seed=True)
  variables = {'params': {'w': jnp.arange(12.0).reshape(6, 2)}, 'state': {}}
  group = groups.group(made, role(), variables, seeds=2)
  assert group.per_member
  assert group.variables['params']['w'].shape == (2, 3, 2)
  np.testing.assert_array_equal(group.variables['params']['w'][1, 0], [6, 7])
  shapes = groups.shapes(made, role(), 2).variables
  assert shapes['params']['w'].shape == (2, 3, 2)


def test_specialists_need_one_class_for_each_example():
  made, data = entry(specialize=dict(of='other'))
  labels = np.arange(240).reshape(60, 2, 2) % 3
  maps = ArrayExamples(np.zeros((60, 1)), labels)
  message = r'^teachers\.main\.specialize\.of: .* 2 x 2 labels'
  with pytest.raises(UserError, match=message):
    jobs.of_group(
      'main',
      made,
      role(),
      stage='s',
      training=maps,
      data=data,
      seeds=[0],
      subsets=np.eye(3, dtype=bool)[:1],
    )


def test_restores_what_fits(tmp_path):
  made, _ = entry(count=2)
  variables = {'params': {'w': jnp.arange(6.0).reshape(3, 2)}, 'state': {}}
  spec = {'model': 'mlp', 'kw': {}, 'members': 3}
  checkpoint.export(tmp_path / 'net', variables, spec)
  got = groups.restore('main', made, role(), 5, tmp_path / 'net')
  np.testing.assert_array_equal(got['params']['w'], [[0, 1], [2, 3]])
  for wrong, message in (
    ((made, role(3)), 'another architecture: params/w is'),
    ((entry(count=4)[0], role()), 'holds 3 nets and 4 are wanted'),
    ((entry(per_seed=True)[0], role()), 'holds 3 nets and 5 are wanted'),
  ):
    with pytest.raises(UserError, match=f'teachers.main.restore: .*{message}'):
      groups.restore('main', *wrong, 5, tmp_path / 'net')
  ruined = {**variables, 'params': {'w': jnp.full((3, 2), jnp.nan)}}
  checkpoint.export(tmp_path / 'ruined', ruined, spec)
  with pytest.raises(UserError, match=r'main.restore: .*number \(params/w\)'):
    groups.restore('main', made, role(), 5, tmp_path / 'ruined')
  with pytest.raises(UserError, match='no exported network'):
    groups.restore('main', made, role(), 5, tmp_path / 'nothing')


def test_how_restored_teachers_were_shown_their_data_is_told(tmp_path):
  source = sources.load('synthetic', shape=(4, 4, 1), num_classes=3, size=60)
  made, _ = entry(restore='x')
  like = dict(
    model='mlp', num_classes=3, classes=['0', '1', '2'], view='blur(1.0)',
    input_shape=[4, 4, 1], inputs=inputs.as_json(inputs.of(source)),
  )  # fmt: skip
  wide = inputs.Inputs(inputs.Array((4, 4, 1), 'float32', -2.0, 3.0))
  here = role()._replace(shape=(4, 4, 1), eval_view='blur(1.0)')
  for number, (other, said) in enumerate(
    [
      ({}, ''),
      ({'view': ''}, "with the view '' and have 'blur"),
      ({'view': 'blur( sigma = 1.0 )'}, ''),
      ({'input_shape': [6, 6, 1]}, 'of 6 × 6 × 1 and see 4 × 4 × 1 here'),
      ({'inputs': inputs.as_json(wide)}, 'from -2 to 3 and see .* from 0 to 1'),
      ({'classes': ['a', 'b', 'c']}, ''),  # the data have no names
      ({'classes': ['a', 'b'], 'num_classes': 3}, ''),  # nor has the net
    ]
  ):
    folder = tmp_path / str(number)
    variables = {'params': {'w': jnp.zeros((1, 2))}, 'state': {}}
    checkpoint.export(folder, variables, {**like, **other})
    notes = groups.differences('main', made, here, folder, source)
    assert len(notes) == bool(said)
    assert all(re.search(f'teachers main were .*{said}', n) for n in notes)
  named = source._replace(classes=('a', 'c', 'b'))
  with pytest.raises(UserError, match="class 1 is 'b' there and 'c' in synth"):
    groups.differences('main', made, here, tmp_path / '5', named)
  checkpoint.export(tmp_path / 'x', variables, {**like, 'logits': 'sigmoids'})
  of = 'main', made, here, tmp_path / 'x', source
  with pytest.raises(UserError, match='a sigmoid for each class, and nets of'):
    groups.differences(*of)
  groups.differences(*of, 'sigmoids')
  theirs, _ = entry(restore='pytorch:x')
  (note,) = groups.differences('main', theirs, here, tmp_path / 'x', source)
  assert 'no standardize in teachers.main.views.eval' in note
  of_values = source._replace(standardized=((1.0,), (2.0,)))
  notes = groups.differences('main', theirs, here, tmp_path / 'x', of_values)
  assert 'taken for labels that are standardised as' in notes[0]
  other, _ = entry(restore='x', classes=3)
  assert not groups.differences('main', other, here, tmp_path / '0', named)
  groups.differences('main', other, here, tmp_path / 'x', source)


def test_restores_what_pytorch_has_trained(tmp_path):
  kw = dict(widths=(2,), sizes=(1,))
  net = models.build('vgg', num_classes=3, input_shape=(4, 4, 1), **kw)
  made, _ = entry(model='vgg', kw=kw, restore='pytorch:x')
  draw = np.random.default_rng(0).random
  layers = {'block0.0': (2, 1, 3, 3), 'block0.1': (2,), 'classifier': (3, 2)}
  state = {
    f'{layer}.{name}': draw(shape if name == 'weight' else shape[:1])
    for layer, shape in layers.items()
    for name in ('weight', 'bias')
  }
  for name in ('running_mean', 'running_var'):
    state[f'block0.1.{name}'] = draw((2,))
  file = tmp_path / 'x'
  save_file(state, file)
  got = groups.restore('main', made, Role(net), 5, file)
  kernel = got['params']['head']['kernel']
  np.testing.assert_array_equal(
    kernel, state['classifier.weight'].T[None].astype(np.float32)
  )
  shapes = groups.shapes(made, Role(net), 5).variables
  assert jax.tree.map(np.shape, got) == jax.tree.map(np.shape, shapes)
  with pytest.raises(UserError, match='holds 1 nets and 2 are wanted'):
    groups.restore('main', {**made, 'count': 2}, Role(net), 5, file)
  state.pop('block0.0.bias')
  save_file(state, file)
  at = r'^teachers\.main\.restore: '
  with pytest.raises(UserError, match=f'{at}.*does not fit.*no tensor there'):
    groups.restore('main', made, Role(net), 5, file)


@pytest.mark.parametrize(
  ('said', 'message'),
  [
    ({}, ''),
    ({'classes': ('a', 'b', 'c')}, ''),
    ({'classes': ('a', 'c', 'b')}, "class 1 is 'c' there and 'b' in synth"),
    ({'logits': 'sigmoids'}, 'logits of a sigmoid for each class, and nets of'),
    (
      {'logits': 'softmax', 'standardized': ((1.0,), (2.0,))},
      r'standardised by the means \(1.0,\) and .* by nothing',
    ),
    (
      {'view': 'standardize(0.5, 0.5)'},
      'views.eval: the net standardises what it is given itself',
    ),
  ],
)
def test_a_net_of_a_function_may_say_what_it_is(said, message):
  source = sources.load('synthetic', shape=(4, 4, 1), num_classes=3, size=60)
  source = source._replace(classes=('a', 'b', 'c'))
  net = loaded.LoadedNet(lambda key: {}, lambda *x, **kw: ({}, {}), **said)
  made = given.Given('mine:net', net, {'params': {'w': np.ones(1)}})
  here = role()._replace(shape=(4, 4, 1), eval_view='standardize(0.5, 0.5)')
  of = 'main', entry(restore='x')[0], here, made, source
  if not message:
    (note,) = groups.differences(*of)
    assert 'that mine:net gives' in note
    return
  with pytest.raises(UserError, match=rf'^teachers\.main\..*{message}'):
    groups.differences(*of)
