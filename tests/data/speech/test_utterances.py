"""Utterances become padded frames and tokens, and bad ones are refused."""

import numpy as np
import pytest

from jaxkd.data import sources
from jaxkd.data.examples import ArrayExamples
from jaxkd.data.speech import utterances
from jaxkd.data.text.tokenizer import text
from jaxkd.data.text.tokens import BOS, EOS, PAD
from jaxkd.errors import UserError

SAID = {
  'train': ('ab a', 'b  aa', 'abab'),
  'test': ('a', 'ba'),
}
OPTIONS = dict(vocabulary=0, length=0, frames=0, too_long='refuse', name='x')


def utterance(said, name='one.wav', count=None, bins=3):
  count = 2 * len(said) if count is None else count
  frames = np.full((count, bins), len(said), np.float32)
  return utterances.Utterance(name, said, count, lambda: frames)


def assemble(splits=SAID, **options):
  made = {
    split: [
      utterance(x) if isinstance(x, str) else x for x in own
    ]
    for split, own in splits.items()
  }  # fmt: skip
  return utterances.assembled(made, **{**OPTIONS, **options})


def test_frames_and_tokens_are_padded():
  made = assemble()
  assert made.pieces == ('<pad>', '<unk>', '<s>', '</s>', 'a', 'b', '▁')
  batch = made.splits['train'].fetch(np.arange(3))
  assert isinstance(made.splits['train'], ArrayExamples)
  # 'b  aa' is 'b aa', five and three letters long with its end.
  np.testing.assert_array_equal(
    batch['labels'],
    [[4, 5, 6, 4, EOS], [5, 6, 4, 4, EOS], [4, 5, 4, 5, EOS]],
  )
  source = batch['inputs']['source']
  np.testing.assert_array_equal(source['valid'].sum(1), [8, 10, 8])
  assert source['frames'].shape == (3, 10, 3)
  assert (source['frames'][0, :8] == 4).all()
  assert (source['frames'][0, 8:] == 0).all()
  batch = made.splits['test'].fetch(np.arange(2))
  np.testing.assert_array_equal(batch['labels'][0], [4, EOS, PAD, PAD, PAD])
  np.testing.assert_array_equal(batch['valid'], batch['labels'] != PAD)
  np.testing.assert_array_equal(
    batch['inputs']['prefix'][1], [BOS, 5, 4, EOS, PAD]
  )
  assert text(batch['labels'][1], made.pieces) == 'ba'


def test_longer_ones_are_left_out_and_told():
  made = assemble(length=3, frames=4, too_long='drop', splits={
    'train': ('ab', utterance('a', count=5), 'aba'), 'test': ('b',)
  })  # fmt: skip
  assert len(made.splits['train']) == 1
  assert made.notes == (
    '1 of the 3 utterances in train have more than 3 tokens and are left out',
    '2 of the 3 utterances in train have more than 4 frames and are left out',
  )
  assert made.splits['train'].fetch(np.arange(1))['labels'].shape == (1, 3)


def test_transcripts_that_are_in_train_too_are_told():
  found = assemble({'train': ('a', 'b'), 'test': ('a', 'ab')}).notes
  assert found == ('1 of the 2 transcripts in test are in train too',)


def test_pieces_can_be_learnt():
  made = assemble({'train': ['ab ab', 'abab a'] * 5, 'test': ('ab',)},
                  vocabulary=9)  # fmt: skip
  assert len(made.pieces) == 9
  labels = made.splits['train'].fetch(np.arange(2))['labels']
  assert [text(x, made.pieces) for x in labels] == ['ab ab', 'abab a']


def test_pieces_write_transcripts_as_they_are():
  said = ['½ ﬁ', 'ａ №ⅳ'] * 5
  made = assemble({'train': said, 'test': ('№½',)}, vocabulary=14)
  for split, lines in (('train', said), ('test', ['№½'])):
    labels = made.splits[split].fetch(np.arange(len(lines)))['labels']
    assert [text(x, made.pieces) for x in labels] == lines


@pytest.mark.parametrize('odd', ['a <s>', '</s>', '<pad>', '<unk> a', '▅'])
def test_no_piece_stands_for_what_looks_like_a_special_one(odd):
  splits = {'train': ['ab ab', 'ba b', odd], 'test': ('a',)}
  with pytest.raises(UserError, match=rf"the transcript '{odd}' of one\.wav"):
    assemble(splits, vocabulary=8)
  labels = assemble(splits).splits['train'].fetch(np.arange(3))['labels']
  assert text(labels[2], assemble(splits).pieces) == odd


