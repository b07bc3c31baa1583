import io

import jax
import numpy as np
import pytest
from rich.console import Console

from jaxkd import losses, models
from jaxkd.data import sources
from jaxkd.errors import UserError
from jaxkd.run import config as configs
from jaxkd.run import pipeline
from jaxkd.teachers import many
from jaxkd.train import checkpoint


def predicted(net, variables, inputs):
  """Logits of each net, one after another, [T, B, K]."""
  count = len(jax.tree.leaves(variables)[0])
  alone = [jax.tree.map(lambda v, i=i: v[i], variables) for i in range(count)]
  return np.stack([net.apply(one, inputs)[0]['logits'] for one in alone])


def test_an_ensemble_gives_what_its_nets_give_together():
  net = models.build('mlp', num_classes=3, input_shape=(5,), widths=(4,))
  variables = jax.vmap(net.init)(jax.random.split(jax.random.key(0), 3))
  x = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
  each = predicted(net, variables, x)
  probabilities = np.exp(each) / np.exp(each).sum(-1, keepdims=True)
  outputs, _ = many.ensemble(net).apply(variables, x)
  got = jax.nn.softmax(outputs['logits'])
  np.testing.assert_allclose(got, probabilities.mean(0), rtol=1e-5)
  outputs, _ = many.ensemble(net, losses.mean_logits).apply(variables, x)
  np.testing.assert_allclose(outputs['logits'], np.mean(each, 0), rtol=1e-5)


def test_a_vote_of_four_has_ties():
  random = np.random.default_rng(3)
  logits = random.normal(size=(4, 200, 3)).astype(np.float32)
  logits[0, :100] *= 20  # one that is sure of itself has no more votes
  fused = jax.jit(many.vote)(logits)
  np.testing.assert_array_equal(fused.argmax(-1), losses.majority_vote(logits))
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  votes = np.eye(3)[logits.argmax(-1)].sum(0)
  np.testing.assert_allclose(
    jax.nn.softmax(fused), (votes + p.mean(0)) / 5, rtol=1e-5, atol=1e-6
  )


def modes(**changes):
  """Groups that see the examples in ways of their own, and groups of these."""
  net = dict(model='mlp', kw=dict(widths=(5,)))
  made = configs.plain(
    configs.complete(
      dict(
        name='small',
        data=dict(
          source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3, size=120)
        ),
        teachers=dict(
          edges=dict(
            **net, views=dict(train='gradient', eval='gradient'), per_seed=True
          ),
          plain=dict(**net, count=2),
          reader=dict(**net, reads=('edges', 'embedding'), per_seed=True),
          vote=dict(made_of=('edges', 'plain', 'reader'), fuse='majority_vote'),
          mean=dict(made_of=('vote', 'plain')),
          turned=dict(
            made_of=('mean',),
            views=dict(train='dihedral_all', eval='dihedral_all'),
          ),
        ),
        students=dict(student=net),
        distill=dict(
          labels=dict(loss='cross_entropy'),
          soft=dict(loss='pseudo_label', teacher='vote'),
        ),
        arms=dict(
          student={},
          fused=dict(
            distill=dict(
              soft=dict(teacher=('edges', 'plain'), fuse='majority_vote')
            )
          ),
          turned=dict(distill=dict(soft=dict(teacher='turned'))),
        ),
        report=dict(compare=dict(better='teacher mean', than='teacher edges')),
        train=dict(steps=4, seeds=2, batch_size=8, members='vmap'),
      )
    )
  )
  for entry, value in changes.items():
    made = configs.put(made, entry.replace('__', '.'), value)
  return made


