"""Texts: which files are documents, and what cannot be one."""

import json

import numpy as np
import pytest

from jaxkd.data import sources
from jaxkd.data.text import kjv, text_files
from jaxkd.data.text.conversations import Format
from jaxkd.data.text.tokens import BOS, EOS, PAD, UNK
from jaxkd.errors import UserError

LINES = ['The cat sat.', 'A cat, the dog!', 'the dog sat', "A dog's cat"]
TEXT = Format()
WINDOW = {'length': 4, 'vocabulary': 50}


def write(folder, **files):
  folder.mkdir(parents=True, exist_ok=True)
  for name, lines in files.items():
    content = lines if isinstance(lines, str) else '\n'.join(lines)
    (folder / name.replace('__', '.')).write_text(content, encoding='utf-8')
  return folder


def jsonl(*texts):
  return [json.dumps({'text': x}) for x in texts]


def load(path, **options):
  return sources.load(f'text:{path}', **{**WINDOW, **options})


def everything(split):
  return split.fetch(np.arange(len(split)))


def words(split, classes):
  """The words of a split whose labels count."""
  batch = everything(split)
  return [classes[i] for i in batch['labels'][batch['valid']]]


class TestFiles:
  def test_splits_are_files_or_folders_whatever_is_in_front(self, tmp_path):
    write(tmp_path, ptb__train__txt=LINES, ptb__test__txt=['the cat', 'sat'])
    write(tmp_path, readme__md='of no split')
    write(tmp_path / 'valid', b__txt='a dog', a__txt=['', 'the dog', '', 'sat'])
    found = text_files.read(tmp_path, TEXT)
    assert found == {
      'train': ['\n'.join(LINES)],
      'validation': ['the dog\n\nsat', 'a dog'],
      'test': ['the cat\nsat'],
    }

  def test_a_line_of_json_is_a_document(self, tmp_path):
    write(tmp_path, train__jsonl=jsonl('one\n\ntwo', ' ', 'three'))
    assert text_files.read(tmp_path / 'train.jsonl', TEXT) == {
      'all': ['one\n\ntwo', ' ', 'three']
    }

  def test_documents_without_text_are_left_out_and_counted(self, tmp_path):
    write(tmp_path, train__jsonl=jsonl(*LINES, ' ', ''))
    write(tmp_path, test__jsonl=jsonl('the cat'))
    source = load(tmp_path, validation=0)
    said = 'of the {} documents in train have no text and are left out'
    assert f'2 {said.format(len(LINES) + 2)}' in source.notes

  def test_a_file_has_parts_between_blank_lines(self, tmp_path):
    write(tmp_path, a__txt='one\r\n two\n \n\nthree\n')
    assert text_files.read(tmp_path / 'a.txt', TEXT) == {
      'all': ['one\n two', 'three']
    }

  def test_files_without_splits_are_documents(self, tmp_path):
    write(tmp_path, b__txt='two', a__txt='one', c__jsonl=jsonl('three', 'four'))
    found = text_files.read(tmp_path, TEXT)
    assert found == {'all': ['one', 'two', 'three', 'four']}

  @pytest.mark.parametrize(
    ('name', 'content', 'said'),
    [
      ('a.txt', b'\n \n', r'a\.txt is empty'),
      ('a.txt', b'one\ntw\xff', r'line 2 of \S*a\.txt is not UTF-8'),
      ('a.jsonl', b'{"text": "a"}\n{', r'line 2 of \S*a\.jsonl is not JSON'),
      (
        'a.jsonl',
        b'{"body": "a"}',
        r"line 1 of \S* has no text 'text'; .*field",
      ),
      ('a.jsonl', b'{"text": ' + b'9' * 5000 + b'}', 'line 1 of .* not JSON'),
      ('a.jsonl', b'[' * 100_000, 'line 1 of .* not JSON'),
      ('a.jsonl', b'["a"]', r"line 1 of \S* has no text 'text'"),
      ('a.jsonl', b'{"text": " "}', 'is empty$'),
      ('a.json', b'{"text": "a"}\n{"text": "b"}', r'rename it to a\.jsonl$'),
    ],
  )
  def test_what_is_no_text_is_refused(self, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf'^data\.source: .*{said}'):
      load(tmp_path / name)

  def test_a_field_of_what_has_none(self, tmp_path):
    write(tmp_path, a__txt=LINES)
    message = r'^data\.kw\.field: \S*a\.txt is text without fields; give JSON'
    with pytest.raises(UserError, match=message):
      load(tmp_path / 'a.txt', field='body')

  def test_two_files_of_a_split(self, tmp_path):
    for name in ('a.train.txt', 'b.train.txt', 'test.txt'):
      (tmp_path / name).write_text('a b\nc d')
    message = r'a\.train\.txt and b\.train\.txt, which are the train split'
    with pytest.raises(UserError, match=message):
      text_files.read(tmp_path, 'text')

  def test_nothing_there(self, tmp_path):
    with pytest.raises(UserError, match='there is no file or folder'):
      load(tmp_path / 'a')
    with pytest.raises(UserError, match='has no file'):
      load(tmp_path)
    write(tmp_path, train__txt='one')
    with pytest.raises(UserError, match='has the splits train; it must have'):
      load(tmp_path)


