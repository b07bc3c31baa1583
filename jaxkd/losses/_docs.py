"""Writes docs/losses.md from the docstrings.

python -m jaxkd.losses._docs > docs/losses.md
python -m jaxkd.losses._docs --check docs/losses.md
"""

import inspect
import pathlib
import re
import sys
import textwrap

from jaxkd import losses
from jaxkd.losses import (
  adversarial,
  features,
  information,
  regression,
  relations,
  responses,
  sampled,
  sequences,
  targets,
)

MODULES = {
  'Responses': responses,
  'Features': features,
  'Information and contrast': information,
  'Regression': regression,
  'Relations': relations,
  'Adversarial': adversarial,
  'Sequences': sequences,
  'Sampled tokens': sampled,
  'Example weights, targets, fusion': targets,
}
SECTIONS = (
  'Args',
  'Returns',
  'Formula',
  'References',
  'Example',
  'Variants',
)
# What a term of a language model is the mean of, by loss: tests/distill/
# test_invariance.py holds each to the promise below. Losses that are not here
# take no outputs by token, and are refused.
REDUCTIONS = {
  'tokens': (
    *('kl', 'reverse_kl', 'binary_kl', 'jensen_shannon', 'skewed_kl'),
    *('skewed_reverse_kl', 'total_variation', 'soft_cross_entropy'),
    *('logit_mse', 'probability_mse', 'top_k_kl'),
    *('universal_logit_distance', 'decoupled_kl', 'weighted_soft_labels'),
    *('virtual_teacher', 'cross_entropy', 'pseudo_label', 'hint', 'cosine'),
    *('variational_information',),
  ),
  'tokens of a whole batch': ('pearson_feature',),
  'rows': (
    *('attention_transfer', 'neuron_selectivity', 'activation_boundary'),
    *('factor_transfer', 'channel_wise', 'log_sum'),
    *('maximum_mean_discrepancy', 'inter_channel_correlation'),
    *('pairwise_affinity',),
  ),
  'rows of a whole batch': ('similarity_preserving',),
}
_INVARIANCE = """\
## What does not change the loss of a language model

With `mask='valid'` a term is the mean over all tokens of the batch that count,
never a mean of means. So loss and gradient do not depend on the split into
micro-batches (`train.accumulate`), on the number of devices, on the length of
padding, or on packing (texts in rows of their own, or several in a row with
`segments`). This is a promise, to 1e-6 in float32, and
`tests/distill/test_invariance.py` holds every loss to it. What could not keep
it is refused in one sentence: a value by row where rows are packed, and in
parts of a batch what compares its examples. With `mask='all'` padding counts as
any token, as it says. The promise holds too where logits are kept as factors
(`kw.logits='factored'`) and where a teacher's largest are cached (`cache.top`).
"""
_INTRO = """\
# Losses

<!-- Written by `python -m jaxkd.losses._docs`; edit the docstrings. -->

Pure functions on arrays, to import into any loop: `from jaxkd.losses import
kl`. Predictions come first and targets second; options are keywords. Losses are
not reduced over the batch, so that you can apply weights, masks and means of
your own. Unless its documentation says so, no function stops a gradient: stop
the teacher's where you compute its outputs.

Layouts are `[B, H, W, C]` for maps, `[B, D]` for embeddings and `[..., K]` for
logits. Inputs may be float32, bfloat16 or float64; softmaxes and sums of
squares are computed, and losses returned, in float32 or better. Options that
are numbers may be traced, so a population can map over them.

Losses that compare the examples of a batch need the whole batch: under `jit` on
sharded data they see the global batch, under gradient accumulation or `vmap`
over examples they do not. Most of them take `where`, a bool for each example,
and their values do not depend on padding that it excludes.

Features that are all zero have finite values and gradients. NaN and infinity
are not hidden: a value that depends on NaN is NaN. The logit of a class that
does not exist is -inf, on both sides if there are two; the module
`jaxkd.losses.responses` says what follows from that.

Implementations of the same paper differ, often by a constant factor. For each
loss, *Variants* says which definition this is and what others do.
"""


def sections(function) -> dict[str, str]:
  """The parts of a docstring: '' for what comes before the first heading."""
  heading = re.compile(rf'^({"|".join(SECTIONS)}):\n', re.MULTILINE)
  parts = heading.split(inspect.getdoc(function) + '\n')
  names, bodies = ['', *parts[1::2]], parts[::2]
  return {
    name: textwrap.dedent(body).strip()
    for name, body in zip(names, bodies, strict=True)
  }


def signature(function) -> str:
  """The signature without its types, which the text tells with the shapes."""
  bare = [
    p.replace(annotation=inspect.Parameter.empty)
    for p in inspect.signature(function).parameters.values()
  ]
  return f'{function.__name__}{inspect.Signature(bare)}'


def page() -> str:
  """All of docs/losses.md."""
  text = [_INTRO, _contents(), _invariance()]
  for title, module in MODULES.items():
    text.append(f'## {title}\n\n{_inline(inspect.getdoc(module))}\n')
    text += [_entry(function) for function in _functions(module)]
  return '\n'.join(text)


def _functions(module):
  public = (getattr(losses, name) for name in losses.__all__)
  return [f for f in public if f.__module__ == module.__name__]


def _contents():
  rows = ['| loss | what it is |', '|---|---|']
  for title, module in MODULES.items():
    rows.append(f'| **{title}** | |')
    for function in _functions(module):
      name = function.__name__
      line = _inline(inspect.getdoc(function).splitlines()[0])
      rows.append(f'| [`{name}`](#{name}) | {line} |')
  return '\n'.join(rows) + '\n'


def _invariance():
  rows = [
    '| mean over | losses | micro-batches | devices | padding | packing |',
    '|---|---|---|---|---|---|',
  ]
  for over, names in REDUCTIONS.items():
    kept = ['refused' if 'batch' in over else 'same', 'same', 'same']
    kept.append('refused' if 'rows' in over else 'same')
    links = ', '.join(f'[`{name}`](#{name})' for name in names)
    rows.append(f'| {over} | {links} | {" | ".join(kept)} |')
  return _INVARIANCE + '\n' + '\n'.join(rows) + '\n'


def _entry(function):
  parts = sections(function)
  text = [
    f'### {function.__name__}',
    f'```python\n{signature(function)}\n```',
    _inline(parts.pop('')),
  ]
  for name, body in parts.items():
    if name == 'Formula':
      body = f'```text\n{body}\n```'
    elif name == 'Example':
      body = f'```pycon\n{body}\n```'
    elif name == 'Args':
      body = re.sub(r'^(\w+):', r'- `\1`:', _inline(body), flags=re.MULTILINE)
    else:
      body = _inline(body)
    text.append(f'**{name}**\n\n{body}')
  return '\n\n'.join(text) + '\n'


def _inline(text):
  """Markdown of what the docstrings use of reStructuredText."""
  text = re.sub(r'`([^`<]+?)\s+<([^>]+)>`_', r'[\1](\2)', text)
  return text.replace('``', '`')


def main(argv):
  if argv[:1] != ['--check']:
    print(page(), end='')
    return 0
  (path,) = argv[1:] or ['docs/losses.md']
  if pathlib.Path(path).read_text() == page():
    return 0
  print(
    f'{path} is stale: run python -m jaxkd.losses._docs > {path}',
    file=sys.stderr,
  )
  return 1


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
