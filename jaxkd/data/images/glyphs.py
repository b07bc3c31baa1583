"""Characters drawn from the fonts of a machine, split by font family.

The tables of fonts can be wrong: a cmap may list letters and draw arrows, a
missing glyph is drawn as a box, and the same outlines are sold under several
names. So only fonts whose tables and glyphs are consistent are used. Families
whose glyphs are nearly equal, or whose name begins with another's, are merged.
"""

import hashlib
import string
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from PIL import Image, ImageDraw, ImageFont, features

from jaxkd import files as files_lib
from jaxkd.data import file_cache, folders
from jaxkd.errors import UserError

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
FONTS = Path('/usr/share/fonts')
CACHE = Path('~/.cache/jaxkd/glyphs')
FEWEST = 30  # families
# A regular expression, as apt-get passes over what a release lacks.
INSTALL = (
  "apt-get install --no-install-recommends '^fonts-(adf-.*|agave|allerta|"
  'anonymous-pro|arapey|averia-.*|b612|cabin|cantarell|cardo|clear-sans|'
  'comfortaa|comic-neue|courier-prime|crosextra-caladea|dancingscript|'
  'dejavu-core|dosis|ebgaramond|fantasque-sans|fanwood|firacode|gfs-artemisia|'
  'gfs-didot|gfs-neohellenic|go|goudybookletter|hermit|inconsolata|'
  'jetbrains-mono|junction|jura|karla|lato|liberation|lindenhill|lobster|'
  'manrope|mononoki|oldstandard|open-sans|oxygen|paratype|play|prociono|'
  'quattrocento|quicksand|roboto-slab|roboto-unhinted|sil-andika|sil-charis|'
  "sil-gentium|sora|tuffy|urw-base35|vollkorn|yanone-kaffeesatz|yrsa-rasa)$'"
)
_FINER = 4  # supersampling of glyphs
_FILLED = 6 / 7  # share of the box's side that tall and wide glyphs fill
_ALIKE = 0.04  # of the ink; independent designs differ by more


class Glyphs(NamedTuple):
  """The glyphs of all fonts.

  Attributes:
    images: of all characters in each font, uint8 [fonts, 62, size, size].
    families: of each font, str [fonts].
  """

  images: np.ndarray
  families: np.ndarray


def load(dir: str, size: int) -> Glyphs:
  """All characters in all fonts that have them, drawn once and then cached.

  Args:
    dir: the folder with .ttf and .otf files, at any depth; empty for Debian's.
    size: side of the images in pixels.

  Raises:
    UserError: a size that makes no sense, or fonts of too few families.
  """
  if not 8 <= size <= 128:
    raise UserError(
      f'data.kw.size: glyphs cannot have {size} pixels; use 8 to 128'
    )
  folder = files_lib.path(dir, at='data.dir') if dir else FONTS
  files = sorted(
    path
    for path in folder.rglob('*')
    if path.suffix.lower() in ('.ttf', '.otf')
    and path.is_file()
    and all(map(folders.is_data, (path, *path.relative_to(folder).parents)))
  )
  # Another one if any font, what draws them or this file is another.
  versions = features.version('pil'), features.version('freetype2')
  name = file_cache.key(files, Path(__file__).read_bytes(), size, *versions)

  def make():
    made = _draw_all(files, size)
    count = len(set(made.families))
    if count < FEWEST:
      raise UserError(
        f'data.source: glyphs needs {FEWEST} families of fonts, and {folder} '
        f'has {count} with all of 0-9, A-Z and a-z; run `{INSTALL}` and leave '
        'data.dir empty, or set it to a folder of .ttf and .otf files'
      )
    return made._asdict()

  return Glyphs(**file_cache.arrays(CACHE / f'{name}.npz', make))


