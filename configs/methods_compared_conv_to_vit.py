"""The methods that fit transformers, with a conv net as the teacher.

As methods_compared_vit.py, but the teacher is the resnet14 of
methods_compared.py, at 16×16 pixels.

  python experiments/distill.py \
      --config configs/methods_compared_conv_to_vit.py \
      --workdir runs/methods_compared_conv_to_vit

What the search found is in methods_compared_conv_to_vit_tuned.json; set `tuned`
to {} in `get_config` to search again. It took an hour on one CPU core, and the
run itself another. Six methods have chosen the edge of the grid: contrastive,
correlation congruence, curriculum temperature, probabilistic transfer and the
stronger teacher (DIST) the largest weights, and mean teacher the least. Soft
targets gain 3.4 points here. No method is told apart from them with three
seeds and beats them; tuned, most are within half a point.
"""

from pathlib import Path

from jaxkd.run import config

base = config.beside(__file__, 'methods_compared_vit.py')

FOUND = Path(__file__).with_name('methods_compared_conv_to_vit_tuned.json')


def get_config(arg=None):
  c = base.compared(arg)
  if config.size(arg) != 'tiny':
    c.tuned = config.tuned(FOUND)
  return c
