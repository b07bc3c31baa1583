"""Prompts, answers and conversations: what is learnt, and what is refused."""

import json

import jax
import numpy as np
import pytest

from jaxkd.data import sources
from jaxkd.errors import UserError
from jaxkd.export import hf

ASK, ANSWER = 'What? a', 'bc'  # 'ab' is a token, too
TURNS = [
  ('user', 'a'),
  ('assistant', 'bc\n'),
  ('user', 'b'),
  ('assistant', 'c'),
]
CHATML = (
  '<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nbc\n<|im_end|>\n'
  '<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\nc<|im_end|>\n'
)
CHAT = {'format': 'chat', 'packing': 'none'}
PAIRS = {'format': 'completions', 'packing': 'none'}


def load(folder, records, **options):
  lines = '\n'.join(map(json.dumps, records))
  for split in ('train', 'test'):
    (folder / f'{split}.jsonl').write_text(lines)
  options = {'tokens': 'bytes', 'length': 200, 'validation': 0, **options}
  return sources.load(f'text:{folder}', **options)


def first(source, split='train'):
  batch = source.splits[split].fetch(np.arange(1))
  return jax.tree.map(lambda x: x[0], batch)


def pair(prompt=ASK, completion=ANSWER):
  return {'prompt': prompt, 'completion': completion}


def chat(*turns):
  return {'messages': [{'role': r, 'content': x} for r, x in turns or TURNS]}


class TestCompletions:
  @pytest.mark.parametrize('tokens', ['bytes', 'byte_level'])
  def test_exactly_the_answer_is_learnt(self, tmp_path, request, tokens):
    if tokens == 'byte_level':
      tokens = f'tokenizer:{request.getfixturevalue(tokens)}'
    source = load(tmp_path, [pair()], **PAIRS, tokens=tokens)
    own, row = source.tokenizer, first(source)
    # The whole text has a token of both, which the row must not have.
    answer = own.encode([ANSWER], continues=True).tokens.tolist()
    learnt = row['labels'][row['valid']].tolist()
    assert learnt == [*answer, own.special.eos]
    assert row['bytes'][row['valid']].sum() == len(ANSWER)
    length = row['prompt_length']
    prompt = own.encode([ASK]).tokens.tolist()
    begins = [own.special.bos] if own.begins else []
    assert row['prompt'][:length].tolist() == [*begins, *prompt]
    assert row['inputs'][:length].tolist() == row['prompt'][:length].tolist()
    assert row['valid'].argmax() == length - 1
    if tokens != 'bytes':
      assert own.encode([ASK + ANSWER]).tokens.tolist() != [*prompt, *answer]

  def test_all_may_be_learnt(self, tmp_path):
    source = load(tmp_path, [pair()], **PAIRS, learn='all')
    row = first(source)
    learnt = row['labels'][row['valid']]
    assert source.tokenizer.decode(learnt) == ASK + ANSWER

  def test_fields_have_other_names(self, tmp_path):
    records = [{'q': 'x', 'a': 'y'}]
    source = load(tmp_path, records, **PAIRS, field=('q', 'a'))
    assert source.tokenizer.decode(first(source)['inputs']) == 'xy'
    with pytest.raises(UserError, match=r'^data\.kw\.field: .*prompt and comp'):
      load(tmp_path, records, **PAIRS, field='q')

  def test_answers_beyond_a_row_are_left_out_and_counted(self, tmp_path):
    records = [pair(), pair('x' * 30), pair('y' * 5, 'z' * 30)]
    source = load(tmp_path, records, **PAIRS, length=20, too_long='cut')
    assert len(source.splits['train']) == 2
    assert (
      '2 of the 3 documents in train do not fit into 20 tokens and are cut'
      in source.notes
    )
    assert (
      '1 of the 3 documents in train have no token that is learnt and are left '
      'out' in source.notes
    )
    with pytest.raises(UserError, match=r'kw\.length: no answer is within 5'):
      load(tmp_path, records, **PAIRS, length=5, too_long='cut')

  def test_packed_rows_see_one_pair_at_a_time(self, tmp_path):
    source = load(tmp_path, [pair()] * 3, **{**PAIRS, 'packing': 'packed'})
    row = first(source)
    segments = row['inputs']['segments']
    assert segments.max() == 3
    learnt = row['labels'][row['valid'] & (segments == 2)]
    assert source.tokenizer.decode(learnt) == ANSWER
    assert 'prompt' not in row


