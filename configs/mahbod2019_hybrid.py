"""Support vector machines on features of several nets (Mahbod et al., 2019).

Work [12] of the survey: three nets of different architectures, trained on other
images, are frozen; on two late layers of each a support vector machine learns
the few images of skin lesions that there are, and the probabilities (Platt's,
from held-out folds) are averaged over the layers of a net, over nets, and over
eight rotated and flipped copies of an image. Images are rotated and flipped in
training, too, and classes are balanced by weights. This is not distillation in
the usual sense; beyond the work, the fused prediction of the machines also
teaches a small net that sees the same images.

Simplified: the nets (an MLP, a mixer, a small ViT) learn seven classes of
Fashion-MNIST; the machines learn the other three, pullover, coat and shirt,
from 33 images of each. Machines are linear; Gaussian ones, on the last layers,
stand beside them; C is the best of three on the held-out folds. The controls
are the machines of each net, machines on pixels, one copy of an image in place
of eight, and the net with labels alone. Every seed draws images of its own and
trains its own nets.

About eight minutes on a CPU core. The claim does not hold here: AUC 78.8 % of
all machines, 79.0 % of the MLP's, 74.9 and 74.7 % of the others', of which the
fusion is better; 75.6 % on pixels, and 80.6 % on pixels with a Gaussian kernel.
Eight copies are better than one by 1.2 points. The net with labels alone has
77.8 %, as much as its teacher, and learns nothing from it (75.4 %).

  python experiments/distill.py --config configs/mahbod2019_hybrid.py \
      --workdir runs/mahbod2019_hybrid

`:paper` takes AlexNet, VGG16 and ResNet-18 with torchvision's weights of
ImageNet, at 224 pixels (the paper has 227 for AlexNet), and the three classes
of ISIC 2017 from data/isic2017. The paper has an AUC of 83.83 % for melanoma
and 97.55 % for seborrheic keratosis on the validation split.
"""

from ml_collections import ConfigDict

from jaxkd.run import config

TARGET, SOURCE = (2, 4, 6), (0, 1, 3, 5, 7, 8, 9)
FEW = 0.006  # of 55,000 images: 33 of each class
COSTS = dict(linear=(0.01, 0.1, 1.0), rbf=(0.1, 1.0, 10.0))
ALL, COPIES = 'dihedral_all', 8  # all that a machine sees of each image
LAYOUT = (
  'get the three parts of ISIC 2017, task 3, from '
  'https://challenge.isic-archive.com/data/#2017 and sort the images by their '
  'ground truth into data/isic2017/train (2000: melanoma 374, nevus 1372, '
  'seborrheic_keratosis 254), validation (150) and test (600), a folder of '
  'JPEG files for each class in each'
)
IMAGENET = 'standardize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))'


