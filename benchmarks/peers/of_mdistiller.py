"""Programs of mdistiller: its nets, and its distillers as its trainer calls."""

import sys

from protocol import Lacks

# Ours -> theirs.
DISTILLERS = {
  'kd': 'KD',
  'dkd': 'DKD',
  'crd': 'CRD',
  'reviewkd': 'REVIEWKD',
  'at': 'AT',
  'rkd': 'RKD',
}


def prepare(device):
  """Imports what is needed."""
  import mdistiller.distillers
  import mdistiller.engine.cfg
  import mdistiller.models  # noqa: F401

  if device.type == 'cpu':
    # CRD's sampler goes to a GPU when it is made; negatives are given here.
    module = sys.modules['mdistiller.distillers.CRD']
    module.AliasMethod.cuda = lambda self: None


def logits(found):
  """The logits among what a net gives."""
  return found[0]


def train(setting, teacher, student):
  """A call of the training step, and what it trains."""
  from mdistiller.distillers import distiller_dict
  from mdistiller.engine.cfg import CFG

  request, program = setting.request, setting.request['program']
  if program == 'plain':
    distiller = distiller_dict['NONE'](student)
  elif program in DISTILLERS:
    config, extra = CFG.clone(), ()
    config.DKD.BETA = 8.0
    if program == 'crd':
      channels = _shapes(student, request)[-1][0]
      config.CRD.FEAT.STUDENT_DIM = channels
      config.CRD.FEAT.TEACHER_DIM = _shapes(teacher, request)[-1][0]
      config.CRD.NCE.K, extra = request['negatives'], (request['examples'],)
    elif program == 'reviewkd':
      _describe_levels(config.REVIEWKD, student, teacher, request)
    kind = distiller_dict[DISTILLERS[program]]
    distiller = kind(student, teacher, config, *extra)
  else:
    raise Lacks(program)
  distiller = distiller.to(setting.device).train()
  given = {
    'image': setting.inputs,
    'target': setting.labels,
    'epoch': 20,  # at the end of the warm-up
    'index': setting.index,
    'contrastive_index': setting.negatives,
  }

  def loss():
    _, losses = distiller(**given)
    return sum(value.mean() for value in losses.values())

  parameters = list(distiller.get_learnable_parameters())
  return setting.step(loss, parameters), parameters


def net(request, role):
  """A net for small images, or for those of ImageNet."""
  from mdistiller.models import cifar_model_dict, imagenet_model_dict

  name, classes = request[role], request['classes']
  if request['side'] > 64:
    capital = name.replace('resnet', 'ResNet')
    if capital not in imagenet_model_dict:
      raise Lacks(name)
    return imagenet_model_dict[capital](pretrained=False, num_classes=classes)
  # Its dictionary of nets with teachers for CIFAR leaves some of them out.
  from mdistiller.models.cifar import resnet

  known = {key: value[0] for key, value in cifar_model_dict.items()}
  if name not in known and not hasattr(resnet, name):
    raise Lacks(name)
  build = known[name] if name in known else getattr(resnet, name)
  return build(num_classes=classes)


def _shapes(net, request):
  """Channels and side of what is reviewed of a net: its stages and the pool."""
  import torch

  with torch.no_grad():
    side = request['side']
    _, found = net.eval()(torch.zeros(1, 3, side, side))
  stages = [tuple(x.shape[1:3]) for x in found['feats'][1:]]
  return [*stages, (found['pooled_feat'].shape[1], 1)]


def _describe_levels(config, student, teacher, request):
  ours, theirs = (_shapes(net, request) for net in (student, teacher))
  config.REVIEWKD_WEIGHT = 5.0
  config.IN_CHANNELS = [channels for channels, _ in ours]
  config.OUT_CHANNELS = [channels for channels, _ in theirs]
  config.SHAPES = [side for _, side in reversed(ours)]
  config.OUT_SHAPES = [side for _, side in reversed(theirs)]
