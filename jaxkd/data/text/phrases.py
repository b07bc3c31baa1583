"""Phrases in two languages: numbers, dates, times, money and lists of names.

Their contents are random, their wordings real, from num2words and from
Unicode's CLDR through Babel. As in all translation there are several wordings.
Each language draws one independently, so that a source has several right
targets, of which the data set has one.
"""

import datetime
import decimal
import random
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from jaxkd import lookup
from jaxkd.errors import UserError, unknown

# How often each form is taken, from the first on.
SHARES = {1: (100,), 2: (60, 40), 3: (50, 30, 20)}
MOST = 200_000  # pairs
_LONGEST = (
  12  # characters of a name, so that lists are not far longer than the rest
)
_CURRENCIES = (
  *('EUR', 'USD', 'GBP', 'CHF', 'SEK', 'NOK', 'DKK', 'PLN', 'CZK', 'CAD'),
  *('AUD', 'NZD', 'INR', 'CNY', 'BRL', 'MXN', 'ZAR', 'TRY', 'ILS', 'EGP'),
)  # of a hundred parts each
_DAYS = datetime.date(1950, 1, 1).toordinal(), datetime.date(2050, 1, 1)
_SECONDS = 24 * 60 * 60


class Phrase(NamedTuple):
  """Something that is said in two languages.

  Attributes:
    kind: what it is, one of `KINDS`.
    item: what is said, such as a date.
    texts: how each language says it.
  """

  kind: str
  item: Hashable
  texts: tuple[str, str]


class _Kind(NamedTuple):
  """Things of a kind and the forms in which they are said.

  All forms of a kind say the same, so that each can be made of any other.

  Attributes:
    draw: ``(random, languages) -> item``.
    forms: name -> ``(item, language) -> text``, the most frequent one first.
  """

  draw: Callable[[random.Random, tuple[str, str]], Hashable]
  forms: dict[str, Callable[[Any, str], str]]


def make(
  languages: Sequence[str],
  size: int,
  seed: int,
  kinds: tuple[str, ...] = (),
) -> tuple[list[Phrase], list[str]]:
  """Phrases that all differ, in what they say and in the first language.

  The kinds take turns.

  Args:
    languages: two codes that CLDR and num2words know, such as 'en'.
    size: number of phrases.
    seed: of what they say and how.
    kinds: what they say, some of `KINDS`; all by default.

  Returns:
    The phrases, and notes of their kinds and forms.

  Raises:
    UserError: languages that are unknown or the same, or an unusual size.
  """
  check_languages(languages)
  languages = tuple(languages)
  kinds = tuple(dict.fromkeys(kinds)) or tuple(KINDS)
  for kind in kinds:
    if kind not in KINDS:
      raise unknown('kind of phrase', kind, KINDS, 'data.kw.kinds')
  if not len(kinds) <= size <= MOST:
    raise UserError(
      f'data.kw.size: {size} pairs cannot be made; use {len(kinds)} to {MOST}'
    )
  if seed < 0:
    raise UserError(f'data.kw.seed: {seed} should be 0 or more')
  generator, found, known = random.Random(seed), [], set()
  while len(found) < size:
    kind = kinds[len(found) % len(kinds)]
    draw, forms = KINDS[kind]
    item = draw(generator, languages)
    forms, shares = [*forms.values()], SHARES[len(forms)]
    taken = generator.choices(forms, shares, k=2)
    if item in known:
      continue
    texts = tuple(map(_say, taken, (item, item), languages, (kind, kind)))
    if texts[0] in known:
      continue
    known |= {item, texts[0]}
    found.append(Phrase(kind, item, texts))
  return found, _notes(found, languages, kinds)


def check_languages(languages: Sequence[str]) -> None:
  """Refuses anything but the codes of two languages.

  Raises:
    UserError: something else.
  """
  good = not isinstance(languages, str) and all(
    isinstance(x, str) and re.fullmatch(r'[\w.-]+', x) for x in languages
  )
  if not good or len(languages) != 2 or len({*languages}) != 2:
    raise UserError(
      f'data.kw.languages: {languages!r} should be two different language '
      "codes, as in ('en', 'de')"
    )


def _say(form, item, language, kind):
  try:
    said = ' '.join(form(item, language).split())  # its spaces are of all kinds
  except (ArithmeticError, AttributeError, LookupError, NotImplementedError,
          ValueError) as error:  # fmt: skip
    said = f' ({type(error).__name__}: {error})' if str(error) else ''
    raise UserError(
      f'data.kw.languages: {language!r} has no rule for a {kind}{said}; '
      "choose another language, with a code such as 'de' or 'pt_BR'"
    ) from error
  return said


