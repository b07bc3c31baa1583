"""Rows of tokens: windows, packed documents, prompts."""

import itertools
import json

import jax
import numpy as np
import pytest

from jaxkd.data import examples, sources
from jaxkd.data import inputs as inputs_lib
from jaxkd.data.text import rows
from jaxkd.errors import UserError

TEXTS = [f'{i:02} ' + 'größe ' * (i % 4) + 'end' for i in range(12)]
OPTIONS = {'tokens': 'bytes', 'length': 40, 'validation': 0}


def load(folder, texts=TEXTS, **options):
  for split in ('train', 'test'):
    lines = '\n'.join(json.dumps({'text': x}) for x in texts)
    (folder / f'{split}.jsonl').write_text(lines)
  return sources.load(f'text:{folder}', **{**OPTIONS, **options})


def everything(source):
  own = source.splits['train']
  return own.fetch(np.arange(len(own)))


def documents(batch, source):
  """The texts of segments, from their inputs and their last labels."""
  tokens, segments, positions = (
    batch['inputs'][k] for k in ('tokens', 'segments', 'positions')
  )
  found = []
  for row in range(len(tokens)):
    for nth in range(1, segments[row].max() + 1):
      own = segments[row] == nth
      assert positions[row, own].tolist() == [*range(own.sum())]
      whole = [*tokens[row, own], batch['labels'][row, own][-1]]
      assert batch['labels'][row, own].tolist() == whole[1:]
      found.append(source.tokenizer.decode(whole))
  return found


@pytest.mark.parametrize('packing', ['windows', 'packed', 'none'])
def test_the_bytes_of_all_labels_are_the_text(tmp_path, packing):
  batch = everything(load(tmp_path, packing=packing))
  total = sum(len(text.encode()) for text in TEXTS)
  assert batch['bytes'][batch['valid']].sum() == total
  # Each byte, and an end, of each document counts once.
  assert batch['valid'].sum() == total + len(TEXTS)


def test_packed_rows_have_whole_documents(tmp_path):
  source = load(tmp_path, packing='packed')
  batch = everything(source)
  assert sorted(documents(batch, source)) == sorted(TEXTS)
  there = batch['inputs']['segments'] > 0
  assert (batch['valid'] == there).all()
  assert (batch['inputs']['tokens'][~there] == 0).all()
  assert len(there) < len(TEXTS)
  assert f'train is packed into {len(there)} rows' in ' '.join(source.notes)


def test_packing_is_first_fit_and_always_the_same():
  lengths = np.array([5, 4, 2, 8, 1, 3])
  order, firsts = rows.packed(lengths, 8)
  made = [order[a:b].tolist() for a, b in itertools.pairwise(firsts)]
  assert made == [[0, 2, 4], [1, 5], [3]]
  again = rows.packed(lengths, 8)
  assert all(
    (a == b).all() for a, b in zip(again, (order, firsts), strict=True)
  )


def test_a_document_in_each_row(tmp_path):
  source = load(tmp_path, packing='none')
  batch = everything(source)
  said = [source.tokenizer.decode(row) for row in batch['inputs']]
  assert said == TEXTS
  assert (batch['inputs'][:, 0] == source.tokenizer.special.bos).all()


def test_documents_that_are_too_long(tmp_path):
  long = 'x' * 100
  with pytest.raises(
    UserError, match=r'^data\.kw\.length: 1 of the 2 .* 101; '
  ):
    load(tmp_path, ['a', long], packing='packed')
  source = load(tmp_path, ['a', long], packing='packed', too_long='split')
  batch = everything(source)
  assert batch['bytes'][batch['valid']].sum() == 101
  lengths = sorted(map(len, documents(batch, source)))
  assert lengths == [1, 21, 40, 41]
  assert source.notes[2].endswith('not fit into 40 tokens and are split')
  source = load(tmp_path, ['a', long], packing='none', too_long='cut')
  batch = everything(source)
  assert batch['bytes'][batch['valid']].sum() == 41
  assert source.notes[2].endswith('not fit into 40 tokens and are cut')


def test_documents_of_one_token(tmp_path):
  batch = everything(load(tmp_path, ['a', 'b', 'c'], packing='none'))
  assert batch['valid'].sum(1).tolist() == [2, 2, 2]  # and the end of it


@pytest.mark.parametrize('packing', ['windows', 'none'])
def test_the_first_tokens_of_a_row_may_be_a_prompt(tmp_path, packing):
  source = load(tmp_path, [*TEXTS, 'a'], packing=packing, prompt=4)
  batch = everything(source)
  assert batch['prompt'].shape[1] == 4
  assert (batch['prompt_length'] == 4).all()
  assert (batch['inputs'][:, :4] == batch['prompt']).all()
  assert not batch['valid'][:, :3].any()
  assert batch['valid'].any(1).all()
  if packing == 'none':  # a text without more than its prompt
    assert len(batch['prompt']) == len(TEXTS)
    assert any('1 of the 13 documents in train' in x for x in source.notes)


def test_a_prompt_that_is_all(tmp_path):
  with pytest.raises(UserError, match=r'^data\.kw\.prompt: 4 tokens are all'):
    load(tmp_path, ['a', 'b'], packing='none', prompt=4)


def test_streamed_rows_are_those_in_memory(tmp_path, monkeypatch):
  held = load(tmp_path, packing='packed')
  monkeypatch.setattr(examples, 'IN_MEMORY', 0)
  streamed = load(tmp_path, packing='packed')
  assert not isinstance(streamed.splits['train'], examples.ArrayExamples)
  same = jax.tree.map(np.array_equal, everything(held), everything(streamed))
  assert all(jax.tree.leaves(same))


def test_positions_are_no_tokens(tmp_path):
  source = load(tmp_path, packing='packed', length=300)
  found = inputs_lib.of(source).arrays
  assert found['tokens'].high == 259
  assert found['positions'].high is None is found['segments'].high


@pytest.mark.parametrize(
  ('options', 'said'),
  [
    ({'packing': 'full'}, "packing: 'full' should be one of windows, packed"),
    ({'too_long': 'drop'}, "too_long: 'drop' should be one of refuse, split"),
    ({'too_long': 'cut'}, 'too_long: windows cut documents of any length'),
    ({'packing': 'none', 'context': 2}, "context: with packing 'none' no row"),
    ({'packing': 'packed', 'prompt': 2}, 'prompt: a packed row has several'),
    ({'prompt': 40}, r'prompt: 40 should be 1 or more, and less than data'),
    ({'prompt': -1}, r'prompt: -1 should be 1 or more'),
    ({'learn': 'completions'}, 'learn: texts have no completions'),
    ({'tokens': 'words', 'eos': '.'}, "eos: the vocabulary 'words' ends"),
    ({'vocabulary': 9}, "vocabulary: 'bytes' says itself how many"),
  ],
)
def test_options_that_cannot_be(tmp_path, options, said):
  with pytest.raises(UserError, match=rf'^data\.kw\.{said}'):
    load(tmp_path, **options)