class TestChat:
  def test_chatml(self, tmp_path):
    source = load(tmp_path, [chat()], **CHAT, template='chatml')
    row = first(source)
    answers = [token + 4 for token in b'bc\n'], [token + 4 for token in b'c']
    learnt = row['labels'][row['valid']].tolist()
    assert learnt == [*answers[0], 3, *answers[1], 3]
    whole = source.tokenizer.decode(row['inputs'])
    # In our own vocabularies, the token </s> ends an answer.
    assert whole == CHATML.replace('bc\n<|im_end|>', 'bc\n')[: len(whole)]
    prompt = source.tokenizer.decode(row['prompt'])
    assert whole.startswith(prompt) and prompt.endswith('assistant\n')

  def test_the_template_of_a_tokenizer(self, tmp_path, byte_level):
    tokens = f'tokenizer:{byte_level}'
    source = load(tmp_path, [chat()], **CHAT, tokens=tokens)
    own, row = source.tokenizer, first(source)
    whole = own.encode([CHATML], markup=True).tokens
    there = row['inputs'][: len(whole) - 2]
    assert own.decode(there) == own.decode(whole[:-2])
    eos = own.special.eos
    learnt = row['labels'][row['valid']]
    ends = np.flatnonzero(learnt == eos)
    assert own.decode(learnt) == 'bc\nc' and len(ends) == 2
    assert ends[-1] == len(learnt) - 1
    assert row['bytes'][row['valid']].sum() == len('bc\nc')
    start = own.encode(['<|im_start|>assistant\n'], markup=True).tokens
    length = row['prompt_length']
    assert row['prompt'][length - len(start) : length].tolist() == [*start]
    # A prompt without its answer has the same tokens.
    asked, said = CHATML[: CHATML.rindex('c<|im_end|>')], 'bc\n<|im_end|>'
    before, after = asked.split(said)
    parts = own.encode([before, said, after], [False, True, True], markup=True)
    assert row['prompt'][:length].tolist() == parts.tokens.tolist()

  def test_a_template_may_mark_answers(self, tmp_path, byte_level):
    pytest.importorskip('jinja2')
    file = tmp_path / 'own.jinja'
    file.write_text(
      '{% for m in messages %}{% if m.role == "assistant" %}A: '
      '{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}|'
      '{% else %}U: {{ m.content }}|{% endif %}{% endfor %}'
    )
    tokens = f'tokenizer:{byte_level}'
    source = load(tmp_path, [chat()], **CHAT, tokens=tokens, template=str(file))
    row = first(source)
    assert source.tokenizer.decode(row['inputs']) == 'U: a|A: bc\n|U: b|A: c'
    learnt = source.tokenizer.decode(row['labels'][row['valid']])
    assert learnt == 'bc\nc'

  def test_an_export_asks_as_in_training(self, tmp_path, byte_level):
    tokens, out = f'tokenizer:{byte_level}', tmp_path / 'out'
    options = {**CHAT, 'tokens': tokens, 'eos': '<|endoftext|>'}
    ours = first(load(tmp_path, [chat()], **options, template='chatml'))
    out.mkdir()
    for name in ('tokenizer.json', 'tokenizer_config.json'):
      (out / name).write_bytes((byte_level / name).read_bytes())
    kw = {'template': 'chatml', 'eos': '<|endoftext|>'}
    hf.say(out, tokens, kw)
    theirs = load(tmp_path, [chat()], **{**CHAT, 'tokens': f'tokenizer:{out}'})
    row = first(theirs)
    for name in ('inputs', 'prompt', 'valid'):
      np.testing.assert_array_equal(row[name], ours[name])
    said = json.loads((out / 'tokenizer_config.json').read_text())
    assert said['chat_template'] == theirs.tokenizer.template
    assert said['eos_token'] == '<|endoftext|>'

  @pytest.mark.parametrize(
    ('template', 'said'),
    [
      ('{% for', 'is no template in Jinja'),
      ('{{ raise_exception("no") }}', 'cannot write a conversation .*: no;'),
      (
        '{% for m in messages %}{% if loop.last or m.role == "user" %}'
        '{{ m.content }}{% endif %}{% endfor %}',
        'writes an answer in another way when more follows',
      ),
      ('{{ messages[0].content }}', 'writes no answer of a conversation'),
    ],
  )
  def test_templates_that_cannot_be(self, tmp_path, byte_level, template, said):
    pytest.importorskip('jinja2')
    (tmp_path / 'own.jinja').write_text(template)
    options = {**CHAT, 'tokens': f'tokenizer:{byte_level}'}
    with pytest.raises(UserError, match=rf'^data\.kw\.template: .*{said}'):
      load(tmp_path, [chat()], **options, template=f'{tmp_path}/own.jinja')

  def test_a_template_that_is_no_text(self, tmp_path, byte_level):
    pytest.importorskip('jinja2')
    file = tmp_path / 'own.jinja'
    file.write_bytes(b'\xff')
    with pytest.raises(UserError, match=r'^data\.kw\.template: .* not UTF-8'):
      load(tmp_path, [chat()], **CHAT, tokens=f'tokenizer:{byte_level}',
           template=str(file))  # fmt: skip

  def test_without_a_template(self, tmp_path):
    with pytest.raises(UserError, match="'bytes' has no chat template; write"):
      load(tmp_path, [chat()], **CHAT)
    with pytest.raises(UserError, match="'x' is neither 'chatml' nor a file"):
      load(tmp_path, [chat()], **CHAT, template='x')
    with pytest.raises(UserError, match='only conversations have a template'):
      load(tmp_path, [pair()], **PAIRS, template='chatml')