class TestSplits:
  def test_whole_documents_are_held_out_and_equal_ones_together(self, tmp_path):
    documents = [f'w{i % 10} same' for i in range(20)]
    write(tmp_path, a__jsonl=jsonl(*documents))
    source = load(tmp_path / 'a.jsonl', test=4, validation=0.25)
    found = {
      split: sorted(words(own, source.classes))
      for split, own in source.splits.items()
    }
    sizes = {split: len(own) for split, own in found.items()}
    assert sizes == {'train': 36, 'validation': 12, 'test': 12}
    # Those held out have no word of their own that train has.
    kept = {word for word in found['train'] if word.startswith('w')}
    assert not kept & {*found['validation'], *found['test']}

  def test_of_one_document_the_last_lines(self, tmp_path):
    write(tmp_path, a__txt=[f'w{i} and' for i in range(10)])
    source = load(tmp_path / 'a.txt', test=2, validation=1, tokens='spaces')
    classes = source.classes
    assert words(source.splits['train'], classes)[-3:] == ['w6', 'and', '</s>']
    held = [words(source.splits[s], classes) for s in ('validation', 'test')]
    assert held == [['<unk>', 'and', '</s>'], ['<unk>', 'and', '</s>'] * 2]

  def test_of_one_line_nothing_can_be(self, tmp_path):
    write(tmp_path, a__txt='one line alone')
    with pytest.raises(UserError, match='has one line alone, of which none'):
      load(tmp_path / 'a.txt')

  def test_shares_that_leave_nothing(self, tmp_path):
    write(tmp_path, train__txt=LINES, test__txt=LINES)
    with pytest.raises(UserError, match=r'^data\.kw\.test: .* its own; remove'):
      load(tmp_path, test=1)
    with pytest.raises(UserError, match=r'^data\.kw\.validation: 4 of 4'):
      load(tmp_path, validation=4)
    write(tmp_path / 'one', a__jsonl=jsonl('same one', 'same one'))
    with pytest.raises(UserError, match='takes all of them, for equal ones'):
      load(tmp_path / 'one', test=1)
    with pytest.raises(UserError, match=r'^data\.kw\.test: 0 leaves nothing'):
      load(tmp_path / 'one', test=0)

  def test_other_words_in_test(self, tmp_path):
    write(tmp_path, train__txt=LINES, test__txt=['der Hund', 'saß'])
    with pytest.raises(UserError, match=r'no word of test of .* one language'):
      load(tmp_path, validation=0)

  def test_notes_tell_what_is_unknown_and_what_is_seen(self, tmp_path):
    write(tmp_path, train__txt=LINES, test__txt=LINES)
    notes = load(tmp_path, validation=0, vocabulary=6).notes
    assert notes[:2] == tuple(
      f'{split} has 13 words, 7 of them unknown, in 1 documents'
      for split in ('train', 'test')
    )
    assert notes[2] == '1 of the 1 documents in test are in train too'


class TestWindows:
  @pytest.mark.parametrize('context', [0, 1, 3])
  def test_each_token_counts_once_after_those_before(self, tmp_path, context):
    write(tmp_path, train__txt=LINES, test__jsonl=jsonl(*LINES))
    source = load(tmp_path, validation=0, context=context)
    train, test = map(everything, source.splits.values())
    number = {word: i for i, word in enumerate(source.classes)}
    said = [['the', 'cat', 'sat'], ['a', 'cat', 'the', 'dog'],
            ['the', 'dog', 'sat'], ['a', "dog's", 'cat']]  # fmt: skip
    lines = [[*(number[w] for w in line), EOS] for line in said]
    whole = [token for line in lines for token in line]
    assert train['labels'][train['valid']].tolist() == whole
    assert test['labels'][test['valid']].tolist() == whole
    stream = [token for line in lines for token in (BOS, *line)]
    for row, batch in enumerate([test] * len(test['labels'])):
      start = row * (4 - context)
      inputs = stream[start : min(start + 4, len(stream) - 1)]
      padding = [PAD] * (4 - len(inputs))
      assert batch['inputs'][row].tolist() == [*inputs, *padding]
      follow = stream[start + 1 : start + 1 + len(inputs)]
      assert batch['labels'][row].tolist() == [*follow, *padding]
      counts = [token != BOS for token in follow] + [False] * len(padding)
      if row:
        counts[:context] = [False] * context
      assert batch['valid'][row].tolist() == counts

  def test_bytes_are_those_of_the_text(self, tmp_path):
    lines = ['das  große Haus', 'ja']
    write(tmp_path, train__txt=lines, test__txt=lines)
    source = load(tmp_path, validation=0, vocabulary=5, tokens='spaces')
    batch = source.splits['test'].fetch(np.arange(2))
    assert source.classes[4:] == ('Haus',)  # the first by name
    counted = batch['bytes'][batch['valid']]
    assert counted.tolist() == [3, 7, 5, 1, 2, 1]
    assert counted.sum() == len('das große Haus\nja\n'.encode())
    unknown = batch['labels'][batch['valid']] == UNK
    assert unknown.tolist() == [True, True, False, False, True, False]

  def test_the_unknown_word_of_a_text_is_unknown(self, tmp_path):
    write(tmp_path, train__txt=['a <unk> b', 'a'], test__txt='<unk> a')
    source = load(tmp_path, validation=0, tokens='spaces')
    assert source.classes == ('<pad>', '<unk>', '<s>', '</s>', 'a', 'b')
    assert source.vocabulary == source.num_classes == 6
    test = source.splits['test'].fetch(np.arange(1))
    assert test['labels'].tolist() == [[UNK, 4, EOS, PAD]]

  @pytest.mark.parametrize(
    ('options', 'said'),
    [
      ({'length': 1}, r'kw\.length: 1 is too short'),
      ({'context': 4}, r'kw\.context: 4 should be 0 or more, and less than'),
      ({'context': -1}, r'kw\.context: -1 should be'),
      ({'vocabulary': 4}, r'kw\.vocabulary: 4 tokens leave none for words'),
      ({'tokens': 'word'}, r"kw\.tokens: .*'word'.*'words'"),
    ],
  )
  def test_options_that_cannot_be(self, tmp_path, options, said):
    write(tmp_path, train__txt=LINES, test__txt=LINES)
    with pytest.raises(UserError, match=rf'^data\.{said}'):
      load(tmp_path, validation=0, **options)

  def test_punctuation_alone_is_no_text(self, tmp_path):
    write(tmp_path, train__txt=LINES, test__txt='... !')
    with pytest.raises(UserError, match=r'test of .* has no words'):
      load(tmp_path, validation=0)