def test_groups_of_groups_see_as_these_do_or_in_their_own_way(tmp_path):
  row = pipeline.run(modes(), tmp_path, console=Console(file=io.StringIO()))
  stored = {
    name: checkpoint.load(tmp_path / 'nets' / 'teachers' / name)[0]
    for name in ('edges', 'plain', 'reader')
  }
  data = modes()['data']
  test = sources.load(data['source'], **data['kw']).splits['test']
  fields = test.fetch(np.arange(len(test)))
  sizes = dict(edges=(4, 4, 1), plain=(4, 4, 1), reader=(5,))
  nets = {
    name: models.build('mlp', num_classes=3, input_shape=shape, widths=(5,))
    for name, shape in sizes.items()
  }

  def take(name, index):
    return jax.tree.map(lambda x: x[index], stored[name])

  def mean(seed, images, steep):
    """Probabilities of the vote, then of it and of the two plain nets."""
    edges, _ = nets['edges'].apply(take('edges', seed), steep)
    plain = [
      nets['plain'].apply(take('plain', i), images)[0]['logits']
      for i in range(2)
    ]
    read, _ = nets['reader'].apply(take('reader', seed), edges['embedding'])
    logits = np.stack([edges['logits'], *plain, read['logits']])
    vote = jax.nn.softmax(many.vote(logits))
    return np.mean([vote, *jax.nn.softmax(np.stack(plain))], axis=0)

  images = fields['inputs']
  down, across = np.gradient(images, axis=(1, 2))
  steep = np.sqrt(down**2 + across**2)
  # A view of its own takes the place of theirs.
  turned = [(turn(images), turn(images)) for turn in TURNS]
  for name, copies in (('mean', [(images, steep)]), ('turned', turned)):
    for seed in range(2):
      p = np.mean([mean(seed, *copy) for copy in copies], 0)
      right = (p.argmax(-1) == fields['labels']).mean()
      found = row['arms'][f'teacher {name}']['values'][seed]
      assert abs(found - right) < 1e-6
      nll = -np.log(p[np.arange(len(p)), fields['labels']]).mean()
      found = row['metrics'][f'teacher {name}']['nll'][seed]
      assert abs(found - nll) < 1e-4


TURNS = [
  lambda x, k=k, flip=flip: np.rot90(x[:, :, ::flip], k, (1, 2))
  for k in range(4)
  for flip in (1, -1)
]


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    (dict(teachers__turned__views__train=''), 'make both give one shape'),
    (
      dict(teachers__turned__views=dict(train='resize(3)', eval='resize(3)')),
      r'\(3, 3, 1\) would be shown to nets that take \(4, 4, 1\)',
    ),
    (
      dict(
        teachers__reader__reads=('edges', 'embedding', 'plain', 'embedding')
      ),
      'plain has 2 nets',
    ),
    (
      dict(teachers__reader__reads=('edges', 'layers/0', 'edges')),
      'several such pairs',
    ),
  ],
)
def test_groups_of_groups_that_do_not_fit(tmp_path, changes, said):
  with pytest.raises(UserError, match=said):
    pipeline.run(
      modes(**changes), tmp_path, console=Console(file=io.StringIO())
    )


def test_a_row_has_the_teachers_alone_and_together(tmp_path):
  """For each seed: the mean over its teachers, and what they reach as one."""
  data = dict(
    source='synthetic', kw=dict(shape=(4, 4, 1), num_classes=3, size=120)
  )
  config = configs.complete(
    dict(
      name='small',
      data=data,
      teachers=dict(
        main=dict(model='mlp', kw=dict(widths=(8,)), count=3, per_seed=True)
      ),
      students=dict(student=dict(model='mlp', kw=dict(widths=(4,)))),
      distill=dict(labels=dict(loss='cross_entropy')),
      report=dict(
        compare=dict(better='teacher ensemble', than='teacher'),
        controls=dict(student=dict(better='teacher', than='student')),
      ),
      train=dict(steps=6, seeds=2, batch_size=8, members='vmap'),
    )
  )
  row = pipeline.run(
    configs.plain(config), tmp_path, console=Console(file=io.StringIO())
  )
  variables, spec = checkpoint.load(tmp_path / 'nets' / 'teachers' / 'main')
  assert spec['members'] == 6
  net = models.build('mlp', num_classes=3, input_shape=(4, 4, 1), widths=(8,))
  test = sources.load(data['source'], **data['kw']).splits['test']
  fields = test.fetch(np.arange(len(test)))
  logits = predicted(net, variables, fields['inputs'])
  right = logits.argmax(-1) == fields['labels']
  np.testing.assert_allclose(
    row['arms']['teacher']['values'], right.reshape(2, -1).mean(1), rtol=1e-5
  )
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  together = p.reshape(2, 3, *p.shape[1:]).mean(1).argmax(-1)
  np.testing.assert_allclose(
    row['arms']['teacher ensemble']['values'],
    (together == fields['labels']).mean(1),
    rtol=1e-5,
  )
