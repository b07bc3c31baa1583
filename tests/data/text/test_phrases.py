"""Phrases: real words, disjoint splits, more than one right target."""

import collections
import datetime
import re
import sys

import numpy as np
import pytest
import sentencepiece

from jaxkd.data import sources
from jaxkd.data.text import phrases, sentences, tokenizer
from jaxkd.data.text.tokens import BOS, EOS, PAD, UNK
from jaxkd.errors import UserError

SIZE = 2100
OPTIONS = {'size': SIZE, 'vocabulary': 160, 'length': 48}


@pytest.fixture(scope='module')
def made():
  return phrases.make(('en', 'de'), SIZE, 0)


@pytest.fixture(scope='module')
def source():
  return sources.load('phrases', **OPTIONS)


def everything(split):
  return split.fetch(np.arange(len(split)))


def texts(tokens, source):
  return [tokenizer.text(line, source.classes) for line in tokens]


def of_kind(found, kind):
  return [phrase for phrase in found if phrase.kind == kind]


class TestWhatIsSaid:
  def test_no_item_and_no_source_comes_twice(self, made):
    found, _ = made
    assert len({phrase.item for phrase in found}) == SIZE
    assert len({phrase.texts[0] for phrase in found}) == SIZE

  def test_kinds_are_as_many(self, made):
    counts = collections.Counter(phrase.kind for phrase in made[0])
    assert {*counts.values()} == {SIZE // len(phrases.KINDS)}
    assert f'{SIZE // 7} number, ' in made[1][0]

  def test_each_language_says_the_same_in_digits(self, made):
    for phrase in of_kind(made[0], 'number'):
      for text in phrase.texts:
        digits = re.sub(r'\D', '', text)
        assert not digits or int(digits) == phrase.item
    for phrase in of_kind(made[0], 'date'):
      for text, order in zip(phrase.texts, ('mdy', 'dmy'), strict=True):
        numbers = [int(x) for x in re.findall(r'\d+', text)]
        if len(numbers) == 3:
          date = dict(zip(order, numbers, strict=True))
          assert phrase.item.month == date['m']
          assert (phrase.item.day, phrase.item.year % 100) == (
            date['d'],
            date['y'] % 100,
          )
        else:
          assert {phrase.item.day, phrase.item.year} == {*numbers}

  def test_a_weekday_is_told_of_in_both_languages_or_in_neither(self, made):
    days = {'Mo': 'Mo', 'Tu': 'Di', 'We': 'Mi', 'Th': 'Do', 'Fr': 'Fr',
            'Sa': 'Sa', 'Su': 'So'}  # fmt: skip
    for phrase in of_kind(made[0], 'date with weekday'):
      one, two = phrase.texts
      assert days[one[:2]] == two[:2]
      assert [*days][phrase.item.weekday()] == one[:2]

  def test_words_by_hand(self):
    forms = {
      (kind, name): form
      for kind, (_, own) in phrases.KINDS.items()
      for name, form in own.items()
    }
    day, time = datetime.date(1987, 3, 5), datetime.time(21, 5, 30)
    for at, item, english, german in (
      (('number', 'words'), 21, 'twenty-one', 'einundzwanzig'),
      (('number', 'digits'), 98765, '98,765', '98.765'),
      (('date', 'medium'), day, 'Mar 5, 1987', '05.03.1987'),
      (('date', 'short'), day, '3/5/87', '05.03.87'),
      (
        ('date with weekday', 'full'),
        day,
        'Thursday, March 5, 1987',
        'Donnerstag, 5. März 1987',
      ),
      (
        ('date with weekday', 'in digits'),
        day,
        'Thu, 3/5/1987',
        'Do., 5.3.1987',
      ),
      (('time', 'medium'), time, '9:05:30 PM', '21:05:30'),
      (
        ('time', 'part of the day'),
        time,
        '9:05:30 at night',
        '9:05:30 abends',
      ),
      (('amount', 'name'), ('EUR', 1250), '12.50 euros', '12,50 Euro'),
      (('amount', 'symbol'), ('EUR', 1250), '€12.50', '12,50 €'),
      (('amount', 'code'), ('EUR', 1250), '12.50 EUR', '12,50 EUR'),
      (
        ('list of territories', 'and'),
        ('territories', 'FR', 'DE', 'JP'),
        'France, Germany, and Japan',
        'Frankreich, Deutschland und Japan',
      ),
      (
        ('list of languages', 'commas'),
        ('languages', 'fr', 'de', 'ja'),
        'French, German, Japanese',
        'Französisch, Deutsch, Japanisch',
      ),
    ):
      for language, said in (('en', english), ('de', german)):
        assert phrases._say(forms[at], item, language, at[0]) == said

  def test_forms_are_drawn_apart_with_their_shares(self):
    found, notes = phrases.make(('en', 'de'), 7 * 300, 1)
    spelt = [
      tuple(not re.search(r'\d', text) for text in phrase.texts)
      for phrase in of_kind(found, 'number')
    ]
    shares = np.mean(spelt, 0)
    np.testing.assert_allclose(shares, 0.6, atol=0.1)
    assert abs(np.mean([all(x) for x in spelt]) - 0.36) < 0.1
    full = [', ' in x.texts[1] for x in of_kind(found, 'date with weekday')]
    short = [
      bool(re.fullmatch(r'\d+\.\d+\.\d\d', phrase.texts[1]))
      for phrase in of_kind(found, 'date')
    ]
    assert all(full)
    assert abs(np.mean(short) - 0.2) < 0.1
    assert 'date: long 50 %, medium 30 %, short 20 %' in notes[1]

  def test_the_seed_makes_them(self, made):
    assert phrases.make(('en', 'de'), SIZE, 0) == made
    assert phrases.make(('en', 'de'), SIZE, 1) != made

  def test_other_languages_say_the_same(self, made):
    found, _ = phrases.make(('fr', 'es'), 70, 0)
    assert len(found) == 70
    ((one, two),) = {x.texts for x in found if x.item == found[0].item}
    assert one and two and one != two


class TestSource:
  def test_is_split_by_what_is_said(self, source, made):
    sizes = {name: len(split) for name, split in source.splits.items()}
    assert sizes == {'train': 1680, 'validation': 210, 'test': 210}
    held = [
      text
      for split in source.splits.values()
      for text in texts(everything(split)['inputs']['source'], source)
    ]
    assert sorted(held) == sorted(phrase.texts[0] for phrase in made[0])

  def test_gives_tokens_as_a_net_takes_them(self, source, made):
    assert source.num_classes == len(source.classes) == 160
    shapes = source.input_shape
    for side in ('source', 'prefix'):
      assert shapes[side].shape == (48,)
      assert shapes[side].dtype == np.int32
    said = {phrase.texts for phrase in made[0]}
    for split in source.splits.values():
      batch = everything(split)
      inputs, labels = batch['inputs'], batch['labels']
      assert labels.dtype == np.int32
      both = (texts(inputs['source'], source), texts(labels, source))
      assert {*zip(*both, strict=True)} <= said
      np.testing.assert_array_equal(batch['valid'], labels != PAD)
      np.testing.assert_array_equal((labels == EOS).sum(1), 1)
      length = batch['valid'].sum(1)
      rows = np.arange(len(labels))
      assert (labels[rows, length - 1] == EOS).all()
      assert (inputs['prefix'][:, 0] == BOS).all()
      np.testing.assert_array_equal(inputs['prefix'][:, 1:], labels[:, :-1])
      assert not (inputs['source'] == EOS).any()

  def test_validation_and_test_may_be_of_any_size(self):
    sizes = {
      name: len(split)
      for name, split in sources.load(
        'phrases', **OPTIONS, test=20, validation=0
      ).splits.items()
    }
    assert sizes == {'train': 2080, 'test': 20}

  def test_notes_tell_of_kinds_and_forms(self, source):
    assert source.notes[0].startswith('pairs from en to de by kind: 300 number')
    assert 'words 60 %' in source.notes[1]

  @pytest.mark.parametrize(
    ('options', 'message'),
    [
      ({'languages': ('en',)}, r'^data\.kw\.languages: .*two different'),
      ({'languages': ('en', 'en')}, r'^data\.kw\.languages: .*two different'),
      ({'languages': 'en'}, r"^data\.kw\.languages: 'en' .* list of texts"),
      ({'languages': ('EN', 'DE')}, r"a number; choose .* such as 'de' or"),
      (
        {'languages': ('en', 'xq')},
        r"CLDR has no language 'xq'|'xq' has no rule",
      ),
      ({'languages': ('en', 'zu')}, r"'zu' has no rule for a number"),
      ({'size': 3}, r'^data\.kw\.size: 3 pairs .*; use 7 to 200000'),
      ({'seed': -1}, r'^data\.kw\.seed: -1 should be 0 or more'),
      ({'test': 0}, r'^data\.kw\.test: 0 pairs'),
      ({'test': 1.0}, r'^data\.kw\.test: 1\.0 of 2100 examples'),
      ({'validation': 1890}, r'^data\.kw\.validation: 1890 of 1890'),
      ({'length': 1}, r'^data\.kw\.length: 1 is too short'),
      (
        {'too_long': 'crop'},
        r"^data\.kw\.too_long: 'crop' .*refuse, cut, drop",
      ),
      ({'vocabulary': 0}, r'^data\.kw\.vocabulary: .*; use more .*characters$'),
      ({'vocabulary': 3}, r'^data\.kw\.vocabulary: .*; use more .*characters$'),
      ({'vocabulary': 40}, r'^data\.kw\.vocabulary: 40 .*; use \d+ or more$'),
      (
        {'vocabulary': 99999},
        r'^data\.kw\.vocabulary: 99999 .* of 3,360 lines .*; use \d+ at most',
      ),
    ],
  )
  def test_options_that_do_not_fit(self, options, message):
    with pytest.raises(UserError, match=message):
      sources.load('phrases', **{**OPTIONS, **options})


class TestTokenizer:
  LINES = ('größer 1234, größte', 'larger 1234, largest') * 3

  def test_text_comes_back(self):
    learnt = tokenizer.learn(self.LINES, 40)
    assert learnt.pieces[:4] == ('<pad>', '<unk>', '<s>', '</s>')
    for line, tokens in zip(self.LINES, learnt.encode(self.LINES), strict=True):
      assert tokenizer.text(tokens, learnt.pieces) == line
      assert not {PAD, UNK, BOS, EOS} & {*tokens}
      # The package's own reading of its model.
      own = sentencepiece.SentencePieceProcessor(model_proto=learnt.model)
      assert own.decode(tokens) == line

  def test_it_is_learnt_alike_and_silently(self, capfd):
    one, two = (tokenizer.learn(self.LINES, 40) for _ in 'ab')
    assert one.pieces == two.pieces
    assert one.encode(self.LINES) == two.encode(self.LINES)
    assert capfd.readouterr() == ('', '')

  def test_text_ends_at_the_first_end(self):
    pieces = ('<pad>', '<unk>', '<s>', '</s>', '▁a', 'b', '▁c')
    assert tokenizer.text([2, 4, 5, 6, 3, 6, 0], pieces) == 'ab c'
    assert tokenizer.text([3, 4], pieces) == ''

  def test_digits_are_apart(self):
    learnt = tokenizer.learn(self.LINES * 5, 40)
    assert not any(re.search(r'\d.', piece) for piece in learnt.pieces)

  def test_lines_may_be_short(self):
    assert tokenizer.learn(['ab ab', 'ba'], 8).pieces

  def test_more_lines_than_are_needed(self, monkeypatch):
    monkeypatch.setattr(tokenizer, 'MOST_LINES', 2)
    assert tokenizer.learn(['ab ab ab ab', 'zz', 'ab ab ab', 'zz'], 8).pieces

  def test_says_what_to_install(self, monkeypatch):
    monkeypatch.setitem(sys.modules, 'sentencepiece', None)
    with pytest.raises(UserError, match=r"pip install 'jaxkd\[text\]'"):
      tokenizer.learn(self.LINES, 40)


class TestSentences:
  PAIRS = (('ab ab', 'ba'), ('ab', 'ba ba ba ba'), ('b', 'a'))

  def made(self, *, test=PAIRS, **options):
    given = dict(vocabulary=8, length=12, too_long='refuse', name='mine')
    splits = {'train': [*self.PAIRS], 'test': [*test]}
    return sentences.tokenized(splits, **{**given, **options})

  def test_long_pairs_are_refused(self):
    message = r'^data\.kw\.length: 1 of the 3 pairs in train .* longest 9;'
    with pytest.raises(UserError, match=message):
      self.made(length=8)

  def test_long_pairs_are_cut_without_an_end(self):
    made = self.made(length=8, too_long='cut')
    batch = everything(made.splits['train'])
    assert (batch['labels'][1] != EOS).all()
    assert (batch['labels'][[0, 2]] == EOS).sum() == 2
    whole = everything(self.made().splits['train'])['labels']
    np.testing.assert_array_equal(batch['labels'], whole[:, :8])
    assert '1 of the 3 pairs in test have more than 8 tokens' in made.notes[1]

  def test_long_pairs_are_dropped_and_counted(self):
    made = self.made(length=8, too_long='drop')
    assert [len(x) for x in made.splits.values()] == [2, 2]
    assert made.notes[0].endswith('than 8 tokens and are left out')

  def test_unknown_characters_are_counted(self):
    made = self.made(test=[('xa', 'ba')])
    batch = everything(made.splits['test'])
    count = (batch['inputs']['source'] == UNK).sum()
    assert count == 1
    note = 'tokens in test are of characters that train does not have'
    assert next(n for n in made.notes if note in n).startswith('1 of the ')

  @pytest.mark.parametrize('side', [0, 1])
  def test_a_side_without_a_known_character(self, side):
    pair = ['a', 'b']
    pair[side] = 'xy z'
    which = ('source', 'translation')[side]
    message = f'no {which} in test of .mine. has a character that train has; ta'
    with pytest.raises(UserError, match=message):
      self.made(test=[tuple(pair)])

  def test_what_train_has_too_is_counted(self):
    made = self.made(test=[('b', 'ba'), ('ba', 'ba')])
    assert made.notes == ('1 of the 2 sentences in test are in train too',)

  @pytest.mark.parametrize('side', [0, 1])
  def test_empty_sentences_are_named(self, side):
    pair = ['a', 'a']
    pair[side] = ' \u200b'
    which = ('source', 'translation')[side]
    message = f"the {which} of pair 2 in test of 'mine' is empty"
    with pytest.raises(UserError, match=message):
      self.made(test=[('a', 'b'), tuple(pair)])

  def test_translations_of_a_sentence_are_held_out_together(self):
    pairs = [(f's{i % 20}', f't{i}') for i in range(60)]
    rest, out = sentences.hold_out(pairs, 10)
    assert len(out) == 12  # whole sentences
    assert not {x for x, _ in rest} & {x for x, _ in out}
    assert sorted(rest + out) == sorted(pairs)
    assert sentences.hold_out(pairs, 10) == (rest, out)
    assert sentences.hold_out(pairs, 0) == (pairs, [])


def test_some_kinds_alone():
  kinds = ('time', 'date', 'time')
  found, notes = phrases.make(('en', 'de'), 40, 0, kinds)
  assert {phrase.kind for phrase in found} == {'time', 'date'}
  assert '20 time, 20 date' in notes[0] and 'number' not in ' '.join(notes)
  with pytest.raises(UserError, match=r"kinds: .*'dates'; did you mean 'date'"):
    phrases.make(('en', 'de'), 40, 0, ('dates',))
