"""Texts of Hugging Face datasets and of TFDS."""

import itertools
import json

import numpy as np
import pytest

from jaxkd.data import sources
from jaxkd.errors import UserError

TEXTS = {'train': ['one two', 'größe\n x', 'three'], 'test': ['four', 'five']}
OPTIONS = {
  'tokens': 'bytes',
  'length': 20,
  'packing': 'none',
  'validation': 0,
}


def texts(source):
  return {
    split: [
      source.tokenizer.decode(row)
      for row in own.fetch(np.arange(len(own)))['inputs']
    ]
    for split, own in source.splits.items()
  }


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
  datasets = pytest.importorskip('datasets')
  datasets.disable_progress_bars()
  folder = tmp_path_factory.mktemp('hub')
  splits = {
    split: datasets.Dataset.from_dict({'text': own, 'id': [*range(len(own))]})
    for split, own in TEXTS.items()
  }
  datasets.DatasetDict(splits).save_to_disk(folder / 'saved')
  splits['train'].save_to_disk(folder / 'one')
  for split, own in splits.items():
    own.to_parquet(folder / f'parquet/{split}-00000-of-00001.parquet')
  return folder


class TestHub:
  @pytest.fixture(autouse=True)
  def cache(self, tmp_path, monkeypatch):
    datasets = pytest.importorskip('datasets')
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path / 'hf')
    monkeypatch.setattr(datasets.config, 'HF_HUB_OFFLINE', True)

  @pytest.mark.parametrize('kind', ['saved', 'parquet'])
  def test_folders_with_splits(self, stored, kind):
    source = sources.load(f'hf:{kind}', dir=str(stored), **OPTIONS)
    assert texts(source) == TEXTS
    assert source.name == f'hf:{kind}'

  def test_a_log_has_no_bars(self, stored, capfd):
    import datasets

    datasets.enable_progress_bars()
    try:
      sources.load('hf:parquet', dir=str(stored), **OPTIONS)
      assert not datasets.are_progress_bars_disabled()
    finally:
      datasets.disable_progress_bars()
    assert capfd.readouterr().err == ''

  def test_a_file_and_a_table_are_held_out_from(self, stored):
    file = stored / 'parquet/train-00000-of-00001.parquet'
    for path in (file, stored / 'one'):
      source = sources.load(f'hf:{path}', **{**OPTIONS, 'test': 1})
      assert sorted(itertools.chain(*texts(source).values())) == sorted(
        TEXTS['train']
      )

  def test_fields(self, stored):
    with pytest.raises(
      UserError, match=r"kw\.field: .* no field 'body' but te"
    ):
      sources.load(f'hf:{stored}/saved', **OPTIONS, field='body')
    with pytest.raises(UserError, match=r"record 0 of .* has no text 'id'"):
      sources.load(f'hf:{stored}/saved', **OPTIONS, field='id')

  def test_what_is_not_there_or_needs_the_network(self, tmp_path):
    with pytest.raises(
      UserError, match=r"'nobody/nothing' is no path, and not"
    ):
      sources.load('hf:nobody/nothing', **OPTIONS)
    (tmp_path / 'a.parquet').write_text('nothing')
    with pytest.raises(UserError, match=r'cannot read \S+a\.parquet with the'):
      sources.load(f'hf:{tmp_path}/a.parquet', **OPTIONS)

  def test_conversations(self, stored, tmp_path):
    import datasets

    turns = [
      [{'role': 'user', 'content': f'q{i}'},
       {'role': 'assistant', 'content': f'a{i}'}]
      for i in range(4)
    ]  # fmt: skip
    table = datasets.Dataset.from_dict({'messages': turns})
    table.save_to_disk(tmp_path / 'chat')
    options = {**OPTIONS, 'length': 100, 'format': 'chat', 'test': 1}
    source = sources.load(f'hf:{tmp_path}/chat', **options, template='chatml')
    row = source.splits['test'].fetch(np.arange(1))
    said = source.tokenizer.decode(row['labels'][row['valid']])
    assert said in {f'a{i}' for i in range(4)}


def test_without_the_package(monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'datasets', None)
  with pytest.raises(UserError, match=r"pip install 'jaxkd\[hf\]'$"):
    sources.load('hf:any', **OPTIONS)


def test_tfds(tmp_path):
  import tensorflow_datasets as tfds

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.0.0')
    name = 'letters'

    def _info(self):
      features = {'text': tfds.features.Text(), 'label': np.int32}
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, manager):
      del manager
      return {split: self._generate_examples(split) for split in TEXTS}

    def _generate_examples(self, split):
      for i, text in enumerate(TEXTS[split]):
        yield i, {'text': text, 'label': i}

  builder = Builder(data_dir=str(tmp_path), file_format='array_record')
  builder.download_and_prepare()
  options = {**OPTIONS, 'dir': str(tmp_path)}
  made = texts(sources.load('text:tfds:letters', **options))
  assert {split: sorted(own) for split, own in made.items()} == {
    split: sorted(own) for split, own in TEXTS.items()
  }
  with pytest.raises(UserError, match=r"^data\.kw\.field: 'label' of letters"):
    sources.load('text:tfds:letters', **options, field='label')
  with pytest.raises(UserError, match=r"data\.source='text:tfds:letters', or"):
    sources.load(
      'tfds:letters', dir=str(tmp_path), inputs='text', labels='label'
    )
  with pytest.raises(UserError, match="no source 'lettres'"):
    sources.load('text:tfds:lettres', **options)


def test_duplicates_across_splits_are_told(tmp_path):
  for split in ('train', 'test'):
    lines = [json.dumps({'text': x}) for x in ('same', split, 'two')]
    (tmp_path / f'{split}.jsonl').write_text('\n'.join(lines))
  source = sources.load(f'text:{tmp_path}', **OPTIONS)
  assert source.notes[-1] == '2 of the 3 documents in test are in train too'
