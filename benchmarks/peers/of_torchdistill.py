"""Programs of torchdistill: its training boxes, set up as its configs do."""

import logging

from protocol import Lacks

STAGES = ('layer1', 'layer2', 'layer3')
WHOLE = '.'


def prepare(device):
  """Imports what is needed."""
  import torchdistill.core.distillation
  import torchdistill.core.training
  import torchdistill.models  # noqa: F401

  logging.getLogger('torchdistill').setLevel(logging.WARNING)


def logits(found):
  """The logits among what a net gives, which is no more than them."""
  return found


def train(setting, teacher, student):
  """A call of the training step, and what it trains."""
  from torchdistill.core.distillation import DistillationBox
  from torchdistill.core.training import TrainingBox

  request, program = setting.request, setting.request['program']
  common = {
    'num_epochs': 1,
    'optimizer': {'key': 'SGD', 'kwargs': dict(request['sgd'])},
  }
  own = (setting.device, None, False, 1)
  if program == 'plain':
    config = {
      **common,
      'model': {'forward_proc': 'forward_batch_only'},
      'criterion': _sum({'labels': _labels()}),
    }
    box = TrainingBox(student.to(setting.device), {}, config, *own)
  else:
    given = _methods(request, teacher, student).get(program)
    if given is None:
      raise Lacks(program)
    nets = (net.to(setting.device) for net in (teacher, student))
    box = DistillationBox(*nets, {}, {**common, **given}, *own)
    box.teacher_model.to(setting.device)
    box.student_model.to(setting.device)
  box.pre_epoch_process(epoch=0)
  if program != 'plain':
    # As the other peers have it; its own scripts leave it as it is.
    teacher.eval()
  more = {'pos_idx': setting.index, 'contrast_idx': setting.negatives}

  def call():
    with setting.computing():
      loss = box.forward_process(setting.inputs, setting.labels, more)
    box.post_forward_process(loss=loss)
    return loss.detach().sum()  # CRD's has an axis of one

  groups = box.optimizer.param_groups
  parameters = [p for group in groups for p in group['params']]
  return call, parameters


def net(request, role):
  """A net of torchdistill, or of torchvision, whose nets it trains."""
  from torchdistill.models.registry import get_model
  from torchvision import models

  name, classes = request[role], request['classes']
  if request['side'] > 64:
    if not hasattr(models, name):
      raise Lacks(name)
    return getattr(models, name)(num_classes=classes)
  depth = name.removeprefix('resnet')
  if not depth.isdecimal() or (int(depth) - 2) % 6:
    raise Lacks(name)
  return get_model(
    'resnet',
    depth=int(depth),
    num_classes=classes,
    pretrained=False,
    progress=False,
  )


def _sum(terms):
  return {'key': 'WeightedSumLoss', 'kwargs': {'sub_terms': terms}}


def _labels():
  return {
    'criterion': {'key': 'CrossEntropyLoss', 'kwargs': {'reduction': 'mean'}},
    'criterion_wrapper': {
      'key': 'SimpleLossWrapper',
      'kwargs': {
        'input': {
          'is_from_teacher': False,
          'module_path': WHOLE,
          'io': 'output',
        },
        'target': {'uses_label': True},
      },
    },
    'weight': 1.0,
  }


def _term(key, weight, **kwargs):
  return {'criterion': {'key': key, 'kwargs': kwargs}, 'weight': weight}


def _side(hooks=(), inputs=(), **more):
  return {
    'forward_proc': 'forward_batch_only',
    'sequential': [],
    'forward_hook': {'input': list(inputs), 'output': list(hooks)},
    'wrapper': None,
    'requires_grad': True,
    'frozen_modules': [],
    **more,
  }


def _frozen(hooks=(), inputs=()):
  return _side(hooks, inputs, requires_grad=False)


