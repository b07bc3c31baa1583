"""Prompts and what answers them: pairs, and conversations in turns.

A conversation becomes text by a chat template. It is tokenised part by part:
what is to be answered, then the answer, and so on. So the tokens of a prompt
are the same with an answer and without, as when the answer is to be written,
and exactly the tokens of the answers count.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxkd import files, lookup
from jaxkd.data.text.vocabulary import Vocabulary
from jaxkd.errors import UserError

Turns = tuple[tuple[str, str], ...]  # who says what
Document = str | Turns

FIELDS: Mapping[str, tuple[str, ...]] = {  # by default
  'text': ('text',),
  'completions': ('prompt', 'completion'),
  'chat': ('messages',),
}
WRITTEN = ('completion', 'assistant')  # whose turns are answers
# Entries of a message that are not read -> the values with which none is lost.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
  'tool_calls': (None, [], ''),
  'reasoning_content': (None, ''),
  'weight': (None, 1),
}
CHATML = 'chatml'
_START, _END = '\x02', '\x03'  # around answers, in what Jinja gives
_AT = 'data.kw.template'


class Part(NamedTuple):
  """A part of a document, which is tokenised by itself.

  Attributes:
    text: what is said.
    written: whether it is an answer.
    ends: whether an `EOS` follows, which belongs to it.
  """

  text: str
  written: bool
  ends: bool


class Format(NamedTuple):
  """What a record has: an object of JSON, or a row of a table.

  Attributes:
    kind: 'text', 'completions' or 'chat'.
    fields: the names of what is read.
  """

  kind: str = 'text'
  fields: tuple[str, ...] = FIELDS['text']

  def read(self, record: Any, here: str) -> Document:
    """The document in a record.

    Args:
      record: a mapping.
      here: what to call it in errors.

    Raises:
      UserError: a record without it, or a conversation that cannot be learnt.
    """
    known = record if isinstance(record, Mapping) else {}
    found = [known.get(field) for field in self.fields]
    if self.kind == 'chat' and known.get('tools'):
      raise UserError(
        f'{here} has tools, which no template is told of; remove them, or the '
        'line'
      )
    if self.kind == 'chat':
      return _turns(found[0], self.fields[0], here)
    for field, text in zip(self.fields, found, strict=True):
      if not isinstance(text, str):
        raise UserError(
          f'{here} has no text {field!r}; name the field of an object that has '
          'it in data.kw.field'
        )
      check_utf8(text, here)
    if self.kind == 'text':
      return found[0]
    for field, text in zip(self.fields, found, strict=True):
      if not text.strip():
        raise UserError(
          f'{here} has an empty {field!r}, so that there is nothing to '
          f'{"write" if field == self.fields[1] else "answer"}; remove it'
        )
    return tuple(zip(FIELDS[self.kind], found, strict=True))


class Writer(NamedTuple):
  """How documents become parts.

  Attributes:
    parts: ``(document) -> parts``.
    begins: whether a `BOS` stands before each document.
    markup: whether the parts may have special tokens, written out.
  """

  parts: Callable[[Document], tuple[Part, ...]]
  begins: bool = True
  markup: bool = False


def format_of(kind: str, field: str | Sequence[str]) -> Format:
  """The format that the options of a config describe.

  Args:
    kind: 'text', 'completions' or 'chat'.
    field: the name of the field, or of two; empty for the usual ones.

  Raises:
    UserError: there is no such format, or it has another number of fields.
  """
  if kind not in FIELDS:
    raise UserError(
      f'data.kw.format: {kind!r} should be one of {", ".join(FIELDS)}'
    )
  usual = FIELDS[kind]
  fields = (field,) if isinstance(field, str) else tuple(field)
  fields = usual if fields in ((), ('',)) else fields
  if len(fields) != len(usual) or len({*fields}) != len(fields):
    raise UserError(
      f'data.kw.field: {field!r} should be '
      f'{" and ".join(usual)}, or what these are called in your data'
    )
  return Format(kind, fields)


def writer(kind: str, vocabulary: Vocabulary, template: str) -> Writer:
  """How documents of a format are written.

  Args:
    kind: see `Format`.
    vocabulary: whose tokens they become.
    template: of conversations: 'chatml', a file of Jinja, or empty for that of
      the vocabulary.

  Raises:
    UserError: no such template, or one of what is no conversation.
  """
  if template and kind != 'chat':
    raise UserError(
      f"{_AT}: only conversations have a template; set data.kw.format='chat', "
      'or remove the entry'
    )
  if kind != 'text' and not vocabulary.is_lossless:
    raise UserError(
      f'data.kw.tokens: {vocabulary.name!r} loses what stands between words; '
      "use 'pieces', 'bytes' or a tokenizer for answers"
    )
  if kind == 'text':
    return Writer(_whole)
  if kind == 'completions':
    return Writer(_completion, begins=vocabulary.begins)
  if template == CHATML:
    return Writer(_chatml, begins=vocabulary.begins, markup=True)
  own = getattr(vocabulary, 'template', '')
  if template:
    file = files.path(template, at=_AT)
    if not file.is_file():
      raise UserError(
        f'{_AT}: {template!r} is neither {CHATML!r} nor a file with a template '
        'in Jinja'
      )
    own = files.text(file, at=_AT)
  if not own:
    raise UserError(
      f'{_AT}: {vocabulary.name!r} has no chat template; write {CHATML!r}, or '
      'a file with a template in Jinja'
    )
  render = _rendering(own, vocabulary)
  eos = vocabulary.pieces[vocabulary.special.eos]
  parts = functools.partial(_rendered, render=render, eos=eos)
  return Writer(parts, begins=False, markup=True)


def jinja(template: str, vocabulary: Vocabulary) -> str:
  """A template in Jinja that writes conversations as `writer` does.

  Args:
    template: as there.
    vocabulary: as there.

  Returns:
    Its text; empty for that of the vocabulary.
  """
  if template != CHATML:
    return files.text(files.path(template, at=_AT), at=_AT) if template else ''
  pieces, special = vocabulary.pieces, vocabulary.special
  begin = pieces[special.bos] if vocabulary.begins else ''
  begin, end = map(json.dumps, (begin, pieces[special.eos]))
  return (
    f'{{{{ {begin} }}}}{{% for message in messages %}}'
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}"
    f"{{{{ {end} if message['role'] == 'assistant' else '<|im_end|>' }}}}"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n' }}{% endif %}"
  )


def _whole(document):
  return (Part(document, True, True),)


def _completion(document):
  (_, prompt), (_, completion) = document
  return (Part(prompt, False, False), Part(completion, True, True))


def _chatml(document):
  """ChatML; each answer ends with the `EOS` of the vocabulary."""
  parts, before = [], ''
  for role, text in document:
    before += f'<|im_start|>{role}\n'
    if role in WRITTEN:
      parts += [Part(before, False, False), Part(text, True, True)]
      before = '\n'
    else:
      before += f'{text}<|im_end|>\n'
  return tuple(parts)


def _turns(messages: Any, field: str, here: str) -> Turns:
  """A conversation, checked."""
  if not isinstance(messages, Sequence) or isinstance(messages, str):
    raise UserError(
      f'{here} has no list {field!r} of messages; name the field of an object '
      'that has it in data.kw.field'
    )
  found = []
  for message in messages:
    said = message if isinstance(message, Mapping) else {}
    role, text = said.get('role'), said.get('content')
    if not isinstance(role, str) or not isinstance(text, str):
      raise UserError(
        f'{here} has a message without a role and a content that are texts; '
        'repair or remove it'
      )
    for entry, neutral in _NEUTRAL.items():
      if said.get(entry) not in neutral:
        raise UserError(
          f'{here} has a message with {entry}, which is not read; remove it '
          'from there, or the line'
        )
    check_utf8(text, here)
    found.append((role, text))
  roles = [role for role, _ in found]
  spoken = roles[1:] if roles[:1] == ['system'] else roles
  if spoken and spoken[-1] == 'user':
    raise UserError(f'{here} ends with a prompt without an answer; remove it')
  usual = ['user', 'assistant'] * (len(spoken) // 2)
  if not spoken or spoken != usual:
    raise UserError(
      f'{here} has the roles {", ".join(roles) or "(none)"}; user and '
      'assistant should take turns, perhaps after system; repair or remove it'
    )
  for role, text in found:
    if role in WRITTEN and not text.strip():
      raise UserError(f'{here} has an empty answer; repair or remove it')
  return tuple(found)


def check_utf8(text: str, here: str) -> None:
  """Refuses a text of JSON that cannot be written as UTF-8."""
  try:
    text.encode()
  except UnicodeEncodeError as error:  # half of a pair, as JSON can have it
    raise UserError(
      f'{here} has a text that is not UTF-8; repair or remove it'
    ) from error


def _rendering(source: str, vocabulary: Vocabulary) -> Callable[..., str]:
  """``(turns, is_to_be_answered) -> text``, by a template in Jinja."""
  lookup.package('jinja2', extra='text', at=_AT)
  import jinja2
  from jinja2 import ext, nodes, sandbox

  class Answers(ext.Extension):
    """What is inside of ``{% generation %}`` is an answer."""

    tags = frozenset({'generation'})

    def parse(self, parser):
      line = next(parser.stream).lineno
      body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
      call = self.call_method('_marked')
      return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _marked(self, caller):
      return _START + caller() + _END

  def refuse(said):
    raise jinja2.TemplateError(said)

  environment = sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[Answers, ext.loopcontrols],
  )
  # What a template writes must not depend on the day: no clock is given.
  environment.globals['raise_exception'] = refuse
  spelt = getattr(vocabulary, 'spelt', {})
  tokens = {f'{role}_token': token for role, token in spelt.items()}

  def render(turns, answer):
    messages = [{'role': role, 'content': text} for role, text in turns]
    try:
      return template.render(
        messages=messages, add_generation_prompt=answer, tools=None, **tokens
      )
    except Exception as error:  # templates may raise anything
      raise UserError(
        f'{_AT}: the chat template of {vocabulary.name!r} cannot write a '
        f'conversation of {", ".join(role for role, _ in turns)}: {error}; use '
        f'{CHATML!r}, or repair the template'
      ) from error

  try:
    template = environment.from_string(source)
  except jinja2.TemplateError as error:
    raise UserError(
      f'{_AT}: the chat template of {vocabulary.name!r} is no template in '
      f'Jinja: {error}; use {CHATML!r}, or repair it'
    ) from error
  return render


def _rendered(document: Turns, *, render: Callable, eos: str):
  """The parts of a conversation, by what a template makes of it."""
  if any(mark in text for _, text in document for mark in (_START, _END)):
    raise UserError(
      'data.source: a message has the control character 2 or 3; remove it'
    )
  whole = render(document, False)
  spans = _marked(whole)
  whole = whole.replace(_START, '').replace(_END, '')
  if not spans:
    spans = [
      _answer(document, i, whole, render)
      for i, (role, _) in enumerate(document)
      if role in WRITTEN
    ]
  parts, end = [], 0
  for start, stop in spans:
    # What follows the last end of text is the template's.
    last = whole.rfind(eos, start, stop) + len(eos) if eos else 0
    if last > start + len(eos) - 1 and not whole[last:stop].strip():
      stop = last
    parts.append(Part(whole[end:start], False, False))
    parts.append(Part(whole[start:stop], True, False))
    end = stop
  parts = tuple(part for part in parts if part.text)
  if not any(part.written for part in parts):
    raise UserError(
      f'{_AT}: the chat template writes no answer of a conversation of '
      f'{", ".join(role for role, _ in document)}; use {CHATML!r}, or repair '
      'the template'
    )
  return parts


def _marked(whole: str) -> list[tuple[int, int]]:
  """Where answers are that are marked, without counting the marks."""
  spans, place, start = [], 0, 0
  for character in whole:
    if character == _START:
      start = place
    elif character == _END:
      spans.append((start, place))
    else:
      place += 1
  return spans


def _answer(document, i, whole, render):
  """Where answer i is: behind what is to be answered.

  Raises:
    UserError: what is before an answer depends on what comes later.
  """
  before = render(document[:i], True)
  until = render(document[: i + 1], False)
  if i == len(document) - 1:
    until = whole
  if not (whole.startswith(until) and until.startswith(before)):
    raise UserError(
      f'{_AT}: the chat template writes an answer in another way when more '
      'follows, so that it is not known what was written; use conversations '
      f'of one answer, or {CHATML!r}'
    )
  return len(before), len(until)
