"""What a run says of, and refuses for, logits that are kept as factors."""

import io
import re

import pytest
from rich.console import Console

from jaxkd.errors import UserError
from jaxkd.run import checks, overview
from jaxkd.run import config as configs


def complete(kw=(), **teacher):
  net = dict(model='lstm_language', kw=dict(width=4, **dict(kw)))
  return configs.plain(
    configs.complete(
      dict(
        task='language',
        data=dict(source='markov', kw=dict(size=60, length=4), draw='shared'),
        teachers=dict(main=dict(**net, **teacher)),
        students=dict(student=net),
        distill=dict(
          soft=dict(loss='reverse_kl', teacher='main', mask='valid'),
        ),
        arms=dict(student={}),
        train=dict(steps=2, seeds=1, batch_size=64),
        report=dict(
          metric='nll', compare=dict(better='student', than='student')
        ),
      )
    )
  )


def explained(config, folder):
  source, rounds = checks.prepare(config, folder)
  told = io.StringIO()
  overview.explain(Console(file=told, width=200), source, rounds)
  return told.getvalue()


def test_explains_what_a_loss_takes(tmp_path):
  given = complete({'logits': 'factored', 'chunk': 8})
  text = explained(given, tmp_path)
  assert 'kB beside its gradients, in chunks of 8 of 34 classes; dense' in text
  in_parts = explained(configs.put(given, 'train.accumulate', 8), tmp_path)
  said = 'takes (.*) kB beside its gradients for each of the 8 parts of a batch'
  part = re.search(said, in_parts)[1]
  assert float(part) < float(re.search('takes (.*) kB beside', text)[1]) / 4
  assert 'chunks' not in explained(complete(), tmp_path)


def test_a_cache_of_factors_is_refused(tmp_path):
  config = complete({'logits': 'factored'}, cache=dict(outputs=('logits',)))
  with pytest.raises(
    UserError, match=r'^teachers.main.cache.outputs: .* as factors; set'
  ):
    checks.prepare(config, tmp_path)
