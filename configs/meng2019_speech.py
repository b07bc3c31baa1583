"""A net for clean speech adapted to babble (Meng et al., 2019).

Work [10] of the survey, domain adaptation, on what the paper did it with:
frames of speech, each of which is to be given its state of a hidden Markov
model. The teacher hears them without noise; the student starts as the teacher,
hears the same frames in the babble of others, and learns from the teacher where
that is right and from the labels where it is wrong. Beside it are plain
teacher-student learning, labels alone, a fixed mixture of both, and the teacher
itself, not adapted, in noise. All are tested in noise.

Simplified: 16 minutes of prompts by one speaker, in other prompts played
backwards, 5 to 15 dB below, instead of CHiME-3's recordings in street noise;
multilayer perceptrons instead of LSTMs; accuracy of frames instead of the word
error rate. The teacher learned from a third of the utterances and is wrong on
many frames of the others. The paper's own data are in
meng2019_conditional_noise:paper.

  python experiments/distill.py --config configs/meng2019_speech.py \
      --workdir runs/meng2019_speech

It needs `apt-get install asterisk-core-sounds-en-g722 asterisk-core-sounds-en`
and `pip install 'jaxkd[speech]'`.
"""

from jaxkd.run import config

BASE = 'meng2019_conditional.py'


def get_config(arg=None):
  size = config.size(
    arg, no_paper='meng2019_conditional_noise:paper has the data of the paper'
  )
  base = config.beside(__file__, BASE).get_config()
  c = config.plain(base)
  clean, noisy = (
    dict(train=f'channel({i})', eval=f'channel({i})') for i in (0, 1)
  )
  c['data'].update(
    source='speech_frames',
    kw=dict(noise=(5.0, 15.0)),
    fraction=dict(teachers=1 / 3, students=1.0),
    unit=dict(teachers='utterance', students=''),
  )
  net = dict(model='mlp', kw=dict(widths=(256, 256, 256)))
  c['teachers'] = dict(
    main=dict(**net, views=clean, per_seed=True, train=dict(steps=4000)),
    unadapted=dict(made_of=('main',), views=noisy),
  )
  c['students'] = dict(student=dict(**net, views=noisy, init='main'))
  c['distill']['soft']['teacher'] = 'main'
  c['survey'].update(
    data='modify: noise',
    student='single, initialised by the teacher',
    claim='adapted to babble, a student does best to follow the teacher where '
    'it is right',
  )
  c['report']['controls']['adapted'] = dict(
    better='conditional', than='teacher unadapted'
  )
  c['report']['notes'] = ()
  rates = '3e-4,1e-3,3e-3'
  c['tune'] = (
    f'conditional:train.learning_rate={rates}',
    f'teacher_student:train.learning_rate={rates}',
    f'student:train.learning_rate={rates}',
    'mixture:distill.soft.weight=0.25,1.0,4.0',
  )
  c['train'].update(
    learning_rate=1e-3,
    steps=3000,
    batch_size=128,
    seeds=5,
    members='sequence',
    save_every=3000,
  )
  if size == 'tiny':
    c['data']['kw'].update(speech='made_up', bins=8, context=3)
    for role in (c['teachers']['main'], c['students']['student']):
      role['kw']['widths'] = (8,)
    c['teachers']['main']['train']['steps'] = 6
    c['train'].update(steps=6, batch_size=16, seeds=2, members='vmap')
    c['tune'] = ()
  return config.complete(c)