class TestRefused:
  @pytest.mark.parametrize(
    ('turns', 'said'),
    [
      ([('user', 'a')], 'ends with a prompt without an answer; remove it'),
      ([('user', 'a'), ('assistant', ' ')], 'has an empty answer'),
      ([('assistant', 'a')], 'has the roles assistant; user and assistant sho'),
      ([('system', 'a')], 'has the roles system; user and'),
      (
        [('user', 'a'), ('user', 'b'), ('assistant', 'c')],
        'has the roles user, user, assistant; user and assistant should take',
      ),
      ([('user', ['a'])], 'has a message without a role and a content'),
      (
        [('user', 'a\ud800'), ('assistant', 'b')],
        'has a text that is not UTF-8',
      ),
    ],
  )
  def test_conversations(self, tmp_path, turns, said):
    records = [chat(), chat(*turns)]
    where = r'^data\.source: line 2 of \S+\.jsonl'
    with pytest.raises(UserError, match=f'{where} {said}'):
      load(tmp_path, records, **CHAT, template='chatml')

  @pytest.mark.parametrize(
    ('entry', 'lost', 'neutral'),
    [
      ('tool_calls', [{}], []),
      ('reasoning_content', 'x', ''),
      ('weight', 0, 1),
    ],
  )
  def test_what_would_be_lost_of_a_message(
    self, tmp_path, entry, lost, neutral
  ):
    options = {**CHAT, 'template': 'chatml'}
    record = chat()
    record['messages'][-1][entry] = neutral
    load(tmp_path, [record], **options)
    record['messages'][-1][entry] = lost
    with pytest.raises(UserError, match=f'line 1 of .* with {entry}, which'):
      load(tmp_path, [record], **options)
    with pytest.raises(UserError, match=r'line 1 of .* has tools, which'):
      load(tmp_path, [{**chat(), 'tools': [{}]}], **options)

  @pytest.mark.parametrize(
    ('record', 'said'),
    [
      (pair(completion=' '), "has an empty 'completion', .* nothing to write"),
      (pair(prompt=''), "has an empty 'prompt', .* nothing to answer"),
      ({'prompt': 'a'}, "has no text 'completion'; .*field$"),
      (pair('\udcff'), 'has a text that is not UTF-8'),
    ],
  )
  def test_pairs(self, tmp_path, record, said):
    with pytest.raises(UserError, match=f'line 1 of .* {said}'):
      load(tmp_path, [record], **PAIRS)

  def test_no_messages(self, tmp_path):
    with pytest.raises(UserError, match=r"has no list 'messages' of messages"):
      load(tmp_path, [pair()], **CHAT, template='chatml')

  def test_text_without_fields(self, tmp_path):
    (tmp_path / 'a.txt').write_text('one\n\ntwo')
    with pytest.raises(UserError, match='text without fields, so that it has'):
      sources.load(f'text:{tmp_path}/a.txt', **PAIRS)

  @pytest.mark.parametrize(
    ('options', 'said'),
    [
      ({'format': 'pairs'}, r"format: 'pairs' should be one of text, compl"),
      ({'packing': 'windows'}, 'packing: windows would cut prompts from their'),
      ({'too_long': 'split'}, 'too_long: an answer that is split loses'),
      ({'prompt': 3}, 'prompt: these documents have prompts of their own'),
      ({'tokens': 'words'}, "tokens: 'words' loses what stands between words"),
      ({'learn': 'some'}, "learn: 'some' should be one of all, completions"),
    ],
  )
  def test_options(self, tmp_path, options, said):
    with pytest.raises(UserError, match=rf'^data\.kw\.{said}'):
      load(tmp_path, [pair()], **{**PAIRS, **options})