def get_config(arg=None):
  size = config.size(arg)
  c = ConfigDict()
  c.survey = dict(
    work=12,
    objective='accuracy',
    data='rotations and flips',
    teacher='many',
    knowledge='deep features',
    method='permuted',
    student='many support vector machines, complex',
    claim='machines on the features of three nets beat those on one',
    cite='Mahbod et al., 2019',
    url='https://arxiv.org/abs/1702.08434',
  )
  c.task = 'diagnosis'
  without = {
    name: f'without:{",".join(map(str, classes))}'
    for name, classes in (('source', TARGET), ('target', SOURCE))
  }
  c.data = dict(
    source='fashion_mnist',
    draw='shared',
    fraction=dict(students=FEW),
    partition=dict(students=without['target']),
    classes=dict(validation=TARGET, test=TARGET),
  )
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=1e-3,
    steps=500,
    batch_size=99,
    seeds=5,
  )
  hidden, blocks = ('layers/0', 'layers/1'), ('blocks/0', 'blocks/1')
  tokens, best = dict(width=32, depth=2, patch=7), 'dense'
  nets = dict(
    dense=(dict(model='mlp', kw=dict(widths=(256, 128))), hidden),
    mixer=(dict(model='mixer', kw=dict(**tokens, channel_ratio=2.0)), blocks),
    vit=(dict(model='vit', kw=dict(**tokens, heads=2, mlp_ratio=2.0)), blocks),
  )
  learned = dict(
    per_seed=True,
    data=dict(partition=without['source']),
    train=dict(steps=1500, batch_size=64),
  )
  few = dict(fraction=FEW, partition=without['target'])
  met = dict(steps=COPIES, batch_size=c.train.batch_size)
  rest, small = '', ''
  student = dict(model='mlp', kw=dict(widths=(64,)))
  if size == 'tiny':
    c.data.update(source='digits', fraction=dict(students=0.1))
    few['fraction'] = 0.1
    del nets['vit']  # takes long to compile
    nets['dense'][0]['kw'] = dict(widths=(8, 8))
    nets['mixer'][0]['kw'].update(width=6, patch=4)
    learned['train'] = dict(steps=4, batch_size=16)
    c.train.update(steps=4, batch_size=16, seeds=2, members='vmap')
    met = dict(steps=2, batch_size=16)
  if size == 'paper':
    rest, small = IMAGENET, 'resize(32)'
    met = dict(steps=COPIES * 2000 // 32, batch_size=32)
    student = dict(model='resnet18', kw={})
    few, learned, best = {}, dict(classes=1000), 'vgg16'
    nets = {
      name: (
        dict(model=model, kw={}, restore=f'pytorch:data/{name}.safetensors'),
        layers,
      )
      for name, model, layers in (
        ('alexnet', 'alexnet_imagenet', ('hidden/0', 'hidden/1')),
        ('vgg16', 'vgg16_imagenet', ('hidden/0', 'hidden/1')),
        ('resnet18', 'resnet18', ('stages/2', 'stages/3')),
      )
    }
    c.data = dict(
      source='folder:isic2017',
      dir='data',
      layout=LAYOUT,
      kw=dict(resize=224),
      draw='shared',
    )
    c.train.update(steps=20000, batch_size=32)
  examples = met['steps'] * met['batch_size']

  def symmetric(op, before='', behind=rest):
    """Views with an op; in evaluation, too, if it gives all copies."""
    steps = [(before, op, behind), (before, op * (op == ALL), behind)]
    texts = ('|'.join(filter(None, each)) for each in steps)
    return dict(zip(('train', 'eval'), texts, strict=True))

  def machine(kernel, **entries):
    held = examples if kernel == 'rbf' else 0
    kw = dict(
      kernel=kernel, costs=COSTS[kernel], pool='reads' in entries, size=held
    )
    return dict(
      model='svm', kw=kw, per_seed=True, data=few, train=met, **entries
    )

  groups, machines = {}, {'linear': (), 'rbf': ()}
  for name, (net, layers) in nets.items():
    groups[f'{name}_net'] = dict(**net, **learned, views=symmetric('dihedral'))
    ours = {'linear': layers, 'rbf': layers[1:]}
    for kernel, of_net in ours.items():
      made = {
        f'{name}_{kernel}_{i}': machine(kernel, reads=(f'{name}_net', layer))
        for i, layer in enumerate(of_net)
      }
      machines[kernel] += tuple(made)
      groups.update(made)
    own = tuple(f'{name}_linear_{i}' for i in range(len(layers)))
    groups[name] = dict(made_of=own, views=symmetric(ALL))
  for kernel, name in (('linear', 'pixels'), ('rbf', 'gaussian_pixels')):
    pixels = f'pixels_{kernel}'
    groups[pixels] = machine(kernel, views=symmetric('dihedral', small, ''))
    seen = symmetric(ALL, small, '')
    groups[name] = dict(made_of=(pixels,), views=seen)
  # Of as many layers of each net, the mean of all is that over nets, too.
  groups['gaussian'] = dict(made_of=machines['rbf'], views=symmetric(ALL))
  groups['fused'] = dict(made_of=machines['linear'], views=symmetric(ALL))
  groups['fused_upright'] = dict(made_of=machines['linear'])
  c.teachers = groups
  c.students = dict(student=dict(**student, views=symmetric('dihedral')))
  c.distill = dict(
    labels=dict(loss='cross_entropy'),
    soft=dict(loss='soft_cross_entropy', teacher='fused_upright'),
  )
  c.arms = dict(
    student=dict(distill=dict(soft=dict(weight=0.0))),
    distilled=dict(distill=dict(labels=dict(weight=0.0))),
  )
  c.report = dict(
    metric='auc',
    compare=dict(better='teacher fused', than=f'teacher {best}'),
    controls={
      f'fused_beats_{other}': dict(
        better='teacher fused', than=f'teacher {other}'
      )
      for other in (*nets, 'pixels', 'gaussian_pixels', 'gaussian')
      if other != best
    }
    | {
      f'{name}_beats_pixels': dict(
        better=f'teacher {name}', than='teacher pixels'
      )
      for name in nets
    }
    | dict(
      copies=dict(better='teacher fused', than='teacher fused_upright'),
      distilled=dict(better='distilled', than='student'),
    ),
    notes=(
      'the nets have not seen the classes that they are tested on',
      'tried before, with no other result: 22 images of each class, a LeNet in '
      'place of the ViT, machines of one cost',
    ),
  )
  return config.complete(c)
