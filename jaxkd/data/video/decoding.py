"""Video files: their frames, checked to be all there, and vectors of blocks."""

import errno
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from jaxkd import lookup
from jaxkd.errors import UserError

# What to do with a video that cannot be read as it is.
ENCODE = (
  'encode it anew, e.g. by `ffmpeg -i IN -c:v mpeg4 -g 12 -bf 0 -q:v 3 -an '
  'OUT.avi`'
)
# That hold their pictures themselves, and do not name other files.
_CONTAINERS = 'avi,mov,matroska,mpeg,mpegvideo,mpegts,flv,asf,ogg,m4v'
_OPTIONS = {'format_whitelist': _CONTAINERS, 'flv_full_metadata': '1'}
# Bytes of a packet of MPEG-TS, which says no length: plain, in M2TS, and with
# bytes to correct errors.
_PACKETS = (188, 192, 204)
# What the properties of an ASF file begin with. Its bytes are written 40 bytes
# further on, and at 88 whether that was known.
_ASF = bytes.fromhex('a1dcab8c47a9cf118ee400c00c205365')


def encode(
  path: Path, frames: np.ndarray, *, group: int, quantizer: int
) -> None:
  """Writes a clip as MPEG-4 Part 2, of key frames and P-frames.

  Blocks may have four vectors. The quantiser is fixed: if it may vary, rate
  control skips blocks, and the vectors say little about what moves. Frames that
  differ a lot from the one before stay P-frames.

  Args:
    path: of the file, which ends in ``.avi``.
    frames: uint8 [T, H, W, 3], of even sides.
    group: frames in a group of pictures.
    quantizer: from 1, fine, to 31, coarse.
  """
  av = lookup.package('av', extra='video', at='data.source')
  options = {
    'g': str(group), 'bf': '0', 'flags': '+mv4',
    'qmin': str(quantizer), 'qmax': str(quantizer),
    'sc_threshold': '1000000000',
  }  # fmt: skip
  with av.open(str(path), 'w', format='avi') as file:
    stream = file.add_stream('mpeg4', rate=25, options=options)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt, stream.codec_context.thread_count = 'yuv420p', 1
    for pixels in frames:
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      file.mux(stream.encode(frame))
    file.mux(stream.encode())


def decoded(path: Path) -> tuple[list, str]:
  """All frames of a video, as PyAV gives them, and the name of its codec.

  Raises:
    UserError: no video, or one that is damaged, cut short, to be turned, or of
      frames of several sizes.
  """
  av = lookup.package('av', extra='video', at='data.source')
  try:
    with av.open(str(path), options=_OPTIONS) as file:
      if not file.streams.video:
        raise UserError(
          f'{path} has no pictures; remove it', entry='data.source'
        )
      stream = file.streams.video[0]
      context = stream.codec_context
      if context is None:
        raise UserError(
          f'{path} is damaged, or coded in a way that FFmpeg does not know; '
          f'replace it, or {ENCODE}',
          entry='data.source',
        )
      context.thread_count = 1  # many files are read at the same time
      context.options = {'flags2': '+export_mvs', 'err_detect': 'explode'}
      frames, number, codec = [], stream.frames, context.name
      container, seconds = file.format.name, _seconds(file, stream)
      lacks_bytes = _lacks_bytes(path, file)
      begins, ends = True, 0.0
      for packet in file.demux(stream):
        if begins and packet.size and not packet.is_keyframe:
          raise _no_key_frame(path)
        begins = False
        frames += packet.decode()
        # What was trimmed is there and not shown.
        number -= min(packet.is_discard, number)
        if packet.pts is not None:
          end = packet.pts + (packet.duration or 0)
          ends = max(ends, float(end * packet.time_base))
      frame_seconds = 1 / float(stream.average_rate or 25)
  except UserError:
    raise
  except (av.error.FFmpegError, OSError, ValueError) as error:
    said = getattr(error, 'strerror', None) or error
    if getattr(error, 'errno', None) == errno.EACCES:
      raise UserError(
        f'{path} cannot be read: {said}; set its rights, or remove it',
        entry='data.source',
      ) from error
    raise UserError(
      f'{path} is no video, or a damaged one ({said}); replace or remove it',
      entry='data.source',
    ) from error
  if lacks_bytes:
    raise UserError(
      f'{path} is cut short: it has fewer bytes than a whole file of its kind; '
      'replace or remove it',
      entry='data.source',
    )
  if container == 'avi' and _has_empty(frames, number):
    number = len(frames)
  if _cut_short(frames, number, seconds, ends, frame_seconds):
    more = number or (f'{seconds:.3g} seconds of' if seconds else 'some')
    raise UserError(
      f'{path} is cut short: it should have {more} frames, of which '
      f'{len(frames)} can be read; replace or remove it',
      entry='data.source',
    )
  if len({(frame.width, frame.height) for frame in frames}) > 1:
    raise UserError(
      f'{path} has frames of several sizes; {ENCODE}', entry='data.source'
    )
  if frames[0].rotation:
    raise UserError(
      f'{path} is to be turned by {frames[0].rotation} degrees when it is '
      f'shown; {ENCODE}',
      entry='data.source',
    )
  return frames, codec