def split(
  families: Iterable[str],
  test: int | float,
  validation: int | float,
  seed: int,
) -> dict[str, list[str]]:
  """Who is in which split: families in the order of a hash of their names.

  Args:
    families: their names, each as often as it likes.
    test: how many are to test on, or which share.
    validation: how many of the others are to validate on, or which share.
    seed: of the hash.

  Returns:
    Split -> names; no validation split if it is to have none.

  Raises:
    UserError: numbers that leave a split empty.
  """

  def place(name: str) -> str:
    return hashlib.sha256(f'{seed} {name}'.encode()).hexdigest()

  names, splits = sorted(set(families), key=place), {}
  for part, amount, least in (
    ('test', test, 1),
    ('validation', validation, 0),
  ):
    count = amount
    if isinstance(amount, float):
      count = round(amount * len(names)) if 0 <= amount <= 1 else -1
    if not least <= count < len(names) or (amount and not count):
      raise UserError(
        f'data.kw.{part}: {amount} of {len(names)} families leaves nothing to '
        f'train on or none for {part}; give a share such as 0.2, or a number '
        'of families'
      )
    splits[part], names = sorted(names[:count]), names[count:]
  splits = {'train': sorted(names), **splits}
  return {part: found for part, found in splits.items() if found}


def _draw_all(files: list[Path], size: int) -> Glyphs:
  found = {}
  for path in files:
    try:
      name = _name(path)
      if name and name not in found:
        images = _draw(path, size)
        drawn = {image.tobytes() for image in images if image.any()}
        if len(drawn) == len(CHARACTERS):
          found[name] = images
    except Exception as error:  # a damaged file may raise anything
      logging.warning('the font %s is left out: %s', path, error)
  shape = (0, len(CHARACTERS), size, size)
  images = np.stack([*found.values()]) if found else np.zeros(shape, np.uint8)
  return Glyphs(images, _kin(images, [family for family, _ in found]))


def _name(path: Path) -> tuple[str, str] | None:
  """Family and style, if the font says that it has all the characters."""
  from fontTools import agl, ttLib  # seldom needed, as glyphs are cached

  with path.open('rb') as opened, ttLib.TTFont(opened, lazy=True) as font:
    cmap = font.getBestCmap() or {}
    said = ''.join(agl.toUnicode(cmap.get(ord(c), '')) for c in CHARACTERS)
    if said != CHARACTERS or not font['OS/2'].ulUnicodeRange1 & 1:  # Latin
      return None
    family = font['name'].getBestFamilyName()
    return family and (family, font['name'].getBestSubFamilyName())


def _draw(path: Path, size: int) -> np.ndarray:
  """All characters, uint8 [62, size, size]: centred, and of one scale.

  The scale is common so that O and o differ; only what is still too large,
  mostly swashes, is made smaller by itself.
  """
  font = ImageFont.truetype(
    path, _FINER * size, layout_engine=ImageFont.Layout.BASIC
  )
  inks = []
  for character in CHARACTERS:
    left, top, right, bottom = font.getbbox(character)
    ink = Image.new('L', (int(right - left) + 1, int(bottom - top) + 1))
    ImageDraw.Draw(ink).text((-left, -top), character, 255, font)
    inks.append(ink.crop(ink.getbbox() or (0, 0, 1, 1)))
  usual = np.quantile([max(ink.size) for ink in inks], 0.9)
  images = []
  for ink in inks:
    side = round(max(usual, *ink.size) / _FILLED)
    box = Image.new('L', (side, side))
    box.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    images.append(box.resize((size, size), Image.Resampling.BOX))
  return np.stack([np.asarray(image) for image in images])


def _kin(images: np.ndarray, families: list[str]) -> np.ndarray:
  """The family of each font, with all the names that it goes by."""
  if not families:
    return np.zeros(0, str)
  from scipy.sparse import csgraph  # seldom needed, either

  flat = images.reshape(len(images), -1).astype(np.float32)
  ink = np.square(flat).sum(axis=1)
  difference = 1 - 2 * (flat @ flat.T) / (ink[:, None] + ink)
  within = [[f'{a} '.startswith(f'{b} ') for a in families] for b in families]
  _, group = csgraph.connected_components((difference < _ALIKE) | within)
  names = {}
  for family, number in sorted(zip(families, group, strict=True)):
    names.setdefault(number, {})[family] = None
  return np.array([' = '.join(names[number]) for number in group])
