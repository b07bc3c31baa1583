"""Writes what nets for images of three libraries compute, for the tests.

    python tools/vision_reference.py OUTPUT

It needs PyTorch, torchvision, timm and transformers. OUTPUT is
tests/models/vision_reference.jsonl. Weights and images are closed formulas
(`fill`, and `images` of tools/pytorch_reference.py), so that a line holds the
shapes of a net's tensors, by their names in its file, and its logits. Nets of
transformers are written to a folder and read from there, as a user does.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from pytorch_reference import CLASSES, images, wave

SIDE = 16


def fill(shapes):
  """The tensors of these shapes, in float32.

  Args:
    shapes: name -> shape.
  """
  state = {}
  for phase, (name, shape) in enumerate(sorted(shapes.items())):
    x = wave(shape, phase)
    if len(shape) > 1:
      x = np.sqrt(3 / np.prod(shape[1:])) * x
    elif name.endswith('running_var'):
      x = 1 + 0.5 * x
    else:
      x = 0.2 * x + (name.endswith('weight'))
    state[name] = x.astype(np.float32)
  return state


def shapes_of(state):
  """The shape of each tensor but for BatchNorm's counts."""
  return {
    name: list(x.shape)
    for name, x in state.items()
    if not name.endswith('num_batches_tracked')
  }


def state_dicts():
  """Yields our name and options, and a net of another library."""
  import timm
  import torchvision

  small = {'depth': 2, 'width': 8, 'heads': 2, 'patch': 4, 'pool': 'token'}
  net = torchvision.models.VisionTransformer(
    SIDE, 4, 2, 2, 8, 12, num_classes=CLASSES
  )
  yield 'torchvision', 'vit', {**small, 'mlp_ratio': 1.5}, net
  net = timm.models.VisionTransformer(
    SIDE, 4, embed_dim=8, depth=2, num_heads=2, num_classes=CLASSES
  )
  yield 'timm', 'vit', small, net


def configs():
  """Yields nets of transformers."""
  import transformers

  common = {'num_labels': CLASSES}
  yield transformers.ViTForImageClassification(
    transformers.ViTConfig(
      hidden_size=8,
      num_hidden_layers=2,
      num_attention_heads=2,
      intermediate_size=12,
      image_size=SIDE,
      patch_size=4,
      layer_norm_eps=1e-3,  # so that another one would be seen
      **common,
    )
  )
  for kind, sizes in (('bottleneck', [32, 64]), ('basic', [8, 16])):
    yield transformers.ResNetForImageClassification(
      transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=sizes,
        depths=[2, 1],
        layer_type=kind,
        **common,
      )
    )


def main(output):
  """Writes one line for each net."""
  import torch
  from safetensors.numpy import load_file, save_file

  inputs = torch.from_numpy(images(SIDE)).permute(0, 3, 1, 2).contiguous()

  def logits(net):
    with torch.no_grad():
      found = net.eval()(inputs)
    return getattr(found, 'logits', found).tolist()

  lines = []
  for library, name, kw, net in state_dicts():
    shapes = shapes_of(net.state_dict())
    state = {k: torch.from_numpy(x) for k, x in fill(shapes).items()}
    missing, others = net.load_state_dict(state, strict=False)
    assert not others and not shapes_of(dict.fromkeys(missing, inputs))
    line = {'library': library, 'model': name, 'kw': kw, 'tensors': shapes}
    lines.append({**line, 'logits': logits(net)})
  for net in configs():
    with tempfile.TemporaryDirectory() as folder:
      net.save_pretrained(folder)
      file = Path(folder, 'model.safetensors')
      shapes = shapes_of(load_file(file))
      save_file(fill(shapes), file, metadata={'format': 'pt'})
      config = json.loads(Path(folder, 'config.json').read_text())
      found = logits(type(net).from_pretrained(folder))
    line = {'library': 'transformers', 'config': config, 'tensors': shapes}
    lines.append({**line, 'logits': found})
  text = [json.dumps(line, separators=(',', ':')) + '\n' for line in lines]
  Path(output).write_text(''.join(text))


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  main(sys.argv[1])
