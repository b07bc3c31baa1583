r"""Writes texts of a language model, for students of another tokenizer.

python experiments/write.py --config configs/kd_language_models.py \
    --config.data.kw.tokens=tokenizer:/models/large \
    --net hf:/models/large --out texts/train.jsonl

The data of the config, in the tokens of the net, are the beginnings that it
goes on from, and `data.generated.kw` says how. Students read the file as
``text:texts/train.jsonl`` with ``data.kw.format='completions'``.
"""

from absl import flags
from rich.console import Console

from jaxkd.errors import UserError
from jaxkd.run import launch, written

FLAGS = flags.FLAGS
flags.DEFINE_string('net', '', 'what writes: a folder of a run, or hf:FOLDER')
flags.DEFINE_string('out', '', 'the file, NAME.jsonl')
flags.DEFINE_string('split', 'train', 'of the data')
flags.DEFINE_integer('seed', 0, 'of the draws', lower_bound=0)


def main(stop):
  for name in ('net', 'out'):
    if not FLAGS[name].value:
      raise UserError(f'--{name}: {FLAGS[name].help}; name it')
  say = lambda text: Console().print(text, soft_wrap=True)  # noqa: E731
  written.write(
    launch.config()['data'],
    FLAGS.net,
    FLAGS.out,
    split=FLAGS.split,
    seed=FLAGS.seed,
    say=say,
  )


if __name__ == '__main__':
  launch.main(main)