def _methods(request, teacher, student):
  """What differs from method to method in a config of the box."""
  stages = STAGES if request['side'] <= 64 else (*STAGES, 'layer4')
  pairs = {
    stage: {
      side: {'io': 'output', 'path': stage} for side in ('teacher', 'student')
    }
    for stage in stages
  }
  soft = _term(
    'KDLoss', 1.0,
    student_module_path=WHOLE, student_module_io='output',
    teacher_module_path=WHOLE, teacher_module_io='output',
    temperature=4.0, alpha=0.1, reduction='batchmean',
  )  # fmt: skip
  relations = _term(
    'RKDLoss', 1.0,
    teacher_output_path='avgpool', student_output_path='avgpool',
    dist_factor=25.0, angle_factor=50.0, reduction='mean',
  )  # fmt: skip
  return {
    'kd': {
      'teacher': _frozen(),
      'student': _side(),
      'criterion': _sum({'kd': soft}),
    },
    'at': {
      'teacher': _frozen(stages),
      'student': _side(stages),
      'criterion': _sum(
        {'labels': _labels(), 'own': _term('ATLoss', 1000.0, at_pairs=pairs)}
      ),
    },
    'rkd': {
      'teacher': _frozen(['avgpool']),
      'student': _side(['avgpool']),
      'criterion': _sum({'labels': _labels(), 'own': relations}),
    },
    'crd': _contrast(request, teacher, student),
    'reviewkd': _review(request, stages, teacher, student),
  }


def _contrast(request, teacher, student):
  def side(net, **more):
    return _side(
      ['model.avgpool', 'normalizer'],
      forward_proc='forward_batch_supp_dict',
      auxiliary_model_wrapper={
        'key': 'Linear4CRD',
        'kwargs': {
          'input_module_path': 'model.avgpool',
          'linear_kwargs': {
            'in_features': net.fc.in_features,
            'out_features': 128,
          },
          'power': 2,
        },
      },
      **more,
    )

  own = _term(
    'CRDLoss', 0.8,
    teacher_norm_module_path='normalizer',
    student_norm_module_path='normalizer',
    student_empty_module_path='empty',
    input_size=128,
    output_size=request['examples'],
    num_negative_samples=request['negatives'],
    num_samples=request['examples'],
  )  # fmt: skip
  student_side = side(student)
  student_side['forward_hook']['input'] = ['empty']
  return {
    'teacher': side(teacher, frozen_modules=['model']),
    'student': student_side,
    'criterion': _sum({'labels': _labels(), 'own': own}),
  }


def _review(request, stages, teacher, student):
  ours, theirs = (_widths(net, stages) for net in (student, teacher))
  last = len(stages)
  first = request['side'] if request['side'] <= 64 else request['side'] // 4
  sizes = [1, *(first // 2**i for i in reversed(range(last)))]
  places = [*stages, 'avgpool']
  fusions = [
    {
      'path': f'student_model.{place}',
      'io': 'output',
      'kwargs': {
        'in_channels': width,
        'mid_channels': min(512, ours[-1]),
        'out_channels': wanted,
      },
    }
    for place, width, wanted in zip(places, ours, theirs, strict=True)
  ]
  terms = {'labels': _labels()}
  for level, stage in enumerate(stages):
    terms[stage] = _term(
      'HierarchicalContextLoss', 5.0,
      student_module_path=f'abf_modules.{last - level}',
      student_module_io='output',
      teacher_module_path=f'{stage}.-1.relu', teacher_module_io='input',
    )  # fmt: skip
  terms['avgpool'] = _term(
    'HierarchicalContextLoss', 5.0,
    student_module_path='abf_modules.0', student_module_io='output',
    teacher_module_path='avgpool', teacher_module_io='output',
  )  # fmt: skip
  seen = [f'student_model.{place}' for place in places]
  made = [f'abf_modules.{i}' for i in range(last + 1)]
  return {
    'teacher': _frozen(['avgpool'], [f'{stage}.-1.relu' for stage in stages]),
    'student': _side(
      [*seen, *made],
      auxiliary_model_wrapper={
        'key': 'Student4KnowledgeReview',
        'kwargs': {'abfs': fusions, 'sizes': sizes},
      },
    ),
    'criterion': _sum(terms),
  }


def _widths(net, stages):
  """Channels of each stage and of the pooled features."""
  found = []
  for stage in stages:
    block = getattr(net, stage)[-1]
    norm = block.bn3 if hasattr(block, 'bn3') else block.bn2
    found.append(norm.num_features)
  return [*found, found[-1]]