class TestMarkov:
  def test_its_words_are_as_hard_to_guess_as_the_notes_say(self):
    source = sources.load('markov', size=4000, length=8, validation=0)
    *_, note = source.notes
    least = float(note.rpartition(' ')[2])
    counts = np.zeros((source.num_classes,) * 2)
    train = source.splits['train'].fetch(np.arange(len(source.splits['train'])))
    before, after = (train[k][train['valid']] for k in ('inputs', 'labels'))
    np.add.at(counts, (np.where(before == BOS, EOS, before), after), 1)
    p = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    nll = -(counts * np.log(np.where(p > 0, p, 1))).sum() / counts.sum()
    assert np.exp(nll) == pytest.approx(least, rel=0.02)

  def test_is_drawn_from_its_seed(self):
    one, two, other = (
      sources.load('markov', size=50, seed=seed).splits['test'].fetch([0])
      for seed in (1, 1, 2)
    )
    assert (one['inputs'] == two['inputs']).all()
    assert (one['inputs'] != other['inputs']).any()

  def test_a_chain_that_cannot_be(self):
    with pytest.raises(UserError, match=r'^data\.kw: markov cannot make'):
      sources.load('markov', words=4, branching=4)


class TestKjv:
  def printing(self, tmp_path, monkeypatch, script):
    program = tmp_path / 'bible'
    program.write_text(f'#!/bin/sh\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setattr(kjv.shutil, 'which', lambda name: str(program))

  def test_a_line_is_a_verse_and_a_document_a_chapter(
    self, tmp_path, monkeypatch
  ):
    script = '\n'.join(
      f"echo '{book}{chapter}:{verse} In the {verse}. {book} {chapter}'"
      for book in ('Ge', '1Sm')
      for chapter in (1, 2, 3)
      for verse in (1, 2)
    )
    self.printing(
      tmp_path, monkeypatch, f'test "$2" = "gen-1sm" && {{\n{script}\n}}'
    )
    source = sources.load('kjv', passage='gen-1sm', test=1, length=80)
    assert source.notes[0] == 'chapters Ge1 to 1Sm3 of the King James Bible'
    assert {n: len(s) for n, s in source.splits.items()} == {
      'train': 1, 'validation': 1, 'test': 1
    }  # fmt: skip
    said = words(source.splits['test'], source.classes)
    assert said[:2] == ['in', 'the'] and said.count('</s>') == 2

  @pytest.mark.parametrize(
    ('passage', 'script', 'said'),
    [
      ('gen1', 'exit 1', r'source: .*apt-get install bible-kjv bible-kjv-text'),
      (
        'xyz',
        'echo "Bad Book: \'xyz\'" >&2',
        r"kw\.passage: .*Bad Book: 'xyz'",
      ),
      ('gen1', 'true', r"kw\.passage: 'gen1' is no passage \(no verses\)"),
      ('-f', 'exit 1', r"kw\.passage: '-f' is no passage"),
    ],
  )
  def test_what_is_not_there(
    self, tmp_path, monkeypatch, passage, script, said
  ):
    self.printing(tmp_path, monkeypatch, script)
    with pytest.raises(UserError, match=rf'^data\.{said}'):
      sources.load('kjv', passage=passage)

  def test_without_the_packages(self, monkeypatch):
    monkeypatch.setattr(kjv.shutil, 'which', lambda name: None)
    with pytest.raises(UserError, match='apt-get install bible-kjv bible-kjv-'):
      sources.load('kjv')