def _lacks_bytes(path: Path, file: Any) -> bool:
  """Whether a file of MPEG-TS, FLV or ASF is cut, by how many bytes it has."""
  size, container = path.stat().st_size, file.format.name
  if container == 'mpegts':
    return all(size % n for n in _PACKETS)
  if container == 'flv':
    return size < float(file.metadata.get('filesize', 0))
  if container != 'asf':
    return False
  with path.open('rb') as file:
    head = file.read(2**16)
  at = head.find(_ASF)
  if at < 0 or len(head) < at + 92:
    return False
  (said,) = struct.unpack_from('<Q', head, at + 40)
  (flags,) = struct.unpack_from('<I', head, at + 88)
  return size < said and not flags & 1


def _seconds(file: Any, stream: Any) -> float:
  """How long a stream of Matroska says that it is; 0 of others."""
  said = stream.metadata.get('DURATION', '')
  found = re.fullmatch(r'(\d+):(\d+):([\d.]+)', said)
  if not found or 'matroska' not in file.format.name:  # others copy the tag
    return 0.0
  hours, minutes, seconds = map(float, found.groups())
  return seconds + 60 * (minutes + 60 * hours)


def _has_empty(frames: list, number: int) -> bool:
  """Whether frames of AVI are missing, but none of the last.

  Empty ones, in which the frame before stays, take up time and give no frame.
  """
  last = frames[-1].pts if frames else None
  return last is not None and len(frames) < number <= last + 1


def _cut_short(
  frames: list, number: int, seconds: float, ends: float, frame_seconds: float
) -> bool:
  """Whether frames are fewer, or end earlier, than their file says.

  Args:
    frames: all that could be read.
    number: how many there should be; 0 if that is not known.
    seconds: how long they should be; 0 if that is not known.
    ends: when the last one ends, in seconds, or begins where that is not known.
    frame_seconds: how long one is shown, in seconds, if it is the only one.
  """
  if len(frames) < max(number, 1) or any(f.is_corrupt for f in frames):
    return True
  times = [frame.time for frame in frames]
  if not seconds or None in times:
    return False
  return seconds - ends > 1.5 * max(np.diff(times), default=frame_seconds)


def group_of(frames: list, size: int, path: Path) -> list:
  """The frames of a group in the middle of a clip, its key frame first."""
  names = lookup.package('av.video.frame', extra='video', at='data.source')
  kinds = [names.PictureType(int(f.pict_type)).name for f in frames]
  starts = [i for i, kind in enumerate(kinds) if kind == 'I']
  if not starts or starts[0]:
    raise _no_key_frame(path)
  for kind in kinds:
    if kind not in ('I', 'P'):
      raise UserError(
        f'{path} has {kind}-frames, whose vectors are not those of the frame '
        f'before; {ENCODE}',
        entry='data.source',
      )
  ends = [*starts[1:], len(frames)]
  whole = [
    start
    for start, end in zip(starts, ends, strict=True)
    if end - start >= size
  ]
  if not whole:
    longest = max(e - s for s, e in zip(starts, ends, strict=True))
    raise UserError(
      f'data.kw.group: {path} has no group of {size} pictures, the longest has '
      f'{longest}; lower it, or remove the file'
    )
  start = whole[(len(whole) - 1) // 2]
  return frames[start : start + size]


def _no_key_frame(path: Path) -> UserError:
  return UserError(
    f'{path} does not begin with a key frame; {ENCODE}', entry='data.source'
  )


def vectors_of(frame: Any) -> np.ndarray:
  """The vectors of a frame; none where all of it stays or is coded anew."""
  found = frame.side_data.get('MOTION_VECTORS')
  if found is None:
    return np.zeros(0, [('w', int)])
  return found.to_ndarray()


def pixels_of(frame: Any) -> np.ndarray:
  """The pixels of a frame, uint8 [H, W, 3]."""
  return frame.to_ndarray(format='rgb24')
