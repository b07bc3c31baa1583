r"""Writes texts of a language model, for students of another tokenizer.

python experiments/write.py --config configs/kd_language_models.py \
    --config.data.kw.tokens=tokenizer:/models/large \
    --net hf:/models/large --out texts/train.jsonl

The net continues the beginnings of the config's texts, in its own tokens;
`data.generated.kw` says how. Students read the file as
``text:texts/train.jsonl`` with ``data.kw.format='completions'``.
"""

from absl import flags
from rich.console import Console

from jaxkd.errors import UserError
from jaxkd.run import launch, written

FLAGS = flags.FLAGS
flags.DEFINE_string(
  'net', '', "the net that writes: a folder below a run's nets, or hf:FOLDER"
)
flags.DEFINE_string('out', '', 'the file to write, NAME.jsonl')
flags.DEFINE_string('split', 'train', 'split of the data to continue')
flags.DEFINE_integer('seed', 0, 'seed for drawing tokens', lower_bound=0)


def main(stop):
  for name in ('net', 'out'):
    if not FLAGS[name].value:
      raise UserError(f'--{name}: name {FLAGS[name].help}')
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
