"""Examples that are there more than once, as another class or in two splits.

A test split with examples of train measures what was learnt by heart, so the
row tells of them. They are known by their inputs, which must be the same to the
last bit.
"""

from collections.abc import Mapping

import jax

from jaxkd.data.examples import ArrayExamples, Examples


def said(splits: Mapping[str, Examples]) -> tuple[str, ...]:
  """Notes for the row on examples that are there more than once.

  Args:
    splits: split -> examples; only those in memory are looked at.
  """
  notes, seen = [], {}
  for split, examples in splits.items():
    if not isinstance(examples, ArrayExamples):
      continue
    own = _hashes(examples)
    of = f'of the {len(own):,} examples in {split} are'
    if count := _of_several_classes(own, examples):
      notes.append(f'{count:,} {of} there as another class too')
    for other, known in seen.items():
      if count := sum(each in known for each in own):
        notes.append(f'{count:,} {of} in {other} too')
    seen[split] = set(own)
  return tuple(notes)


def _hashes(examples: ArrayExamples) -> list[int]:
  """A number for the inputs of each example, of 64 bits."""
  leaves = jax.tree.leaves(examples.field('inputs'))
  return [
    hash(b''.join(x[i].tobytes() for x in leaves)) for i in range(len(examples))
  ]


def _of_several_classes(hashes: list[int], examples: ArrayExamples) -> int:
  """How many examples have the inputs of one of another class."""
  if examples.index.each:
    return 0
  classes: dict[int, set[int]] = {}
  for each, label in zip(hashes, examples.labels.tolist(), strict=True):
    classes.setdefault(each, set()).add(label)
  return sum(len(classes[each]) > 1 for each in hashes)