def _notes(found, languages, kinds):
  counts = {
    name: sum(phrase.kind == name for phrase in found) for name in kinds
  }
  said = ', '.join(f'{count:,} {name}' for name, count in counts.items())
  forms = '; '.join(
    f'{name}: ' + ', '.join(f'{form} {share} %' for form, share in _of(kind))
    for name, kind in KINDS.items()
    if name in kinds
  )
  return [
    f'pairs from {languages[0]} to {languages[1]} by kind: {said}',
    f'forms, drawn apart for each language: {forms}',
  ]


def _of(kind):
  return zip(kind.forms, SHARES[len(kind.forms)], strict=True)


# What is said.


def _number(generator, languages):
  """Numbers of one digit to six are as frequent where they are as many."""
  return int(10 ** generator.uniform(0, 6))


def _day(generator, languages):
  return datetime.date.fromordinal(
    generator.randrange(_DAYS[0], _DAYS[1].toordinal())
  )


def _time(generator, languages):
  second = generator.randrange(_SECONDS)
  return (datetime.datetime.min + datetime.timedelta(0, second)).time()


def _amount(generator, languages):
  """A currency and how many hundredths of it."""
  return generator.choice(_CURRENCIES), int(10 ** generator.uniform(2, 7))


def _names(what):
  """Two or three codes of a kind of names."""
  known = {}

  def draw(generator, languages):
    if languages not in known:
      known[languages] = _codes(what, languages)
    codes = generator.sample(known[languages], generator.choice((2, 3)))
    return what, *codes

  return draw


def _codes(what, languages):
  """Codes of two letters whose names are short and plain in both languages."""
  one, two = (getattr(_locale(language), what) for language in languages)

  def plain(name):
    return len(name) <= _LONGEST and not any(x in name for x in '(,，、')

  private = ('XA', 'XB', 'ZZ')
  codes = [code for code in sorted(one) if len(code) == 2 and code in two]
  return [
    code
    for code in codes
    if plain(one[code]) and plain(two[code]) and code not in private
  ]


# How it is said.


def _words(number, language):
  num2words = lookup.package('num2words', extra='text', at='data.source')
  return num2words.num2words(number, lang=language)


def _digits(number, language):
  return _babel('numbers').format_decimal(number, locale=language)


def _date(style):
  return lambda day, language: _babel('dates').format_date(day, style, language)


def _skeleton(letters):
  """The pattern that has these fields, in CLDR's letters."""

  def form(when, language):
    if isinstance(when, datetime.time):
      when = datetime.datetime.combine(datetime.date.min, when)
    dates = _babel('dates')
    return dates.format_skeleton(letters, when, locale=language)

  return form


def _clock(time, language):
  return _babel('dates').format_time(time, 'medium', locale=language)


def _money(**style):
  def form(amount, language):
    currency, parts = amount
    return _babel('numbers').format_currency(
      decimal.Decimal(parts) / 100, currency, locale=language, **style
    )

  return form


def _and(names, language):
  lists = _babel('lists')
  return lists.format_list(_named(names, language), locale=language)


def _commas(names, language):
  pattern = _locale(language).list_patterns['standard']['start']
  first, *others = _named(names, language)
  for other in others:
    first = pattern.format(first, other)
  return first


def _named(names, language):
  what, *codes = names
  known = getattr(_locale(language), what)
  return [known[code] for code in codes]


def _locale(language):
  core = _babel('core')
  try:
    return core.Locale.parse(language)
  except (ValueError, core.UnknownLocaleError) as error:
    raise UserError(
      f'data.kw.languages: CLDR has no language {language!r}; give two codes, '
      "as in ('en', 'de')"
    ) from error


def _babel(module):
  return lookup.package(f'babel.{module}', extra='text', at='data.source')


KINDS = {
  'number': _Kind(_number, {'words': _words, 'digits': _digits}),
  'date': _Kind(
    _day,
    {'long': _date('long'), 'medium': _date('medium'), 'short': _date('short')},
  ),
  'date with weekday': _Kind(
    _day,
    {
      'full': _date('full'),
      'abbreviated': _skeleton('yMMMEd'),
      'in digits': _skeleton('yMEd'),
    },
  ),
  'time': _Kind(
    _time,
    {
      'medium': _clock,
      'part of the day': _skeleton('Bhms'),
      '24 hours': _skeleton('Hms'),
    },
  ),
  'amount': _Kind(
    _amount,
    {
      'name': _money(format_type='name'),
      'symbol': _money(),
      'code': _money(format='#,##0.00 ¤¤'),
    },
  ),
  'list of territories': _Kind(
    _names('territories'), {'and': _and, 'commas': _commas}
  ),
  'list of languages': _Kind(
    _names('languages'), {'and': _and, 'commas': _commas}
  ),
}
