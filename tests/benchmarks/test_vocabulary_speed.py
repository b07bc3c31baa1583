"""The benchmark of losses over large vocabularies, on a small one."""

import io

from rich.console import Console

from benchmarks import vocabulary_speed


def test_chunks_are_compared_with_the_plain_loss():
  measured = vocabulary_speed.measure(
    5, names=('kl',), shape=(16, 1200, 4), seconds=1
  )
  (row,) = measured['rows']
  assert row['shapes'] == '16×1200×4'
  assert row['chunks, ms'] > 0 and row['plain, ms'] > 0 and row['ratio'] > 0
  output = io.StringIO()
  Console(file=output, width=200).print(vocabulary_speed.table(measured))
  assert 'plain → chunks' in output.getvalue()