def test_speakers_who_are_in_train_too_are_told():
  def by(who):
    return utterance('ab')._replace(speaker=who)

  found = assemble({
    'train': [by('x'), by('y'), by('')], 'test': [by('x'), by('z')],
  }).notes  # fmt: skip
  assert '1 of the 2 speakers in test are in train too' in found


def test_says_what_was_held_out_of_train():
  splits = {**SAID, 'validation': ('c',)}
  with pytest.raises(
    UserError, match=r"'c', which no transcript in train has;"
  ):
    assemble(splits)
  with pytest.raises(UserError, match=r"'c',.* \(data\.kw\.validation holds"):
    assemble(splits, is_held_out=True)


@pytest.mark.parametrize('vocabulary', [0, 9])
def test_no_token_stands_for_what_is_unknown(vocabulary):
  splits = {'train': ['ab ab', 'abab a'] * 5, 'test': ('ac',)}
  with pytest.raises(UserError, match="the character 'c', which no transcript"):
    assemble(splits, vocabulary=vocabulary)


@pytest.mark.parametrize(
  ('splits', 'options', 'message'),
  [
    ({'train': ('a', ' \t'), 'test': ('a',)}, {}, 'of one.wav in train.*empty'),
    ({**SAID, 'test': ('ac',)}, {}, "test of 'x' has the character 'c', which"),
    ({**SAID, 'test': ('a▁b',)}, {}, "the character '▁', which stands for"),
    (
      SAID,
      {'length': 4},
      r'kw\.length: 3 of the 3 .* than 4 tokens.*longest 5',
    ),
    (SAID, {'frames': 7}, r'kw\.frames: 3 of the 3 .* than 7 frames'),
    (SAID, {'length': 1}, r'kw\.length: 1 should be 2 or more'),
    (SAID, {'too_long': 'cut'}, r'kw\.too_long'),
    (SAID, {'frames': 2, 'too_long': 'drop'}, 'no utterance in train'),
    (
      {**SAID, 'test': (utterance('a', count=0),)},
      {},
      'sound of one.wav in test.*shorter than one frame',
    ),
    (
      # A blank between two equal letters needs a frame, too.
      {**SAID, 'train': (utterance('abba', count=4),)},
      {},
      'one.wav in train of .x. has 4 frames, too few for the 5 tokens',
    ),
  ],
)
def test_what_cannot_be(splits, options, message):
  with pytest.raises(UserError, match=message):
    assemble(splits, **options)
  assert assemble({**SAID, 'train': (utterance('abba', count=5),)})


def test_utterances_of_a_transcript_are_held_out_together():
  made = [utterance(x) for x in ('a', 'b', 'a', 'ab', 'b', 'ba') * 2]
  rest, out = utterances.hold_out(made, 3)
  assert len(out) >= 3 and len(rest) + len(out) == len(made)
  assert not {x.text for x in rest} & {x.text for x in out}


def test_features_are_standardized():
  frames = np.random.default_rng(0).normal(3, 2, (50, 4))
  frames[:, 1] = 5  # silence of a band
  found = utterances.standardized(frames)
  np.testing.assert_allclose(found.mean(0), 0, atol=1e-9)
  np.testing.assert_allclose(found.std(0), [1, 0, 1, 1], atol=1e-9)


class TestSpelled:
  def test_is_always_the_same_and_all_differs(self):
    made = sources.load('spelled', size=40, words=20, most=2)
    sizes = {name: len(split) for name, split in made.splits.items()}
    assert sizes == {'train': 32, 'validation': 4, 'test': 4}
    again = sources.load('spelled', size=40, words=20, most=2)
    said = []
    for name, split in made.splits.items():
      batch = split.fetch(np.arange(len(split)))
      other = again.splits[name].fetch(np.arange(len(split)))
      np.testing.assert_array_equal(
        batch['inputs']['source']['frames'],
        other['inputs']['source']['frames'],
      )
      said += [text(x, made.classes) for x in batch['labels']]
    assert len({*said}) == 40
    assert made.vocabulary == made.num_classes == len(made.classes)

  @pytest.mark.parametrize(
    ('options', 'message'),
    [
      ({'words': 0}, r'kw\.words: 0 is too few'),
      ({'letters': 27}, '27 letters'),
      ({'letters': 3, 'words': 10}, 'use up to 9'),
      ({'words': 2, 'most': 2}, '2000 sentences that differ are too many'),
      ({'noise': -1.0}, 'noise -1.0'),
      ({'test': 0}, r'kw\.test: 0'),
    ],
  )
  def test_what_cannot_be_made(self, options, message):
    with pytest.raises(UserError, match=message):
      sources.load('spelled', **options)
