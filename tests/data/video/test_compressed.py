"""Compressed video: what is read of it, and what is refused."""

import errno
import os
import struct
import sys
from fractions import Fraction

import av
import jax
import numpy as np
import pytest

from jaxkd.data import examples, sources
from jaxkd.data.images import image_files
from jaxkd.data.video import compressed, decoding
from jaxkd.data.video import ucf as ucf_lib
from jaxkd.errors import UserError

SIDE, LENGTH = 32, 6
HOW = compressed.Wanted(count=2, group=LENGTH)
SMALL = {'count': 2, 'group': LENGTH}


def texture(seed=0, side=128):
  coarse = np.random.default_rng(seed).integers(
    0, 256, (side // 4, side // 4, 3)
  )
  return coarse.astype(np.uint8).repeat(4, 0).repeat(4, 1)


def moving(right, down, length=LENGTH, height=SIDE, width=SIDE, seed=0):
  """Frames in which everything moves by so much in each."""
  whole = texture(seed)
  return np.stack([
    whole[40 - t * down :, 40 - t * right :][:height, :width]
    for t in range(length)
  ])  # fmt: skip


def write(
  path,
  frames,
  codec='mpeg4',
  pix_fmt='yuv420p',
  skip=0,
  times=None,
  sound=0,
  **options,
):
  """Encodes frames at 25 times a second, or at these times of 1/25 seconds.

  The first packets may be left out; behind the pictures may come some seconds
  of silence.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  given = {
    'g': str(len(frames)),
    'bf': '0',
    'qmin': '2',
    'qmax': '2',
    **options,
  }
  with av.open(str(path), 'w') as file:
    stream = file.add_stream(codec, rate=25, options=given)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt, stream.codec_context.thread_count = pix_fmt, 1
    packets = []
    silence = sound and file.add_stream('mp3', rate=44100)
    for time, pixels in zip(times or range(len(frames)), frames, strict=True):
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      frame.pts, frame.time_base = time, Fraction(1, 25)
      packets += stream.encode(frame)
    for packet in [*packets, *stream.encode()][skip:]:
      file.mux(packet)
    for i in range(int(44100 * sound) // 1152):
      frame = av.AudioFrame.from_ndarray(
        np.zeros((2, 1152), np.int16), format='s16p', layout='stereo'
      )
      frame.sample_rate, frame.pts = 44100, 1152 * i
      file.mux(silence.encode(frame))
    if sound:
      file.mux(silence.encode())
  return path


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
  monkeypatch.setattr(compressed, 'CACHE', tmp_path / 'cache')


@pytest.fixture
def folder(tmp_path):
  """Two classes: what moves right, and what stays."""
  root = tmp_path / 'clips'
  for split, count, first in (('train', 3, 0), ('test', 1, 3)):
    for name, speed in (('right', 2), ('still', 0)):
      for i in range(count):
        path = root / split / name / f'{i}.avi'
        write(path, moving(speed, 0, seed=first + i))
  return root


def signed(array, part, how=HOW):
  return array[..., how.channels()[part]].astype(float) - compressed.ZERO


@pytest.mark.parametrize(('right', 'down'), [(2, 1), (-2, 0), (0, -1)])
def test_vectors_are_accumulated_back_to_the_key_frame(tmp_path, right, down):
  frames = moving(right, down)
  path = write(tmp_path / 'a.avi', frames)
  found = compressed.of_file(path, HOW)
  assert found.shape == (SIDE, SIDE, 3 + 2 * 2 + 2 * 3)
  motion = signed(found, 'motion') / compressed.VECTOR_STEPS
  inside = motion[12:20, 12:20]
  for i, t in enumerate(compressed.spaced(HOW)):
    want = np.broadcast_to((right * t, down * t), (8, 8, 2))
    np.testing.assert_array_equal(inside[..., 2 * i : 2 * i + 2], want)
  # The key frame moved so is the frame, but for what the codec loses.
  left = (
    compressed.RESIDUAL_STEP * np.abs(signed(found, 'residual'))[12:20, 12:20]
  )
  last = frames[compressed.spaced(HOW)[-1]].astype(float)
  assert left[..., -3:].mean() < np.abs(last - frames[0]).mean() / 3
  image = found[..., :3].astype(int)
  assert np.abs(image - frames[0]).mean() < 24  # colours are subsampled


def test_a_pixel_follows_the_vectors_of_its_own_past():
  """A block moves into the place of another, which had moved before."""

  def blocks(*rows):
    kind = [(k, int) for k in ('w', 'h', 'dst_x', 'dst_y', 'motion_x')]
    kind += [('motion_y', int), ('motion_scale', int)]
    return np.array(list(rows), kind)

  first = blocks((8, 8, 4, 4, 16, 0, 2))  # its content came from 8 pixels right
  second = blocks((8, 8, 12, 4, -16, 0, 2))  # and this from 8 pixels left
  one, both = compressed.accumulated([first, second], (8, 16))
  np.testing.assert_array_equal(one[:, :8], np.broadcast_to((-8, 0), (8, 8, 2)))
  np.testing.assert_array_equal(one[:, 8:], np.zeros((8, 8, 2)))
  # Right after left: it is where it was in the key frame.
  np.testing.assert_array_equal(both[:, 8:], np.zeros((8, 8, 2)))
  image = np.arange(16.0).reshape(1, 16, 1).repeat(8, 0)
  warped = compressed.warped(image, one)
  np.testing.assert_array_equal(warped[0, :, 0], [*range(8, 16), *range(8, 16)])


def test_a_folder_of_clips(folder):
  source = sources.load(f'video:{folder}', **SMALL, validation=2)
  assert source.classes == ('right', 'still')
  assert source.input_shape == {
    'image': (SIDE, SIDE, 3),
    'motion': (SIDE, SIDE, 4),
    'residual': (SIDE, SIDE, 6),
  }
  assert {s: len(own) for s, own in source.splits.items()} == {
    'train': 4, 'validation': 2, 'test': 2
  }  # fmt: skip
  assert source.fields == {
    'image': 'map', 'motion': 'vectors', 'residual': 'signed'
  }  # fmt: skip
  assert not source.notes
  batch = source.splits['test'].fetch(np.arange(2))
  assert {x.dtype.name for x in batch['inputs'].values()} == {'uint8'}
  assert batch['labels'].tolist() == [0, 1]
  # What stays is 128 all over, in vectors and nearly so in residuals.
  np.testing.assert_array_equal(batch['inputs']['motion'][1], compressed.ZERO)
  assert (
    np.abs(batch['inputs']['residual'][1] - float(compressed.ZERO)).max() < 4
  )
  right = (
    batch['inputs']['motion'][0, 12:20, 12:20, 2:].astype(int) - compressed.ZERO
  )
  np.testing.assert_array_equal(right, np.broadcast_to((40, 0), (8, 8, 2)))


@pytest.mark.parametrize(
  ('parts', 'shape'),
  [
    (('motion',), (16, 16, 4)),
    (('frames',), (2, 16, 16, 3)),
    (('image', 'residual'), {'image': (16, 16, 3), 'residual': (16, 16, 6)}),
  ],
)
def test_some_parts_and_another_size(folder, parts, shape):
  source = sources.load(f'video:{folder}', **SMALL, parts=parts, resize=16)
  assert source.input_shape == shape
  kinds = {'motion': 'vectors', 'residual': 'signed'}
  of = {part: kinds.get(part, 'map') for part in parts}
  alone = {'inputs': of[parts[0]]}
  assert source.fields == (alone if len(parts) == 1 else of)


def test_frames_are_spaced_over_the_whole_clip(tmp_path):
  grey = np.arange(10, 210, 20, dtype=np.uint8)[:, None, None, None]
  frames = np.broadcast_to(grey, (10, SIDE, SIDE, 3))
  how = compressed.Wanted(('frames',), 5)
  found = compressed.of_file(write(tmp_path / 'a.avi', frames, g='3'), how)
  means = found.reshape(SIDE, SIDE, 5, 3).mean((0, 1, 3))
  np.testing.assert_allclose(means, grey.ravel()[1::2], atol=3)


def test_vectors_that_are_clipped_are_told_of():
  how = compressed.Wanted(('motion',), 1, 4)
  image = np.zeros((2, 4, 3), np.uint8)
  far = np.full((2, 4, 2), [-3.0, 40.0], np.float32)
  found = compressed.array(how, image=image, motion=[far])
  np.testing.assert_array_equal(found[0, 0], [compressed.ZERO - 12, 255])
  split = compressed.examples(
    np.stack([found, found]), np.zeros(2, np.int32), how
  )
  (note,) = compressed.clipped(split, how)
  assert note.startswith('50 % of the components of vectors of 2 training')
  near = compressed.array(how, image=image, motion=[far / 40])
  split = compressed.examples(near[None], np.zeros(1, np.int32), how)
  assert not compressed.clipped(split, how)


def test_the_middle_group_is_taken(tmp_path):
  frames = np.concatenate([moving(2, 0, 4), moving(0, 2, 4), moving(-2, 0, 4)])
  path = write(tmp_path / 'a.avi', frames, g='4')
  how = compressed.Wanted(('motion',), 1, 4)
  moved = (
    compressed.of_file(path, how)[12:20, 12:20].astype(int) - compressed.ZERO
  )
  np.testing.assert_array_equal(moved, np.broadcast_to((0, 24), (8, 8, 2)))


def test_clips_of_ones_own_are_read_as_those_of_the_data(tmp_path):
  files = [write(tmp_path / f'{i}.avi', moving(i, 0)) for i in (1, 2)]
  every = compressed.inputs_of(files, HOW)
  data = compressed.read({'train': [(f, 0) for f in files]}, HOW)['train']
  want = data.fetch(np.arange(2))['inputs']
  assert every.keys() == want.keys() == {'image', 'motion', 'residual'}
  jax.tree.map(np.testing.assert_array_equal, every, want)
  alone = compressed.inputs_of(files, HOW._replace(parts=('motion',)))
  np.testing.assert_array_equal(alone, want['motion'])
  other = write(tmp_path / 'b.avi', moving(1, 0)[:, 2:, 2:])
  with pytest.raises(UserError, match=r'b\.avi'):
    compressed.inputs_of([files[0], other], HOW)


def test_what_was_read_is_kept_until_a_file_changes(folder, monkeypatch):
  read, decode = [], compressed.of_file

  def counted(path, how):
    read.append(path)
    return decode(path, how)

  monkeypatch.setattr(compressed, 'of_file', counted)
  first = sources.load(f'video:{folder}', **SMALL)
  assert len(read) == 1 + 8  # the first tells the shape of all
  again = sources.load(f'video:{folder}', **SMALL)
  assert len(read) == 1 + 8 + 1
  one, two = (
    s.splits['test'].fetch(np.arange(2))['inputs']['motion']
    for s in (first, again)
  )
  np.testing.assert_array_equal(one, two)
  assert len([*compressed.CACHE.iterdir()]) == 1
  write(folder / 'test' / 'right' / '0.avi', moving(0, 2))
  changed = sources.load(f'video:{folder}', **SMALL)
  assert len(read) == 1 + 8 + 1 + 9
  two = changed.splits['test'].fetch(np.arange(2))['inputs']['motion']
  assert (one[0] != two[0]).any()


@pytest.mark.parametrize('held', [True, False])
def test_clips_that_are_there_twice_are_told_of(folder, held, monkeypatch):
  if not held:
    monkeypatch.setattr(examples, 'IN_MEMORY', 0)
  for name in ('still', 'right'):
    again = folder / 'test' / name / 'again.avi'
    again.hardlink_to(folder / 'train' / 'right' / '0.avi')
  notes = sources.load(f'video:{folder}', **SMALL, validation=0).notes
  assert notes == (
    (
      '2 of the 4 examples in test are there as another class too',
      '2 of the 4 examples in test are in train too',
    )
    if held
    else ('2 videos in test are the same files as videos in train',)
  )


def test_odd_sizes_can_be_read(tmp_path):
  path = write(tmp_path / 'a.avi', moving(1, 0, height=21, width=27))
  assert compressed.of_file(path, HOW).shape == (21, 27, 13)


@pytest.fixture
def ucf(tmp_path):
  """As UCF-101 is published, with two classes."""
  root, lists = tmp_path / 'ucf', tmp_path / 'ucf' / 'ucfTrainTestlist'
  lists.mkdir(parents=True)
  names = {'Archery': 1, 'Biking': 2}
  (lists / 'classInd.txt').write_text('1 Archery\n2 Biking\n')
  train, test = [], []
  for name, number in names.items():
    for clip in range(3):
      file = f'{name}/v_{name}_g01_c0{clip}.avi'
      write(root / 'UCF-101' / file, moving(number, 0))
      (test if clip == 2 else train).append((file, number))
  text = ''.join(f'{file} {number}\n' for file, number in train)
  (lists / 'trainlist02.txt').write_text(text)
  (lists / 'testlist02.txt').write_text(''.join(f'{f}\r\n' for f, _ in test))
  return root


def test_ucf_101(ucf):
  source = sources.load(f'video:{ucf}', **SMALL, fold=2, validation=0)
  assert source.classes == ('Archery', 'Biking')
  splits = {split: own.labels.tolist() for split, own in source.splits.items()}
  assert splits == {'train': [0, 0, 1, 1], 'test': [0, 1]}
  assert any('same recording' in note for note in source.notes)


def test_lists_of_ucf_101_must_be_whole(ucf):
  def refused(message, **options):
    with pytest.raises(UserError, match=message):
      sources.load(f'video:{ucf}', **SMALL, **options)

  refused(r'^data\.source: cannot read .*trainlist01\.txt')
  refused(r'^data\.kw\.fold: 4 should be 1, 2 or 3', fold=4)
  lists = ucf / 'ucfTrainTestlist'
  whole = (lists / 'testlist02.txt').read_text()
  (lists / 'testlist02.txt').write_text('Archery/other.avi\n')
  refused(r'testlist02\.txt names Archery/other\.avi, and there is', fold=2)
  (lists / 'testlist02.txt').write_text('Bikin/a.avi\n')
  refused(r"'Bikin'; did you mean 'Biking'", fold=2)
  (lists / 'testlist02.txt').write_text(whole)
  (lists / 'classInd.txt').write_text('1 Archery\n3 Biking\n')
  refused(r'line 2 .* should have 2, since classes are numbered', fold=2)
  (lists / 'classInd.txt').write_text('1 Archery 7\n')
  refused(r"line 1 of .* is '1 Archery 7' and should be NUMBER CLASS", fold=2)
  (lists / 'classInd.txt').write_text('1 Archery\n2 Archery\n')
  refused(r"line 2 of \S+ names the class 'Archery' again", fold=2)


@pytest.mark.parametrize(
  ('split', 'old', 'new', 'message'),
  [
    (
      'train',
      'c00.avi 2',
      'c00.avi 1',
      r'3 of .* Biking the number 1, and not 2',
    ),
    (
      'train',
      'c00.avi 2',
      'c00.avi x',
      r'3 of .* Biking the number x, and not 2',
    ),
    (
      'train',
      'c01.avi 1',
      'c00.avi 1',
      r'2 of \S+ names \S+, and so does line 1',
    ),
    (
      'test',
      'Archery/v_Archery_g01_c02',
      'Archery/v_Archery_g01_c00',
      r'1 of \S+testlist02\.txt names .* so does line 1 of \S+trainlist02\.txt',
    ),
  ],
)
def test_lists_of_ucf_101_contradict_themselves(ucf, split, old, new, message):
  file = ucf / 'ucfTrainTestlist' / f'{split}list02.txt'
  file.write_text(file.read_text().replace(old, new))
  with pytest.raises(UserError, match=rf'^data\.source: line {message}'):
    sources.load(f'video:{ucf}', **SMALL, fold=2)


def test_lists_may_begin_with_a_byte_order_mark(ucf):
  for file in (ucf / 'ucfTrainTestlist').iterdir():
    file.write_text(file.read_text(), encoding='utf-8-sig')
  assert len(ucf_lib.read(ucf, 2)[1]['train']) == 4


def test_ucf_101_is_never_split_at_random(ucf):
  with pytest.raises(UserError, match=rf'; give {ucf}, the folder of both'):
    sources.load(f'video:{ucf}/UCF-101', **SMALL)
  (ucf / 'ucfTrainTestlist').rename(ucf / 'TestTrainMulticlassSplits')
  for path in (ucf, ucf / 'UCF-101'):
    with pytest.raises(UserError, match=r'beside it no ucfTrainTestlist'):
      sources.load(f'video:{path}', **SMALL)
  for split in ('train', 'test'):
    (ucf / 'UCF-101' / split).mkdir()
  ucf_lib.check_has_lists(ucf / 'UCF-101')


# What cannot be read as it is.


def bidirectional(path):
  write(path, moving(2, 0, 12), bf='2')


def without_vectors(path):
  write(path, moving(2, 0), 'mjpeg', 'yuvj420p')


def of_any_frame(path):
  write(path, moving(2, 0), 'libx264', qmin='10', qmax='20')


def short(path):
  write(path, moving(2, 0, 4))


def without_key_frame(path):
  write(path, moving(2, 0, 8), skip=1)


def cut(path):
  whole = write(path, moving(2, 0, 12)).read_bytes()
  path.write_bytes(whole[: len(whole) // 2])


def cut_in_the_header(path):
  path.write_bytes(write(path, moving(2, 0)).read_bytes()[:300])


def a_list_of_files(path):
  path.write_text("ffconcat version 1.0\nfile '../still/0.avi'\n")


def of_unknown_pictures(path):
  whole = write(path, moving(2, 0)).read_bytes()
  path.write_bytes(whole.replace(b'FMP4', b'\0?\0?'))


def empty(path):
  path.write_bytes(b'')


def text(path):
  path.write_text('no video')


@pytest.mark.parametrize(
  ('spoil', 'message'),
  [
    (
      bidirectional,
      r'^data\.source: \S+0\.avi has B-frames, .* encode it',
    ),
    (
      without_vectors,
      r'^data\.source: \S+ is coded as mjpeg, .* encode it',
    ),
    (of_any_frame, r'^data\.source: \S+ is coded as h264, .* encode it'),
    (
      short,
      r'^data\.kw\.group: \S+ has no group of 6 pictures, .* 4; lower',
    ),
    (
      without_key_frame,
      r'^data\.source: \S+ does not begin with a key frame',
    ),
    (cut, r'^data\.source: \S+0\.avi is (cut short|no video, or a damaged)'),
    (a_list_of_files, r'^data\.source: \S+0\.avi is no video'),
    (of_unknown_pictures, r'^data\.source: \S+ is damaged, or coded in a way'),
    (cut_in_the_header, r'^data\.source: \S+0\.avi is no video, or a damaged'),
    (empty, r'^data\.source: \S+0\.avi is no video, or a damaged'),
    (text, r'^data\.source: \S+0\.avi is no video, or a damaged'),
  ],
)
def test_videos_that_cannot_be_read(folder, spoil, message):
  spoil(folder / 'test' / 'right' / '0.avi')
  with pytest.raises(UserError, match=message):
    sources.load(f'video:{folder}', **SMALL)
  assert not [*compressed.CACHE.glob('*')]  # nothing that is half written


def test_empty_frames_of_avi_repeat_the_one_before(tmp_path):
  """As cameras, screen recorders and sound of MP3 leave them in AVI."""
  frames, times = moving(2, 0, 12), [*range(6), *range(8, 14)]
  gaps = write(tmp_path / 'gaps.avi', frames, times=times)
  whole = write(tmp_path / 'whole.avi', frames)
  with av.open(str(gaps)) as file:
    assert file.streams.video[0].frames == 14
  how = compressed.Wanted(count=2, group=12)
  np.testing.assert_array_equal(
    compressed.of_file(gaps, how), compressed.of_file(whole, how)
  )


@pytest.mark.parametrize('ending', ['mkv', 'mp4', 'mpg'])
def test_no_frame_is_lost_behind_sound(tmp_path, ending):
  """Whose stream comes first, with frames that the decoder holds back."""
  plain = write(
    tmp_path / 'plain.mkv', moving(2, 0), 'mpeg2video', sound=1, bf='2'
  )
  path = tmp_path / f'sound_first.{ending}'
  with av.open(str(plain)) as file, av.open(str(path), 'w') as made:
    order = [*file.streams.audio, *file.streams.video]
    copies = {x.index: made.add_stream_from_template(x) for x in order}
    for packet in [x for x in file.demux() if x.dts is not None]:
      packet.stream = copies[packet.stream.index]
      made.mux(packet)
  with av.open(str(path)) as file:
    assert file.streams[0].type == 'audio'
  assert len(decoding.decoded(path)[0]) == LENGTH


def test_fields_give_other_vectors_than_frames(tmp_path):
  path = write(
    tmp_path / 'a.mpg', moving(2, 0), 'mpeg2video', flags='+ildct+ilme'
  )
  with pytest.raises(UserError, match=r'a\.mpg is interlaced, .* encode it'):
    compressed.of_file(path, HOW)
  assert compressed.of_file(path, compressed.Wanted(('frames',), 2)).shape == (
    32,
    32,
    6,
  )


def test_sizes_that_change_within_a_file(tmp_path):
  parts = [
    write(
      tmp_path / f'{side}.mpg',
      moving(1, 0, height=side, width=side),
      'mpeg1video',
    )
    for side in (32, 16)
  ]
  path = tmp_path / 'both.mpg'
  path.write_bytes(b''.join(part.read_bytes() for part in parts))
  with pytest.raises(UserError, match=r'both\.mpg has frames of several sizes'):
    compressed.of_file(path, HOW)


def test_what_players_turn(tmp_path):
  """As the clips of telephones that are held upright."""
  path = write(tmp_path / 'a.mp4', moving(2, 0))
  content = bytearray(path.read_bytes())
  matrix = content.find(b'tkhd') + 44  # of the header of the track
  turn = struct.pack('>9i', 0, 2**16, 0, -(2**16), 0, 0, 0, 0, 2**30)
  content[matrix : matrix + 36] = turn
  path.write_bytes(content)
  with pytest.raises(
    UserError, match=r'a\.mp4 is to be turned by -?90 degrees'
  ):
    compressed.of_file(path, HOW)


def test_matroska_is_as_long_as_it_says(tmp_path):
  path = write(tmp_path / 'a.mkv', moving(1, 0, 24), g='6')
  assert compressed.of_file(path, HOW).any()
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) * 6 // 10])
  message = r'a\.mkv is cut short: it should have 0\.96 seconds of frames'
  with pytest.raises(UserError, match=message):
    compressed.of_file(path, HOW)


@pytest.mark.parametrize(
  ('name', 'codec', 'sound'),
  [
    ('a.ts', 'mpeg2video', 0),
    ('a.wmv', 'msmpeg4', 0),
    ('a.wmv', 'msmpeg4', 2),
    ('a.flv', 'flv', 0),
    ('a.flv', 'flv', 2),
  ],
)
def test_some_containers_tell_that_they_are_cut(tmp_path, name, codec, sound):
  frames = moving(1, 0, 24)
  path = write(tmp_path / name, frames, codec, g='6', sound=sound)
  assert compressed.of_file(path, HOW).any()
  whole = path.read_bytes()
  for share in np.linspace(0.4, 0.97, 8):
    path.write_bytes(whole[: int(share * len(whole)) + 1])
    with pytest.raises(UserError, match=r' is (cut short|no video, or a dam)'):
      compressed.of_file(path, HOW)


def test_a_video_that_is_closed_to_us(tmp_path, monkeypatch):
  def closed(*args, **kwargs):
    raise av.error.PermissionError(errno.EACCES, os.strerror(errno.EACCES))

  monkeypatch.setattr(av, 'open', closed)
  message = r'a\.avi cannot be read: Permission denied; set its rights'
  with pytest.raises(UserError, match=message):
    compressed.of_file(tmp_path / 'a.avi', HOW)


def test_videos_of_several_sizes(folder):
  path = folder / 'test' / 'still' / '0.avi'
  write(path, moving(0, 0, height=24, width=16))
  message = r'has 32x32 pixels and \S+ has 16x24; .*data\.kw\.resize=16'
  with pytest.raises(UserError, match=message):
    sources.load(f'video:{folder}', **SMALL)
  source = sources.load(f'video:{folder}', **SMALL, resize=16)
  assert source.input_shape['image'] == (16, 16, 3)


def test_pyav_must_be_there(folder, monkeypatch):
  monkeypatch.setitem(sys.modules, 'av', None)
  message = r"^data\.source: the package av .* pip install 'jaxkd\[video\]'"
  with pytest.raises(UserError, match=message):
    sources.load(f'video:{folder}', **SMALL)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'parts': ('images',)}, r"^data\.kw\.parts: .*did you mean 'image'"),
    ({'parts': ('image', 'frames')}, r"^data\.kw\.parts: .*'frames' alone"),
    (
      {'parts': 'motion'},
      r"^data\.kw\.parts: 'motion' should be a list of texts, .* \('motion',\)",
    ),
    ({'parts': ()}, r'^data\.kw\.parts: \(\) should be'),
    ({'count': 0}, r'^data\.kw\.count: 0 should be 1 or more'),
    ({'count': 6}, r'^data\.kw\.count: a group of 6 frames has 5 P-frames'),
    ({'group': 1}, r'^data\.kw\.group: 1 should be 2 or more'),
    ({'resize': -1}, r'^data\.kw\.resize: -1 should be 0 or more'),
    ({'resize': 9000}, r'^data\.kw\.resize: 9000 pixels .* at most 8,192'),
    ({'fold': 2}, r'^data\.kw\.fold: .* has no lists of folds'),
    (
      {'parts': ('frames',), 'count': 7},
      r'^data\.kw\.count: \S+ has 6 frames, fewer than 7',
    ),
  ],
)
def test_options_must_make_sense(folder, options, message):
  with pytest.raises(UserError, match=message):
    sources.load(f'video:{folder}', **{**SMALL, **options})


def test_there_must_be_a_folder_with_videos(tmp_path):
  with pytest.raises(UserError, match=r'^data\.source: there is no folder'):
    sources.load(f'video:{tmp_path}/none')
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'a.txt').write_text('')
  with pytest.raises(UserError, match=r'holds no videos but 1 \.txt; add some'):
    image_files.find(tmp_path, ['a'], compressed.VIDEOS, all_of_them=True)
