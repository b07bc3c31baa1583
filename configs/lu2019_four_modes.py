"""Four modes of an image, a net for each, and their vote (Lu et al., 2019).

Work [13] of the survey: breast tumours in four modes of magnetic resonance
imaging (T1, T2, diffusion, contrast). One net learns each mode from labels;
what they predict is put together by a majority vote, whose ties the mean
probability decides, or by a net on the features of all four (linkage). The
paper stops there: the survey calls its student implicit. Here it is made
explicit, a net that sees one mode alone, as where no other was taken, and
learns from the labels, from the vote as a hard label, or from the mean as a
soft one; the last two also with five times as many images, most unlabelled.

Simplified: Fashion-MNIST with few labels and MLPs instead of MRI and conv nets;
the modes are maps of the same pixels, registered by construction: the image,
its gradient magnitude, a coarse image, and Haar details. The linkage is trained
on frozen features, not end to end. Every seed draws images of its own, 2 % of
all, and trains all nets anew.

About three minutes on a CPU core; 82.7 % by the vote, 82.3 % of the best mode,
82.9 % by the mean, 83.6 % by the linkage. The student of details, 77.6 % with
labels, gains nothing from the vote on images whose labels the nets have
memorised (77.4 %), and 0.9 points with it on five times as many; the mean gives
0.4 and 1.0. A student of the coarse images, with 78.4 %, learnt nothing from
either, on those images or on twice as many.

  python experiments/distill.py --config configs/lu2019_four_modes.py \
      --workdir runs/lu2019_four_modes

`:paper` takes slices of 224×224 pixels with the modes as channels and two
classes from data/breast_mri.npz, which is not published, and ResNet-18 for each
mode; the paper does not say which nets it used and how long they trained, so
these settings are ours. The paper has an accuracy of 0.942 with all modes and
none for one.
"""

from ml_collections import ConfigDict

from jaxkd.run import config

MODES = dict(image='', edges='gradient', coarse='resize(7)', details='haar')
PAPER = {name: f'channel({i})' for i, name in enumerate(MODES)}
LAYOUT = (
  'the set of 67 patients is not published; put one like it there as '
  'numpy.savez makes it: x_train, x_validation and x_test, floats from 0 to 1 '
  '[slices, 224, 224, 4] of registered T1, T2, diffusion and contrast images, '
  'with y_train, y_validation and y_test, 0 for benign and 1 for malignant, no '
  'patient being in two splits'
)


def get_config(arg=None):
  size = config.size(arg)
  c = ConfigDict()
  c.survey = dict(
    work=13,
    objective='accuracy',
    data='modes',
    teacher='many, one for each mode',
    knowledge='hard labels',
    method='aggregated',
    student='implicit: the vote; and a single one of one mode',
    claim='the vote of four modes is better than the best of them',
    cite='Lu et al., 2019',
  )
  share = 0.02
  c.data = dict(
    source='fashion_mnist',
    fraction=dict(teachers=share, students=share),
    draw='shared',
  )
  net = dict(model='mlp', kw=dict(widths=(128, 128)))
  modes, moves = MODES, 'shift(1)'
  if size == 'paper':
    net, modes, moves = dict(model='resnet18', kw={}), PAPER, 'flip|shift(8)'

  def seen(mode):
    seen = modes[mode]
    return dict(train='|'.join(filter(None, (moves, seen))), eval=seen)

  c.teachers = {
    mode: dict(**net, views=seen(mode), per_seed=True) for mode in modes
  }
  layer = 'embedding'
  c.teachers.update(
    vote=dict(made_of=tuple(modes), fuse='majority_vote'),
    mean=dict(made_of=tuple(modes)),
    linkage=dict(
      model='mlp',
      kw=dict(widths=(128,), dropout=0.5),
      reads=tuple(x for mode in modes for x in (mode, layer)),
      per_seed=True,
    ),
  )
  c.students = dict(student=dict(**net, views=seen('details')))
  c.distill = dict(
    labels=dict(loss='cross_entropy', weight=0.0),
    vote=dict(loss='pseudo_label', teacher='vote', weight=0.0),
    mean=dict(loss='soft_cross_entropy', teacher='mean', weight=0.0),
  )
  more = dict(data=dict(fraction=dict(students=5 * share)))
  ways = dict(student='labels', voted='vote', averaged='mean')
  c.arms = {
    arm: dict(distill={term: dict(weight=1.0)}) for arm, term in ways.items()
  } | {
    f'{arm}_unlabelled': dict(**more, distill={term: dict(weight=1.0)})
    for arm, term in list(ways.items())[1:]
  }
  c.train = dict(
    optimizer=dict(name='adamw', kw=dict(weight_decay=1e-4)),
    learning_rate=1e-3,
    steps=1500,
    batch_size=64,
    seeds=5,
  )
  c.report = dict(
    compare=dict(better='teacher vote', than='teacher image'),
    controls={
      f'vote_beats_{mode}': dict(better='teacher vote', than=f'teacher {mode}')
      for mode in modes
      if mode != 'image'
    }
    | dict(
      vote_beats_mean=dict(better='teacher vote', than='teacher mean'),
      linkage_beats_vote=dict(better='teacher linkage', than='teacher vote'),
      linkage_beats_image=dict(better='teacher linkage', than='teacher image'),
      voted_beats_labels=dict(better='voted', than='student'),
      averaged_beats_labels=dict(better='averaged', than='student'),
      voted_unlabelled_beats_labels=dict(
        better='voted_unlabelled', than='student'
      ),
      averaged_unlabelled_beats_labels=dict(
        better='averaged_unlabelled', than='student'
      ),
    ),
    notes=(
      'a student of the coarse images was tried too: it learnt nothing from '
      'the vote or the mean, on the same images or on twice as many',
    ),
  )
  if size == 'paper':
    c.data = dict(source='npz:breast_mri.npz', dir='data', layout=LAYOUT)
    for arm in ('voted', 'averaged'):  # all images are labelled
      del c.arms[f'{arm}_unlabelled']
      del c.report.controls[f'{arm}_unlabelled_beats_labels']
    c.train.update(steps=20000, batch_size=32)
  if size == 'tiny':
    c.data.source = 'digits'
    c.data.fraction = dict(teachers=0.3, students=0.3)
    for arm in ('voted', 'averaged'):
      c.arms[f'{arm}_unlabelled'].data.fraction.students = 0.6
    for mode in modes:
      c.teachers[mode].kw.widths = (16,)
    c.teachers.linkage.kw.widths = (16,)
    c.students.student.kw.widths = (16,)
    c.train.update(steps=4, batch_size=16, seeds=2, members='vmap')
  return config.complete(c)
