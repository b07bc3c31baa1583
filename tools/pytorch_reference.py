"""Writes what the original modules compute, for tests/models/test_pytorch.py.

    python tools/pytorch_reference.py REPDISTILLER OUTPUT

It needs PyTorch and torchvision, and REPDISTILLER, a clone of
github.com/HobbitLong/RepDistiller, whose models are the CIFAR zoo. Weights and
images are closed formulas (`fill` and `images`), which the test has from here,
so that what is written is no more than the shape of each layer and the logits.
"""

import importlib
import json
import sys

import numpy as np

CLASSES = 4


def wave(shape, phase):
  """Numbers in [-1, 1] of no visible order: sin(n² / 10 + phase)."""
  n = np.arange(np.prod(shape), dtype=np.float64)
  return np.sin(n * n / 10 + phase).reshape(shape)


def fill(layers, conv_bias):
  """A state dict, in float32, of the layers with these shapes of weights.

  Args:
    layers: name -> shape of its weight; BatchNorm's has one axis.
    conv_bias: whether convolutions have a bias.
  """
  state = {}
  for phase, (name, shape) in enumerate(layers.items()):
    width = shape[0]
    if len(shape) == 1:
      state[f'{name}.weight'] = 1 + 0.3 * wave(width, phase)
      state[f'{name}.bias'] = 0.2 * wave(width, phase + 0.2)
      state[f'{name}.running_mean'] = 0.2 * wave(width, phase + 0.4)
      state[f'{name}.running_var'] = 1 + 0.5 * wave(width, phase + 0.6)
      state[f'{name}.num_batches_tracked'] = np.array(7)
      continue
    spread = np.sqrt(3 / np.prod(shape[1:]))
    state[f'{name}.weight'] = spread * wave(shape, phase)
    if len(shape) == 2 or conv_bias:
      state[f'{name}.bias'] = 0.2 * wave(width, phase + 0.2)
  return {
    name: x if x.dtype == int else x.astype(np.float32)
    for name, x in state.items()
  }


def images(size):
  """Two images, [2, size, size, 3]."""
  return wave((2, size, size, 3), 0.5).astype(np.float32)


def nets(repdistiller):
  """Yields our name and options, the original module, the side of images."""
  from torchvision.models import resnet as vision

  sys.path.insert(0, repdistiller)
  zoo = importlib.import_module('models')
  own, few = {'num_classes': CLASSES}, [2, 1, 1, 1]
  cifar = {'sizes': few, 'stem': 'cifar'}
  basic, deep = {'block': 'basic'}, {'block': 'bottleneck'}
  x4 = [32, 64, 128, 256]
  yield 'resnet8', {}, zoo.resnet8(**own), 32
  yield 'resnet14x4', {}, zoo.resnet.ResNet(14, x4, **own), 32
  yield 'wrn_16_2', {}, zoo.wrn_16_2(**own), 32
  yield 'vgg8', {}, zoo.vgg8_bn(**own), 32
  yield 'mobilenetv2_half', {}, zoo.mobile_half(CLASSES), 32
  yield 'shufflenetv1', {}, zoo.ShuffleV1(**own), 32
  yield 'shufflenetv2', {}, zoo.ShuffleV2(**own), 32
  v2 = zoo.resnetv2
  net = v2.ResNet(v2.Bottleneck, few, **own)
  yield 'resnet_imagenet', {**deep, **cifar}, net, 32
  net = vision.ResNet(vision.BasicBlock, few, **own)
  yield 'resnet_imagenet', {**basic, 'sizes': few}, net, 64
  net = vision.ResNet(vision.Bottleneck, few, **own)
  yield 'resnet_imagenet', {**deep, 'sizes': few}, net, 64


def describe(name, kw, net, side):
  """An entry of the file: what a net is made of, and its logits."""
  import torch

  state = net.state_dict()
  layers = {
    key.removesuffix('.weight'): list(tensor.shape)
    for key, tensor in state.items()
    if key.endswith('.weight')
  }
  conv_bias = any(
    f'{layer}.bias' in state for layer, s in layers.items() if len(s) == 4
  )
  filled = fill(layers, conv_bias)
  net.load_state_dict({k: torch.from_numpy(x) for k, x in filled.items()})
  with torch.no_grad():
    logits = net.eval()(torch.from_numpy(images(side)).permute(0, 3, 1, 2))
  return {
    'model': name,
    'kw': kw,
    'side': side,
    'conv_bias': conv_bias,
    'layers': layers,
    'logits': logits.tolist(),
  }


def main(repdistiller, output):
  """Writes one line for each net."""
  with open(output, 'w') as file:
    for net in nets(repdistiller):
      file.write(json.dumps(describe(*net), separators=(',', ':')) + '\n')


if __name__ == '__main__':
  if len(sys.argv) != 3:
    sys.exit(__doc__)
  main(*sys.argv[1:])
